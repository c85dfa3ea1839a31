"""Exchanges between chips: which groups, and how many bytes."""

import functools
import math
import re
from collections.abc import Mapping

import numpy as np

from nasnet_jax.preflight.hlo import Computation, Instruction

KINDS = {
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
}


def goes_on(instruction: Instruction, computation: Computation) -> bool:
  """Whether another instruction has started this exchange: the compiler writes
  it again in every fusion that runs at the same time."""
  return "chain_id=" in instruction.rest and not any(
    '"AsyncCollectiveStart"' in other.rest
    for other in computation.instructions.values()
  )


def read(kind: str, instruction: Instruction, computation: Computation):
  """((kind, groups), [count, bytes, sent]) of one exchange."""
  rest = instruction.rest
  if kind == "collective-permute":
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", rest)
    groups = _groups("{" + pairs.group(1) + "}}") if pairs else ()
  else:
    found = re.search(
      r"replica_groups=(\{\{.*?\}\}|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)",
      rest,
    )
    groups = _groups(found.group(1)) if found else ()
  given = [computation.instructions[name] for name in instruction.operands]
  size = sum(shape.bytes for operand in given for shape in operand.shapes)
  n = max((len(group) for group in groups), default=2)
  if kind == "all-gather":
    size *= n
  around = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}
  sent = size * around.get(kind, (n - 1) / n)
  return (kind, groups), np.array([1.0, size, sent])


@functools.cache
def _groups(text: str) -> tuple[tuple[int, ...], ...]:
  """The groups of `{{0,1},{2,3}}`, or of `[2,2]<=[4]`, which a transposition
  may follow."""
  if text.startswith("{"):
    return tuple(
      tuple(int(i) for i in group.split(",") if i)
      for group in re.findall(r"\{([\d,]*)\}", text)
    )
  shape, start, order = re.match(
    r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text
  ).groups()
  numbers = np.arange(math.prod(map(int, start.split(","))))
  numbers = numbers.reshape([int(d) for d in start.split(",")])
  if order:
    numbers = numbers.transpose([int(d) for d in order.split(",")])
  rows = numbers.reshape([int(d) for d in shape.split(",")])
  return tuple(map(tuple, rows.tolist()))


def axis_of(
  groups: tuple[tuple[int, ...], ...], mesh_shape: Mapping[str, int]
) -> str:
  """The mesh axes that groups run along: "data", "arch and data", or
  "part of the mesh"."""
  names, sizes = list(mesh_shape), list(mesh_shape.values())
  numbers = np.arange(math.prod(sizes)).reshape(sizes)
  wanted = {frozenset(group) for group in groups}
  for mask in range(1, 2 ** len(names)):
    over = [i for i in range(len(names)) if mask >> i & 1]
    if any(sizes[i] == 1 for i in over):
      continue
    rest = [i for i in range(len(names)) if i not in over]
    rows = numbers.transpose(rest + over).reshape(
      -1, math.prod(sizes[i] for i in over)
    )
    if {frozenset(row.tolist()) for row in rows} == wanted:
      return " and ".join(names[i] for i in over)
  return "part of the mesh"
