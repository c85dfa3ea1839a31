"""Search spaces by name. NumPy only: nothing here imports JAX."""

import dataclasses
from collections.abc import Sequence

from nasnet_jax.spaces.amoebanet import AMOEBANET, AMOEBANET_RELEASED
from nasnet_jax.spaces.nasnet import NASNET, NASNET_B, NASNET_C, NASNET_CONCAT
from nasnet_jax.spaces.pnas import PNAS

SPACES = {
  space.name: space
  for space in (
    NASNET,
    NASNET_CONCAT,
    NASNET_B,
    NASNET_C,
    PNAS,
    AMOEBANET,
    AMOEBANET_RELEASED,
  )
}


def get(
  name: str,
  num_blocks: int = 0,
  operations: Sequence[str] = (),
  min_blocks: int = 0,
):
  """The space of that name, with B blocks and these operations if given.

  Args:
    min_blocks: see `cells.CellSpace`.

  Raises:
    ValueError: for an unknown name or operation.
  """
  if name not in SPACES:
    raise ValueError(f"space {name!r} is not one of: {', '.join(SPACES)}")
  space = SPACES[name]
  if num_blocks:
    space = dataclasses.replace(space, num_blocks=num_blocks)
  if operations:
    unknown = [op for op in operations if op not in space.operations]
    if unknown:
      raise ValueError(f"operation {unknown[0]!r} is not in space {name!r}")
    space = dataclasses.replace(space, operations=tuple(operations))
  if min_blocks:
    space = dataclasses.replace(space, min_blocks=min_blocks)
  return space
