"""The detection job: from a config to a trained, tested, saved detector.

The loop, the curve and the checkpoints are those of `train`; `predict_boxes`
asks the detector about pictures.
"""

import dataclasses
import logging
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from clu import platform

from nasnet_jax import __version__
from nasnet_jax.data import augment
from nasnet_jax.detection import detector as det
from nasnet_jax.detection import evaluation, metrics, pictures
from nasnet_jax.detection import picture_stream as streams
from nasnet_jax.detection.anchors import Anchors
from nasnet_jax.detection.loss import make_loss
from nasnet_jax.jobs import (
  by_machine,
  job_config,
  results,
  resumable,
  run_log,
  tested_boxes,
  train,
)
from nasnet_jax.jobs.callbacks import listeners
from nasnet_jax.models import families
from nasnet_jax.training import (
  checkpoint,
  fit,
  hosts,
  mesh,
  recipes,
  stop,
  workdir,
)

_log = logging.getLogger(__name__)


Row = dict[str, Any]


_KEY = {"id": 0, "stage": "train"}  # of its lines in `resumable.CURVES`


_NEW = ("box_head", "rpn")  # modules that a classifier does not have


class Data(NamedTuple):
  """A detection set as streams.

  Attributes:
    train, valid, test: `detection.picture_stream.Stream`; valid may be empty.
    splits: what is known of the set before its pictures are read.
    load: the arguments of `open_data`.
  """

  train: streams.Stream
  valid: streams.Stream
  test: streams.Stream
  splits: pictures.Splits
  load: Row


class Parts(NamedTuple):
  """All that a config stands for, checked, before anything is written.

  Attributes:
    config: it, with what the machine chose (`jobs.by_machine`).
    chosen: lines on that.
  """

  config: Any
  chosen: tuple[str, ...]
  space: Any
  genotype: Any
  network: det.Detector
  num_params: int
  recipe: recipes.Recipe
  data: Data
  augmentation: augment.Augmentation
  mesh: jax.sharding.Mesh
  start: Any
  shard_params: bool


def run(
  config, run_dir, *, command: str = "", callbacks: Iterable[Any] = ()
) -> Row:
  """Trains, or goes on with a training, until `result.json` is there.

  Args:
    config: a ConfigDict as in `configs/detect_voc.py`.
    run_dir: the run's folder; made if it is not there.
    command: how to start this again.
    callbacks: see `jobs.callbacks`; those of the config come after them.

  Returns:
    the content of result.json.

  Raises: as `train.run`.
  """
  with workdir.locked(run_dir) as folder, stop.on_signals() as request:
    tell = listeners(config, callbacks)
    parts = prepare(config, before=job_config.known_config(folder))
    config = parts.config
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
      tell,
    )
    _log.info("%s", summary(result))
    run_log.finish_page(folder)
  return result


def summary(result: Row) -> str:
  """The result in one line."""
  test = result["test"]
  words = f"test AP50 (VOC) {test['voc_ap50']:.4f}"
  if test["coco"] is not None:
    words += f", AP (COCO) {test['coco']['ap']:.4f}"
  return f"{words}, {test['images']:,} images, {result['params']:,} parameters"


def prepare(
  config,
  data: Data | None = None,
  devices=None,
  before: Row | None = None,
  memory: int | None = None,
) -> Parts:
  """All that a config stands for, or ValueError where parts of it do not fit
  together.

  Args:
    data: None: opened now, as the config says.
    devices: to train on; None: those of this machine.
    before: config.json of the run that goes on; None: it begins.
    memory: of `by_machine.machine_of`.
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
  config, chosen = by_machine.for_train(
    config,
    by_machine.machine_of(devices, memory),
    data.train.num_images,
    "pictures",
    before,
  )
  if found is not None:
    channels = data.train.image_shape[2]
    results.check_channels(found, data.splits.name, channels)
  space, genotype, network = _detector(config, found, data)
  recipe = recipes.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  recipe.make_schedule()
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
  # Only for their checks of how batches divide.
  evaluation.make_evaluate(network, aug, recipe.eval_batch_size, on)
  fit.make_step(network, recipe, aug, on, streamed=True, make_loss=make_loss)
  # This also checks that the weights of `start` fit the network.
  shapes = jax.eval_shape(
    lambda: fit.init_state(network, recipe, data.train.image_shape, 1, 0, start)
  )
  return Parts(
    config,
    chosen,
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


def _detector(config, found, data: Data):
  """(space, genotype of the backbone, the network)."""
  space, genotype, sizes = _backbone(config, found, data.splits)
  fields = config.detector.to_dict()
  frozen = fields.pop("bn_frozen")
  network = make_network(
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
  return space, genotype, network


def open_data(
  source: str, data_dir, options: Row, sizes: Row, stream: Row
) -> Data:
  """A detection set as streams.

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
  """`Sizes` of their fields in a config or in JSON, where tuples are lists."""
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


def make_network(space, genotype, sizes, fields: Row) -> det.Detector:
  """The detector on a network of these sizes.

  Args:
    fields: of `DetectorConfig`, without numerics and with anchors as a dict.
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
  numerics, recipe = parts.network.config.numerics, parts.recipe
  if not numerics.bn_frozen:
    job_config.tell_slow_statistics(
      recipe.epochs * (parts.data.train.num_images // recipe.batch_size),
      numerics.bn_decay,
      "network.bn_decay",
    )
  elif parts.start is None:
    _log.warning(
      "detector.bn_frozen is True and there is no model.checkpoint: batch norm"
      " stays as it begins, by no statistics; set detector.bn_frozen to False"
    )
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
  by_machine.tell(parts.chosen)
  platform.work_unit().set_notes(words)


def _train(folder, config, parts: Parts, console, command: str) -> Row:
  """Trains to the end, tests once, and returns the content of result.json."""
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
    watch=resumable.Watch(
      console.in_fit, console.after_point, console.begin_fit
    ),
    evaluate=evaluate,
    mesh=parts.mesh,
    start_from=parts.start,
    shard_params=parts.shard_params,
    make_loss=make_loss,
  )
  weights = jax.tree.map(hosts.fetch, fit.variables_of(state))
  found = evaluate(weights, data.test)
  tested = describe_score(found, data.test, data.splits)
  tested_boxes.write(folder, found.found, data.test.split, data.splits)
  checkpoint.write(folder / results.WEIGHTS, weights)
  return _result(folder, config, parts, score, tested, command)


def describe_score(
  score: evaluation.Score, data: streams.Stream, splits: pictures.Splits
) -> Row:
  """A score for JSON, with COCO's numbers if pycocotools is installed."""
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
  """The content of result.json, which with the weights is all that `load`
  needs."""
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
