"""Folder: users' own images, as class folders or as arrays in an .npz."""

import logging
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import archive, cache, image_data, paths, pixels
from nasnet_jax.data.image_data import DataError, ImageData

IMAGE_SUFFIXES = frozenset(
  (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp")
)
# Top folders that are a split and no class.
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALID_NAMES = ("val", "valid", "validation")

# Encoded files held in memory at a time.
_CHUNK = 256


def load_folder(
  data_dir=None,
  *,
  path: str | None = None,
  image_size: int | None = None,
  channels: int | None = None,
  test_fraction: float = 0.15,
  note: str = "",
  seed: int = 0,
) -> ImageData:
  """Images of any size from a directory, .tar, .tar.gz/xz/bz2, .zip or .npz.

  Class folders may lie at the top, or under `train/` and `test/`. A `val/`
  stands in for a missing `test/`; beside one it joins the training images,
  from which a search takes its own validation split. Labels follow the sorted
  names of the class folders. An .npz holds x_train uint8[N, H, W] or
  [N, H, W, C], y_train, x_test, y_test and, if wanted, class_names.

  Decoded images are cached under `cache.cache_dir()`.

  Args:
    data_dir: what `path` is relative to.
    path: the directory or file; None: `data_dir` itself.
    image_size: side in pixels: each image is scaled until its shorter side
      fits, and its centre is cut out. None: all must be of one size already.
    channels: 1 grey, 3 colour, None: what the images are, all alike.
    test_fraction: share of the images set aside, stratified, where there is
      no test split.
    note: what a report must say beside figures from these images.
    seed: of that split.

  Raises:
    DataError: for missing files, a broken image, images of several sizes, one
      class only, an empty class folder, an unknown format.
  """
  path = resolve(data_dir, path)
  if channels not in (None, 1, 3):
    raise DataError(f"channels is {channels}: give 1, 3 or None")
  if path.suffix.lower() == ".npz":
    if image_size or channels:
      raise DataError(
        f"{path} holds arrays: image_size and channels are for image files"
      )
    arrays = _read_npz(path)
  else:
    key = {
      "content": archive.content_key(path),
      "image_size": image_size,
      "channels": channels,
    }
    arrays = cache.cached(key, lambda: _decode(path, image_size, channels))
  return _with_test_split(path.name, arrays, test_fraction, note, seed)


def resolve(data_dir, path) -> Path:
  if path is None and data_dir is None:
    raise DataError(
      "source 'folder' needs a path: a directory of class folders, a .tar or"
      " .zip of one, or an .npz with x_train, y_train, x_test, y_test"
    )
  # A path of its own stands by itself; joining leaves an absolute one alone.
  resolved = Path(data_dir or "", paths.local(path or ""))
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


def _with_test_split(name, arrays, test_fraction, note, seed) -> ImageData:
  class_names = tuple(str(c) for c in arrays["class_names"])
  train = arrays["x_train"], arrays["y_train"]
  test = arrays["x_test"], arrays["y_test"]
  if not len(test[0]):
    if not 0 < test_fraction < 1:
      raise DataError(
        f"{name} has no test split and test_fraction is {test_fraction}: give"
        " a number between 0 and 1"
      )
    if len(class_names) < 2:
      raise DataError(
        f"{name}: only one class, {class_names[0]!r}; there is nothing to tell"
        " apart: add a second class folder"
      )
    images, labels = train
    num_test = max(1, round(len(labels) * test_fraction))
    keep, aside = image_data.stratified_split(labels, num_test, seed)
    train = images[keep], labels[keep]
    test = images[aside], labels[aside]
  return ImageData(*train, *test, class_names, name=f"folder {name}", note=note)


# Arrays


def _read_npz(path: Path) -> cache.Arrays:
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise DataError(
      f"{path} is damaged or holds objects ({error}): write it with"
      " numpy.savez and plain arrays"
    ) from error
  for name in ("x_train", "y_train"):
    if name not in arrays:
      raise DataError(f"{path} lacks {name}; it has: {', '.join(arrays)}")
  if ("x_test" in arrays) != ("y_test" in arrays):
    raise DataError(f"{path} must hold both x_test and y_test, or neither")
  for part in ("train", "test"):
    _tidy_part(path, arrays, part)
  if "class_names" not in arrays:
    count = int(arrays["y_train"].max()) + 1
    arrays["class_names"] = np.array([str(i) for i in range(count)])
  return arrays


def _tidy_part(path: Path, arrays: cache.Arrays, part: str):
  """Grey images get their channel axis, labels lose one of length 1."""
  if f"x_{part}" not in arrays:
    arrays[f"x_{part}"] = arrays["x_train"][:0]
    arrays[f"y_{part}"] = arrays["y_train"][:0]
    return
  images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
  if images.ndim == 3:
    arrays[f"x_{part}"] = images[..., None]
  if labels.ndim == 2 and labels.shape[1] == 1:
    arrays[f"y_{part}"] = labels = labels[:, 0]
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
    raise DataError(
      f"{path}: y_{part} is {labels.dtype}{list(labels.shape)}: it must be"
      " integers[N], N at least 1"
    )
  if labels.min() < 0:
    raise DataError(
      f"{path}: y_{part} holds the label {labels.min()}: number from 0"
    )


# Class folders


class _Decoded(NamedTuple):
  name: PurePosixPath
  image: np.ndarray  # uint8[H, W, C]


def _decode(path: Path, image_size, channels) -> cache.Arrays:
  """Arrays as an .npz would hold them; x_test is empty without a split."""
  logging.info("decoding the images of %s (cached afterwards)", path)
  folders: set[PurePosixPath] = set()
  files = list(_images(path, folders, image_size, channels))
  if not files:
    raise DataError(
      f"{path} holds no image: put files of {' '.join(sorted(IMAGE_SUFFIXES))}"
      " into one folder per class"
    )
  pixels.check_alike([f.image.shape for f in files], [f.name for f in files])
  # The same images give the same arrays, however they were packed.
  files.sort(key=lambda file: file.name.parts)
  top = common_top([file.name for file in files])
  parts, class_names = sort_out(path, [f.name.parts[top:] for f in files])
  _check_empty(path, folders, {file.name for file in files}, parts, top)
  return _stacked(files, parts, class_names)


def _images(path: Path, folders, image_size, channels) -> Iterator[_Decoded]:
  """Decodes in threads: Pillow lets go of Python's lock for the real work."""

  def decode(entry):
    name, content = entry
    return _Decoded(name, pixels.decode(name, content, image_size, channels))

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    chunk = []
    for name, content in archive.entries(path):
      if content is None:
        folders.add(name)
      elif name.suffix.lower() in IMAGE_SUFFIXES:
        chunk.append((name, content))
      if len(chunk) == _CHUNK:
        yield from pool.map(decode, chunk)
        chunk = []
    yield from pool.map(decode, chunk)


def _is_split(part: str) -> bool:
  return part.lower() in TRAIN_NAMES + TEST_NAMES + VALID_NAMES


def common_top(names: list[PurePosixPath]) -> int:
  """How many leading folders all names share above the class folders."""
  top = 0
  while True:
    firsts = {name.parts[top] for name in names}
    deep = all(len(name.parts) > top + 2 for name in names)
    if len(firsts) > 1 or not deep or _is_split(next(iter(firsts))):
      return top
    top += 1


def sort_out(path: Path, names) -> tuple[list[tuple[str, str]], list[str]]:
  """([(split "train" or "test", class)] per image, sorted class names)."""
  tops = {name[0].lower() for name in names}
  has_splits = all(_is_split(top) for top in tops)
  test = TEST_NAMES if tops & set(TEST_NAMES) else VALID_NAMES
  parts = []
  for name in names:
    if len(name) < (3 if has_splits else 2):
      raise DataError(
        f"{path}: image {'/'.join(name)} lies in no class folder: move it"
        " into one"
      )
    is_test = has_splits and name[0].lower() in test
    label = name[1] if has_splits else name[0]
    parts.append(("test" if is_test else "train", label))
  train_classes = {label for part, label in parts if part == "train"}
  for part, label in parts:
    if part == "test" and label not in train_classes:
      raise DataError(
        f"{path}: class {label!r} has test images but no training image: add"
        " some or take the class out"
      )
  return parts, sorted(train_classes)


def _check_empty(path: Path, folders, names, parts, top: int):
  """A class folder without images is a mistake worth stopping for."""
  used = {parent for name in names for parent in name.parents}
  known = {label for _, label in parts}
  depths = {top + 1, top + 2 if _is_split(_first(names, top)) else top + 1}
  for folder in sorted(folders - used):
    if len(folder.parts) in depths and folder.name not in known:
      raise DataError(
        f"{path}: folder {folder} holds no image: fill it or take it out"
      )


def _first(names, top: int) -> str:
  return next(iter(names)).parts[top]


def _stacked(files: list[_Decoded], parts, class_names) -> cache.Arrays:
  number = {label: i for i, label in enumerate(class_names)}
  arrays = {"class_names": np.array(class_names)}
  shape = (0, *files[0].image.shape)
  for split in ("train", "test"):
    index = [i for i, (part, _) in enumerate(parts) if part == split]
    images = [files[i].image for i in index]
    arrays[f"x_{split}"] = np.stack(images) if images else np.zeros(shape, "u1")
    labels = [number[parts[i][1]] for i in index]
    arrays[f"y_{split}"] = np.array(labels, np.int32)
  return arrays
