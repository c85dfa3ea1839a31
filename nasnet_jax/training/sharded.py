"""Weights and what the optimiser keeps, divided over devices.

Fully sharded data parallel training (ZeRO, Rajbhandari et al. 2020, its third
stage): a device holds a part of each large array. The step gathers a weight
where the network reads it, forward and again backward, and its gradient comes
back as the device's own part of the sum. All else in the step is by element,
but for the norm that clipping needs.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.training.state import TrainState

_LEAST = 1 << 14  # elements; smaller arrays are whole on every device
# What the backward pass computes again: gathered weights, and what is made of
# them without arithmetic.
_AGAIN = {
  "all_gather",
  "broadcast_in_dim",
  "convert_element_type",
  "reshape",
  "squeeze",
  "transpose",
}
WHOLE = -1  # in place of a dimension
# The `jax.ad_checkpoint.checkpoint_name` of what networks with `remat` keep:
# the inputs of what they compute again.
KEPT = "kept"


def dimension(shape: tuple[int, ...], devices: int) -> int:
  """The dimension along which an array is divided, its largest that divides;
  WHOLE for a small array, or one with no such dimension."""
  if devices == 1 or math.prod(shape) < _LEAST:
    return WHOLE
  fit = [d for d, size in enumerate(shape) if size % devices == 0]
  return max(fit, key=lambda d: shape[d], default=WHOLE)


def dimensions(params: Any, devices: int) -> Any:
  """`dimension` of each array of a tree."""
  return jax.tree.map(lambda x: dimension(x.shape, devices), params)


def specs(state: TrainState, devices: int, axis: str) -> TrainState:
  """How a state lies on the mesh: weights, the optimiser's arrays and the
  moving averages of weights divided, statistics and numbers whole."""

  def spec(x):
    where = dimension(x.shape, devices)
    if where == WHOLE:
      return PartitionSpec()
    return PartitionSpec(*[None] * where, axis)

  whole = jax.tree.map(lambda _: PartitionSpec(), state)
  ema = state.ema
  if ema:
    ema = (jax.tree.map(spec, ema[0]), whole.ema[1])
  return whole._replace(
    params=jax.tree.map(spec, state.params),
    opt_state=jax.tree.map(spec, state.opt_state),
    ema=ema,
  )


def state_shardings(
  state: TrainState, mesh: jax.sharding.Mesh, axis: str, divide: bool
) -> TrainState:
  """Where the arrays of a state lie between two calls of the step.

  Args:
    divide: whether over `axis`; False: whole on every device.
  """
  found = specs(state, mesh.shape[axis] if divide else 1, axis)
  return jax.tree.map(lambda spec: NamedSharding(mesh, spec), found)


def on_host() -> contextlib.AbstractContextManager:
  """A context whose new arrays lie in the host's memory, which has room for a
  state that is too large for one device."""
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    return contextlib.nullcontext()


def gathering(
  loss_fn: Callable, dims: Any, axis: str, remat: bool = False
) -> Callable:
  """`loss_fn` of parts of weights, inside `shard_map`.

  Its gradient by the parts of divided arrays is summed over devices.

  Args:
    dims: `dimensions` of the whole weights.
    remat: whether the network computes again in its backward pass, from what it
      names `KEPT`. The policy here also holds for what is inside the network.
  """

  def gather(x, where):
    if where == WHOLE:
      return x
    return lax.all_gather(x, axis, axis=where, tiled=True)

  def of_parts(params, *args):
    return loss_fn(jax.tree.map(gather, params, dims), *args)

  # The backward pass gathers again: kept weights would take the memory that
  # dividing them saves.
  if remat:
    policy = jax.checkpoint_policies.save_only_these_names(KEPT)
  else:

    def policy(primitive, *_, **__):
      return primitive.name not in _AGAIN

  return jax.checkpoint(of_parts, policy=policy)


def mean_gradients(grads: Any, dims: Any, axis: str) -> Any:
  """Gradients of `gathering`, averaged over devices."""
  devices = lax.axis_size(axis)

  def mean(g, where):
    return lax.pmean(g, axis) if where == WHOLE else g / devices

  return jax.tree.map(mean, grads, dims)


def global_norm(dims: Any, axis: str) -> Callable[[Any], jax.Array]:
  """(updates, divided as dims say) -> their norm, the same on all devices."""
  by_path = dict(jax.tree_util.tree_leaves_with_path(dims))

  def norm(updates):
    sums = {True: jnp.zeros(()), False: jnp.zeros(())}
    for path, x in jax.tree_util.tree_leaves_with_path(updates):
      divided = by_path[path] != WHOLE
      sums[divided] += jnp.sum(jnp.square(x.astype(jnp.float32)))
    return jnp.sqrt(lax.psum(sums[True], axis) + sums[False])

  return norm
