"""What a kernel of our own takes, from the TPU compiler's final schedule.

XLA knows nothing of what happens inside a Pallas kernel: its estimate is the
author's (`cost_estimate`) or a guess. But with the flags of `DUMP` in
`LIBTPU_INIT_ARGS` the compiler writes the schedule itself: a line per bundle of
instructions that start in the same cycle, with loops marked. So bundles, each
as often as its loop turns, are the cycles of a kernel that waits for nothing:
no memory, no other core. The flags and the form are undocumented (seen with
libtpu 0.0.42).
"""

import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

DUMP = "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"

_BUNDLE = re.compile(r" *(?:0x[0-9a-f]+|0) +((?:[A-Z]{2}[, ]*)*): *(>*)")
_EXIT = re.compile(r"scmp\.ge\S* \S+ (\d+) /\* loop exit test \*/")
# The loop over a grid also starts the first copy and waits for the last.
_PIPELINED, _MORE_TURNS = "iteration index, stage", 2


class Kernel(NamedTuple):
  """One kernel's schedule.

  Attributes:
    cycles: bundles, each as often as it is issued.
    slots: {unit: share of its slots that are used in these cycles}.
  """

  cycles: int
  slots: dict[str, float]


def read(files: Iterable[pathlib.Path], idle: int = 0) -> dict[str, Kernel]:
  """Kernels by their names in the compiled text.

  Args:
    files: that the compiler wrote for one program.
    idle: turns of the grid in which its inner loops are left out (`pl.when`),
      which the schedule does not tell.
  """
  found = {}
  for path in sorted(files):
    named = re.fullmatch(r"\d+-([\w.]+)-\d+-final_bundles\.txt", path.name)
    if named is None or named.group(1) == "TLP":  # the program around them
      continue
    times = np.array(issues(path.read_text(), idle))
    used = _slots(_beside(path), times)
    found[named.group(1)] = Kernel(int(times.sum()), used)
  return found


def _beside(path: pathlib.Path) -> str:
  """The utilisation of the schedule in that file."""
  stem = path.name.rsplit("-", 2)[0]
  name = "-*-final_hlo-static-per-bundle-utilization.txt"
  return next(path.parent.glob(stem + name)).read_text()


def issues(text: str, idle: int = 0) -> list[int]:
  """How often each bundle of a schedule is issued."""
  loops: list[dict] = [{"turns": 1, "inside": None}]
  current, of_line = {0: 0}, []  # the loop that is open at each depth
  for line in text.splitlines():
    match = _BUNDLE.match(line)
    if match is None:
      continue
    depth = len(match.group(2))
    if "LB" in match.group(1):
      current[depth] = len(loops)
      grid = _PIPELINED in line
      loops.append({"turns": 1, "inside": current[depth - 1], "grid": grid})
    test = _EXIT.search(line)
    if test:
      loops[current[depth]]["turns"] = int(test.group(1))
    of_line.append(current[depth])
  return [_times(loops, loop, idle) for loop in of_line]


def _times(loops: list[dict], number: int, idle: int) -> int:
  times, inner = 1, False
  while number is not None:
    loop = loops[number]
    turns = loop["turns"]
    if loop.get("grid"):
      turns -= _MORE_TURNS + idle * inner
    times, number, inner = times * turns, loop["inside"], True
  return times


def _slots(text: str, times: np.ndarray) -> dict[str, float]:
  """From the compiler's table of slots per bundle."""
  lines = text.splitlines()
  names = [name.strip() for name in lines[1].split(",")]
  capacity = np.array(lines[2].split(), float)
  rows = [line.split() for line in lines[4:] if line.strip()]
  used = times @ np.array(rows[: len(times)], float)
  shares = used / (capacity * times.sum())
  return dict(zip(names, shares.round(3).tolist(), strict=True))
