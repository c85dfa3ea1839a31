"""Architectures out of a search's folder, finished or not, and out of files.

`results.find_cells` is what jobs call: it knows the names of published ones,
too.
"""

import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from nasnet_jax import spaces
from nasnet_jax.data import places
from nasnet_jax.report import runs
from nasnet_jax.spaces.blocks import BLOCKS
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.stages import StageSpace

Row = dict[str, Any]
_SEARCHES = ("search", "by_hand")
_PLACE = re.compile(r"([1-9]\d*)(st|nd|rd|th)")


def was_stopped(row: Row) -> bool:
  """Whether a child of the history was stopped before its end, and not for
  want of a finite loss."""
  return row["status"] == "ok" and row["steps"] < row.get("horizon", 0)


def best_first(rows: Iterable[Row], space) -> Iterator[Row]:
  """Rows of children that succeeded, by reward, one for each set of equal
  architectures.

  Of equal rewards the earlier child counts; of equal architectures the one with
  the better reward. Children that were stopped early count only if no other one
  succeeded: their rewards are of shorter trainings.
  """
  ok = [row for row in rows if row["status"] == "ok"]
  ok = [row for row in ok if not was_stopped(row)] or ok
  seen = set()
  for row in sorted(ok, key=lambda row: (-row["reward"], row["id"])):
    key = space.key(row["decisions"])
    if key not in seen:
      seen.add(key)
      yield row


def child_of(run: str, which: str):
  """(space, genotype) of one child of a search.

  Args:
    run: its folder.
    which: the child's number, "12"; or its place, "2nd". Places are those of
      the final stage's ranking, then, and before there is one, of the rewards
      so far.

  Raises:
    ValueError: one line: no such child, one that failed, no search, or one
      that has no children yet.
  """
  folder = places.fetched(run)
  space, rows = _searched(folder)
  place = _PLACE.fullmatch(which)
  if place:
    row = _at_place(folder, rows, space, int(place[1]))
  elif which.isdigit():
    row = _numbered(folder, rows, int(which))
  else:
    raise ValueError(
      f"{run}#{which}: give a child's number, as in {run}#12, or its place, as"
      f" in {run}#2nd"
    )
  return space, space.decode(row["decisions"])


def _searched(folder: pathlib.Path):
  """(space, rows of the history) of a search's folder."""
  path = folder / "config.json"
  config = runs.read_json(path) if folder.is_dir() else {}
  if not config:
    raise ValueError(runs.why_no_run(folder, path.name))
  job = config.get("job", "search")
  if job not in _SEARCHES or "space" not in config:
    raise ValueError(
      f"{folder} holds a run of the job {job!r}, which has no children: give"
      " the folder of a search"
    )
  rows, _ = runs.read_lines(folder / runs.HISTORY)
  if not rows:
    raise ValueError(f"{folder} has no children yet")
  if "num_choices" in config["space"]:
    raise ValueError(
      f"{folder} searches a list of choices, which stands for no network"
    )
  return spaces.get(**config["space"]), rows


def _numbered(folder, rows: list[Row], child: int) -> Row:
  row = next((row for row in rows if row["id"] == child), None)
  if row is None:
    last = max(row["id"] for row in rows)
    raise ValueError(
      f"{folder} has no child {child}: its {len(rows)} children so far are"
      f" numbered from 0 to {last}"
    )
  if row["status"] != "ok":
    why = "failed" if row["status"] == "failed" else "was over a limit"
    raise ValueError(f"child {child} of {folder} {why}: take another one")
  return row


def _at_place(folder, rows: list[Row], space, place: int) -> Row:
  ranked = runs.read_json(folder / "result.json").get("top_k", [])
  first = [_numbered(folder, rows, row["id"]) for row in ranked]
  seen = {row["id"] for row in first}
  rest = [row for row in best_first(rows, space) if row["id"] not in seen]
  ordered = [*first, *rest]
  if place > len(ordered):
    raise ValueError(
      f"{folder} has {len(ordered)} different children that succeeded so far,"
      f" so none has place {place}"
    )
  return ordered[place - 1]


def of_json(data: Row):
  """(space, genotype) of a genotype as spaces write them, or of a row that has
  one; ValueError or KeyError for anything else."""
  data = data.get("genotype", data)
  if "architecture" in data:  # any row of blocks, whatever was searched
    return BLOCKS, BLOCKS.from_json(data)
  space = spaces.get(data["space"])
  if isinstance(space, CellSpace):
    count = max(len(cell["blocks"]) for cell in data["cells"].values())
    space = spaces.get(data["space"], num_blocks=count)
  if isinstance(space, StageSpace):
    nodes = [stage["nodes"] for stage in data["stages"]]
    space = spaces.get(data["space"], nodes=nodes)
  return space, space.from_json(data)
