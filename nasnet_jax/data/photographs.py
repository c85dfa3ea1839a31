"""Photographs that stay on disk: a folder, a tar, a set of tfds, or made up.

For sets that fit no device. What is opened here only knows where each encoded
image lies; `data.stream` reads and decodes it, in other processes.
"""

import dataclasses
import functools
import hashlib
import inspect
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np

from nasnet_jax.data import archive, folder, image_data, paths, tfds_source
from nasnet_jax.data.image_data import DataError


class Records(Protocol):
  """Encoded images by number; can be pickled.

  Attributes:
    labels: int32[N], or None where only reading a record tells.
  """

  labels: np.ndarray | None

  def __len__(self) -> int: ...

  def name(self, index: int) -> str:
    """What to call the image in a message."""
    ...

  def read(self, index: int) -> tuple[bytes, int]:
    """(the image file's content, its label). OSError if it cannot be read."""
    ...


class Photographs(NamedTuple):
  """An image classification set on disk.

  Attributes:
    train, test: its records.
    class_names: K names.
    name: the source.
    note: what a report must say beside a figure from this set; may be empty.
    fingerprint: 16 hexadecimal digits that stand for names, sizes and labels
      of the images. Not for their content: that would be hours of reading.
  """

  train: Records
  test: Records
  class_names: tuple[str, ...]
  name: str
  note: str
  fingerprint: str


def load(
  source: str, *, data_dir=None, seed: int = 0, **options
) -> Photographs:
  """Opens a source.

  Args:
    source: a key of `SOURCES`.
    data_dir: where files lie.
    seed: of the test split of a source that has none, or of made-up images.
    **options: the source's own.

  Raises:
    DataError: one line that names the fix.
  """
  if source not in SOURCES:
    hint = image_data.nearest(source, SOURCES)
    raise DataError(f"no source of photographs {source!r}: {hint}")
  opener = SOURCES[source]
  parameters = inspect.signature(opener).parameters.values()
  known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
  for option in options:
    if option not in known:
      raise DataError(
        f"photographs of {source!r} have no option {option!r}:"
        f" {image_data.nearest(option, known)}"
      )
  if "seed" in known:
    options["seed"] = seed
  if data_dir is not None and source != "tfds":  # tfds knows more than paths
    data_dir = paths.local(data_dir)
  return opener(data_dir, **options)


@dataclasses.dataclass(frozen=True)
class Subset:
  """Some records of another set."""

  records: Records
  index: np.ndarray  # int64[N]

  @property
  def labels(self) -> np.ndarray | None:
    labels = self.records.labels
    return None if labels is None else labels[self.index]

  def __len__(self) -> int:
    return len(self.index)

  def name(self, index: int) -> str:
    return self.records.name(int(self.index[index]))

  def read(self, index: int) -> tuple[bytes, int]:
    return self.records.read(int(self.index[index]))


# Files of a directory or tar


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
  note: str = "",
  seed: int = 0,
) -> Photographs:
  """Images in class folders: a directory, or a .tar of one.

  Folders mean what they mean to `data.folder.load_folder`, splits too.

  Args:
    data_dir: what `path` is relative to.
    path: None: `data_dir` itself.
    test_fraction: of each class, where there is no test split.
    note: see `Photographs`.
    seed: of that split.

  Raises:
    DataError: for missing files, one class only, a compressed archive.
  """
  top = folder.resolve(data_dir, path)
  found = _files_of_directory(top) if top.is_dir() else _files_of_tar(top)
  found = [f for f in found if f.name.suffix.lower() in folder.IMAGE_SUFFIXES]
  if not found:
    raise DataError(
      f"{top} holds no image: put files of"
      f" {' '.join(sorted(folder.IMAGE_SUFFIXES))} into one folder per class"
    )
  found.sort(key=lambda file: file.name.parts)
  skip = folder.common_top([file.name for file in found])
  parts, class_names = folder.sort_out(
    top, [file.name.parts[skip:] for file in found]
  )
  if len(class_names) < 2:
    raise DataError(
      f"{top}: only one class, {class_names[0]!r}; there is nothing to tell"
      " apart: add a second class folder"
    )
  number = {label: i for i, label in enumerate(class_names)}
  places = None
  if not top.is_dir():
    places = np.array([file.place for file in found], np.int64)
  files = Files(
    top,
    [str(file.name) for file in found],
    np.array([number[label] for _, label in parts], np.int32),
    places,
  )
  is_test = np.array([part == "test" for part, _ in parts])
  train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
  if not len(test):
    train, test = _set_aside(top, files.labels, test_fraction, seed)
  sizes = [file.place[1] for file in found]
  return Photographs(
    Subset(files, train),
    Subset(files, test),
    tuple(class_names),
    f"folder {top.name}",
    note,
    _digest(class_names, *zip(files.names, sizes)),
  )


def _set_aside(top, labels, test_fraction: float, seed: int):
  if not 0 < test_fraction < 1:
    raise DataError(
      f"{top} has no test split and test_fraction is {test_fraction}: give a"
      " number between 0 and 1"
    )
  num_test = max(1, round(len(labels) * test_fraction))
  return image_data.stratified_split(labels, num_test, seed)


class _File(NamedTuple):
  name: PurePosixPath
  place: tuple[int, int]  # offset in the tar, else 0; size


def _files_of_directory(top: Path) -> list[_File]:
  return [
    _File(name, (0, file.stat().st_size))
    for name, file in archive.walk(top)
    if not _hidden(name) and file.is_file()
  ]


def _files_of_tar(path: Path) -> list[_File]:
  if path.suffix.lower() != ".tar":
    raise DataError(
      f"{path} is compressed, so an image in its middle cannot be read alone:"
      " unpack it, or make it a plain .tar"
    )
  found = []
  try:
    with tarfile.open(path, "r:") as tar:
      for member in tar:
        name = archive.safe_name(member.name, path)
        if member.isfile() and not _hidden(name):
          found.append(_File(name, (member.offset_data, member.size)))
    end = max((sum(file.place) for file in found), default=0)
    if end > path.stat().st_size:
      raise tarfile.ReadError("it ends early")
  except (tarfile.TarError, EOFError, OSError) as error:
    raise DataError(
      f"{path} is damaged or not what its suffix says ({error}): copy or"
      " download it again"
    ) from error
  return found


def _hidden(name: PurePosixPath) -> bool:
  return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def _digest(*rows) -> str:
  digest = hashlib.sha256()
  for row in rows:
    digest.update(f"{row!r}\n".encode())
  return digest.hexdigest()[:16]


# TensorFlow Datasets


class TfdsRecords:
  """Encoded images of a prepared set. Opened again where it is unpickled."""

  labels = None

  def __init__(self, name: str, split: str, data_dir):
    self._name, self._split, self._data_dir = name, split, data_dir
    self._open()

  def _open(self):
    self._source, self._keys = tfds_source.open_encoded(
      self._name, self._split, self._data_dir
    )

  def __getstate__(self):
    return self._name, self._split, self._data_dir

  def __setstate__(self, state):
    self._name, self._split, self._data_dir = state
    self._open()

  def __len__(self) -> int:
    return len(self._source)

  def name(self, index: int) -> str:
    return f"{self._name} {self._split} image {index}"

  def read(self, index: int) -> tuple[bytes, int]:
    row = self._source[index]
    image, label = (row[key] for key in self._keys)
    return image, int(label)


def open_tfds(
  data_dir=None,
  *,
  name: str = "imagenet2012",
  train_split: str = "train",
  test_split: str = "validation",
  note: str = "",
) -> Photographs:
  """A set of TensorFlow Datasets, prepared into array_record files.

  Args:
    data_dir: where tfds keeps its sets; None: ~/tensorflow_datasets.
    name: as tfds has it, such as "imagenet2012".
    train_split, test_split: as tfds has them, slices too.
    note: see `Photographs`.

  Raises:
    DataError: as `data.tfds_source.load_tfds`.
  """
  info = tfds_source.describe(name, data_dir)
  train = TfdsRecords(name, train_split, data_dir)
  test = TfdsRecords(name, test_split, data_dir)
  for split, records in ((train_split, train), (test_split, test)):
    _check_labels(name, split, records, len(info.class_names))
  about = (info.full_name, train_split, len(train), test_split, len(test))
  return Photographs(
    train,
    test,
    info.class_names,
    f"tfds {name}",
    note,
    _digest(info.class_names, about),
  )


def _check_labels(name: str, split: str, records, num_classes: int):
  """Some sets keep the labels of their test split to themselves."""
  label = records.read(0)[1]
  if not 0 <= label < num_classes:
    raise DataError(
      f"tfds set {name!r}: split {split!r} has label {label}, outside"
      f" 0..{num_classes - 1}: take another split"
    )


# Made up


@dataclasses.dataclass(frozen=True)
class MadeUp:
  """JPEG files of random blobs: work for a decoder, nothing to be learnt."""

  labels: np.ndarray
  contents: tuple[bytes, ...]

  def __len__(self) -> int:
    return len(self.labels)

  def name(self, index: int) -> str:
    return f"fake image {index}"

  def read(self, index: int) -> tuple[bytes, int]:
    content = self.contents[index % len(self.contents)]
    return content, int(self.labels[index])


def open_fake(
  data_dir=None,
  *,
  num_images: int = 10_000,
  num_classes: int = 1000,
  width: int = 500,
  height: int = 375,
  seed: int = 0,
) -> Photographs:
  """Images from nowhere, for benchmarks: `width` x `height`, as ImageNet's
  are on average; 32 different ones, over and over."""
  del data_dir
  from PIL import Image

  rng = np.random.default_rng(seed)
  contents = []
  for _ in range(32):
    # Smooth blobs and some noise weigh about what a photograph does.
    blobs = rng.integers(0, 256, (height // 25, width // 25, 3), np.uint8)
    image = Image.fromarray(blobs).resize((width, height), Image.BICUBIC)
    noise = rng.normal(0, 12, (height, width, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90)
    contents.append(buffer.getvalue())

  def records(n: int) -> MadeUp:
    return MadeUp(np.arange(n, dtype=np.int32) % num_classes, tuple(contents))

  return Photographs(
    records(num_images),
    records(max(1, num_images // 10)),
    tuple(f"class {i}" for i in range(num_classes)),
    "fake",
    "made-up images: nothing can be learnt from them",
    _digest((num_images, num_classes, width, height, seed)),
  )


SOURCES = {"folder": open_folder, "tfds": open_tfds, "fake": open_fake}
