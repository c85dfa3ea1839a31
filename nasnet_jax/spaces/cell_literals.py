"""Cells as literals: {cell: ([(in1, in2, op1, op2[, combiner])...], output)},
from JSON and from the lists of other code bases."""

from typing import Any


def from_json(name: str, cell: dict[str, Any], output: str) -> tuple:
  """(blocks, output) of one cell; ValueError names what is missing."""
  for part in ("blocks", output):
    if part not in cell:
      raise ValueError(f"the cell {name!r} lacks {part!r}")
  for b, block in enumerate(cell["blocks"]):
    for part in ("inputs", "operations"):
      if len(block.get(part, ())) != 2:
        raise ValueError(f"block {b} of the cell {name!r} lacks two {part}")
  blocks = [
    (*b["inputs"], *b["operations"], b.get("combine", "add"))
    for b in cell["blocks"]
  ]
  return blocks, cell[output]


def from_darts(literal: dict[str, tuple]) -> dict[str, tuple]:
  """A literal in the DARTS / PNASNet.pytorch convention, in ours.

  There state 0 is h_{i-1} and state 1 is h_i, so the two are swapped, in inputs
  and in concat.
  """
  swap = {0: 1, 1: 0}
  return {
    name: (
      [(swap.get(b[0], b[0]), swap.get(b[1], b[1]), *b[2:]) for b in blocks],
      sorted(swap.get(s, s) for s in concat),
    )
    for name, (blocks, concat) in literal.items()
  }


to_darts = from_darts  # a swap is its own inverse


_SLIM_OPERATIONS = {
  "none": "identity",
  "1x1": "conv_1x1",
  "3x3": "conv_3x3",
  "1x3_3x1": "conv_1x3_3x1",
  "1x7_7x1": "conv_1x7_7x1",
}


def from_slim(
  operations: list[str], hidden_state_indices: list[int], used: list[int]
) -> tuple[list[tuple], list[int]]:
  """One cell from slim's lists.

  Args:
    operations: 2B names such as "separable_5x5_2", "avg_pool_3x3", "none".
    hidden_state_indices: 2B states, 0 = h_i.
    used: B+2 flags; states with 0 are concatenated.
  """

  def name(op: str) -> str:
    if op in _SLIM_OPERATIONS:
      return _SLIM_OPERATIONS[op]
    kind, _, rest = op.partition("_")
    if kind == "separable":
      size, _, layers = rest.partition("_")
      if layers == "2":
        return f"sep_conv_{size}"
    if kind in ("avg", "max") and rest.startswith("pool_"):
      return op
    raise ValueError(f"operation {op!r} of slim has no counterpart here")

  names = [name(op) for op in operations]
  blocks = [
    (
      hidden_state_indices[2 * b],
      hidden_state_indices[2 * b + 1],
      names[2 * b],
      names[2 * b + 1],
    )
    for b in range(len(operations) // 2)
  ]
  return blocks, [s for s, flag in enumerate(used) if not flag]
