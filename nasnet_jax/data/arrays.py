"""Users' own arrays in an .npz, and what is wrong with others."""

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from nasnet_jax.data import cache
from nasnet_jax.data.image_data import (
  DataError,
  check_images,
  in_this_order,
  listed,
  printable,
)

_log = logging.getLogger(__name__)
_KNOWN = ("x_train", "y_train", "x_test", "y_test", "class_names")


def read_npz(path: Path) -> cache.Arrays:
  """x_train, y_train, x_test, y_test, class_names; without a test set its
  arrays are empty.

  Raises:
    DataError: one line that names file and array.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      others = [name for name in file.files if name not in _KNOWN]
      arrays = {n: np.asarray(file[n]) for n in file.files if n in _KNOWN}
  except Exception as error:  # NumPy and zipfile raise a dozen kinds
    raise DataError(
      f"{path} is damaged or holds objects ({printable(error)}): write it with"
      " numpy.savez and plain arrays"
    ) from error
  for name in ("x_train", "y_train"):
    if name not in arrays:
      there = listed([*arrays, *others]) or "nothing"
      raise DataError(f"{path} lacks {name}; it has: {there}")
  if ("x_test" in arrays) != ("y_test" in arrays):
    raise DataError(f"{path} must hold both x_test and y_test, or neither")
  if others:
    _log.warning(
      "%s: left out: array(s) %s; known are %s",
      path,
      listed(others),
      ", ".join(_KNOWN),
    )
  for part in ("train", "test"):
    _tidy_part(path, arrays, part)
  arrays["class_names"] = _class_names(path, arrays)
  return arrays


def _tidy_part(path: Path, arrays: cache.Arrays, part: str):
  """Grey images get their channel axis, labels lose one of length 1."""
  if f"x_{part}" not in arrays:
    arrays[f"x_{part}"] = arrays["x_train"][:0]
    arrays[f"y_{part}"] = arrays["y_train"][:0]
    return
  images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
    raise DataError(
      f"{path}: y_{part} is {labels.dtype}{list(labels.shape)}: it must be"
      " integers[N], N at least 1"
    )
  if labels.min() < 0:
    raise DataError(
      f"{path}: y_{part} holds the label {labels.min()}: number from 0"
    )
  if images.dtype == np.uint8 and images.ndim == 3:
    images = images[..., None]
  check_images(f"{path}: x_{part}", images, len(labels))
  arrays[f"x_{part}"], arrays[f"y_{part}"] = images, labels


def _class_names(path: Path, arrays: cache.Arrays) -> np.ndarray:
  names = arrays.get("class_names")
  if names is None:
    count = int(arrays["y_train"].max()) + 1
    if count > len(arrays["y_train"]):
      raise DataError(
        f"{path}: y_train holds the label {count - 1}, and {count} classes are"
        f" more than its {len(arrays['y_train'])} images: number from 0,"
        " without gaps"
      )
    return np.array([str(i) for i in range(count)])
  if names.ndim != 1 or names.dtype.kind not in "USiu":
    raise DataError(
      f"{path}: class_names is {names.dtype}{list(names.shape)}: give text[K]"
    )
  if names.dtype.kind == "S":
    names = np.char.decode(names, "utf-8", "replace")
  names = names.astype(str)
  if len(set(names.tolist())) < len(names):
    raise DataError(f"{path}: class_names has a name twice: number them apart")
  return names


def as_pixels(where: str, images) -> np.ndarray:
  """uint8[N, H, W, C] of images that somebody has in memory.

  Args:
    where: for the message: "images".
    images: uint8 of 0..255, or floats of 0..1, which are rounded to those.

  Raises:
    DataError: one line that names the fix: another shape or type, NaN, other
      numbers.
  """
  images = np.asarray(images)
  if images.ndim != 4 or not (
    images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)
  ):
    axis = "; grey images need their axis: x[..., None]"
    raise DataError(
      f"{where}: {images.dtype}{list(images.shape)}: give uint8[N, H, W, C] of"
      f" 0..255 or floats of 0..1{axis if images.ndim == 3 else ''}"
    )
  if images.dtype != np.uint8 and images.size:
    low, high = images.min(), images.max()
    if not np.isfinite([low, high]).all():
      raise DataError(f"{where}: NaN or infinite: take such images out")
    if low < 0 or high > 1:
      raise DataError(
        f"{where}: floats from {low:g} to {high:g}: give floats of 0..1 (divide"
        f" by {255 if high > 16 else high:g}, do not whiten), or uint8 of"
        " 0..255"
      )
    images = np.rint(images * 255).astype(np.uint8)
  return images


def check_fit(where: str, shape, data: dict[str, Any]):
  """Whether images are such as a network was trained on; of another side, which
  it takes, a line is said, once.

  Args:
    where: for the message: "images".
    shape: (N, H, W, C) of the images.
    data: of result.json.

  Raises:
    DataError: one line, for another number of channels.
  """
  height, width, channels = data["image_shape"]
  if shape[3] != channels:
    raise DataError(
      f"{where}: {list(shape)} have {shape[3]} channel(s), the network was"
      f" trained on {channels}{in_this_order(shape, shape[0], (channels,))}"
    )
  if tuple(shape[1:3]) != (height, width) and "load" in data:
    _tell_side(where, tuple(shape[1:3]), (height, width))


@functools.cache
def _tell_side(where: str, have: tuple[int, int], trained: tuple[int, int]):
  _log.warning(
    "%s are %dx%d (height x width) and the network was trained on %dx%d:"
    " answers may be worse than its test (told once)",
    where,
    *have,
    *trained,
  )
