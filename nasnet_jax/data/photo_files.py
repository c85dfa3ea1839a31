"""Photographs in class folders of a directory, or inside of a plain tar."""

import dataclasses
import functools
import logging
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nasnet_jax.data import (
  archive,
  folder,
  image_data,
  listing,
)
from nasnet_jax.data.image_data import DataError, listed, printable
from nasnet_jax.data.records import Photographs, Subset, digest

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Files:
  """Image files of a directory, or inside of an uncompressed tar."""

  path: Path
  names: Sequence[str]  # relative to the directory
  labels: np.ndarray  # int32[N]
  places: np.ndarray | None = None  # int64[N, 2], offset and size in the tar

  def __len__(self) -> int:
    return len(self.names)

  def name(self, index: int) -> str:
    return f"{self.path}/{self.names[index]}"

  def read(self, index: int) -> tuple[bytes, int]:
    label = int(self.labels[index])
    if self.places is None:
      return (self.path / self.names[index]).read_bytes(), label
    offset, size = map(int, self.places[index])
    content = os.pread(_descriptor(str(self.path), os.getpid()), size, offset)
    if len(content) != size:
      raise OSError(f"{self.path} ends early")
    return content, label


@functools.lru_cache(maxsize=8)
def _descriptor(path: str, _process: int) -> int:
  """A file kept open: reads at a given place do not disturb each other."""
  return os.open(path, os.O_RDONLY)


def open_folder(
  data_dir=None,
  *,
  path: str | None = None,
  test_fraction: float = 0.1,
  labels: str | None = None,
  max_broken: int = 0,
  note: str = "",
  seed: int = 0,
) -> Photographs:
  """Images in class folders: a directory, or a .tar of one.

  Folders mean what they mean to `data.folder.load_folder`, splits too; so do
  `labels` and `note`.

  Args:
    data_dir: what `path` is relative to.
    path: None: `data_dir` itself.
    test_fraction: of each class, where there is no test split.
    labels: a table in place of class folders.
    max_broken: rows of the table that may name files which are not there.
      Files that are broken are found by the stream, which has its own.
    note: see `Photographs`.
    seed: of that split.

  Raises:
    DataError: for missing files, one class only, an empty class folder, a
      compressed archive.
  """
  top = folder.resolve(data_dir, path)
  table = folder.find_table(labels, top, data_dir)
  if max_broken and table is None:
    _log.warning(
      "%s: data.options.max_broken is %d, and counts files that a table of"
      " labels names and that are not there: files that are broken are allowed"
      " by data.stream.max_broken",
      top,
      max_broken,
    )
  skip = folder.beside(top, table)
  found = (_of_directory if top.is_dir() else _of_tar)(top, skip)
  found.check_any()
  found.pictures = dict(
    sorted(found.pictures.items(), key=lambda item: item[0].parts)
  )
  known, remarks, missing = folder.arrange(top, found, table)
  listing.tell(top, [*found.remarks(), *remarks, *known.remarks])
  note = folder.note_broken(
    top, folder.own_note(top, note), missing, max_broken
  )
  image_data.check_classes(top, known.class_names)
  number = {label: i for i, label in enumerate(known.class_names)}
  classes = np.array([number[label] for _, label in known.parts], np.int32)
  is_test = np.array([part == "test" for part, _ in known.parts])
  train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
  if not len(test):
    train, test = image_data.set_aside(top, classes, test_fraction, seed)
  names = [str(name) for name in found.pictures]
  places = list(found.pictures.values())
  _tell_empty(top, names, places)
  files = Files(
    top,
    names,
    classes,
    None if top.is_dir() else np.array(places, np.int64),
  )
  told = () if table is None else (classes.tolist(), is_test.tolist())
  return Photographs(
    Subset(files, train),
    Subset(files, test),
    tuple(known.class_names),
    f"folder {top.name}",
    note,
    digest(known.class_names, *zip(names, (p[1] for p in places)), *told),
  )


def _tell_empty(top, names, places):
  """What is broken for sure is told before any is read."""
  empty = [name for name, (_, size) in zip(names, places) if not size]
  if empty:
    _log.warning(
      "%s: %d image(s) are empty, 0 bytes, and count as broken: %s",
      top,
      len(empty),
      listed(empty),
    )


# With each picture come the place in the tar, else 0, and the size.


def _of_directory(top: Path, skip) -> listing.Listing:
  found = listing.Listing(top, skip)
  for name, file, kind in archive.walk(top):
    is_there = kind == "file" and found.wants(name) and file.exists()
    found.add(name, kind, (0, file.stat().st_size if is_there else 0))
  return found


def _of_tar(path: Path, skip) -> listing.Listing:
  if path.suffix.lower() == ".npz":
    raise DataError(
      f"{path} holds arrays, and photographs are files: take a config without"
      " data.stream"
    )
  if path.suffix.lower() != ".tar":
    raise DataError(
      f"{path} is compressed, so an image in its middle cannot be read alone:"
      " unpack it, or make it a plain .tar"
    )
  found = listing.Listing(path, skip)
  for name, kind, place in archive.explained(path, _members(path)):
    found.add(name, kind, place)
  return found


def _members(path: Path):
  """(name, kind, (offset, size)) of each member."""
  end = 0
  with tarfile.open(path, "r:", tarinfo=archive.Header) as tar:
    for member in tar:
      name = archive.safe_name(member.name, path)
      if member.issym() or member.islnk():
        raise archive.refuse_link(path, member.name)
      if member.issparse():
        raise DataError(
          f"{path} holds {printable(member.name)} with holes: pack it again"
          " without --sparse"
        )
      kind = "special"
      if member.isdir():
        kind = "folder"
      elif member.isfile():
        kind, end = "file", max(end, member.offset_data + member.size)
      yield name, kind, (member.offset_data, member.size)
  if end > path.stat().st_size:
    raise tarfile.ReadError("it ends early")
