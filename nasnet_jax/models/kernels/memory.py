"""What XLA stores, and how: values that would be computed again, layouts."""

import functools

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


def row_major(x: Array) -> Array:
  """x in the layout of its axes, on TPU; elsewhere simply x.

  For what is read out of a larger array: an operation that wants another
  layout gets a copy of x, and not of the whole array at every reading.
  """
  layout = Layout(tuple(range(x.ndim)))
  return lax.platform_dependent(
    x,
    tpu=functools.partial(with_layout_constraint, layouts=layout),
    default=lambda x: x,
  )


def sum_keeping_examples(operands: list[Array]) -> tuple[Array, ...]:
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
