"""What a compiled program takes on one chip, read from its text.

XLA's own cost analysis counts the body of a loop and each branch of a switch
once. Here a body counts as often as it runs, and a switch costs what its
branches cost by how often each is taken. Bytes are those that move to and from
HBM: layouts pad an array to tiles, so 32 channels can take the room of 128,
and what lies in on-chip memory (`S(1)` in a layout) is free.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nasnet_jax.preflight import hlo
from nasnet_jax.preflight.hlo import Computation, Instruction, Module

_COLLECTIVES = {
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
}
# Of custom calls: only claims memory.
_NO_TRAFFIC = {"AllocateBuffer"}


class Limits(NamedTuple):
  """What bounds a chip's time; see `preflight.chips`.

  Attributes:
    flops: per second, bfloat16 inputs.
    bandwidth: of HBM, bytes per second.
    link_bandwidth: out of a chip to others of its slice, bytes per second.
  """

  flops: float
  bandwidth: float
  link_bandwidth: float


class Collective(NamedTuple):
  """Exchanges of one kind between one set of groups.

  Attributes:
    kind: "all-reduce" and so on.
    groups: of device numbers, in the order of the mesh.
    count: times per run.
    bytes: of the arrays of one chip, all times together.
    sent: bytes that leave a chip, if a ring does the work.
  """

  kind: str
  groups: tuple[tuple[int, ...], ...]
  count: float
  bytes: float
  sent: float


class Cost(NamedTuple):
  """What running something takes on one chip.

  Attributes:
    flops: 2 per multiply-add of convolutions and products.
    bytes: to and from HBM.
    seconds: the roofline: for each instruction the longest of its FLOPs at the
      chip's peak, its bytes at HBM's bandwidth, and its exchanges at that of
      the links.
    cycles: the compiler's own estimates, where it gives one.
    instructions: that the chip starts.
    collectives: {(kind, groups): [count, bytes, sent]}.
  """

  flops: float = 0.0
  bytes: float = 0.0
  seconds: float = 0.0
  cycles: float = 0.0
  instructions: float = 0.0
  collectives: dict = {}  # noqa: RUF012 (never changed)

  def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
    """This and `times` the other."""
    total = dict(self.collectives)
    for key, values in other.collectives.items():
      total[key] = np.add(total.get(key, 0.0), np.multiply(times, values))
    sums = (a + times * b for a, b in zip(self[:-1], other[:-1], strict=True))
    return Cost(*sums, total)

  def listed(self) -> list[Collective]:
    """The collectives, the largest first."""
    rows = [
      Collective(*key, *map(float, values))
      for key, values in self.collectives.items()
    ]
    return sorted(rows, key=lambda row: -row.sent)


# Shares with which the branches of a switch of so many are taken.
Shares = Mapping[int, np.ndarray]


class Walk:
  """Costs of a module's computations, on one kind of chip.

  Attributes:
    unknown_loops: names of loops whose length the text does not tell.
  """

  def __init__(
    self,
    module: Module,
    limits: Limits,
    shares: Shares | None = None,
    trips: float = 1.0,
  ):
    """shares: by number of branches; a switch that is not there costs what its
    dearest branch does. trips: of a loop whose length is data."""
    self.module, self.limits, self.trips = module, limits, trips
    self.shares = shares or {}
    self.unknown_loops: list[str] = []
    self._costs: dict[str, Cost] = {}

  def total(self) -> Cost:
    """Of one run of the program."""
    return self.cost(self.module.entry)

  def cost(self, name: str) -> Cost:
    """Of one run of a computation."""
    if name not in self._costs:
      total = Cost()
      computation = self.module.computations[name]
      for instruction in computation.instructions.values():
        total = total.plus(self._of(instruction, computation))
      self._costs[name] = total
    return self._costs[name]

  def _of(self, instruction: Instruction, computation: Computation) -> Cost:
    opcode = instruction.opcode
    if opcode in hlo.FREE or opcode.endswith("-done"):
      return Cost()
    if opcode == "while":
      return self._loop(instruction, computation)
    if opcode == "conditional":
      return self._switch(instruction)
    if opcode == "call":
      return self.cost(hlo.called(instruction, "to_apply"))
    return self._leaf(instruction, computation)

  def _loop(self, instruction, computation) -> Cost:
    trips = hlo.loop_length(self.module, instruction, computation)
    if trips is None:
      trips = self.trips
      self.unknown_loops.append(instruction.name)
    body = self.cost(hlo.called(instruction, "body"))
    return Cost().plus(body, trips)

  def _switch(self, instruction) -> Cost:
    costs = [self.cost(name) for name in hlo.branches(instruction)]
    shares = self.shares.get(len(costs))
    if shares is None:
      return max(costs, key=lambda c: (c.seconds, c.cycles, c.flops))
    total = Cost()
    for cost, share in zip(costs, shares, strict=True):
      total = total.plus(cost, float(share))
    return total

  def _leaf(self, instruction, computation) -> Cost:
    flops = self._flops(instruction, computation)
    moved = hbm_bytes(self.module, instruction, computation)
    exchanges = self._exchanges(instruction, computation)
    sent = sum(values[2] for values in exchanges.values())
    seconds = max(
      flops / self.limits.flops,
      moved / self.limits.bandwidth,
      sent / self.limits.link_bandwidth,
    )
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    cycles = float(found.group(1)) if found else 0.0
    return Cost(flops, moved, seconds, cycles, 1.0, exchanges)

  def _flops(self, instruction, computation) -> float:
    total = multiply_adds(instruction, computation) * 2.0
    for name in hlo.inner_of(instruction):
      inner = self.module.computations[name]
      for inside in inner.instructions.values():
        total += self._flops(inside, inner)
    return total

  def _exchanges(self, instruction, computation) -> dict:
    opcode = instruction.opcode.removesuffix("-start")
    found = {}
    if opcode in _COLLECTIVES and not _goes_on(instruction, computation):
      key, values = _collective(opcode, instruction, computation)
      found[key] = values
    for name in hlo.inner_of(instruction):
      inner = self.module.computations[name]
      for inside in inner.instructions.values():
        for key, values in self._exchanges(inside, inner).items():
          found[key] = np.add(found.get(key, 0.0), values)
    return found


# --- bytes -------------------------------------------------------------------


def hbm_bytes(
  module: Module, instruction: Instruction, computation: Computation
) -> int:
  """Bytes that one instruction reads from and writes to HBM.

  A slice reads what it takes and an update in place writes what it changes,
  inside of fusions too.
  """
  opcode = instruction.opcode
  if opcode == "slice-start":  # (source, target, context)
    source, target = instruction.shapes[:2]
    return target.hbm_bytes + source.in_hbm * target.padded_bytes
  if opcode == "copy-start":  # (target, source, context)
    return instruction.shapes[0].hbm_bytes + instruction.shapes[1].hbm_bytes
  if opcode == "custom-call" and any(
    f'custom_call_target="{name}"' in instruction.rest for name in _NO_TRAFFIC
  ):
    return 0
  total = _written(module, instruction, computation)
  for i, name in enumerate(instruction.operands):
    operand = computation.instructions[name]
    full = sum(shape.hbm_bytes for shape in operand.shapes)
    if full:
      total += min(full, _read(module, instruction, i, full))
  return total


def _read(module: Module, instruction, i: int, full: int) -> int:
  """Bytes read of operand i, of `full` bytes."""
  opcode = instruction.opcode
  if opcode in ("dynamic-slice", "slice", "gather"):
    return sum(s.padded_bytes for s in instruction.shapes) if not i else full
  if opcode == "dynamic-update-slice" and not i:
    return 0
  if opcode != "fusion":
    return full
  inner = module.computations[hlo.called(instruction, "calls")]
  return _read_inside(module, inner, inner.parameters[i], full)


def _read_inside(module: Module, inner: Computation, name, full: int) -> int:
  total = 0
  for user in inner.instructions.values():
    for i, operand in enumerate(user.operands):
      if operand != name:
        continue
      if user.opcode == "bitcast":
        total += _read_inside(module, inner, user.name, full)
      else:
        total += _read(module, user, i, full)
      if total >= full:
        return full
  return total


def _written(module: Module, instruction, computation) -> int:
  """Bytes written of the output."""
  full = sum(shape.hbm_bytes for shape in instruction.shapes)
  if not full:
    return 0
  if instruction.opcode == "dynamic-update-slice":
    update = computation.instructions[instruction.operands[1]]
    return min(full, sum(shape.padded_bytes for shape in update.shapes))
  if instruction.opcode == "fusion":
    inner = module.computations[hlo.called(instruction, "calls")]
    return min(full, _written_inside(module, inner, inner.root, instruction))
  return full


def _written_inside(module, inner: Computation, name: str, fusion) -> int:
  root = inner.instructions[name]
  if root.opcode == "bitcast":
    return _written_inside(module, inner, root.operands[0], fusion)
  if root.opcode == "tuple":
    total = 0
    for operand, shape in zip(root.operands, fusion.shapes):
      if shape.in_hbm:
        one = fusion._replace(shapes=(shape,))
        total += _written_inside(module, inner, operand, one)
    return total
  if root.opcode == "dynamic-update-slice":
    update = inner.instructions[root.operands[1]]
    return sum(shape.padded_bytes for shape in update.shapes)
  return sum(shape.hbm_bytes for shape in fusion.shapes)


# --- FLOPs -------------------------------------------------------------------


def multiply_adds(instruction: Instruction, computation: Computation) -> int:
  """Of a convolution or a product; 0 for all else.

  Positions where a window hangs over the border, or meets a zero between the
  rows of a dilated input, do not count.
  """
  if instruction.opcode == "dot":
    return _dot(instruction, computation)
  if instruction.opcode != "convolution":
    return 0
  left, right = (
    computation.instructions[name].shapes[0].dims
    for name in instruction.operands[:2]
  )
  out = instruction.shapes[0].dims
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
  a, b, c = labels.groups()
  positions = 1
  window = _window(instruction.rest)
  for axis in (ch for ch in c if ch.isdigit()):
    k = int(axis)
    size = {key: values[k] for key, values in window.items()}
    positions *= _meetings(
      left[a.index(axis)], right[b.index(axis)], out[c.index(axis)], **size
    )
  groups = re.search(r"batch_group_count=(\d+)", instruction.rest)
  batch = left[a.index("b")] // (int(groups.group(1)) if groups else 1)
  return positions * batch * right[b.index("i")] * right[b.index("o")]


def _dot(instruction, computation) -> int:
  left = computation.instructions[instruction.operands[0]].shapes[0].dims
  summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
  over = [left[int(d)] for d in summed.group(1).split(",") if d]
  return math.prod(instruction.shapes[0].dims) * math.prod(over)


def _window(rest: str) -> dict[str, list]:
  """{name: one value per spatial axis} of a convolution's window."""
  found = re.search(r"window=\{([^}]*)\}", rest)
  fields = dict(f.split("=") for f in found.group(1).split()) if found else {}
  count = len(fields.get("size", "").split("x")) if fields else 0

  def values(name, default, convert=int):
    text = fields.get(name)
    return [convert(v) for v in text.split("x")] if text else [default] * count

  return {
    "stride": values("stride", 1),
    "low": values("pad", 0, lambda pair: int(pair.split("_")[0])),
    "left_dilation": values("lhs_dilate", 1),
    "right_dilation": values("rhs_dilate", 1),
  }


@functools.cache
def _meetings(size, kernel, out, stride, low, left_dilation, right_dilation):
  """Pairs (output, kernel element) of one axis that meet a real input."""
  reach = (size - 1) * left_dilation
  count = 0
  for k in range(kernel):
    for o in range(out):
      place = o * stride + k * right_dilation - low
      count += 0 <= place <= reach and place % left_dilation == 0
  return count


def _goes_on(instruction: Instruction, computation: Computation) -> bool:
  """Whether this is one that another instruction has started: the compiler
  writes an exchange again in every fusion that works beside it."""
  return "chain_id=" in instruction.rest and not any(
    '"AsyncCollectiveStart"' in other.rest
    for other in computation.instructions.values()
  )


# --- collectives -------------------------------------------------------------


def _collective(kind: str, instruction, computation):
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
  """Of `{{0,1},{2,3}}`, or of `[2,2]<=[4]` with a transposition behind."""
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
