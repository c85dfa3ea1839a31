"""Maps whose channels are those of several examples, side by side.

A TPU gives the last dimension of an array room for a multiple of 128, and
works on all of it. A map [N, H, W, C] folded by g is [N/g, H, W, C*g]: with C
of 32 and g of 4 nothing is padded. Channel c of example m*g + r stands in row m
at c*g + r.

So pixels stay where they are and channels in their order: pooling, strides,
concatenation along channels and all that goes by element are as without a fold.
Weights are those of one example; `dense` and `each` make of them what a folded
map is multiplied with. g is 1 where nothing is folded, and then all of this is
the identity.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def fold(x: Array, g: int) -> Array:
  """[N, H, W, C] -> [N/g, H, W, C*g].

  Raises:
    ValueError: if N does not divide.
  """
  if g == 1:
    return x
  if x.shape[0] % g:
    raise ValueError(
      f"{x.shape[0]} examples cannot stand {g} by {g}: set child.fold to 1, or"
      " to a divisor of what a device has of each batch"
    )
  rows = x.reshape(-1, g, *x.shape[1:])
  return jnp.moveaxis(rows, 1, -1).reshape(-1, *x.shape[1:-1], x.shape[-1] * g)


def unfold(x: Array, g: int) -> Array:
  """[N/g, C*g] -> [N, C]."""
  rows = x.reshape(x.shape[0], -1, g)
  return jnp.swapaxes(rows, 1, 2).reshape(x.shape[0] * g, -1)


def each(values: Array, g: int) -> Array:
  """[..., C] -> [..., C*g], the same for each example."""
  return values if g == 1 else jnp.repeat(values, g, -1)


def dense(kernel: Array, g: int) -> Array:
  """[..., C, F] -> [..., C*g, F*g], which keeps examples apart: 0 from one to
  another. The products with 0 are what a fold costs."""
  if g == 1:
    return kernel
  *window, c, f = kernel.shape
  apart = (
    kernel[..., :, None, :, None] * jnp.eye(g, dtype=kernel.dtype)[:, None]
  )
  return apart.reshape(*window, c * g, f * g)


def mean(values: Array, g: int) -> Array:
  """[C*g] -> [C], over the examples."""
  return values if g == 1 else values.reshape(-1, g).mean(1)


def masked(x: Array, mask: Array, g: int) -> Array:
  """x [N/g, H, W, C*g] times mask [N], a number for each example."""
  mask = mask.astype(x.dtype).reshape(x.shape[0], 1, 1, g)
  return x * jnp.tile(mask, x.shape[-1] // g)
