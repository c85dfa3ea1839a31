"""Which files of a folder or an archive are pictures, and what is left out."""

import collections
import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from nasnet_jax.data import archive, pixels
from nasnet_jax.data.image_data import DataError, listed, printable

_log = logging.getLogger(__name__)


class Listing:
  """The pictures of one source, told from everything else that lies there.

  Attributes:
    pictures: {name: whatever came with it}, relative to the top. Of two files
      of one name in an archive the later counts, as when it is unpacked.
    folders: that are not hidden.
  """

  def __init__(self, path, skip: Iterable[PurePosixPath] = ()):
    """skip: files that are used otherwise."""
    self._path = path
    self._skip = set(skip)
    self._others: dict[PurePosixPath, str] = {}  # name: ending
    self._hidden: set[PurePosixPath] = set()
    self._loops: list[PurePosixPath] = []
    self._special: list[PurePosixPath] = []
    self._replaced: list[PurePosixPath] = []
    self.pictures: dict[PurePosixPath, Any] = {}
    self.folders: set[PurePosixPath] = set()

  def wants(self, name: PurePosixPath) -> bool:
    """Whether a file is a picture, by its name."""
    return pixels.is_picture(name) and archive.hidden_root(name) is None

  def add(self, name: PurePosixPath, kind: str = "file", found: Any = None):
    """Takes note of a file or folder. kind: of `archive.Entry`."""
    if not name.parts or archive.is_junk(name) or name in self._skip:
      return
    hidden = archive.hidden_root(name)
    if hidden is not None:
      self._hidden.add(hidden)
    elif kind == "folder":
      self.folders.add(name)
    elif kind == "loop":
      self._loops.append(name)
    elif kind == "special":
      self._special.append(name)
    elif not pixels.is_picture(name):
      self._others[name] = name.suffix.lower()
    else:
      if name in self.pictures:
        self._replaced.append(name)
      self.pictures[name] = found

  def leave(self, name: PurePosixPath):
    """Takes a picture out that is told otherwise."""
    del self.pictures[name]

  def remarks(self) -> list[str]:
    """What is left out, in at most one line."""
    words = _by_ending(self._others.values())
    for names, what in (
      (sorted(self._hidden), "hidden"),
      (self._loops, "link(s) that lead in a circle"),
      (self._special, "pipe(s) or device(s)"),
      (self._replaced, "replaced by later ones of the same name"),
    ):
      if names:
        words.append(f"{len(names):,} {what} ({listed(names, 3)})")
    return [f"left out: {', '.join(words)}"] if words else []

  def check_any(self):
    """Raises DataError if there is no picture."""
    if not self.pictures:
      raise DataError(
        f"{self._path} holds no image{self._instead(PurePosixPath())}: put"
        f" files of {' '.join(sorted(pixels.endings()))} into one folder per"
        " class"
      )

  def without_pictures(self) -> set[PurePosixPath]:
    """Folders in which, at any depth, no picture lies."""
    there = {above for name in self._others for above in name.parents}
    used = {above for name in self.pictures for above in name.parents}
    return (self.folders | there) - used - {PurePosixPath()}

  def refuse_empty(self, folder: PurePosixPath) -> DataError:
    return DataError(
      f"{self._path}: folder {folder} holds no image{self._instead(folder)}:"
      " fill it or take it out"
    )

  def _instead(self, folder: PurePosixPath) -> str:
    """What a folder without pictures holds."""
    within = [
      ending for name, ending in self._others.items() if folder in name.parents
    ]
    return f", only {', '.join(_by_ending(within))}" if within else ""


def _by_ending(endings: Iterable[str]) -> list[str]:
  """["12 .heic", "3 without ending"]."""
  counts = collections.Counter(endings)
  return [
    f"{count:,} {ending or 'without ending'}{pixels.hint(ending)}"
    for ending, count in sorted(counts.items())
  ]


def of_directory(top: Path, skip: Iterable[PurePosixPath] = ()) -> Listing:
  """The files of a directory; with each picture comes its path."""
  found = Listing(top, skip)
  for name, path, kind in archive.walk(top):
    found.add(name, kind, path)
  return found


def tell(path, remarks: Iterable[str]):
  """Says each line once."""
  for line in remarks:
    _log.warning("%s: %s", path, printable(line))
