"""What `figures` found, on one page for a reader."""

from typing import Any

Row = dict[str, Any]


def size(count: float) -> str:
  """Bytes in words, in powers of 1024."""
  for unit in ("B", "KiB", "MiB", "GiB"):
    if count < 1024 or unit == "GiB":
      return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
    count /= 1024
  raise AssertionError


def number(count: float) -> str:
  """A large number in words, in powers of 1000."""
  for unit in ("", " k", " M", " G", " T"):
    if abs(count) < 1000 or unit == " T":
      return f"{count:.4g}{unit}"
    count /= 1000
  raise AssertionError


def seconds(count: float) -> str:
  """A short time in words."""
  if count < 1e-3:
    return f"{count * 1e6:.3g} us"
  return f"{count * 1e3:.3g} ms" if count < 1 else f"{count:.3g} s"


def page(found: Row) -> str:
  """The page; `found` is of `figures.figures`, with "config" and "topology"."""
  lines = [*_head(found), "", *_memory(found)]
  if found["fits"]:
    lines += [
      "",
      *_buffers(found),
      "",
      *_exchanges(found),
      "",
      *_update(found),
      "",
      *_job(found),
    ]
  if found.get("top"):
    lines += ["", *_top(found)]
  for change in found.get("tried", []):
    lines.append(_tried(change))
  return "\n".join(lines)


def _head(found: Row) -> list[str]:
  mesh = " x ".join(f"{name} {n}" for name, n in found["mesh"].items())
  minutes = (found["lower_seconds"] + found["compile_seconds"]) / 60
  lines = [
    f"{found['config']} on {found['topology']}: {found['job']}, mesh {mesh},"
    f" {found['chips']} of {found['slice_chips']} chips",
    f"compiled by the TPU's own compiler in {minutes:.1f} min (JAX"
    f" {found['jax']}); nothing was run",
  ]
  lines += found.get("chosen", [])
  idle = found["slice_chips"] - found["chips"]
  if idle:
    lines.append(
      f"{idle} chips stay idle: set --config.mesh.data or .arch to use them"
    )
  return lines


def _memory(found: Row) -> list[str]:
  hbm = found["hbm"]
  verdict = "fits" if found["fits"] else "DOES NOT FIT"
  share = hbm["needed"] / hbm["chip"]
  lines = [
    f"HBM per chip: {size(hbm['needed'])} of {size(hbm['chip'])}"
    f" ({share:.0%}): {verdict}"
  ]
  if found["fits"]:
    lines.append(
      "  "
      + ", ".join(
        f"{name} {size(hbm[name])}"
        for name in ("arguments", "outputs", "temporary", "program")
      )
    )
  return lines


def _buffers(found: Row) -> list[str]:
  lines = ["Largest buffers, padded as laid out:"]
  for row in found["largest_buffers"]:
    made_by = row["made_by"]
    if len(made_by) > 44:
      made_by = "..." + made_by[-41:]
    lines.append(f"  {size(row['bytes']):>11}  {row['shape']:<26} {made_by}")
  return lines


def _exchanges(found: Row) -> list[str]:
  if not found["collectives"]:
    return ["Collectives: none"]
  lines = ["Collectives per update and chip:"]
  for row in found["collectives"]:
    lines.append(
      f"  {row['kind']:<18} over {row['axis']:<16}"
      f" {row['count']:>6.4g} times, {size(row['bytes'])}"
    )
  taken = found["collective_seconds"]
  lines.append(f"  at the links' bandwidth: {seconds(taken)}")
  return lines


def _update(found: Row) -> list[str]:
  what = "one child's update" if found["job"] == "search" else "an update"
  by_cycles = found["compiler_seconds"]
  lines = [
    f"Per chip, {what} (loops by their trips, switches by how often each",
    "branch is taken):",
    f"  FLOPs {number(found['flops'])}, bytes of HBM"
    f" {size(found['bytes'])}, instructions {number(found['instructions'])}",
    f"  ESTIMATE, roofline: {seconds(found['roofline_seconds'])}",
  ]
  if by_cycles is None:
    lines.append(
      "  ESTIMATE, compiler's cycles: no clock is known for the chip"
    )
  else:
    lines.append(
      f"  ESTIMATE, compiler's cycles: {seconds(by_cycles)}"
      f" ({number(found['cycles'])})"
    )
  if found.get("kernels_left_out"):
    lines.append(
      f"  WITHOUT {found['kernels_left_out']} kernels of our own, whose cycles"
      " and FLOPs XLA does not know"
    )
    lines.append(
      "  (benchmarks/operations.py --dump has them by operation), so times and"
      " hours are too short"
    )
  return lines


def _top(found: Row) -> list[str]:
  by_cycles = any(row["cycles"] for row in found["top"])
  key = "cycles" if by_cycles else "seconds"
  total = found["cycles"] if by_cycles else found["roofline_seconds"]
  said = number if by_cycles else seconds
  lines = [
    f"Instructions by their {key} per update"
    f"{'' if by_cycles else ' (roofline)'}, those of one kind together:",
    f"  {'all runs':>8} {'share':>5} {'runs':>7} {'in text':>7}  what",
  ]
  for row in found["top"]:
    made_by = row["made_by"]
    if len(made_by) > 60:
      made_by = "..." + made_by[-57:]
    lines.append(
      f"  {said(row[key]):>8} {row[key] / (total or 1):>5.1%}"
      f" {number(row['runs']):>7} {row['instructions']:>7}  {row['opcode']}"
      f" {row['shape']} {made_by}"
    )
  listed = sum(row[key] for row in found["top"])
  lines.append(f"  together {listed / (total or 1):.0%} of {said(total)}")
  return lines


def _job(found: Row) -> list[str]:
  hours, chip_hours = found["hours"], found["chip_hours"]
  if found["job"] != "search":
    return [
      f"The whole training, {found['total_updates']:,} updates of"
      f" {found['batch_size']}: {hours:,.1f} h, {chip_hours:,.0f} chip hours"
      " (ESTIMATE, by the longer of the two; without evaluation and input)"
    ]
  return [
    f"Children per chip: {found['children_per_chip']} now, about"
    f" {found['children_that_fit']} would fit",
    f"The whole search, {found['num_children']:,} children of"
    f" {found['total_updates']:,} updates: {hours:,.1f} h,"
    f" {chip_hours:,.0f} chip hours",
    "  (ESTIMATE, by the longer of the two, times"
    f" {found['waiting']:.2f}: chips wait for the slowest child of a call;",
    "  without evaluation, controller and final stage)",
  ]


def _tried(change: Row) -> str:
  hbm = change["hbm"]
  words = "fits" if change["fits"] else "does not fit"
  flags = " ".join(change["changes"])
  return f"Tried {flags}: {size(hbm['needed'])}, {words}"
