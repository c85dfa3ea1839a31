"""From a compiled step to what the job takes: memory, traffic, time, hours."""

import hashlib
from typing import Any

import jax
import numpy as np

from nasnet_jax.preflight import collectives, costs, hlo, profile
from nasnet_jax.preflight.chips import Chip
from nasnet_jax.preflight.plans import Plan
from nasnet_jax.preflight.program import Compiled, OutOfMemory

Row = dict[str, Any]
_DRAWS = 200  # random choices of children, to estimate how long chips wait


def figures(plan: Plan, compiled: Compiled, chip: Chip, top: int = 0) -> Row:
  """All that the page says, as JSON.

  Args:
    top: how many kinds of instructions to list, see `profile`.

  Per chip and per update of one network: `flops`, `bytes`, `instructions`,
  `cycles`, and `seconds`, the longer of the two estimates.
  """
  on = plan.step.mesh
  found = {
    "job": plan.job,
    "chip": chip.name,
    "chips": on.size,
    "mesh": dict(on.shape),
    "batch_size": plan.batch_size,
    "children_per_chip": plan.step.children,
    "macs_per_image": plan.macs,
    "lower_seconds": round(compiled.lower_seconds, 1),
    "compile_seconds": round(compiled.compile_seconds, 1),
    "jax": jax.__version__,
  }
  if compiled.out_of_memory:
    return {**found, **_did_not_fit(compiled.out_of_memory)}
  text = compiled.program.as_text()
  module = hlo.parse(text)
  found |= {
    "fits": True,
    "program": hashlib.sha256(text.encode()).hexdigest()[:16],
    "hbm": _memory(compiled.program.memory_analysis(), chip),
    "largest_buffers": [b._asdict() for b in hlo.largest_buffers(module)],
    **_per_update(plan, module, chip),
  }
  if top:
    found["top"] = _top(plan, module, chip, top)
  return {**found, **_whole_job(plan, found)}


def _top(plan: Plan, module: hlo.Module, chip: Chip, count: int) -> list[Row]:
  """The instructions that take the most, per update of one network."""
  step = plan.step
  updates = step.updates * step.children
  rows = [
    row._asdict() for row in profile.instructions(_walk(plan, module, chip))
  ]
  for row in rows[:count]:
    for name in ("runs", "cycles", "seconds", "bytes"):
      row[name] /= updates
  return rows[:count]


def _walk(plan: Plan, module: hlo.Module, chip: Chip) -> costs.Walk:
  """With each branch as often as random children take it."""
  mean = {n: rows.mean(0) for n, rows in plan.step.shares.items()}
  return costs.Walk(module, limits(chip), mean, plan.step.trips)


def _did_not_fit(trouble: OutOfMemory) -> Row:
  return {
    "fits": False,
    "hbm": {"needed": trouble.needed, "chip": trouble.limit},
  }


def _memory(memory, chip: Chip) -> Row:
  arguments = memory.argument_size_in_bytes
  outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
  parts = {
    "arguments": arguments,
    "outputs": outputs,  # that are not written over arguments
    "temporary": memory.temp_size_in_bytes,
    "program": memory.generated_code_size_in_bytes,
  }
  return {**parts, "needed": sum(parts.values()), "chip": chip.hbm}


def limits(chip: Chip) -> costs.Limits:
  """What bounds that chip's time."""
  return costs.Limits(chip.flops, chip.bandwidth, chip.link_bandwidth)


def _per_update(plan: Plan, module: hlo.Module, chip: Chip) -> Row:
  step = plan.step
  updates = step.updates * step.children
  walk = _walk(plan, module, chip)
  total = walk.total()
  roofline = total.seconds / updates
  cycles = total.cycles / updates
  by_cycles = cycles / chip.clock if chip.clock else None
  exchanges = [
    {
      "kind": row.kind,
      "axis": collectives.axis_of(row.groups, step.mesh.shape),
      "count": row.count / updates,
      "bytes": row.bytes / updates,
      "sent": row.sent / updates,
    }
    for row in total.listed()
  ]
  return {
    "flops": total.flops / updates,
    "bytes": total.bytes / updates,
    "cycles": cycles,
    "instructions": total.instructions / updates,
    "collectives": exchanges,
    "collective_bytes": sum(row["bytes"] for row in exchanges),
    "collective_seconds": sum(row["sent"] for row in exchanges)
    / chip.link_bandwidth,
    "roofline_seconds": roofline,
    "compiler_seconds": by_cycles,
    "seconds": max(roofline, by_cycles or 0.0),
    "loops_of_unknown_length": len(set(walk.unknown_loops)),
    "kernels_left_out": len(set(walk.uncounted)),
    "waiting": _waiting(plan, module, chip),
  }


def _waiting(plan: Plan, module: hlo.Module, chip: Chip) -> float:
  """The time of a call over the time of its mean child: chips wait for the one
  whose children take longest."""
  step = plan.step
  chips = step.mesh.shape["arch"]
  if not step.shares or chips == 1:
    return 1.0
  seconds = _seconds_of_children(plan, module, chip)
  rng = np.random.default_rng(0)
  drawn = rng.choice(seconds, (_DRAWS, chips, step.children))
  return float(drawn.mean(2).max(1).mean() / seconds.mean())


def _seconds_of_children(plan: Plan, module, chip: Chip) -> np.ndarray:
  """f64[children]: the seconds of a call for each sampled child, which are
  linear in its shares."""
  shares = plan.step.shares

  def price(taken) -> float:
    walk = costs.Walk(module, limits(chip), taken, plan.step.trips)
    total = walk.total()
    if chip.clock and total.cycles / chip.clock > total.seconds:
      return total.cycles / chip.clock
    return total.seconds

  nobody = {n: np.zeros(n) for n in shares}
  base = price(nobody)
  seconds = np.full(len(next(iter(shares.values()))), base)
  for n, rows in shares.items():
    branch = [price({**nobody, n: row}) - base for row in np.eye(n)]
    seconds = seconds + rows @ np.array(branch)
  return seconds


def _whole_job(plan: Plan, found: Row) -> Row:
  step, hbm = plan.step, found["hbm"]
  slots = step.mesh.shape["arch"] * step.children
  one_round = plan.total_updates * found["seconds"] * step.children
  rounds = -(-plan.num_children // slots) if plan.job == "search" else 1
  hours = rounds * one_round * found["waiting"] / 3600
  result = {
    "total_updates": plan.total_updates,
    "num_children": plan.num_children,
    "hours": hours,
    "chip_hours": hours * step.mesh.size,
  }
  if plan.job == "search":
    # The data set and the program exist once, the rest once per child.
    data = sum(
      leaf.size * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(step.arguments[2])
    )
    once = data + hbm["program"]
    each = (hbm["needed"] - once) / step.children
    result["children_that_fit"] = int((hbm["chip"] - once) // each)
  return result
