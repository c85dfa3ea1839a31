"""Spaces of cells: the NASNet spaces, the PNAS space and their relatives.

A decision vector lists, cell by cell and block by block: input 1, input 2,
operation 1, operation 2 and, where there is a choice, the combiner
(Zoph et al. 2018, section 3.1: 5 softmaxes per block, normal cell first).
Where the number of blocks is open, it comes first in each cell.
"""

import dataclasses
from typing import Any

import numpy as np

from nasnet_jax.spaces import base, cell_literals, equal_cells
from nasnet_jax.spaces import genotype as gt


@dataclasses.dataclass(frozen=True)
class CellSpace:
  """Cells of `num_blocks` blocks over a list of operations.

  Attributes:
    name: key in `SPACES`.
    operations: operation names, keys of `nasnet_jax.models.ops.OPERATIONS`.
    cells: one name per kind of cell. A single kind serves both strides, as in
      PNAS; two are the normal and the reduction cell, as in NASNet.
    num_blocks: B.
    combiners: names from `genotype.COMBINERS`; with one there is no decision.
    output: "loose_ends" (NASNet: blocks that no block reads are concatenated),
      "all" (PNAS: all blocks are concatenated) or "separate" (NASNet-B: none
      are; a cell passes on each block by itself, and reads as many states).
    min_blocks: 0: all cells have `num_blocks` blocks. Else a cell has from
      `min_blocks` to `num_blocks`, and its first decision says how many;
      decisions for blocks beyond them mean nothing.
  """

  name: str
  operations: tuple[str, ...]
  cells: tuple[str, ...] = ("normal", "reduction")
  num_blocks: int = 5
  combiners: tuple[str, ...] = ("add",)
  output: str = "loose_ends"
  min_blocks: int = 0

  def __post_init__(self):
    if not 0 <= self.min_blocks <= self.num_blocks:
      raise ValueError(
        f"min_blocks is {self.min_blocks}, outside 0..{self.num_blocks}"
      )
    if self.min_blocks and self.output == "separate":
      raise ValueError(
        "cells that pass on each block have as many as they have inputs: set"
        " min_blocks to 0"
      )

  @property
  def options(self) -> dict[str, Any]:
    """What `spaces.get` needs beside the name; JSON can hold it."""
    return {
      "num_blocks": self.num_blocks,
      "min_blocks": self.min_blocks,
      "operations": list(self.operations),
    }

  @property
  def summary(self) -> str:
    """The space in a few words."""
    least = f"{self.min_blocks} to " if self.min_blocks else ""
    return f"{least}{self.num_blocks} blocks, {len(self.operations)} operations"

  @property
  def num_inputs(self) -> int:
    """I, states that a cell reads: 2, or B if it passes on B."""
    return self.num_blocks if self.output == "separate" else 2

  @property
  def sides_alike(self) -> bool:
    """Whether a block's two sides have the same choices, so that a block with
    its sides exchanged is an equal block."""
    return True

  @property
  def decisions_per_block(self) -> int:
    return 4 + (len(self.combiners) > 1)

  @property
  def decisions_per_cell(self) -> int:
    return self._header + self.num_blocks * self.decisions_per_block

  @property
  def _header(self) -> int:
    """Decisions of a cell before those of its blocks."""
    return 1 if self.min_blocks else 0

  @property
  def num_choices(self) -> tuple[int, ...]:
    cell = [self.num_blocks - self.min_blocks + 1] * self._header
    for block in range(self.num_blocks):
      cell += [block + self.num_inputs] * 2 + [len(self.operations)] * 2
      if len(self.combiners) > 1:
        cell.append(len(self.combiners))
    return tuple(cell * len(self.cells))

  @property
  def decision_names(self) -> tuple[str, ...]:
    parts = ("input 1", "input 2", "operation 1", "operation 2", "combiner")
    blocks = [
      f"block {block} {part}"
      for block in range(self.num_blocks)
      for part in parts[: self.decisions_per_block]
    ]
    names = ["number of blocks"] * self._header + blocks
    return tuple(f"{cell} {name}" for cell in self.cells for name in names)

  @property
  def kinds(self) -> tuple[str, ...]:
    """See `base.SearchSpace`."""
    block = ("input",) * 2 + ("operation",) * 2 + ("combiner",)
    blocks = block[: self.decisions_per_block] * self.num_blocks
    cell = ("number of blocks",) * self._header + blocks
    return cell * len(self.cells)

  @property
  def groups(self) -> tuple[int, ...]:
    """See `base.SearchSpace`: a group is a cell."""
    width = self.decisions_per_cell
    return tuple(i for i in range(len(self.cells)) for _ in range(width))

  def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
    return base.sample(self.num_choices, rng, n)

  def neighbours(self, decisions) -> np.ndarray:
    return base.neighbours(self.num_choices, decisions)

  def default_concat(self, inputs, active) -> np.ndarray:
    """bool[..., B+I]: the states that a sampled cell's output consists of."""
    if self.output == "loose_ends":
      return gt.loose_ends(inputs, active)
    cell_inputs = np.zeros((*active.shape[:-1], self.num_inputs), bool)
    return np.concatenate([cell_inputs, active], -1)

  def _combiner_codes(self) -> np.ndarray:
    return np.array([gt.COMBINERS.index(c) for c in self.combiners], np.int32)

  def decode(self, decisions) -> gt.Genotype:
    """int[..., D] -> Genotype with leaves [..., cells, B, ...]."""
    counts, table = self._split(decisions)
    shape = table.shape[:-1]
    if len(self.combiners) > 1:
      combine = self._combiner_codes()[table[..., 4]]
    else:
      combine = np.full(shape, self._combiner_codes()[0], np.int32)
    active = np.arange(self.num_blocks) < counts[..., None]
    # Blocks that are left out are zeros, as in a cell of fewer blocks.
    table = np.where(active[..., None], table, 0)
    combine = np.where(active, combine, gt.ADD).astype(np.int32)
    inputs = table[..., 0:2]
    return gt.Genotype(
      inputs=inputs,
      ops=table[..., 2:4],
      combine=combine,
      active=active,
      concat=self.default_concat(inputs, active),
    )

  def _validate(self, genotype: gt.Genotype) -> gt.Genotype:
    return gt.validate(genotype, len(self.operations), self.num_inputs)

  def _split(self, decisions) -> tuple[np.ndarray, np.ndarray]:
    """int[..., D] -> (blocks int32[..., cells], their decisions int32[...,
    cells, B, decisions_per_block])."""
    decisions = base.check_decisions(self.num_choices, decisions)
    cells = decisions.reshape(
      *decisions.shape[:-1], len(self.cells), self.decisions_per_cell
    )
    blocks = cells[..., self._header :].reshape(
      *cells.shape[:-1], self.num_blocks, self.decisions_per_block
    )
    if not self.min_blocks:
      return np.full(cells.shape[:-1], self.num_blocks, np.int32), blocks
    return cells[..., 0] + self.min_blocks, blocks

  def _join(self, counts, table) -> np.ndarray:
    """The inverse of `_split`."""
    width = self.num_blocks * self.decisions_per_block
    blocks = table.reshape(*table.shape[:-2], width)
    parts = [blocks]
    if self.min_blocks:
      parts = [(counts - self.min_blocks)[..., None], blocks]
    cells = np.concatenate(parts, -1).astype(np.int32)
    return cells.reshape(*cells.shape[:-2], len(self.num_choices))

  def encode(self, genotype: gt.Genotype) -> np.ndarray:
    """Genotype -> int32[..., D].

    Raises:
      ValueError: for a cell outside the space: with too few blocks, a
        combiner that is not offered, or an output other than `output` says.
    """
    genotype = self._validate(genotype)
    if self.min_blocks and genotype.num_blocks <= self.num_blocks:
      genotype = gt.pad_blocks(genotype, self.num_blocks)
    counts = genotype.active.sum(-1)
    least = self.min_blocks or self.num_blocks
    if genotype.num_blocks != self.num_blocks or (counts < least).any():
      raise ValueError(
        f"space {self.name} has {least} to {self.num_blocks} active blocks"
        if self.min_blocks
        else f"space {self.name} has {self.num_blocks} active blocks"
      )
    if genotype.num_cells != len(self.cells):
      raise ValueError(f"space {self.name} has {len(self.cells)} cells")
    output = self.default_concat(genotype.inputs, genotype.active)
    if (output != genotype.concat).any():
      raise ValueError(
        f"the cell's output is not what space {self.name} gives its cells"
        f" ({self.output.replace('_', ' ')})"
      )
    parts = [genotype.inputs, genotype.ops]
    codes = self._combiner_codes()
    combine = np.where(genotype.active, genotype.combine, codes[0])
    if not np.isin(combine, codes).all():
      raise ValueError(f"combiners of space {self.name}: {self.combiners}")
    if len(self.combiners) > 1:
      positions = np.argsort(codes)[np.searchsorted(np.sort(codes), combine)]
      parts.append(positions[..., None])
    table = np.concatenate(parts, -1)
    table = np.where(genotype.active[..., None], table, 0)
    return self._join(counts, table)

  def canonical(self, decisions) -> np.ndarray:
    """int[n, D] -> int32[n, D]: one representative per set of equal cells.

    Cells are equal if they differ only in the order of a block's two sides or
    in the order of blocks. (That permutes channels at most.) Of all legal
    orders the lexicographically smallest is kept. Where outputs are passed on
    separately, the order of blocks says where each goes, so it is kept.
    """
    counts, table = self._split(decisions)
    cells = table.reshape(-1, *table.shape[-2:])
    best = np.zeros_like(cells)
    operations, combiners = len(self.operations), len(self.combiners)
    for count in np.unique(counts):
      rows = counts.reshape(-1) == count
      part = cells[rows, :count]
      if self.output == "separate":
        best[rows, :count] = equal_cells.sort_sides(part, operations)
      else:
        best[rows, :count] = equal_cells.canonical(part, operations, combiners)
    return self._join(counts, best.reshape(table.shape))

  def key(self, decisions) -> str:
    """A hash that equivalent cells share. decisions: int[D]."""
    return base.key(self, decisions)

  def to_json(self, genotype: gt.Genotype) -> dict[str, Any]:
    """A readable dict of names; `from_json` is the inverse.

    A cell has "blocks" and "concat", the states that are concatenated; or
    "outputs", the states that are passed on separately.
    """
    genotype = self._validate(genotype)
    cells = {}
    for c, name in enumerate(self.cells):
      blocks = []
      for b in range(genotype.num_blocks):
        if not genotype.active[c, b]:
          continue
        blocks.append(
          {
            "inputs": genotype.inputs[c, b].tolist(),
            "operations": [self.operations[o] for o in genotype.ops[c, b]],
            "combine": gt.COMBINERS[genotype.combine[c, b]],
          }
        )
      output = np.flatnonzero(genotype.concat[c]).tolist()
      cells[name] = {"blocks": blocks, self._output_key: output}
    return {"space": self.name, "cells": cells}

  @property
  def _output_key(self) -> str:
    return "outputs" if self.output == "separate" else "concat"

  def from_json(self, data: dict[str, Any]) -> gt.Genotype:
    """The genotype of a dict as `to_json` writes it.

    Raises:
      ValueError: in one line, for another space's cells, an unknown
        operation or combiner, a missing cell.
    """
    cells = data.get("cells", {})
    missing = [c for c in self.cells if c not in cells]
    if missing:
      raise ValueError(f"genotype lacks the cell {missing[0]!r}")
    literal = {
      name: cell_literals.from_json(name, cells[name], self._output_key)
      for name in self.cells
    }
    return self.from_literal(literal)

  def from_literal(self, cells: dict[str, tuple]) -> gt.Genotype:
    """Genotype of {cell: ([(in1, in2, op1, op2[, combiner])...], output)}.

    output: the states that are concatenated; if they are passed on
    separately, every block, in order.
    """
    num_blocks = max(len(cells[name][0]) for name in self.cells)
    shape = (len(self.cells), num_blocks)
    inputs = np.zeros((*shape, 2), np.int32)
    ops = np.zeros((*shape, 2), np.int32)
    combine = np.zeros(shape, np.int32)
    active = np.zeros(shape, bool)
    num_states = num_blocks + self.num_inputs
    concat = np.zeros((len(self.cells), num_states), bool)
    for c, name in enumerate(self.cells):
      blocks, output = cells[name]
      for b, (left, right, op1, op2, *combiner) in enumerate(blocks):
        for side, op in enumerate((op1, op2)):
          if op not in self.operations:
            raise ValueError(
              f"operation {op!r} is not in space {self.name}:"
              f" {', '.join(self.operations)}"
            )
          ops[c, b, side] = self.operations.index(op)
        inputs[c, b] = left, right
        if combiner and combiner[0] not in gt.COMBINERS:
          raise ValueError(f"combiner {combiner[0]!r} is not {gt.COMBINERS}")
        combine[c, b] = gt.COMBINERS.index(combiner[0]) if combiner else gt.ADD
        active[c, b] = True
      for state in output:
        if not 0 <= state < num_states:
          raise ValueError(
            f"output state {state} of the cell {name!r} is outside"
            f" 0..{num_states - 1}"
          )
        concat[c, state] = True
      blocks_in_order = list(range(self.num_inputs, 2 * self.num_inputs))
      if self.output == "separate" and list(output) != blocks_in_order:
        raise ValueError(
          f"the cell {name!r} of space {self.name} passes on each of its"
          f" {self.num_blocks} blocks: its outputs are {blocks_in_order}"
        )
    return self._validate(gt.Genotype(inputs, ops, combine, active, concat))
