"""The training step that search, training and transfer share.

It knows nothing of networks: `loss_fn` does.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from nasnet_jax.training.schedules import Schedule
from nasnet_jax.training.state import TrainState, step_rng

LossFn = Callable[..., tuple[jax.Array, tuple[Any, dict]]]


def train_step(
  state: TrainState,
  batch: Any,
  *,
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  schedule: Schedule,
  axis_name: str | None = None,
) -> tuple[TrainState, dict]:
  """One update.

  Args:
    batch: whatever `loss_fn` takes.
    loss_fn: (params, batch_stats, batch, rng, progress) ->
      (loss, (new batch_stats, metrics)). rng is the same on all devices: random
      numbers of an example come from its place in the whole batch.
    tx: without the learning rate, which comes from
    schedule: progress in [0, 1] -> learning rate.
    axis_name: mesh axis over which the batch is spread; gradients and metrics
      are averaged over it, by one explicit pmean.

  Returns:
    The new state and the metrics, with `loss` among them.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  rng, progress = step_rng(state), state.progress
  (loss, (batch_stats, metrics)), grads = grad_fn(
    state.params, state.batch_stats, batch, rng, progress
  )
  metrics = {"loss": loss, **metrics}
  if axis_name:
    grads, batch_stats, metrics = jax.lax.pmean(
      (grads, batch_stats, metrics), axis_name
    )
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  rate = schedule(progress)
  updates = jax.tree.map(lambda u: -rate * u, updates)
  params = optax.apply_updates(state.params, updates)
  state = state._replace(
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    step=state.step + 1,
  )
  return state, metrics
