"""Maximum and average over windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasnet_jax.models.kernels import memory, windows

Array = jax.Array


def zero_padded_pool(x: Array, kind: str, size: int, stride: int) -> Array:
  """Pooling as Keras's NASNet has it at stride 2: zeros stand where SAME
  pads, they can be the maximum, and the average counts them.

  Args:
    kind: "max" or "avg".
  """
  xp = windows.pad(x, (size, size), (stride, stride), 1)
  window, steps = (1, size, size, 1), (1, stride, stride, 1)
  if kind == "max":
    return lax.reduce_window(xp, -np.inf, lax.max, window, steps, "VALID")
  total = lax.reduce_window(xp, 0.0, lax.add, window, steps, "VALID")
  return total / (size * size)


def _window_max(x, shape, strides):
  """SAME max pool as a plain window reduction; padding never wins."""
  window, steps = (1, *shape, 1), (1, *strides, 1)
  return lax.reduce_window(x, -np.inf, lax.max, window, steps, "SAME")


def _shifted_max(x, shape, strides):
  xp = memory.stored_on_cpu(windows.pad(x, shape, strides, 1, -np.inf))
  out = windows.out_shape(x, strides)
  pixels = [
    windows.window(xp, i, j, out, strides)
    for i, j, _, _ in windows.offsets(shape, 1)
  ]
  return functools.reduce(jnp.maximum, pixels)


def _shifted_max_backward(x, g, shape, strides):
  """Each output's gradient goes to the first pixel that attains the maximum.

  That is select_and_scatter's rule. Sending it to all of them would multiply
  gradients on flat backgrounds, where ties are the normal case.
  """
  xp, g = (
    memory.stored_on_cpu(windows.pad(x, shape, strides, 1, -np.inf)),
    memory.stored_on_cpu(g),
  )
  out = g.shape[1:3]
  offsets = windows.offsets(shape, 1)
  best = windows.window(xp, 0, 0, out, strides)
  winner = jnp.zeros(g.shape, jnp.int32)
  for number, (i, j, _, _) in enumerate(offsets[1:], start=1):
    pixel = windows.window(xp, i, j, out, strides)
    winner = jnp.where(pixel > best, number, winner)
    best = jnp.maximum(pixel, best)
  numbers = {(i, j): number for number, (i, j, _, _) in enumerate(offsets)}
  # Both travel through one transpose: the winner rides along as a channel.
  both = jnp.concatenate([g, winner.astype(g.dtype)], -1)

  def contribution(i, j, shifted):
    gs, ws = jnp.split(shifted, 2, -1)
    return jnp.where(ws == numbers[i, j], gs, 0)

  return windows.transpose_windows(
    contribution, x.shape, shape, strides, 1, both
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool_1d(x, shape, strides):
  return lax.platform_dependent(
    x,
    cpu=functools.partial(_shifted_max, shape=shape, strides=strides),
    default=functools.partial(_window_max, shape=shape, strides=strides),
  )


def _max_fwd(x, shape, strides):
  return _max_pool_1d(x, shape, strides), x


def _max_bwd(shape, strides, x, g):
  def plain(x, g):
    forward = functools.partial(_window_max, shape=shape, strides=strides)
    return jax.vjp(forward, x)[1](g)[0]

  backward = functools.partial(
    _shifted_max_backward, shape=shape, strides=strides
  )
  return (lax.platform_dependent(x, g, cpu=backward, default=plain),)


_max_pool_1d.defvjp(_max_fwd, _max_bwd)


def max_pool(x: Array, size: int, stride: int = 1) -> Array:
  """[N, H, W, C] -> [N, ceil(H/s), ceil(W/s), C], SAME.

  Rows, then columns: 2k comparisons instead of k * k, and the same winner
  among ties (the first in row-major order).
  """
  x = _max_pool_1d(x, (1, size), (1, stride))
  return _max_pool_1d(x, (size, 1), (stride, 1))


def _window_counts(x_shape, size, stride) -> Array:
  """float32[1, H', W', 1]: pixels of each SAME window inside the image.

  Computed in the program: an array of constants would be hoisted out of the
  switches, and `custom_vmap` refuses constants that a `cond` has batched.
  """

  def along(length):
    low, _ = windows.same_padding(length, size, stride)
    starts = jnp.arange(-(-length // stride)) * stride - low
    ends = jnp.minimum(starts + size, length)
    return ends - jnp.maximum(starts, 0)

  counts = along(x_shape[1])[:, None] * along(x_shape[2])[None]
  return counts[None, :, :, None].astype(jnp.float32)


def _window_sum(x, size, stride):
  window, steps = (1, size, size, 1), (1, stride, stride, 1)
  return lax.reduce_window(x, 0.0, lax.add, window, steps, "SAME")


def _shifted_sum(x, size, stride):
  shape, strides = (size, size), (stride, stride)
  xp = memory.stored_on_cpu(windows.pad(x, shape, strides, 1))
  out = windows.out_shape(x, strides)
  return sum(
    windows.window(xp, i, j, out, strides)
    for i, j, _, _ in windows.offsets(shape, 1)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def avg_pool(x: Array, size: int, stride: int = 1) -> Array:
  """[N, H, W, C] -> [N, ceil(H/s), ceil(W/s), C]; padding is not counted."""
  total = lax.platform_dependent(
    x,
    cpu=functools.partial(_shifted_sum, size=size, stride=stride),
    default=functools.partial(_window_sum, size=size, stride=stride),
  )
  return total * (1 / _window_counts(x.shape, size, stride)).astype(x.dtype)


def _avg_fwd(x, size, stride):
  # Only the shape of x matters to the backward pass; an empty slice carries
  # it without keeping x alive.
  return avg_pool(x, size, stride), x[:0]


def _avg_bwd(size, stride, empty, g):
  x_shape = (g.shape[0], *empty.shape[1:])
  g = g * (1 / _window_counts(x_shape, size, stride)).astype(g.dtype)

  def shifted(g):
    def keep(i, j, gs):
      return gs

    shape, strides = (size, size), (stride, stride)
    return windows.transpose_windows(keep, x_shape, shape, strides, 1, g)

  def plain(g):
    forward = functools.partial(_window_sum, size=size, stride=stride)
    return jax.linear_transpose(
      forward, jax.ShapeDtypeStruct(x_shape, g.dtype)
    )(g)[0]

  return (lax.platform_dependent(g, cpu=shifted, default=plain),)


avg_pool.defvjp(_avg_fwd, _avg_bwd)
