"""Search spaces by name. NumPy only: nothing here imports JAX."""

import dataclasses
import difflib
from collections.abc import Sequence

from nasnet_jax.spaces.amoebanet import AMOEBANET, AMOEBANET_RELEASED
from nasnet_jax.spaces.nasnet import NASNET, NASNET_B, NASNET_C, NASNET_CONCAT
from nasnet_jax.spaces.pnas import PNAS
from nasnet_jax.spaces.stages import GENETIC_CNN, StageSpace

CELL_SPACES = {
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
SPACES = {**CELL_SPACES, GENETIC_CNN.name: GENETIC_CNN}


def get(
  name: str,
  num_blocks: int = 0,
  operations: Sequence[str] = (),
  min_blocks: int = 0,
  nodes: Sequence[int] = (),
):
  """The space of that name, with these sizes and operations if given.

  Args:
    num_blocks, operations, min_blocks: of a space of cells, see
      `cells.CellSpace`.
    nodes: of a space of stages, see `stages.StageSpace`.

  Raises:
    ValueError: for an unknown name or operation, naming the nearest, or an
      operation that is there twice.
  """
  if name not in SPACES:
    raise ValueError(f"space {name!r} is not one of: {_listed(name, SPACES)}")
  space = SPACES[name]
  if isinstance(space, StageSpace):
    if num_blocks or operations or min_blocks:
      raise ValueError(f"space {name!r} has no blocks and no operations")
    return dataclasses.replace(space, nodes=tuple(nodes)) if nodes else space
  if nodes:
    raise ValueError(f"space {name!r} has no stages: leave out its nodes")
  if num_blocks:
    space = dataclasses.replace(space, num_blocks=num_blocks)
  if operations:
    unknown = [op for op in operations if op not in space.operations]
    if unknown:
      raise ValueError(
        f"operation {unknown[0]!r} is not in space {name!r}, which has:"
        f" {_listed(unknown[0], space.operations)}"
      )
    if len(set(operations)) < len(operations):
      raise ValueError(f"an operation is there twice: {', '.join(operations)}")
    space = dataclasses.replace(space, operations=tuple(operations))
  if min_blocks:
    space = dataclasses.replace(space, min_blocks=min_blocks)
  return space


def _listed(name: str, known) -> str:
  """All that is known, and the nearest to a misspelt name."""
  nearest = difflib.get_close_matches(name, known, 1)
  hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
  return ", ".join(known) + hint
