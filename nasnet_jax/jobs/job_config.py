"""From a config's fields to what every job needs: images, networks, recipes."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax import data as image_sources
from nasnet_jax.data import augment, batches, photographs
from nasnet_jax.data import photo_stream as streams
from nasnet_jax.models import families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.training import datasets, recipes


class Splits(NamedTuple):
  """One source's images: in the host's memory, or streams from its disk.

  Attributes:
    name, note, class_names, fingerprint: see `data.ImageData`.
    train, valid: its training images, divided; valid may be empty. Each is a
      `datasets.Images` or a `photo_stream.Stream`.
    test: the same of its test images.
    load: the arguments of `data.load`, or of `load_streams` for streams.
  """

  name: str
  note: str
  class_names: tuple[str, ...]
  fingerprint: str
  train: datasets.Data
  valid: datasets.Data
  test: datasets.Data
  load: dict[str, Any]

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self.train.image_shape


def load_images(fields, batch_sizes) -> Splits:
  """The images, divided, with enough of them for every batch.

  Args:
    fields: config.data. With num_valid 0 there is no validation set.
    batch_sizes: of the trainings to come.

  Raises:
    DataError: in one line that names the fix.
  """
  if "stream" in fields:
    return _open_streams(fields, batch_sizes)
  load = _load_arguments(fields)
  images = image_sources.load(**load)
  train_index = np.arange(len(images.train_labels))
  valid_index = train_index[:0]
  if fields.num_valid:
    train_index, valid_index = image_sources.split(
      images.train_labels, fields.num_valid, fields.seed
    )
  for size in batch_sizes:
    batches.steps_per_epoch(len(train_index), size)
  labels = images.train_labels
  return Splits(
    images.name,
    images.note,
    images.class_names,
    images.fingerprint,
    datasets.Images(images.train_images[train_index], labels[train_index]),
    datasets.Images(images.train_images[valid_index], labels[valid_index]),
    datasets.Images(images.test_images, images.test_labels),
    load,
  )


def _open_streams(fields, batch_sizes) -> Splits:
  """Photographs that stay on disk, for sets that do not fit into memory."""
  options = {k: v for k, v in fields.options.items() if v is not None}
  load = {
    "source": fields.source,
    "data_dir": fields.data_dir,
    "seed": fields.seed,
    **options,
    "stream": fields.stream.to_dict(),
  }
  found, make = load_streams(**load)
  index = np.arange(len(found.train))
  valid_index = index[:0]
  if fields.num_valid:
    index, valid_index = image_sources.split(
      index, fields.num_valid, fields.seed
    )
  for size in batch_sizes:
    batches.steps_per_epoch(len(index), size)
  return Splits(
    found.name,
    found.note,
    found.class_names,
    found.fingerprint,
    make(photographs.Subset(found.train, index)),
    make(photographs.Subset(found.train, valid_index)),
    make(found.test),
    load,
  )


def load_streams(*, stream: dict[str, Any], **load):
  """(Photographs, (Records) -> Stream).

  Args:
    stream: fields of config.data.stream: how images are cut, and by whom.
    **load: of `photographs.load`.
  """
  found = photographs.load(**load)
  options = dict(stream)
  crops = {
    f.name: options.pop(f.name)
    for f in dataclasses.fields(streams.Crops)
    if f.name in options
  }
  return found, functools.partial(
    streams.Stream,
    crops=streams.Crops(**crops),
    num_classes=len(found.class_names),
    host=jax.process_index(),
    num_hosts=jax.process_count(),
    **options,
  )


def _load_arguments(fields) -> dict[str, Any]:
  options = {k: v for k, v in fields.options.items() if v is not None}
  return {
    "source": fields.source,
    "data_dir": fields.data_dir,
    "fraction": fields.fraction,
    "max_per_class": fields.max_per_class,
    "seed": fields.seed,
    **options,
  }


def get_augmentation(fields, images: Splits) -> augment.Augmentation:
  """The source's augmentation, with the fields that config.data sets."""
  aug = augment.DEFAULTS.get(fields.source, augment.Augmentation())
  if "stream" in fields:
    aug = augment.PHOTOGRAPHS
  changes = {k: v for k, v in fields.augmentation.items() if v is not None}
  aug = dataclasses.replace(aug, **changes)
  if aug.mean == (0.0,) and aug.std == (1.0,):  # nothing is known of it
    aug = augment.with_statistics(aug, images.train.images)
  return aug


def shuffled_labels(images: Splits, seed: int) -> Splits:
  """The same images with the training labels shuffled: whatever a search then
  finds beyond chance is a leak."""
  order = np.random.default_rng(seed).permutation(len(images.train.labels))
  train = images.train._replace(labels=images.train.labels[order])
  return images._replace(train=train)


def describe(images: Splits) -> dict[str, Any]:
  """What result.json says of the images: enough to read them again."""
  return {
    "name": images.name,
    "note": images.note,
    "classes": list(images.class_names),
    "image_shape": list(images.image_shape),
    "train": images.train.num_images,
    "valid": images.valid.num_images,
    "fingerprint": images.fingerprint,
    "load": images.load,
  }


def get_network(fields, num_classes: int, space):
  """Sizes of a static network of that space, as its family's config; numerics
  stand among the fields."""
  network = fields.to_dict()
  numerics = Numerics(
    bn_decay=network.pop("bn_decay"),
    bn_epsilon=network.pop("bn_epsilon"),
    init=network.pop("init"),
  )
  return families.of(space).config(
    num_classes=num_classes, numerics=numerics, **network
  )


def recipe_fields(fields) -> dict[str, Any]:
  """The fields of `recipes.Recipe` that a config has, except epochs."""
  return {
    f.name: fields[f.name]
    for f in dataclasses.fields(recipes.Recipe)
    if f.name != "epochs" and f.name in fields
  }
