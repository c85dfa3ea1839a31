"""Search spaces by name. NumPy only: nothing here imports JAX."""

import dataclasses
from collections.abc import Sequence

from nasnet_jax.spaces.amoebanet import AMOEBANET, AMOEBANET_RELEASED
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.chain import PNAS_CHAIN
from nasnet_jax.spaces.nasbench201 import NASBENCH201
from nasnet_jax.spaces.nasnet import NASNET, NASNET_CONCAT
from nasnet_jax.spaces.pnas import PNAS

SPACES = {
  space.name: space
  for space in (
    NASNET,
    NASNET_CONCAT,
    PNAS,
    PNAS_CHAIN,
    AMOEBANET,
    AMOEBANET_RELEASED,
    NASBENCH201,
  )
}


def get(
  name: str,
  num_blocks: int = 0,
  operations: Sequence[str] = (),
  min_blocks: int = 0,
):
  """The space of that name; one of cells with these options if given.

  Args:
    num_blocks, operations, min_blocks: see `cells.CellSpace`.

  Raises:
    ValueError: for an unknown name or operation, or options of a space that
      has none.
  """
  if name not in SPACES:
    raise ValueError(f"space {name!r} is not one of: {', '.join(SPACES)}")
  space = SPACES[name]
  given = num_blocks or operations or min_blocks
  if given and not isinstance(space, CellSpace):
    raise ValueError(
      f"space {name!r} is fixed: leave out num_blocks, operations, min_blocks"
    )
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
