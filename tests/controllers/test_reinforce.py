"""REINFORCE against its definition in plain NumPy."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import policy, reinforce

_spec = importlib.util.spec_from_file_location(
  "numpy_policy", pathlib.Path(__file__).with_name("numpy_policy.py")
)
numpy_policy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numpy_policy)

CHOICES = (2, 3, 1, 4)


def key(i):
  return jax.random.fold_in(jax.random.key(11), i)


def reference_gradient(params, decisions, advantages):
  """Of -1/m sum over children and decisions of log p times the advantage."""

  def loss(params):
    log_prob, _ = numpy_policy.evaluate(params, decisions, CHOICES)
    rows = [sum(row) * a for row, a in zip(log_prob, advantages)]
    return -sum(rows) / len(rows)

  return numpy_policy.gradient(loss, numpy_policy.as_float64(params))


def test_the_gradient_is_that_of_the_policy_gradient_theorem():
  params = policy.init_params(key(0), CHOICES, 3, 1.0, 2)
  decisions, log_prob = policy.propose(params, key(1), 4, CHOICES)
  advantages = np.array([0.5, -0.25, 1.0, -1.5], np.float32)
  # Of another policy: what children were sampled by does not count.
  batch = policy.Batch(decisions, log_prob - 0.3, advantages)
  gradient = jax.grad(reinforce.loss_fn)(
    params, batch, advantages, num_choices=CHOICES
  )
  slopes = reference_gradient(params, decisions, advantages.tolist())
  for name, ours, theirs in zip(params._fields, gradient, slopes, strict=True):
    assert np.abs(theirs).max() > 1e-3, name
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_an_update_is_one_step_of_adam_on_rewards_less_the_baseline():
  controller = reinforce.reinforce(
    CHOICES, hidden=3, init_scale=1.0, batch_size=4, learning_rate=0.01
  )
  state = controller.init(key(0))
  state = state._replace(baseline=np.float32(0.3), updates=np.int32(1))
  proposals, state = controller.ask(state, key(1), 4)
  rewards = np.array([0.1, 0.9, 0.4, 0.5], np.float32)
  told = controller.tell(state, proposals, rewards, np.zeros(4, np.int32))
  slopes = reference_gradient(state.params, proposals.decisions, rewards - 0.3)
  moved = 0
  for old, new, slope in zip(state.params, told.params, slopes, strict=True):
    clear = np.abs(slope) > 1e-4  # Adam's first step is the slope's sign
    step = np.asarray(new, np.float64) - old
    np.testing.assert_allclose(
      step[clear], -0.01 * np.sign(slope[clear]), rtol=1e-2
    )
    moved += clear.sum()
  assert moved > 100


def test_it_starts_as_two_layers_of_35_units_within_0_08():
  params = reinforce.reinforce((13,) * 10).init(key(0)).params
  assert params.hidden_kernel.shape == (2 * 35, 4 * 35)
  for leaf in params:
    assert np.abs(leaf).max() <= 0.08
    assert np.std(leaf) == pytest.approx(0.08 / np.sqrt(3), rel=0.1)


def test_learning_waits_for_eight_answers():
  controller = reinforce.reinforce(CHOICES)
  state = controller.init(key(0))
  proposals, state = controller.ask(state, key(1), 19)
  rewards = np.linspace(0.5, 0.9, 19).astype(np.float32)
  state = controller.tell(state, proposals, rewards, np.zeros(19, np.int32))
  assert (int(state.filled), int(state.updates)) == (3, 2)


@pytest.mark.parametrize("option", ["hidden", "layers", "batch_size"])
def test_sizes_below_one_are_refused(option):
  with pytest.raises(ValueError, match=f"{option}.* must be at least 1"):
    reinforce.reinforce(CHOICES, **{option: 0})
