"""Checkpoints with Orbax: whole or not there, and strict about names.

A folder holds one checkpoint per step. Orbax writes it under another name and
renames it at the end; a checksum inside shows whether it changed on the disk
later. Leaves are saved flat, by their path in the tree, so the code may change
containers, but not names. Small leaves are packed into one array per type: a
state has thousands, and Orbax takes 3 ms for each. All hosts take part: an
array is written by the hosts that hold it, and by the first if all do.
"""

import errno
import json
import logging
import os
import pathlib
import shutil
import zlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nasnet_jax.data import mirror
from nasnet_jax.training import hosts

_log = logging.getLogger(__name__)
_SMALL = 1 << 20  # bytes
_UNKNOWN = 0  # in place of a checksum


class CheckpointError(ValueError):
  """A checkpoint that does not fit or is damaged; the message is one line."""


def save(folder, step: int, tree: Any, keep: int = 2):
  """Writes `folder/step`, then removes all but the newest `keep`.

  Raises:
    OSError: if it cannot be written; a full disk says so.
  """
  folder = pathlib.Path(folder).absolute()
  with hosts.after_first():
    if hosts.is_first():
      remove_leftovers(folder)
  write(folder / str(step), tree)
  if hosts.is_first():
    keep_newest(folder, keep)


def keep_newest(folder, keep: int):
  """Removes the checkpoints of a folder but the newest so many."""
  for old in steps(folder)[:-keep]:
    remove(pathlib.Path(folder) / str(old))


def write(path, tree: Any):
  """Writes one checkpoint, whole or not at all; replaces an older one.

  Raises:
    OSError: as `save`.
  """
  path = pathlib.Path(path).absolute()
  packed = _pack(_flatten(tree))
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(path, packed, force=True)
  except OSError:
    raise
  except Exception as error:  # TensorStore's own kinds, by their text
    if "No space left" in str(error) or "File too large" in str(error):
      raise OSError(
        errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)
      ) from error
    raise
  if hosts.is_first():
    mirror.committed()


def restore(
  folder, template: Any, last: int | None = None
) -> tuple[int, Any] | None:
  """The newest good checkpoint of a folder.

  A damaged one is skipped, with a line in the log, and the one before is taken.

  Args:
    folder: as given to `save`; it need not exist.
    template: a tree of the same names, shapes and types, or a function from
      the step to such a tree.
    last: later steps are ignored.

  Returns:
    (step, tree), or None if there is none.

  Raises:
    CheckpointError: if names or shapes differ from the template's.
  """
  for step in reversed(steps(folder)):
    if last is not None and step > last:
      continue
    path = pathlib.Path(folder) / str(step)
    wanted = template(step) if callable(template) else template
    try:
      return step, read(path, wanted)
    except DamagedError as error:
      _log.warning("%s; taking the one before, if there is one", error)
  return None


class DamagedError(CheckpointError):
  """Half written, or changed on the disk."""


def read(path, template: Any) -> Any:
  """One checkpoint as a tree like the template.

  Raises:
    DamagedError: if it is not whole, or not there.
    CheckpointError: listing missing and unexpected names, or other shapes.
  """
  path = pathlib.Path(path).absolute()
  if not path.is_dir():
    raise DamagedError(f"checkpoint {path} is not there")
  wanted = _flatten(template)
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      saved = checkpointer.metadata(path).item_metadata.tree
      target = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), saved
      )
      for name, leaf in target["large"].items():
        if name in wanted and wanted[name].shape == leaf.shape:
          target["large"][name] = wanted[name]
      flat, checksum = _unpack(checkpointer.restore(path, target))
  except Exception as error:
    raise _damaged(path, error) from error
  if checksum not in (_UNKNOWN, _checksum(flat)):
    raise _damaged(path, "its checksum differs")
  _compare(path, flat, wanted)
  leaves = [_place(flat[name], leaf) for name, leaf in wanted.items()]
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _pack(flat: dict[str, Any]) -> dict[str, Any]:
  """What is saved, as a tree of arrays.

  Returns:
    {"large": {name: array}; "small": {dtype: all arrays of it, end to end};
    "index": JSON {dtype: {name: shape}} of the small ones, as bytes;
    "checksum"}.
  """
  large, names = {}, {}
  for name, leaf in flat.items():
    if _is_here(leaf) and leaf.nbytes <= _SMALL:
      names.setdefault(str(leaf.dtype), []).append(name)
    elif _is_here(leaf) and hosts.count() > 1:
      large[name] = np.asarray(leaf)  # Orbax refuses arrays of a single host
    else:
      large[name] = leaf
  small, index = {}, {}
  for dtype, group in names.items():
    arrays = jax.device_get([flat[name] for name in group])
    small[dtype] = np.concatenate([np.ravel(array) for array in arrays])
    index[dtype] = {name: a.shape for name, a in zip(group, arrays)}
  return {
    "large": large,
    "small": small,
    "index": np.frombuffer(json.dumps(index).encode(), np.uint8),
    "checksum": np.array(_checksum(flat), np.int64),
  }


def _is_here(leaf) -> bool:
  """Whether this host has all of an array."""
  return getattr(leaf, "is_fully_addressable", True) or (
    leaf.is_fully_replicated
  )


def _unpack(packed: dict[str, Any]) -> tuple[dict[str, Any], int]:
  """(flat, checksum) of what `_pack` gave."""
  flat = dict(packed["large"])
  for dtype, shapes in json.loads(packed["index"].tobytes()).items():
    content = packed["small"][dtype]
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if sum(sizes) != len(content):
      raise ValueError("its index is of other arrays")
    ends = np.cumsum(sizes)
    for (name, shape), size, end in zip(shapes.items(), sizes, ends):
      flat[name] = content[end - size : end].reshape(shape)
  return flat, int(packed["checksum"])


def _place(leaf, wanted):
  """A leaf on the devices of the template's; NumPy stays on the host."""
  if isinstance(wanted, jax.Array | jax.ShapeDtypeStruct):
    return jax.device_put(leaf, wanted.sharding)
  return leaf


def steps(folder) -> list[int]:
  """The steps of a folder's checkpoints, ascending; [] without a folder."""
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def _flatten(tree) -> dict[str, Any]:
  """{dotted path: leaf}; NumPy scalars become arrays, which Orbax wants."""
  flat = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    is_array = isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
    flat[name] = leaf if is_array else np.asarray(leaf)
  return flat


def _checksum(flat: dict[str, Any]) -> int:
  """CRC-32 of all leaves by name; _UNKNOWN if some lie on other hosts."""
  result = 0
  for name in sorted(flat):
    leaf = flat[name]
    if not _is_here(leaf):
      return _UNKNOWN
    content = np.ascontiguousarray(leaf)
    result = zlib.crc32(name.encode(), result)
    result = zlib.crc32(content.view(np.uint8).data, result)
  return result


def compare(source: str, have: Any, wanted: Any):
  """Raises CheckpointError unless two trees have the same names and shapes.

  Args:
    source: where the first comes from, for the message.
  """
  _compare(source, _flatten(have), _flatten(wanted))


def _compare(path, saved, wanted):
  missing = sorted(set(wanted) - set(saved))
  unexpected = sorted(set(saved) - set(wanted))
  other = [
    f"{name} {tuple(saved[name].shape)} instead of {tuple(wanted[name].shape)}"
    for name in sorted(set(saved) & set(wanted))
    if tuple(saved[name].shape) != tuple(wanted[name].shape)
  ]
  faults = [
    f"{what}: {_listed(names)}"
    for what, names in (
      ("missing", missing),
      ("unexpected", unexpected),
      ("of another shape", other),
    )
    if names
  ]
  if faults:
    raise CheckpointError(
      f"checkpoint {path} does not fit; {'; '.join(faults)}"
    )


def _listed(names: list[str]) -> str:
  rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
  return ", ".join(names[:8]) + rest


def _damaged(path, why) -> DamagedError:
  first = str(why).strip().partition("\n")[0][:100]
  return DamagedError(f"checkpoint {path} is damaged ({first})")


def remove_leftovers(folder: pathlib.Path):
  """What killed processes left half written or half removed."""
  if folder.is_dir():
    for path in folder.iterdir():
      if not path.name.isdigit():
        shutil.rmtree(path, ignore_errors=True)


def remove(path):
  """Renames it first: a checkpoint that is half removed must not look whole."""
  path = pathlib.Path(path)
  gone = path.with_name(f"removed-{path.name}")
  os.replace(path, gone)
  shutil.rmtree(gone, ignore_errors=True)
