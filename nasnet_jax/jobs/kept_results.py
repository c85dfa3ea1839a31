"""Results of a run from before it went on: `result.1.json`, `final.1/`,
`retrain.1.jsonl`, `ranking.1.jsonl`; then `.2`, and so on."""

import logging
import os
import pathlib
import shutil
from collections.abc import Iterator

from nasnet_jax.jobs import results, resumable
from nasnet_jax.report import runs

_log = logging.getLogger(__name__)
_TABLES = (resumable.CURVES, "ranking.jsonl")


def keep(folder: pathlib.Path):
  """Puts a result away, under the next number; of the first host only.

  Copies come first: a kill leaves the result whole in one place or the other.
  """
  number = 1 + max([0, *(n for n, _ in kept(folder))])
  weights = folder / f"final.{number}"
  if (folder / "final").exists() and not weights.exists():
    copy_tree(folder / "final", weights)
  for name in _TABLES:
    if (folder / name).exists():
      shutil.copy2(folder / name, numbered(folder / name, number))
  tested = folder / runs.TESTED
  if tested.exists():  # of this result's weights, not of those to come
    os.replace(tested, numbered(tested, number))
  path = folder / results.RESULT
  os.replace(path, numbered(path, number))
  _log.info("the result of before is kept as result.%d.json", number)


def kept(folder: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
  """(number, path) of every result that was put away."""
  for path in folder.glob("result.*.json"):
    number = path.suffixes[0][1:]
    if number.isdigit():
      yield int(number), path


def numbered(path: pathlib.Path, number: int) -> pathlib.Path:
  """Where a file of that result lies."""
  return path.with_name(f"{path.stem}.{number}{path.suffix}")


def copy_tree(source: pathlib.Path, target: pathlib.Path):
  """Replaces a folder by a copy of another one, whole."""
  part = target.with_name(f".{target.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  shutil.copytree(source, part)
  shutil.rmtree(target, ignore_errors=True)
  part.rename(target)
