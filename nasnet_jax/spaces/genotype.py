"""What a cell is: a few small integer arrays.

One convention everywhere, slim's: state 0 is h_i (the previous cell's output,
projected to F channels), state 1 is h_{i-1} (the one before), state 2+k is the
output of block k. PNASNet.pytorch and DARTS swap 0 and 1: see
`cell_literals.from_darts`. Cells of I inputs (NASNet-B: 4) continue this: state
j < I is h_{i-j}, state I+k the output of block k.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any

ADD, CONCAT, ADD_LAYER_NORM, ADD_INSTANCE_NORM = range(4)
COMBINERS = ("add", "concat", "add_layer_norm", "add_instance_norm")


class Genotype(NamedTuple):
  """Cells as arrays; stack genotypes along a new leading axis: a population.

  I is the number of a cell's inputs: 2, in NASNet-B 4.

  Attributes:
    inputs: int32[cells, B, 2], the state that each side of a block reads.
    ops: int32[cells, B, 2], index into the space's operations.
    combine: int32[cells, B], index into COMBINERS: 0 add, 1 concatenate and
      1x1 back to F, 2 and 3 add and normalise (`models.layers.ExampleNorm`).
    active: bool[cells, B], false for a block left out (cells of 1..B blocks
      then share one compilation). Active blocks come first.
    concat: bool[cells, B+I], states that form the cell's output. It cannot be
      derived from the inputs: most published cells differ from "loose ends".
      Where outputs are passed on separately it is every block.
  """

  inputs: Array
  ops: Array
  combine: Array
  active: Array
  concat: Array

  @property
  def num_cells(self) -> int:
    return self.inputs.shape[-3]

  @property
  def num_blocks(self) -> int:
    return self.inputs.shape[-2]


class Genes(NamedTuple):
  """One cell of a `Genotype`: the same fields without the axis of cells."""

  inputs: Array
  ops: Array
  combine: Array
  active: Array
  concat: Array


def genes_of(genotype: Genotype, kind: int) -> Genes:
  """The cell for strides 1 (kind 0) or 2 (kind 1); a single one serves both."""
  cell = kind % genotype.inputs.shape[0]
  return Genes(*(leaf[cell] for leaf in genotype))


def loose_ends(inputs: Array, active: Array) -> Array:
  """bool[..., B+2]: active blocks that no active block reads.

  Args:
    inputs: int[..., B, 2].
    active: bool[..., B].
  """
  num_blocks = inputs.shape[-2]
  used = np.zeros((*inputs.shape[:-2], num_blocks + 2), bool)
  for block in range(num_blocks):
    for side in range(2):
      read = np.arange(num_blocks + 2) == inputs[..., block, side, None]
      used |= read & active[..., block, None]
  cell_inputs = np.zeros((*active.shape[:-1], 2), bool)
  return np.concatenate([cell_inputs, active], -1) & ~used


def pad_blocks(genotype: Genotype, num_blocks: int) -> Genotype:
  """The same cells with inactive blocks appended up to `num_blocks`."""
  extra = num_blocks - genotype.num_blocks
  if extra < 0:
    raise ValueError(
      f"a cell of {genotype.num_blocks} blocks does not fit in {num_blocks}"
    )

  def pad(x, axis):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, extra)
    return np.pad(x, widths)

  return Genotype(
    pad(genotype.inputs, -2),
    pad(genotype.ops, -2),
    pad(genotype.combine, -1),
    pad(genotype.active, -1),
    pad(genotype.concat, -1),
  )


def validate(
  genotype: Genotype, num_operations: int, num_inputs: int = 2
) -> Genotype:
  """Returns the genotype as NumPy arrays of the right types.

  Args:
    num_operations: of the space.
    num_inputs: I, states that a cell reads.

  Raises:
    ValueError: with the first fault found, in one line.
  """
  inputs = np.asarray(genotype.inputs, np.int32)
  ops = np.asarray(genotype.ops, np.int32)
  combine = np.asarray(genotype.combine, np.int32)
  active = np.asarray(genotype.active, bool)
  concat = np.asarray(genotype.concat, bool)
  blocks = inputs.shape[-2]
  cells = inputs.shape[:-2]
  for name, array, shape in (
    ("inputs", inputs, (*cells, blocks, 2)),
    ("ops", ops, (*cells, blocks, 2)),
    ("combine", combine, (*cells, blocks)),
    ("active", active, (*cells, blocks)),
    ("concat", concat, (*cells, blocks + num_inputs)),
  ):
    if array.shape != shape:
      raise ValueError(f"genotype.{name} has shape {array.shape}, not {shape}")
  limit = np.arange(blocks)[:, None] + num_inputs
  if (inputs < 0).any() or (inputs >= limit).any():
    raise ValueError("a block reads a state that is not computed before it")
  if (ops < 0).any() or (ops >= num_operations).any():
    raise ValueError(f"an operation is outside 0..{num_operations - 1}")
  if (combine < 0).any() or (combine >= len(COMBINERS)).any():
    raise ValueError(f"combine is no index into {', '.join(COMBINERS)}")
  if (active[..., 1:] & ~active[..., :-1]).any():
    raise ValueError("active blocks must come before inactive ones")
  if (concat[..., num_inputs:] & ~active).any():
    raise ValueError("the cell's output contains an inactive block")
  if not concat.any(-1).all():
    raise ValueError("a cell concatenates no state")
  return Genotype(inputs, ops, combine, active, concat)


def stack(genotypes: list[Genotype]) -> Genotype:
  """A population: one more leading axis."""
  return Genotype(*(np.stack(leaves) for leaves in zip(*genotypes)))
