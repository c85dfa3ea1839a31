"""From a config's fields to what every job needs: images, networks, recipes."""

import dataclasses
import functools
import logging
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax import data as image_sources
from nasnet_jax.data import augment, batches, image_data, photographs
from nasnet_jax.data import photo_stream as streams
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import by_machine, user_checks
from nasnet_jax.models import families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.training import datasets, recipes, workdir

_log = logging.getLogger(__name__)


class Splits(NamedTuple):
  """One source's images: in the host's memory, or streams from its disk.

  Attributes:
    name, note, class_names, fingerprint: see `data.ImageData`.
    train, valid: its training images, divided; valid may be empty. Each is a
      `datasets.Images` or a `photo_stream.Stream`.
    test: the same of its test images.
    load: the arguments of `data.load`, or of `load_streams` for streams.
    split: how `valid` was chosen, see `image_data.validation_split`.
  """

  name: str
  note: str
  class_names: tuple[str, ...]
  fingerprint: str
  train: datasets.Data
  valid: datasets.Data
  test: datasets.Data
  load: dict[str, Any]
  split: str = image_data.PLAIN

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self.train.image_shape


def load_images(fields, batch_sizes, split: str | None = None) -> Splits:
  """The images, divided, with enough of them for every batch.

  Args:
    fields: config.data. With num_valid 0 there is no validation set.
    batch_sizes: of the trainings to come, {field of the config: size}; or only
      sizes, then of train.batch_size.
    split: how an earlier run of this config divided them, see `split_of`.

  Raises:
    DataError: in one line that names the fix.
  """
  if not isinstance(batch_sizes, dict):
    batch_sizes = dict.fromkeys(
      ["train.batch_size"], max(batch_sizes, default=1)
    )
  if "stream" in fields:
    return _open_streams(fields, batch_sizes, split)
  load = _load_arguments(fields)
  images = image_sources.load(**load)
  labels = images.train_labels
  train_index, valid_index, split = _divide(
    labels, images.class_names, fields, batch_sizes, split
  )
  return Splits(
    images.name,
    images.note,
    images.class_names,
    images.fingerprint,
    datasets.Images(images.train_images[train_index], labels[train_index]),
    datasets.Images(images.train_images[valid_index], labels[valid_index]),
    datasets.Images(images.test_images, images.test_labels),
    load,
    split,
  )


def _open_streams(fields, batch_sizes, split: str | None) -> Splits:
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
  if fields.source == "folder":
    user_checks.tell_small(found.train, fields.stream.image_size)
  labels = found.train.labels
  if labels is None:  # only reading them all would tell
    labels = np.zeros(len(found.train), np.int32)
  index, valid_index, split = _divide(
    labels, found.class_names, fields, batch_sizes, split
  )
  return Splits(
    found.name,
    found.note,
    found.class_names,
    found.fingerprint,
    make(photographs.Subset(found.train, index)),
    make(photographs.Subset(found.train, valid_index)),
    make(found.test),
    load,
    split,
  )


def known_config(folder: pathlib.Path) -> dict[str, Any] | None:
  """config.json of the run in a folder; None: there is none yet."""
  path = folder / "config.json"
  return workdir.read_json(path) if path.exists() else None


def split_of(before: dict[str, Any] | None) -> str | None:
  """How a run divided its images, so that it goes on with the same.

  Args:
    before: of `known_config`.
  """
  return None if before is None else before.get("data_split", image_data.PLAIN)


def recorded_split(images: Splits) -> dict[str, str]:
  """What config.json has of it: older ones say nothing and are plain."""
  if images.split == image_data.PLAIN:
    return {}
  return {"data_split": images.split}


def _divide(labels, class_names, fields, batch_sizes, split: str | None):
  """(train_index, valid_index, how), with what is wrong with them told."""
  index = np.arange(len(labels))
  valid = index[:0]
  wanted = num_valid(fields, len(labels))
  if wanted and fields.get("valid_last"):  # they were given apart
    index, valid = index[:-wanted], index[-wanted:]
  elif wanted:
    index, valid, split = image_data.validation_split(
      labels, wanted, fields.seed, split
    )
    _tell_division(labels[valid], labels, class_names, wanted, split)
  for field, size in batch_sizes.items():
    check_batch(len(index), field, size)
  return index, valid, split or image_data.PLAIN


def num_valid(fields, count: int) -> int:
  """How many of so many training images are set aside for validation.

  Args:
    fields: config.data.

  Raises:
    DataError: for a share that is none, or a number beside a share.
  """
  share = fields.get("valid_fraction")
  if share is None:
    return fields.num_valid
  if fields.num_valid:
    raise DataError(
      f"data.num_valid is {fields.num_valid} and data.valid_fraction {share}:"
      " set data.valid_fraction to None, or data.num_valid to 0"
    )
  if not 0 < share < 1:
    raise DataError(
      f"data.valid_fraction is {share}: give a share above 0 and below 1"
    )
  return max(1, round(share * count))


def _tell_division(valid, labels, class_names, wanted: int, split: str):
  """Warns of classes that validation cannot tell of."""
  if split == image_data.STRATIFIED:
    _log.info(
      "validation images are taken from each class in proportion: at random a"
      " class would have lacked some"
    )
  if len(valid) < wanted:
    _log.warning(
      "%d validation images are asked for (data.num_valid, or"
      " data.valid_fraction), and there are %d: every class keeps one for"
      " training",
      wanted,
      len(valid),
    )
  counts = np.bincount(labels, minlength=len(class_names))
  none = np.bincount(valid, minlength=len(class_names)) == 0
  few = [class_names[i] for i in np.flatnonzero(none & (counts > 0))]
  if few and counts.max() < len(labels):  # labels are known
    _log.warning(
      "no validation image of class %s, which have too few training images or"
      " data.num_valid is too small (%d)",
      image_data.listed(few),
      wanted,
    )


def check_batch(count: int, field: str, size: int):
  """Raises DataError if so many training images make no batch."""
  if 0 < count < size:
    raise DataError(
      f"{count} images are fewer than one batch of {size}: set {field} to at"
      f" most {count} (a learning rate belongs to its batch size: lower it"
      " alike) or take more images"
    )
  batches.steps_per_epoch(count, size)


# Evaluation by moving averages that moved less is of no use.
_TIME_CONSTANTS = 5


def tell_slow_statistics(steps: int, bn_decay: float, field: str):
  """Warns if batch norm's moving averages would still be near their initial
  values after so many steps, at which evaluation takes them.

  Args:
    field: of bn_decay in the config.
  """
  if steps * (1 - bn_decay) > _TIME_CONSTANTS - 1e-6:
    return
  advice = "train for more steps"
  if steps > 2 * _TIME_CONSTANTS:
    least = 1 - 2 * _TIME_CONSTANTS / steps
    advice = f"set {field} to {math.floor(1000 * least) / 1000:g} or lower"
  _log.warning(
    "%s is %g, and there are %d steps: batch norm's averages stay near their"
    " initial values and the test says little of the training; %s",
    field,
    bn_decay,
    steps,
    advice,
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
  user_checks.augmentation(changes, images.image_shape)
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
  """The fields of `recipes.Recipe` that a config has, except epochs, and those
  that are left to the machine: see `by_machine`."""
  given = by_machine.without_open(fields)
  return {
    f.name: given[f.name]
    for f in dataclasses.fields(recipes.Recipe)
    if f.name != "epochs" and f.name in given
  }
