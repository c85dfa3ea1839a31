"""A run's folder: text files that survive a kill, and one process at a time.

Files are replaced whole or grow by whole lines. If a killed process left part
of a line, the next one cuts it off, with a notice. Of many hosts the first one
writes, and the others see the same folder.
"""

import contextlib
import errno
import json
import logging
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

try:
  import fcntl
except ImportError:
  raise ImportError(
    "nasnet_jax runs on Linux and macOS; on Windows take WSL 2"
  ) from None

from nasnet_jax.data import buckets, mirror, paths
from nasnet_jax.training import hosts

_log = logging.getLogger(__name__)
# NFS 4 frees the locks of a machine that is gone after 90 s (RFC 8881 leaves
# the lease to the server; Linux's default).
_LOCK_SECONDS, _LOCK_POLL = 120, 1.0
# What file systems say that have none: Lustre, FUSE, SMB, by their options.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
# Where no folder can be; a full disk is another matter.
_NO_FOLDER = (
  errno.ENOENT,
  errno.ENOTDIR,
  errno.EACCES,
  errno.EPERM,
  errno.EROFS,
)


class WorkdirError(ValueError):
  """A folder that this run cannot use; the message is one line."""


@contextlib.contextmanager
def locked(workdir):
  """Makes the folder and keeps other runs out of it.

  The lock ends with the process, however that ends. Only a file server may keep
  the lock of a machine that died for a while, which is then waited for.

  Args:
    workdir: the folder; or an address such as gs://bucket/run, whose working
      folder here is then taken, and copied there as it grows, see
      `data.mirror`.

  Yields:
    the folder's pathlib.Path.

  Raises:
    DataError: for an address that cannot be used.
    WorkdirError: if it is a file, another process works in it, or it is not
      the same folder on all hosts.
    OSError: if it cannot be written.
  """
  text = paths.expanded(workdir)
  if not buckets.is_address(text):
    text = mirror.address_of(text) or text  # a working folder of one
  remote = mirror.Mirror(text) if buckets.is_address(text) else None
  folder = remote.folder if remote else paths.local(workdir).absolute()
  if folder.exists() and not folder.is_dir():
    raise WorkdirError(f"{folder} is no folder: take another path")
  with contextlib.ExitStack() as stack:
    if hosts.is_first():
      _make(folder)
      _lock(stack.enter_context(open(folder / ".lock", "a+")), folder)
    _check_shared(folder, bool(remote))
    if remote and hosts.is_first():
      stack.enter_context(remote.followed())
    if remote:
      hosts.wait()  # the others read what was fetched
    yield folder


def _make(folder: pathlib.Path):
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    if error.errno not in _NO_FOLDER:
      raise
    raise WorkdirError(
      f"the folder {folder} cannot be made ({error.strerror}): take another"
      " path"
    ) from None


def _lock(file, folder: pathlib.Path):
  """Takes the lock and writes down whose it is: machine and process."""
  start, told = time.monotonic(), False
  while True:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except OSError as error:
      if error.errno in _NO_LOCKS:
        _log.warning(
          "the file system of %s has no locks (%s): see to it that no second"
          " process works there",
          folder,
          error.strerror,
        )
        break
      if not isinstance(error, BlockingIOError):
        raise
      file.seek(0)
      machine = file.read().partition(" ")[0]
      is_here = machine in ("", platform.node())
      if is_here or time.monotonic() - start > _LOCK_SECONDS:
        where = "" if is_here else f" on {machine}"
        raise WorkdirError(
          f"another process{where} works in {folder}: stop it or take another"
          " folder"
        ) from None
      if not told:
        _log.info("waiting: %s works in %s, or died there", machine, folder)
        told = True
      time.sleep(_LOCK_POLL)
  file.seek(0)
  file.truncate()
  file.write(f"{platform.node()} {os.getpid()} {time.time_ns()}")
  file.flush()
  os.fsync(file.fileno())


def _check_shared(folder: pathlib.Path, is_mirror: bool = False):
  """All hosts must see what the first one writes."""
  if hosts.count() == 1:
    return
  hosts.wait()
  try:
    mark = hosts.digest((folder / ".lock").read_bytes())
  except OSError:
    mark = hosts.digest(b"")
  marks = hosts.gather(np.frombuffer(mark, np.uint32))
  blind = np.flatnonzero((marks != marks[0]).any(1)).tolist()
  if blind:
    fix = "set NASNET_JAX_CACHE to a folder" if is_mirror else "take one"
    raise WorkdirError(
      f"{folder} is not the same folder on host(s) {', '.join(map(str, blind))}"
      f" and on host 0: {fix} on a disk that all of them share"
    )


def claim(
  path,
  config: dict[str, Any],
  may_change: Iterable[str] = (),
  absent: Mapping[str, Any] | None = None,
  why: Mapping[str, str] | None = None,
):
  """Writes the config of a new run, or checks that of an old one.

  Args:
    path: of config.json.
    config: nested dicts, as JSON can hold them.
    may_change: dotted names of fields, or of groups of them, that may differ
      from the run's first config; the file then takes the new ones.
    absent: what a run does without a field, by its dotted name: a config from
      before the field was there goes on with one that says the same. A field
      that is None, which leaves it to what reads it, needs no name here.
    why: for the message, by dotted name of a field or group: why it cannot
      change.

  Raises:
    WorkdirError: naming the first field that differs otherwise.
  """
  config = json.loads(json.dumps(config))
  hosts.agree("the config", json.dumps(config, sort_keys=True).encode())
  with hosts.after_first():
    check_claim(path, config, may_change, absent, why)
    path = pathlib.Path(path)
    if not path.exists() or read_json(path) != config:
      write_json(path, config)


def check_claim(
  path,
  config: dict[str, Any],
  may_change: Iterable[str] = (),
  absent: Mapping[str, Any] | None = None,
  why: Mapping[str, str] | None = None,
):
  """What `claim` refuses, before anything is written."""
  changed = {
    name: values
    for name, values in changes(path, config, absent).items()
    if not is_among(name, may_change)
  }
  if not changed:
    return
  # A run of another job has other fields; its name says more than they.
  name = "job" if "job" in changed else next(iter(changed))
  was, now = changed[name]
  group = next((g for g in why or () if is_among(name, [g])), None)
  reason = f" ({why[group]})" if group else ""
  raise WorkdirError(
    f"{pathlib.Path(path).parent} holds a run of another config: {name} was"
    f" {was!r} and is now {now!r}{reason}; put it back or take another folder"
  )


def changes(
  path, config: dict[str, Any], absent: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, Any]]:
  """{dotted name: (old value, new one)} of the fields of config.json that a
  config changes; "not there" stands for no value. Empty for a new run.

  Args:
    path, config, absent: see `claim`.
  """
  if not pathlib.Path(path).exists():
    return {}
  # Tuples become lists, as in the file.
  new, absent = json.loads(json.dumps([config, dict(absent or {})]))
  old, new = _flat(read_json(pathlib.Path(path))), _flat(new)
  missing = "not there"
  return {
    name: (old.get(name, missing), new.get(name, missing))
    for name in _differing(old, new, absent)
  }


def is_among(name: str, groups: Iterable[str]) -> bool:
  """Whether a dotted name is one of these, or of a field in one of them."""
  return any(f"{name}.".startswith(f"{group}.") for group in groups)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The content of a JSON file; WorkdirError if it is not JSON."""
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


def _differing(old: dict[str, Any], new: dict[str, Any], absent) -> list[str]:
  names = [*old, *(name for name in new if name not in old)]
  return [name for name in names if not _equal(name, old, new, absent)]


def _equal(name: str, old: dict[str, Any], new: dict[str, Any], absent) -> bool:
  if name in old and name in new:
    return old[name] == new[name]
  value = old[name] if name in old else new[name]
  return value is None or (name in absent and value == absent[name])


def write_json(path, value: dict[str, Any]):
  """Replaces a file by this JSON, whole, and waits for the disk."""
  text = json.dumps(value, indent=2, allow_nan=False) + "\n"
  write_text(path, text)


def write_text(path, text: str):
  """Replaces a file, whole, and waits for the disk."""
  if not hosts.is_first():
    return
  path = pathlib.Path(path)
  partial = path.with_name(f".{path.name}.part")
  with open(partial, "w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)
  mirror.committed()


def new_file(folder, stem: str, ending: str) -> pathlib.Path:
  """A path that nothing is at yet: stem, or stem_2, stem_3, ...; the folder is
  made if it is not there."""
  folder = paths.local(folder)
  folder.mkdir(parents=True, exist_ok=True)
  path, number = folder / f"{stem}{ending}", 1
  while path.exists():
    number += 1
    path = folder / f"{stem}_{number}{ending}"
  return path


def append_lines(path, rows: Iterable[dict[str, Any]]):
  """Appends one JSON line per row in one write, and waits for the disk."""
  if not hosts.is_first():
    return
  text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
  with open(path, "ab") as file:
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())
  mirror.committed()


def keep_lines(
  path, keep: Callable[[dict[str, Any]], bool], why: str
) -> list[dict[str, Any]]:
  """Reads a .jsonl file and takes out the lines that do not count.

  Args:
    path: the file; it need not exist.
    keep: whether a row counts.
    why: for the notice, in words, what happens to rows that do not count.

  Returns:
    the rows that count, in order.

  Raises:
    WorkdirError: for a line that is not JSON, unless it is a last one that was
      cut short.
  """
  with hosts.after_first():
    return _keep_lines(pathlib.Path(path), keep, why)


def _keep_lines(path: pathlib.Path, keep, why: str) -> list[dict[str, Any]]:
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
