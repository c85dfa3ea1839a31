"""Bytes that an instruction moves to and from HBM.

Layouts pad an array to tiles, so 32 channels can take the room of 128. What
lies in on-chip memory (`S(1)` in a layout) is free.
"""

from nasnet_jax.preflight import hlo
from nasnet_jax.preflight.hlo import Computation, Instruction, Module

# Custom calls that only claim memory.
_NO_TRAFFIC = {"AllocateBuffer"}


def hbm_bytes(
  module: Module, instruction: Instruction, computation: Computation
) -> int:
  """Bytes that one instruction reads from and writes to HBM.

  A slice reads only what it takes, and an update in place writes only what it
  changes, inside fusions as well.
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
