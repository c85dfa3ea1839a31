"""What part of a photograph the network sees, cut out and scaled.

In training a random part, as Szegedy et al. 2015 take it; in evaluation the
square in the middle. `data.photo_stream` makes batches of them.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import pixels
from nasnet_jax.data.image_data import DataError

MAX_TRIES = 10  # at a random crop that fits; then the centre


@dataclasses.dataclass(frozen=True)
class Crops:
  """How a photograph of any size becomes image_size x image_size pixels.

  Attributes:
    image_size: side in pixels.
    min_area: smallest random crop, as a share of the image (Szegedy et al.
      2015: 0.08); the largest is the whole image.
    max_aspect: of width to height of a random crop, and of height to width
      (the same: 4/3).
    center: share of the shorter side that the square for evaluation takes
      (slim: 0.875).
  """

  image_size: int
  min_area: float = 0.08
  max_aspect: float = 4 / 3
  center: float = 0.875

  def __post_init__(self):
    if self.image_size < 1:
      raise DataError(f"image_size is {self.image_size}: give 1 or more")
    if not (0 < self.min_area <= 1 <= self.max_aspect and 0 < self.center <= 1):
      raise DataError(
        f"min_area {self.min_area} and center {self.center} must be in (0, 1],"
        f" max_aspect {self.max_aspect} at least 1"
      )


class Box(NamedTuple):
  """Part of an image, in pixels."""

  left: float
  top: float
  width: float
  height: float


def training_crop(uniform, width: int, height: int, crops: Crops) -> Box:
  """A random part: area, then aspect ratio, then place, each uniform.

  The aspect ratio is uniform in its logarithm, so that wide and high crops
  are as likely. What does not fit is drawn again.

  Args:
    uniform: float64[30], in [0, 1).
    width, height: of the image.
  """
  area = width * height
  for draw in np.reshape(uniform, (-1, 3))[:MAX_TRIES]:
    share = crops.min_area + draw[0] * (1 - crops.min_area)
    aspect = crops.max_aspect ** (2 * draw[1] - 1)
    w = round(math.sqrt(area * share * aspect))
    h = round(math.sqrt(area * share / aspect))
    if 0 < w <= width and 0 < h <= height:
      # One number gives both places: its high and its low half.
      places = draw[2] * (width - w + 1)
      left = int(places)
      top = int((places - left) * (height - h + 1))
      return Box(left, top, w, h)
  w = min(width, round(height * crops.max_aspect))
  h = min(height, round(width * crops.max_aspect))
  return Box((width - w) // 2, (height - h) // 2, w, h)


def central_crop(width: int, height: int, crops: Crops) -> Box:
  """The square for evaluation."""
  side = crops.center * min(width, height)
  return Box((width - side) / 2, (height - side) / 2, side, side)


def decode(name, content: bytes, crops: Crops, uniform=None) -> np.ndarray:
  """bytes of an image file -> uint8[S, S, 3], scaled bicubically.

  Args:
    name: for the message if it fails.
    uniform: for `training_crop`; None: the central crop.

  Raises:
    DataError: if the file is broken.
  """
  from PIL import Image

  with pixels.opened(name, content) as image:
    kind = image.format
    if uniform is None:
      image = pixels.upright(name, image)
      box = central_crop(*image.size, crops)
    elif pixels.orientation(name, image) == 1:  # as stored
      box = training_crop(uniform, *image.size, crops)
      box = _draft(image, box, crops.image_size)
    else:
      image = pixels.upright(name, image)
      box = training_crop(uniform, *image.size, crops)
    image = pixels.to_mode(name, image, 3, kind=kind)
    left, top, width, height = box
    size = (crops.image_size, crops.image_size)
    corners = (left, top, left + width, top + height)
    result = image.resize(size, Image.Resampling.BICUBIC, corners)
    return np.asarray(result, np.uint8)


def _draft(image, box: Box, image_size: int) -> Box:
  """Lets a JPEG be decoded at a half, a quarter or an eighth of its size,
  where the crop still has at least the pixels wanted. Returns the box there.
  """
  scale = min(box.width, box.height) / image_size
  if scale < 2:
    return box
  old = image.size
  image.draft("RGB", (int(old[0] / scale), int(old[1] / scale)))
  x, y = image.size[0] / old[0], image.size[1] / old[1]
  return Box(box.left * x, box.top * y, box.width * x, box.height * y)
