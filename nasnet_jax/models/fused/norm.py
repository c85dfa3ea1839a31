"""Batch norms and folds inside of a kernel, on rows of numbers per channel.

Each is a few instructions there. In the program around the kernels each would
be one more small program, and on a TPU those take longer than what they do.
Rows are [r, C] of one example or [r, C g] of a folded map (`models.folded`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


class Norm(NamedTuple):
  """What is known of a batch norm, each f32[1, F]; a moment may be None."""

  scale: Array
  bias: Array
  mean: Array | None = None
  variance: Array | None = None


def _places(channels: int, folded: int) -> Array:
  """f32[C, C g], 1 where a folded channel is that one of an example."""
  shape = (channels, folded)
  rows = lax.broadcasted_iota(jnp.int32, shape, 0)
  columns = lax.broadcasted_iota(jnp.int32, shape, 1)
  firsts = range(0, folded, channels)
  return sum((columns == rows + c).astype(jnp.float32) for c in firsts)


def _exact(a, b, i: int, j: int) -> Array:
  """A product over axis i of a and j of b, in full float32."""
  axes = (((i,), (j,)), ((), ()))
  return lax.dot_general(
    a, b, axes, lax.Precision.HIGHEST, preferred_element_type=jnp.float32
  )


def each(rows: Array, folded: int) -> Array:
  """`folded.each`: [r, C] -> [r, C g]."""
  if rows.shape[1] == folded:
    return rows
  return _exact(rows, _places(rows.shape[1], folded), 1, 0)


def total(rows: Array, channels: int) -> Array:
  """[r, C g] -> [r, C], summed over the examples side by side."""
  if rows.shape[1] == channels:
    return rows
  return _exact(rows, _places(channels, rows.shape[1]), 1, 1)


def dense(kernel: Array, shape: tuple[int, int]) -> Array:
  """`folded.dense`: [C, F] -> [C g, F g]."""
  if kernel.shape == shape:
    return kernel
  tall = _exact(
    _places(kernel.shape[0], shape[0]), each(kernel, shape[1]), 0, 0
  )
  return jnp.where(_same_example(kernel.shape, shape), tall, 0.0)


def own(product: Array, shape: tuple[int, int]) -> Array:
  """What `dense` passes back: [C g, F g] -> [C, F]."""
  if product.shape == shape:
    return product
  kept = jnp.where(_same_example(shape, product.shape), product, 0.0)
  return total(
    _exact(_places(shape[0], product.shape[0]), kept, 1, 0), shape[1]
  )


def _same_example(shape, folded) -> Array:
  """bool[C g, F g]."""
  rows = lax.broadcasted_iota(jnp.int32, folded, 0)
  columns = lax.broadcasted_iota(jnp.int32, folded, 1)
  return _example(rows, shape[0], folded[0]) == _example(
    columns, shape[1], folded[1]
  )


def _example(channels: Array, width: int, folded: int) -> Array:
  """Which of the examples side by side a folded channel is of, as f32: of two
  examples as integers the compiler makes booleans, which it cannot compare."""
  borders = range(width, folded, width)
  return sum((channels >= c).astype(jnp.float32) for c in borders)


def affine(norm: Norm, epsilon: float, folded: int) -> Array:
  """f32[3, F g]: gain, shift and mean of a norm whose moments are known."""
  gain = lax.rsqrt(norm.variance + epsilon) * norm.scale
  rows = [gain, norm.bias - norm.mean * gain, norm.mean]
  return each(jnp.concatenate(rows), folded)


def moments(sums: Array, channels: int, count: int) -> tuple[Array, Array]:
  """Mean and variance [1, F] from f32[2, F g], sums of values and squares."""
  mean, square = jnp.split(total(sums, channels) / count, 2)
  return mean, jnp.maximum(square - mean * mean, 0.0)


def slopes(
  sums: Array, norm: Norm, epsilon: float, count: int
) -> tuple[Array, Array, Array]:
  """The backward pass of a batch norm, up to its map.

  Args:
    sums: f32[2, F g], of the gradient g of its output, and of g times its
      input less the mean.
    count: pixels of all examples.

  Returns:
    f32[3, F g], so that the gradient of its input z is
    g * row 0 + z * row 1 + row 2; gradients [1, F] of scale and bias.
  """
  of_bias, by_centred = jnp.split(total(sums, norm.scale.shape[1]), 2)
  inverse = lax.rsqrt(norm.variance + epsilon)
  gain, of_scale = norm.scale * inverse, by_centred * inverse
  by_z = -gain * inverse * of_scale / count
  rows = [gain, by_z, -gain * of_bias / count - by_z * norm.mean]
  return each(jnp.concatenate(rows), sums.shape[1]), of_scale, of_bias
