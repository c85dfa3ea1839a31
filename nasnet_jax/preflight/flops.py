"""Multiply-adds of an instruction of a compiled program."""

import functools
import math
import re

from nasnet_jax.preflight.hlo import Computation, Instruction


def multiply_adds(instruction: Instruction, computation: Computation) -> int:
  """Those of a convolution or a matrix product; 0 for all else.

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
