"""Strategies of ours on tables; files of runs that go on where they stopped."""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from nasnet_jax.training import workdir


class Ours(NamedTuple):
  """A controller, its options, and how many cells it is asked for at a time."""

  controller: str
  options: dict[str, Any] = {}  # noqa: RUF012 (never written to)
  per_round: int = 1


def slug(label: str) -> str:
  """A label as the name of a file."""
  return re.sub(r"[^a-z0-9.]+", "_", label.lower()).strip("_")


def read(path: pathlib.Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """(settings, rows by their run) of a file that `complete` has written."""
  settings, *rows = workdir.keep_lines(path, lambda _: True, "")
  return settings, sorted(rows, key=lambda row: row["run"])


def read_all(out: pathlib.Path, labels) -> dict[str, list[dict[str, Any]]]:
  """{label: rows by their run} of the files LABEL.jsonl that there are."""
  files = {label: out / f"{label}.jsonl" for label in labels}
  return {
    label: read(file)[1] for label, file in files.items() if file.exists()
  }


def complete(
  path: pathlib.Path,
  settings: dict[str, Any],
  play: Callable[[int], dict[str, Any]],
  first: int,
  count: int,
):
  """Plays the runs that the file lacks.

  Args:
    settings: what all of its runs have in common; the file's first line.
    play: (number of a run) -> its row, which has it as "run".
    first, count: the numbers of the runs are first to first + count - 1.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  settings = json.loads(json.dumps(settings))
  lines = workdir.keep_lines(path, lambda _: True, "")
  if not lines:
    workdir.append_lines(path, [settings])
  elif lines[0] != settings:
    raise SystemExit(f"{path} is of other settings: remove it, {lines[0]}")
  done = {line["run"] for line in lines[1:]}
  for run in range(first, first + count):
    if run not in done:
      workdir.append_lines(path, [play(run)])
