"""The detection job: from a config to a trained, tested, saved detector.

The loop, the curve and the checkpoints are those of `train`; `load` gives back
what it wrote, and `find` asks it about pictures.
"""

import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import platform

from nasnet_jax import __version__, report, spaces
from nasnet_jax.data import augment
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import detector as det
from nasnet_jax.detection import evaluation, metrics, pictures
from nasnet_jax.detection import picture_stream as streams
from nasnet_jax.detection.anchors import Anchors
from nasnet_jax.jobs import answers as answers_files
from nasnet_jax.jobs import (
  job_config,
  lettering,
  preparation,
  results,
  resumable,
  run_log,
  train,
)
from nasnet_jax.models import families
from nasnet_jax.training import checkpoint, fit, hosts, mesh, stop, workdir

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_KEY = {"id": 0, "stage": "train"}  # of its lines in `resumable.CURVES`
_NEW = ("box_head", "rpn")  # modules that no classifier has


class Data(NamedTuple):
  """A detection set as streams.

  Attributes:
    train, valid, test: `detection.picture_stream.Stream`; valid may be empty.
    splits: the set, without its pixels.
    load: the arguments of `open_data`.
  """

  train: streams.Stream
  valid: streams.Stream
  test: streams.Stream
  splits: pictures.Splits
  load: Row


class Parts(NamedTuple):
  """All that a config stands for, checked, before anything is written."""

  space: Any
  genotype: Any
  network: det.Detector
  num_params: int
  recipe: fit.Recipe
  data: Data
  augmentation: augment.Augmentation
  mesh: jax.sharding.Mesh
  start: Any
  shard_params: bool


def run(config, run_dir, *, command: str = "") -> Row:
  """Trains, or goes on with a training, until `result.json` is there.

  Args:
    config: a ConfigDict as in `configs/detect_voc.py`.
    run_dir: the run's folder; made if it is not there.
    command: how to start this again.

  Returns:
    the content of result.json.

  Raises: as `train.run`.
  """
  with workdir.locked(run_dir) as folder, stop.on_signals() as request:
    parts = prepare(config)
    workdir.claim(
      folder / "config.json",
      run_log.recorded(
        config,
        data_fingerprint=parts.data.splits.fingerprint,
        cells=parts.space.to_json(parts.genotype),
      ),
      train.MAY_CHANGE,
    )
    result = train.complete(
      folder,
      config,
      request,
      lambda: _describe(parts),
      lambda console: _train(folder, config, parts, console, command),
    )
    if hosts.is_first() and not (folder / "figures").exists():
      (folder / "figures").mkdir()
      figure = folder / "figures" / "training"
      report.draw_trainings({"training": folder}, figure, score="AP50")
    _log.info("%s", summary(result))
  return result


def summary(result: Row) -> str:
  """What came out, in a line."""
  test = result["test"]
  words = f"test AP50 (VOC) {test['voc_ap50']:.4f}"
  if test["coco"] is not None:
    words += f", AP (COCO) {test['coco']['ap']:.4f}"
  return f"{words}, {test['images']:,} images, {result['params']:,} parameters"


def prepare(config, data: Data | None = None, devices=None) -> Parts:
  """All that a config stands for; ValueError for what does not fit together.

  Args:
    data: None: opened now, as the config says.
    devices: to train on; None: those of this machine.
  """
  if config.train.seed < 0:
    raise ValueError(f"train.seed is {config.train.seed}: give 0 or more")
  found = None
  if config.model.checkpoint:
    found = results.load(config.model.checkpoint)
  if data is None:
    data = open_data(
      config.data.source,
      config.data.data_dir,
      {k: v for k, v in config.data.options.items() if v is not None},
      config.data.sizes.to_dict(),
      config.data.stream.to_dict(),
    )
  job_config.check_batch(
    data.train.num_images, "train.batch_size", config.train.batch_size
  )
  space, genotype, sizes = _backbone(config, found, data.splits)
  fields = config.detector.to_dict()
  frozen = fields.pop("bn_frozen")
  network = _network(
    space,
    genotype,
    dataclasses.replace(
      sizes, numerics=dataclasses.replace(sizes.numerics, bn_frozen=frozen)
    ),
    {
      **fields,
      "num_classes": len(data.splits.class_names),
      "padded": not data.train.sizes.stretch,
    },
  )
  recipe = fit.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  recipe.make_schedule()
  if not frozen:
    job_config.tell_slow_statistics(
      recipe.epochs * (data.train.num_images // recipe.batch_size),
      sizes.numerics.bn_decay,
      "network.bn_decay",
    )
  if recipe.patience_epochs and not data.valid.num_images:
    raise ValueError(
      "train.patience_epochs needs images to score: set"
      " data.options.valid_split"
    )
  on = mesh.make_mesh(1, config.mesh.data, devices)
  aug = augment.Augmentation(mean=(0.5,), std=(0.5,))  # slim: -1 to 1
  start = None
  if found is not None:
    old = found.augmentation
    aug = augment.Augmentation(mean=old.mean, std=old.std)
    start = from_classifier(found)
  # Both check how batches divide; the second that the weights fit, too.
  evaluation.make_evaluate(network, aug, recipe.eval_batch_size, on)
  fit.make_step(
    network, recipe, aug, on, streamed=True, make_loss=det.make_loss
  )
  # Fails here, too, where `start` has other weights than the network.
  shapes = jax.eval_shape(
    lambda: fit.init_state(network, recipe, data.train.image_shape, 1, 0, start)
  )
  return Parts(
    space,
    genotype,
    network,
    sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params)),
    recipe,
    data,
    aug,
    on,
    start,
    config.mesh.get("shard_params", False),
  )


def open_data(
  source: str, data_dir, options: Row, sizes: Row, stream: Row
) -> Data:
  """A detection set, with enough of it for streams.

  Args:
    source, data_dir, options: of `pictures.load`.
    sizes: fields of `picture_stream.Sizes`.
    stream: of `data.photo_stream.Batches`: workers, max_broken.
  """
  splits = pictures.load(source, data_dir=data_dir, **options)
  made = make_sizes(sizes)
  among = {"host": jax.process_index(), "num_hosts": jax.process_count()}
  parts = [
    streams.Stream(split, made, **stream, **among)
    for split in (splits.train, splits.valid, splits.test)
  ]
  load = {
    "source": source,
    "data_dir": data_dir,
    "options": options,
    "sizes": sizes,
    "stream": stream,
  }
  return Data(*parts, splits, load)


def make_sizes(fields: Row) -> streams.Sizes:
  """Of a config, or of JSON, whose tuples are lists."""
  buckets = tuple(tuple(bucket) for bucket in fields["buckets"])
  jitter = tuple(fields["jitter"])
  return streams.Sizes(**{**fields, "buckets": buckets, "jitter": jitter})


def _backbone(config, found: results.Trained | None, splits):
  """(space, genotype, sizes) of the backbone."""
  cells = config.model.checkpoint or config.model.genotype
  space, genotype = results.find_cells(cells)
  if found is None:
    classes = len(splits.class_names)
    return (
      space,
      genotype,
      job_config.get_network(config.network, classes, space),
    )
  if config.model.genotype:
    raise ValueError(
      "the network is taken from config.model.checkpoint: set"
      " config.model.genotype to ''"
    )
  changes = {"dropout": 0.0, "remat": config.network.remat}
  sizes = found.network.config
  if hasattr(sizes, "aux"):
    changes["aux"] = False
  return space, genotype, dataclasses.replace(sizes, **changes)


def _network(space, genotype, sizes, fields: Row) -> det.Detector:
  """The detector on a network of these sizes.

  Args:
    fields: of `DetectorConfig`, numerics apart; its anchors as a dict.
  """
  family = families.of(space)
  literals = family.literals(space, genotype)
  anchors = {
    k: tuple(v) if isinstance(v, list | tuple) else v
    for k, v in fields["anchors"].items()
  }
  config = det.DetectorConfig(
    **{**fields, "anchors": Anchors(**anchors)}, numerics=sizes.numerics
  )
  network = det.Detector(config, det.Body(family.module, sizes, literals))
  _ = network.cut  # checks that it can be cut
  return network


def from_classifier(found: results.Trained):
  """(variables) -> variables whose backbone is a trained classifier's.

  Raises (the function returned):
    CheckpointError: naming what is missing, unexpected or of another shape.
  """

  def start(variables):
    result = {}
    for collection, wanted in variables.items():
      have = dict(found.variables[collection])
      for name in results.HEADS:
        have.pop(name, None)
      checkpoint.compare(
        f"{found.folder} ({collection})", have, wanted["backbone"]
      )
      have = jax.tree.map(jnp.asarray, have)
      result[collection] = {**wanted, "backbone": have}
    return result

  return start


def _describe(parts: Parts):
  data, cut = parts.data, parts.network.cut
  words = (
    f"{parts.num_params:,} parameters, a map of {' and '.join(cut.maps)} at"
    f" stride {cut.stride}; {data.splits.name}: "
  )
  counts = [
    f"{part.num_images:,} images ({part.split.num_boxes:,} boxes) to {what}"
    for part, what in zip(data[:3], ("train on", "validate", "test"))
  ]
  words += ", ".join(counts)
  words += f"; {parts.mesh.size} {jax.default_backend()} device(s)"
  _log.info("%s", words)
  if parts.start is not None:
    _log.info("new, and not of the checkpoint: %s", ", ".join(_NEW))
  platform.work_unit().set_notes(words)


def _train(folder, config, parts: Parts, console, command: str) -> Row:
  """Trains to the end, tests once, and says everything of it."""
  data, recipe = parts.data, parts.recipe
  evaluate = evaluation.make_evaluate(
    parts.network, parts.augmentation, recipe.eval_batch_size, parts.mesh
  )
  state, score = resumable.train(
    folder,
    _KEY,
    parts.network,
    recipe,
    parts.augmentation,
    data.train,
    config.train.seed,
    valid=data.valid if data.valid.num_images else None,
    checkpoint_seconds=config.train.checkpoint_seconds,
    watch=resumable.Watch(console.in_fit, console.after_point),
    evaluate=evaluate,
    mesh=parts.mesh,
    start_from=parts.start,
    shard_params=parts.shard_params,
    make_loss=det.make_loss,
  )
  weights = jax.tree.map(hosts.fetch, fit.variables_of(state))
  tested = describe_score(evaluate(weights, data.test), data.test, data.splits)
  checkpoint.write(folder / results.WEIGHTS, weights)
  return _result(folder, config, parts, score, tested, command)


def describe_score(
  score: evaluation.Score, data: streams.Stream, splits: pictures.Splits
) -> Row:
  """A score as JSON has it; COCO's numbers where pycocotools is."""
  names = splits.class_names
  coco = None
  if metrics.has_coco():
    coco = metrics.coco(data.split.annotations, score.found, len(names))
  else:
    _log.warning(
      "no COCO numbers without pycocotools: pip install 'nasnet_jax[detection]'"
    )
  return {
    "voc_ap50": score.accuracy,
    "voc_ap50_by_class": dict(zip(names, score.by_class)),
    "coco": coco,
    "images": score.images,
  }


def _result(folder, config, parts: Parts, score, tested: Row, command) -> Row:
  """result.json, from which alone the detector can be rebuilt."""
  points = workdir.keep_lines(folder / resumable.CURVES, lambda _: True, "")
  fields = dataclasses.asdict(parts.network.config)
  numerics = fields.pop("numerics")
  return {
    "version": __version__,
    "job": "detect",
    "space": parts.space.name,
    "space_options": parts.space.options,
    "seed": config.train.seed,
    "winner": {"genotype": parts.space.to_json(parts.genotype)},
    "params": parts.num_params,
    "network": results.describe_network(parts.network.body.config),
    "detector": fields,
    "bn_frozen": numerics["bn_frozen"],
    "checkpoint": config.model.checkpoint,
    "valid_voc_ap50": score.accuracy if score else None,
    "test": tested,
    "eval_batch_size": parts.recipe.eval_batch_size,
    "recipe": dataclasses.asdict(parts.recipe),
    "augmentation": dataclasses.asdict(parts.augmentation),
    "data": {
      "name": parts.data.splits.name,
      "note": parts.data.splits.note,
      "classes": list(parts.data.splits.class_names),
      "image_shape": list(parts.data.train.image_shape),
      "fingerprint": parts.data.splits.fingerprint,
      "load": parts.data.load,
    },
    "cost": {"total_seconds": round(sum(r["seconds"] for r in points), 3)},
    "environment": run_log.environment(),
    "command": command,
  }


class Trained(NamedTuple):
  """A trained detector.

  Attributes:
    network: a `Detector`.
    variables: as `network.apply` reads them.
    augmentation: how its images were whitened.
    sizes: how its pictures were scaled.
    result: all of result.json.
  """

  network: det.Detector
  variables: Row
  augmentation: augment.Augmentation
  sizes: streams.Sizes
  result: Row


def load(run_dir) -> Trained:
  """Rebuilds the detector of a finished run, wherever its folder lies now.

  Raises:
    WorkdirError: if the run is not finished, or found no boxes.
    CheckpointError: if the weights are damaged or of another network.
  """
  folder = pathlib.Path(run_dir)
  result = results.read_result(folder)
  if result["job"] != "detect":
    raise workdir.WorkdirError(
      f"{folder} has no detector, but the result of job {result['job']!r}: ask"
      " launch/predict.py about it"
    )
  space = spaces.get(result["space"], **result["space_options"])
  genotype = space.from_json(result["winner"]["genotype"])
  sizes = results.network_config(result["network"], space)
  network = _network(space, genotype, sizes, result["detector"])
  aug = result["augmentation"]
  aug = augment.Augmentation(mean=tuple(aug["mean"]), std=tuple(aug["std"]))
  shape = tuple(result["data"]["image_shape"])
  state = jax.eval_shape(
    lambda: fit.init_state(network, fit.Recipe(), shape, 1, 0)
  )
  template = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), fit.variables_of(state)
  )
  variables = checkpoint.read(folder / results.WEIGHTS, template)
  made = make_sizes(result["data"]["load"]["sizes"])
  return Trained(network, variables, aug, made, result)


class Answer(NamedTuple):
  """What a detector finds on one picture.

  Attributes:
    path: of the picture.
    side: its (height, width).
    found: in pixels of it, the best first.
  """

  path: pathlib.Path
  side: tuple[int, int]
  found: metrics.Found

  def to_json(self, class_names) -> Row:
    """With corners (x1, y1, x2, y2), as most tools have them."""
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
  detect = jax.jit(det.make_detect(detector.network, detector.augmentation))
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
    given = detect(detector.variables, image[None], jnp.array([scaled]))
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


_COLOURS = (
  "#e6194b",
  "#3cb44b",
  "#0082c8",
  "#f58231",
  "#911eb4",
  "#008080",
  "#aa6e28",
  "#808000",
)


def draw(answer: Answer, class_names, folder) -> pathlib.Path:
  """Writes the picture with boxes, labels and scores; returns the new file.

  Beside it lies a .json of the same name with the same boxes.
  """
  from PIL import ImageDraw

  content = preparation.content_of(answer.path)
  picture = streams.decode(str(answer.path), content)
  pen = ImageDraw.Draw(picture)
  size = max(10, min(picture.size) // 40)
  width = max(1, min(picture.size) // 250)
  for box, score, label in reversed(list(zip(*answer.found))):
    y1, x1, y2, x2 = map(float, box)
    colour = _COLOURS[int(label) % len(_COLOURS)]
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
    font, words = lettering.font_for(
      f"{class_names[int(label)]} {score:.2f}", size
    )
    height = pen.textbbox((0, 0), words, font=font)[3] + 2
    top = y1 - height if y1 >= height else y1  # above, or inside at the border
    pen.rectangle(pen.textbbox((x1, top), words, font=font), fill=colour)
    pen.text((x1, top), words, fill="white", font=font)
  # Images of other folders have the same names.
  path = workdir.new_file(folder, answer.path.stem, ".png")
  picture.save(path)
  text = json.dumps(answer.to_json(class_names), indent=2) + "\n"
  path.with_suffix(".json").write_text(text)
  return path
