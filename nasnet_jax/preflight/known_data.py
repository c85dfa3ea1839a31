"""Data sets as far as their sizes go, so that a plan needs no file of them."""

from typing import NamedTuple

import numpy as np

from nasnet_jax.detection import picture_stream, pictures
from nasnet_jax.jobs import detect, job_config
from nasnet_jax.training import datasets


class _Known(NamedTuple):
  """A set's images to train on and to test with, its classes, and (H, W, C)."""

  train: int
  test: int
  classes: int
  shape: tuple[int, int, int]


# Krizhevsky 2009; Russakovsky et al. 2015 (its side is the config's).
_CIFAR = (50_000, 10_000)


_KNOWN = {
  "cifar10": _Known(*_CIFAR, 10, (32, 32, 3)),
  "cifar100": _Known(*_CIFAR, 100, (32, 32, 3)),
  "imagenet2012": _Known(1_281_167, 50_000, 1000, (0, 0, 3)),
}


# Lin et al. 2014, train2017 and val2017: images in the annotation files, and
# classes (not the largest category number: these have gaps).
_COCO = _Known(118_287, 5_000, 80, (0, 0, 3))


class _Photographs(NamedTuple):
  """The sizes of a stream. One of pictures with boxes also says how these are
  scaled."""

  num_images: int
  image_shape: tuple[int, int, int]
  sizes: picture_stream.Sizes | None = None


def images_of(config, batch_sizes) -> job_config.Splits:
  """The job's images. Of a known set they are sizes, with arrays that take no
  memory; any other set is read."""
  fields = config.data
  name = fields.source
  if name == "tfds" and "stream" in fields:
    name = fields.options.name or "imagenet2012"
  known = _KNOWN.get(name)
  if known is None or fields.get("fraction", 1.0) < 1:
    return job_config.load_images(fields, batch_sizes)
  shape = known.shape
  if "stream" in fields:
    shape = (*[fields.stream.image_size] * 2, 3)
  make = _Photographs if "stream" in fields else in_memory
  valid = job_config.num_valid(fields, known.train)
  return job_config.Splits(
    name,
    "",
    tuple(map(str, range(known.classes))),
    "",
    make(known.train - valid, shape),
    make(valid, shape),
    make(known.test, shape),
    {},
  )


def in_memory(count: int, shape) -> datasets.Images:
  return datasets.Images(
    np.broadcast_to(np.uint8(0), (count, *shape)),
    np.broadcast_to(np.int32(0), (count,)),
  )


def pictures_of(config) -> detect.Data | None:
  """The sizes of COCO; None if the config names files, or splits other than
  COCO's own."""
  fields = config.data
  options = {k: v for k, v in fields.options.items() if v is not None}
  name = options.pop("name", "coco/2017")
  known = fields.source == "coco" or (fields.source, name) == (
    "tfds",
    "coco/2017",
  )
  options.pop("note", None)
  if not known or options or fields.data_dir is not None:
    return None
  sizes = detect.make_sizes(fields.sizes.to_dict())
  shape = (*sizes.largest, 3)
  none = pictures.Pictures((), pictures.Files(()), {})
  classes = tuple(map(str, range(_COCO.classes)))
  splits = pictures.Splits(none, none, none, classes, (), "coco", "", "")
  parts = [
    _Photographs(count, shape, sizes) for count in (_COCO.train, 0, _COCO.test)
  ]
  return detect.Data(*parts, splits, {})
