"""Reads the text of a compiled TPU program.

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

_BITS = {
  "pred": 8,
  "s4": 4,
  "u4": 4,
  "s8": 8,
  "u8": 8,
  "s16": 16,
  "u16": 16,
  "bf16": 16,
  "f16": 16,
  "s32": 32,
  "u32": 32,
  "f32": 32,
  "s64": 64,
  "u64": 64,
  "f64": 64,
  "c64": 64,
}
_SHAPE = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^  (ROOT )?%([\w.\-]+) = ")

# Ask for no time and move nothing by themselves.
_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "after-all",
  "partition-id",
  "replica-id",
  "opt-barrier",
}
_COLLECTIVES = {
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
}
# Of custom calls: only claims memory.
_NO_TRAFFIC = {"AllocateBuffer"}


class Shape(NamedTuple):
  """One array as the compiler lays it out.

  Attributes:
    dtype: as HLO writes it, "f32".
    dims: of the array.
    order: dimensions from the fastest to the slowest.
    tile: of the fastest dimensions, slowest first; () is none.
    in_hbm: whether it lies in the chip's main memory.
  """

  dtype: str
  dims: tuple[int, ...]
  order: tuple[int, ...]
  tile: tuple[int, ...]
  in_hbm: bool

  @property
  def bytes(self) -> int:
    """Of the values alone."""
    return math.prod(self.dims) * _BITS.get(self.dtype, 32) // 8

  @property
  def padded_bytes(self) -> int:
    """Of the tiles that hold them."""
    dims = [self.dims[d] for d in self.order]  # fastest first
    for i, size in enumerate(reversed(self.tile)):
      if i < len(dims):
        dims[i] = -(-dims[i] // size) * size
    return math.prod(dims) * _BITS.get(self.dtype, 32) // 8

  @property
  def hbm_bytes(self) -> int:
    return self.padded_bytes if self.in_hbm else 0


class Instruction(NamedTuple):
  """One line: `shapes` of its output (several: a tuple), names of its operands,
  and what stands behind them."""

  name: str
  opcode: str
  shapes: tuple[Shape, ...]
  operands: tuple[str, ...]
  rest: str
  inside: str  # the parentheses of a constant or parameter


class Computation(NamedTuple):
  """Instructions by name, in order; `root` and `parameters` are names."""

  instructions: dict[str, Instruction]
  root: str
  parameters: tuple[str, ...]


class Module(NamedTuple):
  """Computations by name; `entry` is the name of the first to run."""

  computations: dict[str, Computation]
  entry: str


def parse(text: str) -> Module:
  """The module of `Compiled.as_text()`.

  Raises:
    ValueError: if there is no program in it.
  """
  computations, entry, lines, name = {}, None, None, None
  for line in text.splitlines():
    if lines is None:
      head = _HEAD.match(line)
      if head:
        name, lines = head.group(2), []
        entry = name if head.group(1) else entry
    elif line.startswith("}"):
      computations[name] = _computation(lines)
      lines = None
    elif _LINE.match(line):
      lines.append(line)
  if entry is None:
    raise ValueError("the compiler gave no program text")
  return Module(computations, entry)


def _computation(lines: list[str]) -> Computation:
  instructions, root, parameters = {}, "", {}
  for line in lines:
    head = _LINE.match(line)
    found = _instruction(head.group(2), line[head.end() :])
    instructions[found.name] = found
    if head.group(1):
      root = found.name
    if found.opcode == "parameter":
      parameters[int(found.inside)] = found.name
  ordered = tuple(parameters[i] for i in sorted(parameters))
  return Computation(
    instructions, root or next(reversed(instructions)), ordered
  )


def _instruction(name: str, text: str) -> Instruction:
  end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
  kind, text = text[:end], text[end:].lstrip()
  start = text.index("(")
  stop = _closing(text, start)
  inside = text[start + 1 : stop]
  return Instruction(
    name,
    text[:start],
    tuple(_shape(*found) for found in _SHAPE.findall(kind)),
    tuple(_NAME.findall(inside)),
    text[stop + 1 :],
    inside,
  )


def _closing(text: str, start: int) -> int:
  depth = 0
  for i in range(start, len(text)):
    if text[i] == "(":
      depth += 1
    elif text[i] == ")":
      depth -= 1
      if not depth:
        return i
  raise ValueError(f"a line of the program does not end: {text[:80]}")


@functools.lru_cache(maxsize=1 << 16)
def _shape(dtype: str, dims: str, layout: str) -> Shape:
  sizes = tuple(int(d.removeprefix("<=")) for d in dims.split(",") if d)
  order, _, tiles = layout.partition(":")
  numbers = tuple(int(d) for d in order.split(",") if d.isdigit())
  tile = re.search(r"T\(([\d,]+)\)", tiles)
  return Shape(
    dtype,
    sizes,
    numbers if len(numbers) == len(sizes) else tuple(range(len(sizes)))[::-1],
    tuple(map(int, tile.group(1).split(","))) if tile else (),
    "S(" not in tiles,
  )


# --- what instructions cost --------------------------------------------------


class Chip(NamedTuple):
  """What bounds a chip's time; see `planning.chips`.

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
    chip: Chip,
    shares: Shares | None = None,
    trips: float = 1.0,
  ):
    """shares: by number of branches; a switch that is not there costs what its
    dearest branch does. trips: of a loop whose length is data."""
    self.module, self.chip, self.trips = module, chip, trips
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
    if opcode in _FREE or opcode.endswith("-done"):
      return Cost()
    if opcode == "while":
      return self._loop(instruction, computation)
    if opcode == "conditional":
      return self._switch(instruction)
    if opcode == "call":
      return self.cost(_called(instruction, "to_apply"))
    return self._leaf(instruction, computation)

  def _loop(self, instruction, computation) -> Cost:
    trips = loop_length(self.module, instruction, computation)
    if trips is None:
      trips = self.trips
      self.unknown_loops.append(instruction.name)
    body = self.cost(_called(instruction, "body"))
    return Cost().plus(body, trips)

  def _switch(self, instruction) -> Cost:
    costs = [self.cost(name) for name in branches(instruction)]
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
      flops / self.chip.flops,
      moved / self.chip.bandwidth,
      sent / self.chip.link_bandwidth,
    )
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    cycles = float(found.group(1)) if found else 0.0
    return Cost(flops, moved, seconds, cycles, 1.0, exchanges)

  def _flops(self, instruction, computation) -> float:
    total = multiply_adds(instruction, computation) * 2.0
    for name in _inner(instruction):
      inner = self.module.computations[name]
      for inside in inner.instructions.values():
        total += self._flops(inside, inner)
    return total

  def _exchanges(self, instruction, computation) -> dict:
    opcode = instruction.opcode.removesuffix("-start")
    found = {}
    if opcode in _COLLECTIVES:
      key, values = _collective(opcode, instruction, computation)
      found[key] = values
    for name in _inner(instruction):
      inner = self.module.computations[name]
      for inside in inner.instructions.values():
        for key, values in self._exchanges(inside, inner).items():
          found[key] = np.add(found.get(key, 0.0), values)
    return found


def _called(instruction: Instruction, attribute: str) -> str:
  return re.search(rf"\b{attribute}=%([\w.\-]+)", instruction.rest).group(1)


def _inner(instruction: Instruction) -> list[str]:
  """Computations that run as a part of this instruction."""
  if instruction.opcode in ("fusion", "async-start"):
    return re.findall(r"\bcalls=%([\w.\-]+)", instruction.rest)
  return []


def branches(instruction: Instruction) -> list[str]:
  """The computations a conditional chooses from, in the order of its index."""
  listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
  if listed:
    return _NAME.findall(listed.group(1))
  return [
    _called(instruction, f"{answer}_computation")
    for answer in ("false", "true")
  ]


def loop_length(
  module: Module, loop: Instruction, around: Computation
) -> int | None:
  """How often a `while` runs its body; None if that is data.

  Known are loops that count up by 1 to a constant: what JAX makes of `scan`
  and of `fori_loop` with numbers.
  """
  condition = module.computations[_called(loop, "condition")]
  test = condition.instructions[condition.root]
  if test.opcode != "compare" or "direction=LT" not in test.rest:
    return None
  start, stop = (
    _number(condition, name, loop, around) for name in test.operands
  )
  return None if stop is None else max(stop - (start or 0), 0)


def _number(condition, name, loop, around) -> int | None:
  """The value of an operand of a loop's test before the first trip."""
  found = condition.instructions[name]
  if found.opcode == "constant":
    return int(found.inside)
  if found.opcode != "get-tuple-element":
    return None
  place = int(re.search(r"index=(\d+)", found.rest).group(1))
  start = around.instructions[loop.operands[0]]
  if start.opcode != "tuple":
    return None
  value = around.instructions[start.operands[place]]
  while value.opcode in ("copy", "bitcast") and value.operands:
    value = around.instructions[value.operands[0]]
  return int(value.inside) if value.opcode == "constant" else None


# --- bytes -------------------------------------------------------------------


def hbm_bytes(
  module: Module, instruction: Instruction, computation: Computation
) -> int:
  """Bytes that one instruction reads from and writes to HBM.

  A slice reads what it takes and an update in place writes what it changes,
  inside of fusions too.
  """
  opcode = instruction.opcode
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
  inner = module.computations[_called(instruction, "calls")]
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
    inner = module.computations[_called(instruction, "calls")]
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


# --- buffers -----------------------------------------------------------------


class Buffer(NamedTuple):
  """One array in HBM: its bytes with padding, its shape, and what makes it."""

  bytes: int
  shape: str
  made_by: str


def largest_buffers(module: Module, count: int = 8) -> list[Buffer]:
  """The largest arrays in HBM that any instruction writes, one line for all
  of one shape made by the same line of ours."""
  inside = {
    name
    for computation in module.computations.values()
    for instruction in computation.instructions.values()
    for name in _inner(instruction)
  }
  found: dict[tuple[str, str], Buffer] = {}
  for name, computation in module.computations.items():
    if name in inside:
      continue
    for instruction in computation.instructions.values():
      for buffer in _buffers(instruction, name == module.entry):
        found[buffer.shape, buffer.made_by] = buffer
  return sorted(found.values(), key=lambda b: -b.bytes)[:count]


def _buffers(instruction: Instruction, in_entry: bool):
  opcode = instruction.opcode
  is_argument = opcode == "parameter" and in_entry
  passes_on = opcode in (_FREE | {"while", "conditional", "call"})
  if (passes_on and not is_argument) or opcode.endswith("-done"):
    return
  label = re.search(r'op_name="([^"]*)"', instruction.rest)
  made_by = label.group(1) if label else opcode
  if is_argument:
    made_by = f"argument {made_by}"
  shapes = instruction.shapes
  for shape in shapes[:1] if opcode == "copy-start" else shapes:
    if shape.in_hbm:
      text = f"{shape.dtype}[{','.join(map(str, shape.dims))}]"
      yield Buffer(shape.padded_bytes, text, made_by)


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
