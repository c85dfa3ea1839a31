"""The training step that search, training and transfer share.

It knows nothing of networks: `loss_fn` does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nasnet_jax.training import sharded
from nasnet_jax.training.schedules import Schedule
from nasnet_jax.training.state import TrainState, step_rng

LossFn = Callable[..., tuple[jax.Array, tuple[Any, dict]]]


def train_step(
  state: TrainState,
  batch: Any,
  *,
  loss_fn: LossFn,
  tx: optax.GradientTransformationExtraArgs,
  schedule: Schedule,
  axis_name: str | None = None,
  micro_batches: int = 1,
  ema_decay: float = 0.0,
  dims: Any = None,
  remat: bool = False,
) -> tuple[TrainState, dict]:
  """One update.

  Args:
    batch: whatever `loss_fn` takes; with micro_batches, arrays [N, ...].
    loss_fn: (params, batch_stats, batch, rng, progress) ->
      (loss, (new batch_stats, metrics)). rng is the same on all devices: random
      numbers of an example come from its place in the whole batch.
    tx: of `training.optimizers`; its learning rate comes from
    schedule: progress in [0, 1] -> learning rate.
    axis_name: mesh axis over which the batch is spread; gradients and metrics
      are averaged over it, by one explicit pmean.
    micro_batches: parts whose gradients are averaged, one after another, for
      the memory of one part. Equal to the whole batch for networks without
      batch norm; with it, each part is normalised by itself and moves the
      running statistics once.
    ema_decay: of the moving average in `state.ema`; 0: it is left alone.
    dims: along which the arrays of params are divided over `axis_name`, see
      `training.sharded`; None: every device holds all of them.
    remat: see `sharded.gathering`; only with dims.

  Returns:
    The new state and the metrics, with `loss` among them.
  """
  options = {}
  if dims is not None:
    loss_fn = sharded.gathering(loss_fn, dims, axis_name, remat)
    options["norm"] = sharded.global_norm(dims, axis_name)
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  rng, progress = step_rng(state), state.progress

  def gradients(batch_stats, batch):
    (loss, (batch_stats, metrics)), grads = grad_fn(
      state.params, batch_stats, batch, rng, progress
    )
    return batch_stats, (grads, {"loss": loss, **metrics})

  if micro_batches == 1:
    batch_stats, (grads, metrics) = gradients(state.batch_stats, batch)
  else:
    batch_stats, (grads, metrics) = _accumulate(
      gradients, state.batch_stats, batch, micro_batches
    )
  if dims is not None:
    grads = sharded.mean_gradients(grads, dims, axis_name)
    batch_stats, metrics = jax.lax.pmean((batch_stats, metrics), axis_name)
  elif axis_name:
    grads, batch_stats, metrics = jax.lax.pmean(
      (grads, batch_stats, metrics), axis_name
    )
  updates, opt_state = tx.update(
    grads,
    state.opt_state,
    state.params,
    learning_rate=schedule(progress),
    **options,
  )
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema_decay:
    ema = _moved(ema, (params, batch_stats), state.step, ema_decay)
  state = state._replace(
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    step=state.step + 1,
    ema=ema,
  )
  return state, metrics


def _accumulate(gradients, batch_stats, batch, parts: int):
  """Gradients and metrics averaged over parts of the batch, in turn."""

  def split(x):
    return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])

  batch = jax.tree.map(split, batch)
  first = jax.tree.map(lambda x: x[0], batch)
  _, shapes = jax.eval_shape(gradients, batch_stats, first)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def one(carry, part):
    batch_stats, total = carry
    batch_stats, new = gradients(batch_stats, part)
    return (batch_stats, jax.tree.map(jnp.add, total, new)), None

  (batch_stats, total), _ = jax.lax.scan(one, (batch_stats, zeros), batch)
  return batch_stats, jax.tree.map(lambda x: x / parts, total)


def _moved(ema, new, step, decay: float):
  """The average a step further; early steps count more, as in TensorFlow's
  ExponentialMovingAverage with num_updates, which slim uses."""
  step = step.astype(jnp.float32)
  keep = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda old, x: keep * old + (1 - keep) * x, ema, new)
