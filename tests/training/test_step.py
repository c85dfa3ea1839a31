"""One update: parts of a batch, and the moving average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.training import optimizers, schedules
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step


def _loss(params, batch_stats, batch, rng, progress):
  """Logistic regression without batch norm; statistics count the calls."""
  del rng, progress
  x, y = batch
  loss = jnp.mean(jnp.logaddexp(0, -y * (x @ params["kernel"])))
  return loss, (jax.tree.map(lambda s: s + 1, batch_stats), {"mean": x.mean()})


@pytest.fixture
def problem():
  rng = np.random.default_rng(0)
  params = {"kernel": jnp.asarray(rng.normal(size=4), jnp.float32)}
  tx = optimizers.momentum_sgd(weight_decay=0.1)
  state = TrainState(
    params,
    {"mean": jnp.zeros(1)},
    tx.init(params),
    jnp.int32(0),
    jnp.int32(10),
    jnp.uint32(0),
    jax.tree.map(jnp.copy, (params, {"mean": jnp.zeros(1)})),
  )
  batch = (
    jnp.asarray(rng.normal(size=(12, 4)), jnp.float32),
    jnp.asarray(rng.choice([-1.0, 1.0], 12), jnp.float32),
  )

  def step(state, **options):
    return train_step(
      state,
      batch,
      loss_fn=_loss,
      tx=tx,
      schedule=schedules.cosine(0.5),
      **options,
    )

  return state, step


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_of_a_batch_are_the_batch_without_batch_norm(problem, parts):
  state, step = problem
  whole, metrics = step(state)
  split, other = step(state, micro_batches=parts)
  np.testing.assert_allclose(
    whole.params["kernel"], split.params["kernel"], rtol=1e-5
  )
  for name in ("loss", "mean"):
    np.testing.assert_allclose(metrics[name], other[name], rtol=1e-4)
  assert whole.batch_stats["mean"] == 1
  assert split.batch_stats["mean"] == parts  # each part moves the statistics


def test_the_moving_average_follows_tensorflows_rule(problem):
  state, step = problem
  average = np.float64(state.params["kernel"])
  statistic = 0.0
  for n in range(12):
    state, _ = step(state, ema_decay=0.3)
    keep = min(0.3, (1 + n) / (10 + n))
    average = keep * average + (1 - keep) * np.float64(state.params["kernel"])
    statistic = keep * statistic + (1 - keep) * (n + 1)
    np.testing.assert_allclose(state.ema[0]["kernel"], average, rtol=1e-5)
    np.testing.assert_allclose(state.ema[1]["mean"], [statistic], rtol=1e-5)


def test_without_a_decay_the_average_stands_still(problem):
  state, step = problem
  new, _ = step(state)
  np.testing.assert_array_equal(new.ema[0]["kernel"], state.ema[0]["kernel"])
