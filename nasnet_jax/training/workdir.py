"""A run's folder: text files that survive a kill, and one process at a time.

Files are replaced whole or grow by whole lines; what a killed process left of
a line is cut off by the next one, with a notice.
"""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

_log = logging.getLogger(__name__)


class WorkdirError(ValueError):
  """A folder that this run cannot use; the message is one line."""


@contextlib.contextmanager
def locked(workdir):
  """Makes the folder and keeps other processes out of it.

  The lock goes with the process, however it ends.

  Yields:
    the folder's pathlib.Path.

  Raises:
    WorkdirError: if it is a file, or another process works in it.
    OSError: if it cannot be written.
  """
  folder = pathlib.Path(workdir).expanduser().absolute()
  if folder.exists() and not folder.is_dir():
    raise WorkdirError(f"{folder} is no folder: take another path")
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / ".lock", "a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise WorkdirError(
        f"another process works in {folder}: stop it or take another folder"
      ) from None
    yield folder


def claim(path, config: dict[str, Any], may_change: Iterable[str] = ()):
  """Writes the config of a new run, or checks that of an old one.

  Args:
    path: of config.json.
    config: nested dicts, as JSON can hold them.
    may_change: dotted names of fields, or of groups of them, that may differ
      from the run's first config; the file then takes the new ones.

  Raises:
    WorkdirError: naming the first field that differs otherwise.
  """
  path = pathlib.Path(path)
  new = json.loads(json.dumps(config))  # tuples become lists, as in the file
  if path.exists():
    old = read_json(path)
    differs = [
      name
      for name in _differing(_flat(old), _flat(new))
      if not any(f"{name}.".startswith(f"{m}.") for m in may_change)
    ]
    if differs:
      # A run of another job has other fields; its name says more than they.
      name = "job" if "job" in differs else differs[0]
      was, now = (_flat(c).get(name, "not there") for c in (old, new))
      raise WorkdirError(
        f"{path.parent} holds a run of another config: {name} was {was!r} and"
        f" is now {now!r}; put it back or take another folder"
      )
    if old == new:
      return
  write_json(path, new)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file; WorkdirError where it is none."""
  try:
    return json.loads(path.read_bytes())
  except ValueError:
    raise WorkdirError(f"{path} is no JSON: remove it or mend it") from None


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for name, value in config.items():
    if isinstance(value, dict):
      flat.update(_flat(value, f"{prefix}{name}."))
    else:
      flat[f"{prefix}{name}"] = value
  return flat


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  nowhere = object()
  names = [*old, *(name for name in new if name not in old)]
  return [n for n in names if old.get(n, nowhere) != new.get(n, nowhere)]


def write_json(path, value: dict[str, Any]):
  """Replaces a file by this JSON, whole, and waits for the disk."""
  text = json.dumps(value, indent=2, allow_nan=False) + "\n"
  write_text(path, text)


def write_text(path, text: str):
  """Replaces a file, whole, and waits for the disk."""
  path = pathlib.Path(path)
  partial = path.with_name(f".{path.name}.part")
  with open(partial, "w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def append_lines(path, rows: Iterable[dict[str, Any]]):
  """Appends one JSON line per row in one write, and waits for the disk."""
  text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
  with open(path, "ab") as file:
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())


def keep_lines(
  path, keep: Callable[[dict[str, Any]], bool], why: str
) -> list[dict[str, Any]]:
  """Reads a .jsonl file and takes out the lines that do not count.

  Args:
    path: the file; it need not exist.
    keep: whether a row counts.
    why: in words, for the notice: what becomes of rows that do not.

  Returns:
    the rows that count, in order.

  Raises:
    WorkdirError: for a line, other than a cut last one, that is no JSON.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  *lines, tail = path.read_bytes().split(b"\n")
  if tail:
    _log.warning("%s: dropped a last line that was cut short", path)
  rows = [_row(path, number, line) for number, line in enumerate(lines, 1)]
  good = [row for row in rows if keep(row)]
  if len(good) < len(rows):
    _log.warning("%s: dropped %d line(s), %s", path, len(rows) - len(good), why)
  if tail or len(good) < len(rows):
    write_text(path, "".join(json.dumps(row) + "\n" for row in good))
  return good


def _row(path, number: int, line: bytes) -> dict[str, Any]:
  try:
    row = json.loads(line)
  except ValueError:
    row = None
  if not isinstance(row, dict):
    raise WorkdirError(
      f"{path}, line {number} is damaged: {line[:60]!r}; mend it or take"
      " another folder"
    )
  return row
