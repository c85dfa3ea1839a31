"""Maps whose channels are those of several examples, side by side.

A TPU gives the last dimension of an array room for a multiple of 128, and
works on all of it. A map [N, H, W, C] folded by g is [N/g, H, W, C*g]: with C
of 32 and g of 4 nothing is padded. Channel c of example m*g + r stands in row m
at r*C + c.

So pixels stay where they are: pooling, strides and all that goes by element are
as without a fold. Weights are those of one example; `dense` and `each` make of
them what a folded map is multiplied with. g is 1 where nothing is folded, and
then all of this is the identity.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def fold(x: Array, g: int) -> Array:
  """[N, H, W, C] -> [N/g, H, W, C*g]; g divides N."""
  if g == 1:
    return x
  rows = x.reshape(-1, g, *x.shape[1:])
  return jnp.moveaxis(rows, 1, -2).reshape(-1, *x.shape[1:-1], x.shape[-1] * g)


def unfold(x: Array, g: int) -> Array:
  """[..., N/g, C*g] -> [..., N, C]."""
  return x.reshape(*x.shape[:-2], x.shape[-2] * g, x.shape[-1] // g)


def refold(x: Array, g: int, fewer: int) -> Array:
  """[N/g, H, W, C*g] -> [N/fewer, H, W, C*fewer]; `fewer` divides g."""
  if g == fewer:
    return x
  rows = jnp.stack(jnp.split(x, g // fewer, -1), 1)
  return rows.reshape(-1, *rows.shape[2:])


def join(parts: list[Array], g: int) -> Array:
  """Concatenation along the channels of each example."""
  if g == 1:
    return jnp.concatenate(parts, -1)
  split = [jnp.split(part, g, -1) for part in parts]
  return jnp.concatenate(
    [x for row in zip(*split, strict=True) for x in row], -1
  )


def each(values: Array, g: int) -> Array:
  """[..., C] -> [..., C*g], the same for each example."""
  return values if g == 1 else jnp.concatenate([values] * g, -1)


def dense(kernel: Array, g: int) -> Array:
  """[..., C, F] -> [..., C*g, F*g], which keeps examples apart: 0 from one to
  another. The products with 0 are what a fold costs."""
  if g == 1:
    return kernel
  # Not by an array [C, g, F, g], whose last dimension would be padded too.
  c, f = kernel.shape[-2:]
  tiled = jnp.concatenate([each(kernel, g)] * g, -2)
  rows, columns = jnp.arange(c * g) // c, jnp.arange(f * g) // f
  return jnp.where(rows[:, None] == columns, tiled, 0)


def mean(values: Array, g: int) -> Array:
  """[C*g] -> [C], over the examples."""
  return values if g == 1 else values.reshape(g, -1).mean(0)


def masked(x: Array, mask: Array, g: int) -> Array:
  """x [N/g, H, W, C*g] times mask [N], a number for each example."""
  mask = mask.astype(x.dtype).reshape(x.shape[0], 1, 1, g)
  return x * jnp.repeat(mask, x.shape[-1] // g, -1)
