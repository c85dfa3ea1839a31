"""What a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class TrainState(NamedTuple):
  """One network in training; stacked along a new axis, a population.

  Attributes:
    params, batch_stats, opt_state: pytrees of arrays.
    step: int32, updates made so far.
    horizon: int32, updates after which training ends; schedules read
      step / horizon, so a slot can be refilled with another budget.
    seed: uint32, from which every key of this network is derived.
    ema: (params, batch_stats), moving averages of both, or () without: what
      slim's model_variables are, so statistics are averaged too.
  """

  params: Any
  batch_stats: Any
  opt_state: Any
  step: Array
  horizon: Array
  seed: Array
  ema: Any = ()

  @property
  def progress(self) -> Array:
    """float32 in [0, 1]: share of the training that is done."""
    horizon = jnp.maximum(self.horizon, 1)
    return jnp.minimum(self.step / horizon, 1.0).astype(jnp.float32)


def step_rng(state: TrainState) -> Array:
  """The key of the coming step: a pure function of (seed, step)."""
  return jax.random.fold_in(jax.random.key(state.seed), state.step)
