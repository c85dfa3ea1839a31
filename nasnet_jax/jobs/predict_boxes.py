"""Answers of a trained detector to image files: boxes, as text and drawn on the
pictures. `predict` does the same for classes."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax import spaces
from nasnet_jax.data import augment, places
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import evaluation, metrics
from nasnet_jax.detection import picture_stream as streams
from nasnet_jax.detection.detector import Detector
from nasnet_jax.detection.inference import make_detect
from nasnet_jax.jobs import answers as answers_files
from nasnet_jax.jobs import box_drawings, detect, preparation, results
from nasnet_jax.training import checkpoint, fit, recipes, workdir

Row = dict[str, Any]


class Trained(NamedTuple):
  """A trained detector.

  Attributes:
    network: a `Detector`.
    variables: as `network.apply` reads them.
    augmentation: how the images of its training were whitened.
    sizes: how the pictures of its training were scaled.
    result: all of result.json.
  """

  network: Detector
  variables: Row
  augmentation: augment.Augmentation
  sizes: streams.Sizes
  result: Row


def load(run_dir) -> Trained:
  """Rebuilds the detector of a finished run, wherever its folder lies now.

  Raises:
    WorkdirError: if the run is not finished, or is not a detection run.
    CheckpointError: if the weights are damaged or of another network.
  """
  folder = places.fetched(run_dir)
  result = results.read_result(folder)
  job = results.job_of(result)
  if job != "detect":
    raise workdir.WorkdirError(
      f"{folder} has no detector, but the result of job {job!r}: nasnet-jax"
      f" predict --checkpoint={folder} PICTURES says what is on pictures"
    )
  space = spaces.get(result["space"], **result["space_options"])
  genotype = space.from_json(result["winner"]["genotype"])
  sizes = results.network_config(result["network"], space)
  network = detect.make_network(space, genotype, sizes, result["detector"])
  aug = result["augmentation"]
  aug = augment.Augmentation(mean=tuple(aug["mean"]), std=tuple(aug["std"]))
  shape = tuple(result["data"]["image_shape"])
  state = jax.eval_shape(
    lambda: fit.init_state(network, recipes.Recipe(), shape, 1, 0)
  )
  template = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), fit.variables_of(state)
  )
  variables = checkpoint.read(folder / results.WEIGHTS, template)
  made = detect.make_sizes(result["data"]["load"]["sizes"])
  return Trained(network, variables, aug, made, result)


class Answer(NamedTuple):
  """What a detector finds on one picture.

  Attributes:
    path: of the picture.
    side: its (height, width).
    found: boxes in pixels of the picture, the best first.
  """

  path: pathlib.Path
  side: tuple[int, int]
  found: metrics.Found

  def to_json(self, class_names) -> Row:
    """The answer for JSON; boxes are (x1, y1, x2, y2), as in most tools."""
    rows = [
      {
        "class": class_names[int(label)],
        "score": round(float(score), 4),
        "box": [round(float(box[i]), 2) for i in (1, 0, 3, 2)],
      }
      for box, score, label in zip(*self.found)
    ]
    return {
      "image": str(self.path),
      "height": self.side[0],
      "width": self.side[1],
      "detections": rows,
    }


def find(
  detector: Trained,
  paths,
  least_score: float = 0.0,
  broken: list[str] | None = None,
) -> Iterator[Answer]:
  """What is found on each picture, scaled and padded as in its training.

  Args:
    paths: image files.
    least_score: boxes that score less are left out.
    broken: takes a line for each file that is no image; None: the first one
      ends it.

  Raises:
    DataError: for a file that is no image, unless `broken` takes it.
  """
  if not 0 <= least_score <= 1:
    raise ValueError(f"min_score is {least_score}: give 0 to 1")
  ask = jax.jit(make_detect(detector.network, detector.augmentation))
  for path in map(pathlib.Path, paths):
    try:
      picture = streams.decode(str(path), preparation.content_of(path))
    except DataError as error:
      if broken is None:
        raise
      broken.append(str(error))
      continue
    side = picture.height, picture.width
    image, scaled = padded(picture, detector.sizes, detector.network.cut.stride)
    given = ask(detector.variables, image[None], jnp.array([scaled]))
    one = jax.tree.map(lambda leaf: leaf[0], given)
    found = evaluation.on_picture(one, scaled, side)
    good = found.scores >= least_score
    yield Answer(path, side, metrics.Found(*(leaf[good] for leaf in found)))


def padded(
  picture, sizes: streams.Sizes, stride: int, shape=None
) -> tuple[np.ndarray, tuple[int, int]]:
  """(uint8[H, W, 3], (height, width) of the picture in it): as evaluation
  scales and pads it.

  Args:
    picture: a Pillow image of mode RGB.
    stride: of the detector, whose multiple the sides of odd shapes are.
    shape: (H, W); None: that of the picture's bucket. What reaches over it is
      cut off.
  """
  side = picture.height, picture.width
  change = streams.whole(side, sizes)
  bucket = sizes.bucket(side)
  if shape is None and bucket is None:  # an odd shape: a program of its own
    shape = tuple(-(-s // stride) * stride for s in change.scaled)
  elif shape is None:
    shape = sizes.buckets[bucket]
  image = np.zeros((*shape, 3), np.uint8)
  part = change.apply(picture)[: shape[0], : shape[1]]
  image[: part.shape[0], : part.shape[1]] = part
  return image, change.scaled


def write(
  answers: list[Answer], class_names, broken: list[str], folder
) -> list[pathlib.Path]:
  """answers.csv, a row per box, and answers.json in a folder; a picture
  without boxes has a row without them. Returns the new files."""
  tree = [answer.to_json(class_names) for answer in answers]
  empty = {"class": "", "score": "", "box": [""] * 4}
  table = [
    {
      "file": row["image"],
      "class": found["class"],
      "score": found["score"],
      **dict(zip(("x1", "y1", "x2", "y2"), found["box"])),
    }
    for row in tree
    for found in row["detections"] or [empty]
  ]
  return answers_files.write(
    folder, table, [*tree, *({"error": line} for line in broken)]
  )


def draw(answer: Answer, class_names, folder) -> pathlib.Path:
  """Writes the picture with boxes, labels and scores; returns the new file.

  Beside it lies a .json of the same name with the same boxes.
  """
  content = preparation.content_of(answer.path)
  picture = streams.decode(str(answer.path), content)
  box_drawings.paint(picture, answer.found, class_names)
  # Images of other folders have the same names.
  path = workdir.new_file(folder, answer.path.stem, ".png")
  picture.save(path)
  text = json.dumps(answer.to_json(class_names), indent=2) + "\n"
  path.with_suffix(".json").write_text(text)
  return path
