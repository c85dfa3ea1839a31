"""From a file's bytes to uint8[H, W, C], with Pillow."""

import io

import numpy as np

from nasnet_jax.data.image_data import DataError


def decode(
  name, content: bytes, image_size: int | None, channels: int | None
) -> np.ndarray:
  """bytes of an image file -> uint8[H, W, C], C 1 or 3.

  Args:
    name: for the message if it fails.
    image_size: as `fit`; None leaves the size.
    channels: 1 grey, 3 colour, None whichever the file is. Transparency is
      dropped, 16 bits become 8.

  Raises:
    DataError: if the file is broken, or has 32 bits per channel.
  """
  from PIL import Image, ImageOps

  try:
    with Image.open(io.BytesIO(content)) as image:
      # Cameras store a turned picture upright and say so in a tag.
      image = to_mode(name, ImageOps.exif_transpose(image), channels)
  except DataError:
    raise
  except Exception as error:  # Pillow raises a dozen kinds for broken files
    raise broken(name, error) from error
  array = np.asarray(image, np.uint8)
  array = array if array.ndim == 3 else array[..., None]
  return fit(array, image_size) if image_size else array


def broken(name, error: Exception) -> DataError:
  """What to say of an image that Pillow could not read."""
  from PIL import UnidentifiedImageError

  # Whose own words hold an address, another one every time.
  unknown = isinstance(error, UnidentifiedImageError)
  why = "no image format that Pillow knows" if unknown else error
  return DataError(f"image {name} is broken ({why}): mend it or take it out")


def fit(image: np.ndarray, image_size: int) -> np.ndarray:
  """uint8[H, W, C] -> uint8[image_size, image_size, C].

  Scaled (bilinear, smoothed when it shrinks) until the shorter side fits,
  then the centre is cut out. An image of that size comes back unchanged.
  """
  from PIL import Image, ImageOps

  if image.shape[:2] == (image_size, image_size):
    return image
  grey = image.shape[2] == 1
  picture = Image.fromarray(image[..., 0] if grey else image)
  picture = ImageOps.fit(
    picture, (image_size, image_size), Image.Resampling.BILINEAR
  )
  array = np.asarray(picture, np.uint8)
  return array[..., None] if grey else array


def to_mode(name, image, channels):
  """A Pillow image of mode L or RGB; arguments as `decode`."""
  from PIL import Image

  grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
  if image.mode.startswith("I;16"):
    # convert("L") would cut off at 255 rather than scale.
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  elif image.mode in ("I", "F"):
    raise DataError(
      f"image {name} has 32 bits per pixel: save it with 8 or 16 bits"
    )
  elif image.mode == "P":
    grey = image.getpalette() is None
  wanted = {None: "L" if grey else "RGB", 1: "L", 3: "RGB"}[channels]
  image.load()
  return image if image.mode == wanted else image.convert(wanted)


def check_alike(shapes, names):
  """All images must have one (H, W, C).

  Raises:
    DataError: naming the first two that differ, and the option that helps.
  """
  first = shapes[0]
  for shape, name in zip(shapes, names):
    if shape[:2] != first[:2]:
      raise DataError(
        f"images differ in size: {names[0]} is {first[0]}x{first[1]} and"
        f" {name} is {shape[0]}x{shape[1]}: set image_size, for example to"
        f" {min(first[:2])}"
      )
    if shape[2] != first[2]:
      raise DataError(
        f"{names[0]} has {first[2]} channel(s) and {name} {shape[2]}: set"
        " channels to 1 (grey) or 3 (colour)"
      )
