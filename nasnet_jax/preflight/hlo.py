"""Reads the text of a compiled TPU program: what calls what, how often a loop
runs, what lies where. `costs.py` says what it takes."""

import functools
import math
import re
from typing import NamedTuple

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

# Instructions that take no time and move nothing themselves.
FREE = {
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
    """Bytes of the values."""
    return math.prod(self.dims) * _BITS.get(self.dtype, 32) // 8

  @property
  def padded_bytes(self) -> int:
    """Bytes of the tiles that hold the values."""
    dims = [self.dims[d] for d in self.order]  # fastest first
    for i, size in enumerate(reversed(self.tile)):
      if i < len(dims):
        dims[i] = -(-dims[i] // size) * size
    return math.prod(dims) * _BITS.get(self.dtype, 32) // 8

  @property
  def hbm_bytes(self) -> int:
    return self.padded_bytes if self.in_hbm else 0


class Instruction(NamedTuple):
  """One line: the `shapes` of its output (several for a tuple), the names of
  its operands, and `rest`, the text after them."""

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


# --- what calls what ---------------------------------------------------------


def called(instruction: Instruction, attribute: str) -> str:
  return re.search(rf"\b{attribute}=%([\w.\-]+)", instruction.rest).group(1)


def inner_of(instruction: Instruction) -> list[str]:
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
    called(instruction, f"{answer}_computation") for answer in ("false", "true")
  ]


def loop_length(
  module: Module, loop: Instruction, around: Computation
) -> int | None:
  """How often a `while` runs its body; None if that depends on data.

  It is known for loops that count up by 1 to a constant, as JAX writes `scan`
  and `fori_loop` with numbers.
  """
  condition = module.computations[called(loop, "condition")]
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


# --- buffers -----------------------------------------------------------------


class Buffer(NamedTuple):
  """One array in HBM: its bytes with padding, its shape, and what makes it."""

  bytes: int
  shape: str
  made_by: str


def largest_buffers(module: Module, count: int = 8) -> list[Buffer]:
  """The largest arrays in HBM that any instruction writes. Arrays of the same
  shape that come from the same line of our source count once."""
  inside = {
    name
    for computation in module.computations.values()
    for instruction in computation.instructions.values()
    for name in inner_of(instruction)
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
  passes_on = opcode in (FREE | {"while", "conditional", "call"})
  if (passes_on and not is_argument) or opcode.endswith("-done"):
    return
  label = re.search(r'op_name="([^"]*)"', instruction.rest)
  made_by = label.group(1).replace("\\'", "'") if label else opcode
  if is_argument:
    made_by = f"argument {made_by}"
  shapes = instruction.shapes
  for shape in shapes[:1] if opcode == "copy-start" else shapes:
    if shape.in_hbm:
      text = f"{shape.dtype}[{','.join(map(str, shape.dims))}]"
      yield Buffer(shape.padded_bytes, text, made_by)
