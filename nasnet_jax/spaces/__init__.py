"""Search spaces by name. NumPy only: nothing here imports JAX."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from nasnet_jax.spaces import module_chain
from nasnet_jax.spaces.amoebanet import AMOEBANET, AMOEBANET_RELEASED
from nasnet_jax.spaces.blocks import BLOCKS
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.chain import PNAS_CHAIN
from nasnet_jax.spaces.mnasnet import MNASNET, MNASNET_RELEASED, MnasSpace
from nasnet_jax.spaces.nasbench201 import NASBENCH201
from nasnet_jax.spaces.nasnet import NASNET, NASNET_B, NASNET_C, NASNET_CONCAT
from nasnet_jax.spaces.pnas import PNAS
from nasnet_jax.spaces.stages import GENETIC_CNN, StageSpace

# Of cells whose decisions are the cell's own numbers, one by one.
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
# Of operations that somebody names: a normal and a reduction cell; one cell.
OWN = ("cells", "one_cell")
_OWN_SPACES = {
  "cells": CellSpace("cells", ()),
  "one_cell": CellSpace("one_cell", (), cells=("cell",)),
}
SPACES = CELL_SPACES | {
  space.name: space
  for space in (
    PNAS_CHAIN,
    NASBENCH201,
    GENETIC_CNN,
    MNASNET,
    MNASNET_RELEASED,
  )
}


def get(
  name: str,
  num_blocks: int = 0,
  operations: Sequence[str] = (),
  min_blocks: int = 0,
  nodes: Sequence[int] = (),
  blocks: Mapping[str, Any] | None = None,
  choices: Sequence[Sequence[str]] = (),
):
  """The space of that name, with these sizes and operations if given.

  Args:
    num_blocks, operations, min_blocks: of a space of cells, see
      `cells.CellSpace`.
    nodes: of a space of stages, see `stages.StageSpace`.
    blocks: of MnasNet's space, fields of `mnasnet.MnasSpace`.
    choices: of a chain of modules, see `module_chain.ChainSpace`.

  Raises:
    ValueError: for an unknown name or operation, naming the nearest, or an
      operation that is there twice, or options that a space does not have.
  """
  if name == BLOCKS.name:  # of published networks, which nothing searches
    return BLOCKS
  if name == module_chain.NAME:
    return module_chain.get(choices)
  if name not in SPACES | _OWN_SPACES:
    raise ValueError(f"space {name!r} is not one of: {_listed(name, SPACES)}")
  if name in _OWN_SPACES and not operations:
    raise ValueError(
      f"space {name!r} has no operations of its own: give operations"
    )
  space = (SPACES | _OWN_SPACES)[name]
  given = num_blocks or operations or min_blocks
  if given and not isinstance(space, CellSpace):
    raise ValueError(
      f"space {name!r} has no blocks: leave out num_blocks, operations,"
      " min_blocks"
    )
  if nodes and not isinstance(space, StageSpace):
    raise ValueError(f"space {name!r} has no stages: leave out nodes")
  if blocks and not isinstance(space, MnasSpace):
    raise ValueError(
      f"space {name!r} is no row of blocks to choose: leave out blocks"
    )
  if blocks:
    space = _with_blocks(space, blocks)
  if nodes:
    space = dataclasses.replace(space, nodes=tuple(nodes))
  if num_blocks:
    space = dataclasses.replace(space, num_blocks=num_blocks)
  if operations:
    known = space.operations or operations
    unknown = [op for op in operations if op not in known]
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


def _with_blocks(space: MnasSpace, fields: Mapping[str, Any]) -> MnasSpace:
  known = space.options["blocks"]
  for field in fields:
    if field not in known:
      raise ValueError(
        f"space.blocks has no {field!r}, only: {_listed(field, known)}"
      )
  return dataclasses.replace(space, **fields)


def _listed(name: str, known) -> str:
  """All that is known, and the nearest to a misspelt name."""
  nearest = difflib.get_close_matches(name, known, 1)
  hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
  return ", ".join(known) + hint
