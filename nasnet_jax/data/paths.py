"""Paths as users write them."""

import logging
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from nasnet_jax.data.image_data import DataError

_log = logging.getLogger(__name__)
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")
_NO_FILES = ("digits", "fake")  # sources that read none of the user's


def local(path) -> pathlib.Path:
  """A path of this machine, with a leading ~ and $VARIABLES in place.

  Raises:
    DataError: for an address such as gs://bucket/run, which would become a
      folder named "gs:"; else as `expanded`.
  """
  text = expanded(path)
  if "://" in text:
    raise DataError(
      f"{text} is no path of this machine: mount it (gcsfuse for a bucket, or"
      " NFS), and give the folder that it is mounted at"
    )
  return pathlib.Path(text)


def expanded(path) -> str:
  """A path or an address with a leading ~ and $VARIABLES in place: shells leave
  the one alone behind an equals sign, and the other in quotes.

  What is there under the very name stays that: a file may be called "a$b".

  Raises:
    DataError: for a variable that is not set, or a user that this machine does
      not know.
  """
  text = str(path)
  if os.path.lexists(text) and text != "~":
    return text
  text = os.path.expanduser(_VARIABLE.sub(_value, text))
  if text.startswith("~"):
    raise DataError(
      f"{text}: this machine has no home folder of {text.split('/')[0]}: write"
      " the path out"
    )
  return text


def _value(match: re.Match) -> str:
  name = match[1].strip("{}")
  if name not in os.environ:
    raise DataError(
      f"{match.string}: the environment variable {name} is not set: set it, or"
      " write the path out"
    )
  return os.environ[name]


def joined(data_dir, path) -> pathlib.Path:
  """A path inside of `data_dir`, if either is given; one that stands by itself
  is said to.

  Raises:
    DataError: as `local`.
  """
  found = pathlib.Path(data_dir or "", local(path or ""))
  if data_dir and path and local(path).is_absolute():
    _log.warning(
      "data_dir %s is not used for path %s, which stands by itself",
      data_dir,
      path,
    )
  return found


def relocated(load: Mapping[str, Any], data_dir) -> dict[str, Any]:
  """The arguments of a run's source, with its files where they lie now.

  Args:
    load: `source`, `data_dir`, and if the source has them `path` and `labels`.
    data_dir: the moved folder or file itself, or the folder that it lies in.
  """
  if load["source"] in _NO_FILES:
    _log.warning(
      "data_dir %s is not used: %s are in no folder", data_dir, load["source"]
    )
    return dict(load)
  if load["source"] == "tfds":
    return {**load, "data_dir": str(data_dir)}
  top = local(data_dir)
  if not top.exists():
    raise DataError(f"no such folder: {top}: give data_dir where the data lies")
  if not load.get("path"):
    return {**load, "data_dir": str(top)}
  moved = {
    name: _inside(top, load[name], name)
    for name in ("path", "labels")
    if load.get(name)
  }
  _log.info("the run's data is read from %s", moved["path"])
  return {**load, "data_dir": None, **moved}


def _inside(top: pathlib.Path, path, name: str) -> str:
  """Where a path of before lies below a folder: as it was written, by its last
  part, or the folder itself."""
  old = pathlib.Path(os.path.expanduser(str(path)))
  places = [top / old, top / old.name]
  for place in places[old.is_absolute() :]:
    if place.exists():
      return str(place.absolute())
  if name == "path":
    return str(top.absolute())
  return str(path)


def check_there(load: Mapping[str, Any]):
  """Raises DataError if what a run read by its path is not there any more."""
  if not load.get("path") or load["source"] in _NO_FILES:
    return
  if "://" in str(load["path"]) or "://" in str(load.get("data_dir")):
    return  # whoever reads it asks there
  path = pathlib.Path(local(load.get("data_dir") or ""), local(load["path"]))
  if not path.exists():
    raise DataError(
      f"{path}, which the run read, is not there: give --data_dir (data_dir),"
      " the folder where it lies now"
    )
