"""Photographs that stay on disk: a folder, a tar, a set of tfds, or made up.

For sets that fit no device. What is opened here only knows where each encoded
image lies; `data.photo_stream` reads and decodes it, in other processes.
"""

import dataclasses
import inspect
import io

import numpy as np

from nasnet_jax.data import image_data, places, tfds_source
from nasnet_jax.data.image_data import DataError
from nasnet_jax.data.photo_files import open_folder
from nasnet_jax.data.records import Photographs, Records, Subset, digest

__all__ = ["SOURCES", "Photographs", "Records", "Subset", "load"]


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
  if data_dir is not None:  # tfds knows more than paths
    data_dir = places.of_source(source, data_dir)
  return opener(data_dir, **options)


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
    digest(info.class_names, about),
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
    digest((num_images, num_classes, width, height, seed)),
  )


SOURCES = {"folder": open_folder, "tfds": open_tfds, "fake": open_fake}
