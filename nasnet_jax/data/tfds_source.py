"""Any image classification set of TensorFlow Datasets, once prepared."""

import pathlib
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import folder, pixels
from nasnet_jax.data.image_data import DataError, ImageData


def load_tfds(
  data_dir=None,
  *,
  name: str = "",
  train_split: str = "train",
  test_split: str = "test",
  image_size: int | None = None,
  note: str = "",
) -> ImageData:
  """Reads a prepared set without TensorFlow.

  Preparing one takes TensorFlow (the extra `tf`), once and perhaps elsewhere,
  and must be into the `array_record` format: the other cannot be read without.

  Args:
    data_dir: where tfds keeps its sets; None: ~/tensorflow_datasets.
    name: as tfds has it, such as "fashion_mnist" or "cats_vs_dogs:4.0.1".
    train_split: as tfds has it, a slice such as "train[:80%]" or a sum such
      as "train+validation" too.
    test_split: the same; for a set without one, such as "train[80%:]".
    image_size: side in pixels, as in `folder`; None: all must be of one size.
    note: as in `folder`.

  Raises:
    DataError: if the set is not prepared, has no such split, no pair of image
      and label, or images of several sizes.
  """
  if not name:
    raise DataError("source 'tfds' needs a name, such as name='fashion_mnist'")
  builder = _builder(_import_tfds(), name, data_dir)
  keys = _keys(name, builder.info)
  train = _read(builder, name, train_split, keys, image_size)
  test = _read(builder, name, test_split, keys, image_size)
  class_names = _class_names(builder.info, keys)
  note = folder.own_note(pathlib.Path(name), note)
  return ImageData(*train, *test, class_names, name=f"tfds {name}", note=note)


class Description(NamedTuple):
  """A prepared set: its name with the version, and its K class names."""

  full_name: str
  class_names: tuple[str, ...]


def describe(name: str, data_dir=None) -> Description:
  """What a prepared set says of itself. DataError: as `load_tfds`."""
  if not name:
    raise DataError("source 'tfds' needs a name, such as name='imagenet2012'")
  info = _builder(_import_tfds(), name, data_dir).info
  return Description(info.full_name, _class_names(info, _keys(name, info)))


def open_encoded(name: str, split: str, data_dir=None):
  """(random access to rows of a split, (key of image, key of label)).

  The images stay encoded, bytes as the set has them.

  Raises:
    DataError: as `load_tfds`.
  """
  tfds = _import_tfds()
  builder = _builder(tfds, name, data_dir)
  keys = _keys(name, builder.info)
  _check_split(builder, name, split)
  rows = builder.as_data_source(
    split, decoders={keys[0]: tfds.decode.SkipDecoding()}
  )
  if not len(rows):
    raise DataError(f"tfds set {name!r}: split {split!r} is empty")
  return rows, keys


def open_rows(name: str, split: str, data_dir=None):
  """(random access to rows of a detection set, its class names).

  The images stay encoded. Rows are as those of tfds's coco: `image`,
  `image/id` and `objects`, with `bbox` (ymin, xmin, ymax, xmax from 0 to 1),
  `label`, `is_crowd` and `area`.

  Raises:
    DataError: as `load_tfds`.
  """
  tfds = _import_tfds()
  builder = _builder(tfds, name, data_dir)
  _check_split(builder, name, split)
  features = builder.info.features
  objects = dict(features).get("objects")
  inner = set(getattr(objects, "feature", ()))
  wanted = {"bbox", "label", "is_crowd", "area"}
  if not {"image", "image/id"} <= set(features) or not wanted <= inner:
    raise DataError(
      f"tfds set {name!r} has no boxes as coco has them; it holds"
      f" {', '.join(features)}"
    )
  label = objects.feature["label"]
  rows = builder.as_data_source(
    split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  return rows, tuple(label.int2str(i) for i in range(label.num_classes))


def _class_names(info, keys) -> tuple[str, ...]:
  label = info.features[keys[1]]
  return tuple(label.int2str(i) for i in range(label.num_classes))


def _import_tfds():
  try:
    import tensorflow_datasets as tfds

    # It logs a failed import of its own and goes on half-made.
    tfds.builder  # noqa: B018
  except (ImportError, AttributeError) as error:
    raise DataError(
      f"cannot import tensorflow-datasets ({error}): pip install"
      " tensorflow-datasets importlib_resources"
    ) from None
  return tfds


def _builder(tfds, name: str, data_dir):
  """A builder whose files can be read at random without TensorFlow."""
  try:
    builder = tfds.builder(name, data_dir=data_dir)
    ready = builder.is_prepared()
  except Exception as error:  # unknown, or its code wants TensorFlow
    first = str(error).strip().partition("\n")[0]
    raise DataError(
      f"tfds set {name!r} is not prepared ({first}): {_recipe(name, data_dir)}"
    ) from error
  if not ready:
    raise DataError(
      f"tfds set {name!r} is not prepared in {builder.data_path}:"
      f" {_recipe(name, data_dir)}"
    )
  file_format = builder.info.file_format.value
  if file_format != "array_record":
    raise DataError(
      f"tfds set {name!r} in {builder.data_path} is in {file_format} format,"
      " which only TensorFlow reads: remove that folder and"
      f" {_recipe(name, data_dir)}"
    )
  return builder


def _recipe(name: str, data_dir) -> str:
  folder = f", data_dir={str(data_dir)!r}" if data_dir else ""
  return (
    "prepare it once with TensorFlow (pip install 'nasnet_jax[tf]'):"
    f' python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}'
    f"{folder}, file_format='array_record').download_and_prepare()\""
  )


def _keys(name: str, info) -> tuple[str, str]:
  """The names of image and label among the features."""
  keys = info.supervised_keys
  kinds = {key: type(f).__name__ for key, f in info.features.items()}
  if not keys or len(keys) != 2:
    images = [key for key, kind in kinds.items() if kind == "Image"]
    labels = [key for key, kind in kinds.items() if kind == "ClassLabel"]
    keys = (*images[:1], *labels[:1])
  if [kinds.get(key) for key in keys] != ["Image", "ClassLabel"]:
    raise DataError(
      f"tfds set {name!r} is no image classification set; it holds {kinds}"
    )
  return tuple(keys)


def _read(builder, name: str, split: str, keys, image_size):
  """(uint8[N, H, W, C], int32[N]) of a split."""
  _check_split(builder, name, split)
  images, labels = [], []
  for row in builder.as_data_source(split):
    image = row[keys[0]]
    images.append(pixels.fit(image, image_size) if image_size else image)
    labels.append(row[keys[1]])
  if not images:
    raise DataError(f"tfds set {name!r}: split {split!r} is empty")
  names = [f"{name} {split} image {i}" for i in range(len(images))]
  pixels.check_alike([image.shape for image in images], names)
  return np.stack(images), np.array(labels, np.int32)


def _check_split(builder, name: str, split: str):
  for part in split.split("+"):
    base = part.partition("[")[0]
    if base in builder.info.splits or base == "all":
      continue
    raise DataError(
      f"tfds set {name!r} has no split {base!r}, only"
      f" {', '.join(builder.info.splits)}: set train_split='train[:80%]' and"
      " test_split='train[80%:]', say"
    )
