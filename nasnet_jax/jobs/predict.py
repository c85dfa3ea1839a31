"""Answers of a trained network to image files: the likeliest classes, as text
and drawn on the pictures."""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.data import photo_stream, pixels
from nasnet_jax.data.image_data import DataError
from nasnet_jax.data.paths import local
from nasnet_jax.jobs import results
from nasnet_jax.training import workdir

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LIST = ".txt"


class Answer(NamedTuple):
  """What a network says of one image.

  Attributes:
    path: of the image.
    classes: (name, probability), the likeliest first.
  """

  path: pathlib.Path
  classes: tuple[tuple[str, float], ...]


def find_images(paths) -> list[pathlib.Path]:
  """The images that the paths name, in order.

  Args:
    paths: image files; folders, whose images at any depth are taken in the
      order of their names; lists of both (.txt), one path per line, relative to
      the list's folder.

  Raises:
    DataError: for a path that does not exist, or if there is no image at all.
  """
  found = [image for path in paths for image in _images_of(local(path))]
  if not found:
    raise DataError(f"no image is there; known endings: {', '.join(ENDINGS)}")
  return found


def _images_of(path: pathlib.Path) -> Iterator[pathlib.Path]:
  if path.is_dir():
    yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
  elif not path.exists():
    raise DataError(f"{path} is not there: give images, folders or a list")
  elif path.suffix.lower() == LIST:
    for line in path.read_text().splitlines():
      if line.strip():
        yield from _images_of(path.parent / line.strip())
  else:
    yield path


def classify(
  network: results.Trained, paths, batch_size: int = 32, top: int = 5
) -> Iterator[Answer]:
  """An answer for each image, in order; images are cut and scaled as in the
  evaluation of the network's training.

  Args:
    paths: image files.
    batch_size: images at once; the last batch is filled up to it.
    top: classes per answer, if there are so many.

  Raises:
    DataError: for a file that is no image.
  """
  if batch_size < 1 or top < 1:
    raise ValueError(
      f"batch_size is {batch_size} and top {top}: give 1 or more"
    )
  names = network.result["data"]["classes"]
  probabilities = jax.jit(lambda x: jax.nn.softmax(network.predict(x)))
  paths = list(paths)
  size = min(batch_size, len(paths))
  for start in range(0, len(paths), size):
    part = paths[start : start + size]
    images = np.stack([read(network.result, path) for path in part])
    spare = ((0, size - len(part)), (0, 0), (0, 0), (0, 0))
    found = np.asarray(probabilities(np.pad(images, spare)))
    for path, row in zip(part, found):
      order = np.argsort(-row, kind="stable")[:top]
      yield Answer(path, tuple((names[i], float(row[i])) for i in order))


def read(result: dict[str, Any], path) -> np.ndarray:
  """uint8[H, W, C]: an image file in the form that a result's network reads.

  Networks of photographs get the middle of the picture, `center` of its
  shorter side; others the whole of it, as a folder of images does.
  """
  path, data = pathlib.Path(path), result["data"]
  try:
    content = path.read_bytes()
  except OSError as error:
    raise DataError(f"image {path} cannot be read: {error.strerror}") from None
  side, _, channels = data["image_shape"]
  center = data.get("load", data).get("stream", data).get("center")
  if center is None:
    return pixels.decode(path, content, side, channels)
  return photo_stream.decode(
    path, content, photo_stream.Crops(side, center=center)
  )


def draw(answer: Answer, folder) -> pathlib.Path:
  """Writes the picture with its answer on it; returns the new file.

  The classes are written below the picture, so they cover none of it.
  """
  from PIL import Image, ImageDraw, ImageFont, ImageOps

  with Image.open(answer.path) as image:
    picture = ImageOps.exif_transpose(image).convert("RGB")
  scale = max(1.0, 320 / picture.width)  # words need some room
  size = (round(picture.width * scale), round(picture.height * scale))
  picture = picture.resize(size)
  font_size = max(14, picture.width // 30)
  font = ImageFont.load_default(font_size)
  line = round(1.5 * font_size)
  height = line * (len(answer.classes) + 1)
  canvas = Image.new("RGB", (size[0], size[1] + height), "white")
  canvas.paste(picture)
  pen = ImageDraw.Draw(canvas)
  for number, (name, probability) in enumerate(answer.classes):
    y = size[1] + line // 2 + number * line
    pen.rectangle(
      (0, y, round(size[0] * probability), y + line - 3), fill="#cfe1fa"
    )
    words = f"{100 * probability:5.1f} %  {name}"
    pen.text((font_size // 2, y), words, fill="#1f2933", font=font)
  # Images of other folders may have the same name.
  path = workdir.new_file(folder, answer.path.stem, ".png")
  canvas.save(path)
  return path
