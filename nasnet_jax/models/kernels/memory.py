"""What XLA stores, and how: values that would be computed again, layouts."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata

Array = jax.Array


@jax.jit
def _identity(x):
  return x


def stored_on_cpu(x: Array) -> Array:
  """`materialise` for code that only CPUs run."""
  with set_xla_metadata(inlineable="false"):
    return _identity(x)


def materialise(x: Array) -> Array:
  """x, computed once and stored, on CPU; elsewhere simply x.

  XLA:CPU copies cheap producers into every consumer, and a chain of them (a
  sum of nine products, say) is then computed again for each. An optimisation
  barrier is gone before it fuses; a call that must not be inlined stays, and
  calling the identity costs nothing.
  """
  return lax.platform_dependent(x, cpu=stored_on_cpu, default=lambda x: x)


def pixel_major(x: Array) -> Array:
  """x [N, H, W, C] stored as [H, W, N, C] on TPU; elsewhere simply x.

  For what is read out of a larger array. It is what a TPU's convolutions ask
  for: without a word here each would have the whole array brought into it, at
  every reading.
  """
  layout = Layout((1, 2, 0, 3))
  return lax.platform_dependent(
    x,
    tpu=functools.partial(with_layout_constraint, layouts=layout),
    default=lambda x: x,
  )


def sum_keeping_examples(operands: Sequence[Array]) -> tuple[Array, ...]:
  """Each [N, H, W, C] summed over H and W, in one pass over memory.

  XLA:CPU runs separate reductions of fused products one after the other, each
  reading its operands again; one variadic reduction reads them once. Keeping
  N lets it use all cores.
  """
  zeros = tuple(np.zeros((), x.dtype) for x in operands)
  return lax.reduce(
    tuple(operands),
    zeros,
    lambda a, b: tuple(u + v for u, v in zip(a, b, strict=True)),
    (1, 2),
  )
