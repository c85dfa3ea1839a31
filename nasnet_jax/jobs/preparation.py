"""Pictures that a trained network is asked about, prepared as in its training.

Prediction, exports and their calibration read their pictures here; what is
done to one is what the evaluation of its training did.
"""

import functools
import logging
import pathlib
from typing import Any

import numpy as np

from nasnet_jax.data import (
  archive,
  augment,
  listing,
  photo_stream,
  pixels,
  places,
)
from nasnet_jax.data.image_data import DataError, listed, printable
from nasnet_jax.data.paths import local

_log = logging.getLogger(__name__)
Row = dict[str, Any]
LIST = ".txt"
_NEAR = 0.01  # of a whitened pixel, and of a share: no difference to speak of


def find_images(paths) -> list[pathlib.Path]:
  """The images that are meant, in order.

  Args:
    paths: image files; folders, whose images are taken by name, at any depth,
      hidden ones apart, as in training; lists of either (.txt), a path a line,
      from where the list lies.

  Raises:
    DataError: for a path that is not there, or if no image is.
  """
  told: list[str] = []
  found = [
    image
    for path in paths
    for image in _images_of(places.fetched(path), (), told)
  ]
  if not found:
    given = f"no image is in {listed([str(path) for path in paths])}"
    known = f"known endings: {', '.join(sorted(pixels.endings()))}"
    raise DataError("; ".join([given, *told, known]))
  for line in told:
    _log.warning("%s", line)
  return found


def _images_of(path: pathlib.Path, lists: tuple, told: list[str]):
  """lists: in which the path stands; told: lines on what is left out."""
  if path.is_dir():
    there = listing.of_directory(path)
    told += [f"{path}: {line}" for line in there.remarks()]
    yield from sorted(there.pictures.values())
  elif not path.exists():
    raise DataError(
      f"{printable(path)} is not there: give images, folders or a list"
    )
  elif archive.is_archive(path):
    raise DataError(f"{path} is an archive: unpack it and give the folder")
  elif path.suffix.lower() == LIST:
    if path in lists:
      raise DataError(f"{path} is a list that names itself: take that line out")
    for line in _lines(path):
      inner = path.parent / line
      if not inner.exists():  # as Windows writes it
        inner = path.parent / line.replace("\\", "/")
      if not inner.exists():
        inner = path.parent / local(line)
      yield from _images_of(inner, (*lists, path), told)
  else:
    yield path


def _lines(path: pathlib.Path) -> list[str]:
  try:
    text = path.read_text("utf-8-sig")
  except UnicodeError:
    raise DataError(f"{path} is no list in UTF-8: save it as such") from None
  return [line.strip() for line in text.splitlines() if line.strip()]


def content_of(path) -> bytes:
  """The bytes of an image file; DataError if it cannot be read."""
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise DataError(
      f"image {printable(path)} cannot be read: {error.strerror}"
    ) from None


def read(result: Row, path) -> np.ndarray:
  """uint8[H, W, C]: an image file as the network of a result wants it.

  Networks of photographs get the middle of the picture, `center` of its
  shorter side; others what their training made of it. Where that took pictures
  as they were, all of one size, another one is scaled until it covers that
  size and its centre is cut out, which is said.

  Raises:
    DataError: for a file that is no image.
  """
  data = result["data"]
  height, width, channels = data["image_shape"]
  load, content, center = (
    data.get("load", data),
    content_of(path),
    _center(data),
  )
  if center is not None:
    crops = photo_stream.Crops(height, center=center)
    return photo_stream.decode(path, content, crops)
  size = load.get("image_size")
  image = pixels.decode(path, content, size, load.get("channels"))
  if image.shape[2] != channels:
    _tell_channels(image.shape[2], channels)
    image = pixels.decode(path, content, size, channels)
  if image.shape[:2] != (height, width):
    _tell_size(height, width)
    image = pixels.fit(image, (height, width))
  return image


def tell_difference(found, aug: augment.Augmentation, data: Row):
  """A line for each thing that a training from a checkpoint's weights does with
  pictures otherwise than the checkpoint does.

  Args:
    found: `results.Trained`, the checkpoint.
    aug, data: of the training; data as in result.json.
  """
  ends = np.array([[[[0] * 3]], [[[255] * 3]]], np.uint8)
  if data["image_shape"][2] == 1:
    ends = ends[..., :1]
  one, two = (augment.normalise(ends, a) for a in (found.augmentation, aug))
  if np.shape(one) != np.shape(two) or np.abs(one - two).max() > _NEAR:
    _log.warning(
      "pictures are whitened by mean %s and std %s, and those of %s by %s and"
      " %s: the weights learn it in training, or set data.augmentation.mean and"
      " std",
      *map(_numbers, (aug.mean, aug.std)),
      found.folder,
      *map(_numbers, (found.augmentation.mean, found.augmentation.std)),
    )
  theirs, ours = _center(found.result["data"]), _center(data)
  if None not in (theirs, ours) and abs(theirs - ours) > _NEAR:
    _log.warning(
      "evaluation looks at the middle %.3g of a picture's shorter side, and"
      " that of %s at %.3g (data.stream.center)",
      ours,
      found.folder,
      theirs,
    )


def _numbers(values) -> str:
  return f"({', '.join(f'{value:.3g}' for value in values)})"


def _center(data: Row) -> float | None:
  """The share of a picture's shorter side that evaluation looks at; None: it is
  no network of photographs."""
  return data.get("load", data).get("stream", data).get("center")


@functools.cache  # so that it is told once
def _tell_size(height: int, width: int):
  _log.warning(
    "the network was trained on images of %dx%d (height x width) as they are:"
    " others are scaled and cut to that",
    height,
    width,
  )


@functools.cache
def _tell_channels(have: int, channels: int):
  _log.warning(
    "the network was trained on images of %d channel(s): those of %d are"
    " converted",
    channels,
    have,
  )
