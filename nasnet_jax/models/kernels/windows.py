"""Windows of SAME operations as slices, for the lowerings on CPU."""

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models.kernels import memory

Array = jax.Array


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
  """(before, after) of TensorFlow's SAME for one spatial axis, in pixels."""
  out = -(-size // stride)
  total = max((out - 1) * stride + kernel - size, 0)
  return total // 2, total - total // 2


def _effective(kernel: int, dilation: int) -> int:
  return (kernel - 1) * dilation + 1


def pad(x: Array, shape, strides, dilation, value=0.0) -> Array:
  """x padded so that every window of a SAME operation lies inside it."""
  pads = [
    same_padding(size, _effective(k, dilation), s)
    for size, k, s in zip(x.shape[1:3], shape, strides, strict=True)
  ]
  return jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def window(xp: Array, i: int, j: int, out_shape, strides) -> Array:
  """The pixels of the padded image that meet offset (i, j) of each window."""
  (h, w), (sh, sw) = out_shape, strides
  return lax.slice(
    xp,
    (0, i, j, 0),
    (xp.shape[0], i + (h - 1) * sh + 1, j + (w - 1) * sw + 1, xp.shape[3]),
    (1, sh, sw, 1),
  )


def out_shape(x: Array, strides) -> tuple[int, int]:
  return -(-x.shape[1] // strides[0]), -(-x.shape[2] // strides[1])


def offsets(shape, dilation):
  return [
    (i, j, i * dilation, j * dilation)
    for i in range(shape[0])
    for j in range(shape[1])
  ]


def transpose_windows(contribution, x_shape, shape, strides, dilation, g):
  """Adjoint of "sum over window offsets": the gradient of the input.

  Computed phase by phase of the stride, so no zeros of a dilated g are
  multiplied.

  Args:
    contribution: (i, j, g_shifted) -> the summand of that offset.
    x_shape: shape of the input, [N, H, W, C].
    g: [N, H', W', C'], gradient of the output.
  """
  (sh, sw), (height, width) = strides, x_shape[1:3]
  lows = [
    same_padding(size, _effective(k, dilation), s)[0]
    for size, k, s in zip((height, width), shape, strides, strict=True)
  ]
  rows, columns = -(-height // sh), -(-width // sw)
  # An input pixel y receives from output (y + low - i * dilation) / stride.
  reach = [
    (_effective(k, dilation) - 1) // s + 1
    for k, s in zip(shape, strides, strict=True)
  ]
  widths = ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0))
  gp = memory.stored_on_cpu(jnp.pad(g, widths))
  phases = []
  for a in range(sh):
    for b in range(sw):
      total = None
      for i, j, di, dj in offsets(shape, dilation):
        dy, dx = a + lows[0] - di, b + lows[1] - dj
        if dy % sh or dx % sw:
          continue
        y0, x0 = dy // sh + reach[0], dx // sw + reach[1]
        part = contribution(i, j, gp[:, y0 : y0 + rows, x0 : x0 + columns])
        total = part if total is None else total + part
      phases.append(total)
  like = next(p for p in phases if p is not None)
  phases = [jnp.zeros_like(like) if p is None else p for p in phases]
  if len(phases) == 1:
    return phases[0]
  n, c = like.shape[0], like.shape[-1]
  grid = jnp.stack(phases, 3).reshape(n, rows, columns, sh, sw, c)
  full = grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * sh, columns * sw, c)
  return full[:, :height, :width]
