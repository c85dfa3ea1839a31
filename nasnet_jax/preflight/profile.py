"""A compiled program's instructions by what they take: the cycles that the
compiler expects times how often each runs."""

import re
from typing import NamedTuple

from nasnet_jax.preflight.costs import Cost, Walk
from nasnet_jax.preflight.hlo import Instruction


class Taken(NamedTuple):
  """Instructions of one kind: the same opcode and output, from the same line of
  our source.

  Attributes:
    opcode: as HLO writes it.
    shape: of the output, "f32[8,128]".
    made_by: where our code asks for it, as JAX names it.
    name: of one of them in the text.
    instructions: how many there are in the text.
    runs: of all of them, in one run of the program; a branch counts as often as
      it is taken.
    cycles: of all these runs, by the compiler; 0 where it says nothing.
    seconds: the same by the roofline.
    bytes: to and from HBM in all these runs.
  """

  opcode: str
  shape: str
  made_by: str
  name: str
  instructions: int
  runs: float
  cycles: float
  seconds: float
  bytes: float


def instructions(walk: Walk) -> list[Taken]:
  """All that runs, those that take the most cycles first; by the roofline's
  seconds where the compiler gives no cycles."""
  found: dict[tuple[str, str, str], list] = {}
  for computation, runs in walk.runs().items():
    for instruction, cost in walk.leaves(computation):
      _add(found, instruction, runs, cost)
  rows = [Taken(*key, *row) for key, row in found.items()]
  by_cycles = any(row.cycles for row in rows)
  return sorted(rows, key=lambda r: -(r.cycles if by_cycles else r.seconds))


def _add(found: dict, instruction: Instruction, runs: float, cost: Cost):
  shapes = [
    f"{s.dtype}[{','.join(map(str, s.dims))}]" for s in instruction.shapes
  ]
  label = re.search(r'op_name="([^"]*)"', instruction.rest)
  made_by = label.group(1).replace("\\'", "'") if label else ""
  key = instruction.opcode, " ".join(shapes), made_by
  row = found.setdefault(key, [instruction.name, 0, 0.0, 0.0, 0.0, 0.0])
  row[1] += 1
  new = (1.0, cost.cycles, cost.seconds, cost.bytes)
  for place, value in enumerate(new, 2):
    row[place] += runs * value
