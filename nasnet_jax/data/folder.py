"""Folder: users' own images, as class folders or as arrays in an .npz."""

import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import (
  archive,
  cache,
  image_data,
  layout,
  listing,
  pixels,
  places,
)
from nasnet_jax.data import arrays as users_arrays
from nasnet_jax.data import labels as tables
from nasnet_jax.data.image_data import DataError, ImageData, listed

_log = logging.getLogger(__name__)

# Encoded files held in memory at a time.
_CHUNK = 256


def load_folder(
  data_dir=None,
  *,
  path: str | None = None,
  image_size: int | None = None,
  channels: int | None = None,
  test_fraction: float = 0.15,
  labels: str | None = None,
  max_broken: int = 0,
  note: str = "",
  seed: int = 0,
) -> ImageData:
  """Images of any size from a directory, .tar, .tar.gz/xz/bz2, .zip or .npz.

  Class folders may lie at the top, or under `train/` and `test/`. A `val/`
  stands in for a missing `test/`; beside one it joins the training images,
  from which a search takes its own validation split. Labels follow the sorted
  names of the class folders. An .npz holds x_train uint8[N, H, W] or
  [N, H, W, C], y_train, x_test, y_test and, if wanted, class_names.

  Decoded images are cached under `cache.cache_dir()`. What lies there and is
  not used is told in a line of the log.

  Args:
    data_dir: what `path` is relative to.
    path: the directory or file; None: `data_dir` itself.
    image_size: side in pixels: each image is scaled until its shorter side
      fits, and its centre is cut out. None: all must be of one size already.
    channels: 1 grey, 3 colour, 4 colour and opacity, None: 1 or 3 as the
      images are, all alike.
    test_fraction: share of the images set aside, stratified, where there is
      no test split.
    labels: a CSV or Parquet file in the directory, or beside it, that has a
      row per image: its file and its class, by the names of the columns, and
      if wanted its split. Folders then mean nothing. None: class folders.
    max_broken: files that cannot be read and are left out; more are refused.
    note: what a report must say beside figures from these images. Of "NAME:
      text" the text, and only if that is the name of the directory or file.
    seed: of that split.

  Raises:
    DataError: for missing files, broken images, images of several sizes, one
      class only, an empty class folder, an unknown format.
  """
  path = resolve(data_dir, path)
  note = own_note(path, note)
  _check_options(channels, image_size, max_broken)
  if path.suffix.lower() == ".npz":
    if image_size or channels or labels:
      raise DataError(
        f"{path} holds arrays: image_size, channels and labels are for image"
        " files"
      )
    arrays = users_arrays.read_npz(path)
  else:
    arrays = _read_files(data_dir, path, image_size, channels, labels)
    note = note_broken(path, note, arrays["broken"].tolist(), max_broken)
  return _with_test_split(path.name, arrays, test_fraction, note, seed)


def resolve(data_dir, path) -> Path:
  if path is None and data_dir is None:
    raise DataError(
      "source 'folder' needs a path: a directory of class folders, a .tar or"
      " .zip of one, or an .npz with x_train, y_train, x_test, y_test"
    )
  resolved = places.joined(data_dir, path)
  if not resolved.exists():
    raise DataError(
      f"no file or folder {resolved}: set data_dir or path to a directory of"
      " class folders, a .tar or .zip of one, or an .npz"
    )
  known = resolved.suffix.lower() == ".npz" or archive.is_archive(resolved)
  if not resolved.is_dir() and not known:
    raise DataError(
      f"{resolved} is no directory and none of:"
      f" {' '.join(archive.SUFFIXES)} .npz"
    )
  return resolved


def own_note(path: Path, note: str) -> str:
  """The text of a note, if it is on this set: a note "NAME: text" is on the
  set of that name, and a config's example is not on what a user gives."""
  name, colon, text = note.partition(": ")
  if not colon or not (archive.is_archive(Path(name)) or name.endswith(".npz")):
    return note
  return text if name == path.name else ""


def _check_options(channels, image_size, max_broken: int):
  if channels not in (None, 1, 3, 4):
    raise DataError(f"channels is {channels}: give 1, 3 or None (or 4)")
  if image_size is not None and image_size < 1:
    raise DataError(f"image_size is {image_size}: give 1 or more, or None")
  if max_broken < 0:
    raise DataError(f"max_broken is {max_broken}: give 0 or more")


def _read_files(data_dir, path: Path, image_size, channels, table):
  """The arrays, decoded or from the cache, and all that there is to say."""
  file = find_table(table, path, data_dir)
  key = {
    "content": archive.content_key(path),
    "image_size": image_size,
    "channels": channels,
  }
  if file is not None:
    key["labels"] = hashlib.sha256(file.read_bytes()).hexdigest()
  arrays = cache.cached(key, lambda: _decode(path, image_size, channels, file))
  listing.tell(path, arrays["remarks"].tolist())
  largest = arrays["largest"].tolist()
  if image_size and largest != [image_size] * 2:
    _log.info(
      "%s: images of up to %dx%d pixels are scaled and cut to %dx%d"
      " (image_size, in a config data.options.image_size)",
      path,
      *largest,
      image_size,
      image_size,
    )
  return arrays


def note_broken(path, note: str, broken: list[str], most: int) -> str:
  """The note, with the number of broken images that were left out.

  Raises:
    DataError: if they are more than allowed, naming the first ten.
  """
  if not broken:
    return note
  if len(broken) > most:
    raise DataError(
      f"{path}: {broken_lines(broken)}; or raise max_broken (in a config"
      f" data.options.max_broken), which allows {most}"
    )
  _log.warning("%s: left out: %s", path, broken_lines(broken))
  return "; ".join(
    filter(None, [note, f"{len(broken):,} broken image(s) left out"])
  )


def broken_lines(lines: list[str]) -> str:
  """What is wrong with broken images, in one line."""
  if len(lines) == 1:
    return lines[0]
  end = ": mend it or take it out"
  lines = [line.removesuffix(end).removeprefix("image ") for line in lines]
  return f"{len(lines):,} images are broken, mend them or take them out:" + (
    f" {listed(lines)}"
  )


def _with_test_split(name, arrays, test_fraction, note, seed) -> ImageData:
  class_names = tuple(str(c) for c in arrays["class_names"])
  train = arrays["x_train"], arrays["y_train"]
  test = arrays["x_test"], arrays["y_test"]
  if not len(test[0]):
    image_data.check_classes(name, class_names)
    images, classes = train
    keep, aside = image_data.set_aside(name, classes, test_fraction, seed)
    train = images[keep], classes[keep]
    test = images[aside], classes[aside]
  return ImageData(*train, *test, class_names, name=f"folder {name}", note=note)


# Class folders


class _Read(NamedTuple):
  """An image as it is kept, or why there is none.

  Attributes:
    image: uint8[H, W, C]; None: it is broken.
    size: (width, height) of the file.
    error: a line on a broken one.
    kinds: of `pixels.REMARKS`.
  """

  image: np.ndarray | None
  size: tuple[int, int] = (0, 0)
  error: str = ""
  kinds: tuple[str, ...] = ()


def _decode(path: Path, image_size, channels, table) -> cache.Arrays:
  """Arrays as an .npz would hold them, x_test empty without a split; and
  "remarks" on what is left out, "broken" images, the "largest" size."""
  _log.info("decoding the images of %s (cached afterwards)", path)
  found = listing.Listing(path, skip=beside(path, table))
  for name, kind, read in _images(path, found, image_size, channels):
    found.add(name, kind, read)
  found.check_any()
  # The same images give the same arrays, however they were packed.
  found.pictures = dict(
    sorted(found.pictures.items(), key=lambda item: item[0].parts)
  )
  known, remarks, missing = arrange(path, found, table)
  remarks = [*found.remarks(), *remarks, *known.remarks]
  good, parts = [], []
  for (name, read), part in zip(found.pictures.items(), known.parts):
    if read.image is None:
      missing.append(read.error)
    else:
      good.append((name, read))
      parts.append(part)
  if not good:
    raise DataError(f"{path}: {broken_lines(missing)}")
  pixels.check_alike([r.image.shape for _, r in good], [n for n, _ in good])
  arrays = _stacked([r.image for _, r in good], parts, known.class_names)
  arrays["remarks"] = np.array([*remarks, *_remarks_on_pixels(good)], "U")
  arrays["broken"] = np.array(missing, "U")
  arrays["largest"] = np.array([r.size for _, r in good]).max(0)
  return arrays


def find_table(name: str | None, path: Path, data_dir) -> Path | None:
  """The table of labels, if one is asked for."""
  return tables.find(name, path, data_dir) if name else None


def beside(path: Path, table: Path | None) -> list[PurePosixPath]:
  """The table's name in the directory, if it lies there."""
  if table is None or not path.is_dir() or not table.is_relative_to(path):
    return []
  return [PurePosixPath(table.relative_to(path).as_posix())]


def arrange(
  path: Path, found: listing.Listing, table: Path | None
) -> tuple[layout.Layout, list[str], list[str]]:
  """(the layout of a listing's pictures, in its order, remarks, lines on
  missing files), by a table's rows or the names of folders.

  Raises:
    DataError: if it cannot be told, or a class folder is empty.
  """
  if table is not None:
    return tables.apply(tables.read(table), found)
  known = layout.sort_out(path, list(found.pictures))
  layout.check_empty(found, known)
  return known, [], []


def _remarks_on_pixels(good) -> Iterator[str]:
  for kind in pixels.REMARKS:
    names = [name for name, read in good if kind in read.kinds]
    if names:
      yield f"{len(names):,} image(s) {kind} ({listed(names, 3)})"


def _images(
  path: Path, found: listing.Listing, image_size, channels
) -> Iterator[tuple[PurePosixPath, str, _Read | None]]:
  """(name, kind, image) of every entry, those of pictures decoded in threads:
  Pillow lets go of Python's lock for the real work."""

  def decode(entry):
    return entry.name, entry.kind, _decoded(entry, image_size, channels)

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    chunk = []
    for entry in archive.entries(path, found.wants):
      if entry.kind == "file" and found.wants(entry.name):
        chunk.append(entry)
      else:
        yield entry.name, entry.kind, None
      if len(chunk) == _CHUNK:
        yield from pool.map(decode, chunk)
        chunk = []
    yield from pool.map(decode, chunk)


def _decoded(entry: archive.Entry, image_size, channels) -> _Read:
  kinds = set()
  if entry.error:
    return _Read(None, error=f"image {entry.name} {entry.error}")
  try:
    image = pixels.read(
      entry.name, entry.content, channels, lambda kind, _: kinds.add(kind)
    )
  except DataError as error:
    return _Read(None, error=str(error))
  size = image.shape[1], image.shape[0]
  if image_size:
    image = pixels.fit(image, image_size)
  return _Read(image, size, kinds=tuple(kinds))


def _stacked(images, parts, class_names) -> cache.Arrays:
  number = {label: i for i, label in enumerate(class_names)}
  arrays = {"class_names": np.array(class_names)}
  shape = (0, *images[0].shape)
  for split in ("train", "test"):
    index = [i for i, (part, _) in enumerate(parts) if part == split]
    some = [images[i] for i in index]
    arrays[f"x_{split}"] = np.stack(some) if some else np.zeros(shape, "u1")
    classes = [number[parts[i][1]] for i in index]
    arrays[f"y_{split}"] = np.array(classes, np.int32)
  return arrays
