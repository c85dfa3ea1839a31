"""Answers of a trained network to image files: the likeliest classes, as text
and drawn on the pictures."""

import itertools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from nasnet_jax.data import pixels
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import answers as answers_files
from nasnet_jax.jobs import lettering, preparation, results
from nasnet_jax.training import workdir


class Answer(NamedTuple):
  """What a network says of one image.

  Attributes:
    path: of the image.
    classes: (name, probability), the likeliest first.
  """

  path: pathlib.Path
  classes: tuple[tuple[str, float], ...]


def classify(
  network: results.Trained,
  paths,
  batch_size: int = 32,
  top: int = 5,
  broken: list[str] | None = None,
) -> Iterator[Answer]:
  """An answer for each image, in order; images are cut and scaled as in the
  evaluation of the network's training.

  Args:
    paths: image files.
    batch_size: images at once; the last batch is filled up, not compiled anew.
    top: classes per answer, or as many as there are.
    broken: takes a line for each file that is no image; None: the first one
      ends it.

  Raises:
    DataError: for a file that is no image, unless `broken` takes it.
  """
  if batch_size < 1 or top < 1:
    raise ValueError(
      f"batch_size is {batch_size} and top {top}: give 1 or more"
    )
  names = network.result["data"]["classes"]
  probabilities = jax.jit(lambda x: jax.nn.softmax(network.predict(x)))
  paths = list(paths)
  size = min(batch_size, len(paths))
  images = _readable(network.result, paths, broken)
  while part := list(itertools.islice(images, size)):
    stacked = np.stack([image for _, image in part])
    spare = ((0, size - len(part)), (0, 0), (0, 0), (0, 0))
    found = np.asarray(probabilities(np.pad(stacked, spare)))
    for (path, _), row in zip(part, found):
      order = np.argsort(-row, kind="stable")[:top]
      yield Answer(path, tuple((names[i], float(row[i])) for i in order))


def _readable(result, paths, broken: list[str] | None):
  """(path, pixels) of the files that can be read."""
  for path in paths:
    try:
      image = preparation.read(result, path)
    except DataError as error:
      if broken is None:
        raise
      broken.append(str(error))
    else:
      yield path, image


def write(answers: list[Answer], broken: list[str], folder):
  """answers.csv, a row per image and class, and answers.json in a folder;
  returns the new files."""
  table = [
    {"file": str(a.path), "class": name, "probability": p, "rank": rank}
    for a in answers
    for rank, (name, p) in enumerate(a.classes, 1)
  ]
  tree = [
    {
      "file": str(a.path),
      "class": a.classes[0][0],
      "probability": a.classes[0][1],
      "classes": [{"class": n, "probability": p} for n, p in a.classes],
    }
    for a in answers
  ]
  return answers_files.write(
    folder, table, [*tree, *({"error": line} for line in broken)]
  )


def draw(answer: Answer, folder) -> pathlib.Path:
  """Writes the picture with its answer on it; returns the new file.

  The classes are written below the picture, so they cover none of it.
  """
  from PIL import Image, ImageDraw

  content = preparation.content_of(answer.path)
  picture = Image.fromarray(pixels.read(answer.path, content, 3))
  scale = max(1.0, 320 / picture.width)  # words want some room
  size = (round(picture.width * scale), round(picture.height * scale))
  picture = picture.resize(size)
  font_size = max(14, picture.width // 30)
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
    font, words = lettering.font_for(
      f"{100 * probability:5.1f} %  {name}", font_size
    )
    pen.text((font_size // 2, y), words, fill="#1f2933", font=font)
  # Images of other folders may have the same name.
  path = workdir.new_file(folder, answer.path.stem, ".png")
  canvas.save(path)
  return path
