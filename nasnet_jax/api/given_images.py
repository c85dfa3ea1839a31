"""The images that `nas.search` is given: arrays, or a data source."""

import numpy as np

from nasnet_jax.data import arrays, image_data, sources
from nasnet_jax.data.image_data import DataError, ImageData


class GivenImages:
  """Checked arrays, and how they are divided.

  Attributes:
    images: an ImageData; its last `valid` training images validate, if that
      is a number of images.
    valid, test: a share, or the number of images that were given apart.
  """

  def __init__(self, images: ImageData, valid, test):
    self.images, self.valid, self.test = images, valid, test


def take(images, labels, valid, test, seed: int) -> GivenImages:
  """What `nas.search` was given, see there.

  Raises:
    DataError: one line, for anything that is no such images.
  """
  if isinstance(images, str | ImageData):
    return _of_source(images, labels, valid, test, seed)
  return _of_arrays(images, labels, valid, test, seed)


def _of_arrays(images, labels, valid, test, seed: int) -> GivenImages:
  train = _pair("images", images, labels)
  count = int(train[1].max()) + 1
  if len(np.unique(train[1])) < 2:
    raise DataError(
      f"labels: all are {train[1][0]}: there is nothing to tell apart, give"
      " images of two classes or more"
    )
  name = "arrays"
  if isinstance(test, tuple | list):
    tested = _pair("test", *_two("test", test))
  else:
    share = _share("test", 0.15 if test is None else test)
    keep, aside = image_data.set_aside(name, train[1], share, seed)
    tested = train[0][aside], train[1][aside]
    train = train[0][keep], train[1][keep]
  train, valid = _with_valid(train, valid)
  names = tuple(str(i) for i in range(count))
  checked = image_data.checked(ImageData(*train, *tested, names, name))
  return GivenImages(checked, valid, test)


def _with_valid(train, valid):
  """(images and labels to train on, then those to validate on; the share or
  the number of these)."""
  if not isinstance(valid, tuple | list):
    return train, _share("valid", valid)
  shown = _pair("valid", *_two("valid", valid))
  if shown[0].shape[1:] != train[0].shape[1:]:
    raise DataError(
      f"valid: images are {list(shown[0].shape[1:])}, and those to train on"
      f" {list(train[0].shape[1:])}: bring them to one size"
    )
  both = tuple(np.concatenate(parts) for parts in zip(train, shown))
  return both, len(shown[0])


def _of_source(images, labels, valid, test, seed: int) -> GivenImages:
  """Of a data source or what one gives, which has its own test images."""
  for name, value in (("labels", labels), ("test", test)):
    if value is not None:
      raise DataError(f"{name}: the data source has its own: leave it out")
  if isinstance(images, str):
    images = sources.load(images, seed=seed)
  _pair(images.name, *images[:2])
  train, valid = _with_valid(tuple(images[:2]), valid)
  images = images._replace(train_images=train[0], train_labels=train[1])
  return GivenImages(image_data.checked(images), valid, test)


def _pair(name: str, images, labels):
  """(uint8[N, H, W, C], int32[N]); DataError, one line, for anything else."""
  images, labels = arrays.as_pixels(name, images), np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
    raise DataError(
      f"{name}: labels are {labels.dtype}{list(labels.shape)}: give"
      " integers[N], the number of each image's class"
    )
  image_data.check_images(name, images, len(labels))
  if labels.min() < 0:
    raise DataError(f"{name}: a label is {labels.min()}: number from 0")
  return images, labels.astype(np.int32)


def _two(name: str, pair):
  if len(pair) != 2:
    raise DataError(f"{name}: {len(pair)} arrays: give (images, labels)")
  return pair


def _share(name: str, share) -> float:
  if not isinstance(share, float) or not 0 < share < 1:
    raise DataError(
      f"{name} is {share!r}: give a share between 0 and 1, or a pair (images,"
      " labels)"
    )
  return share
