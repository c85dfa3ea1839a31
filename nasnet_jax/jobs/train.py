"""The training job: one network, from a config to a tested, saved network.

It trains published cells or a search's, from initial weights or from another
run's (fine-tuning). `results.load` rebuilds the network.
"""

import dataclasses
import logging
import shutil
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from clu import parameter_overview, platform

from nasnet_jax import __version__, report
from nasnet_jax.costs import counting
from nasnet_jax.data import augment
from nasnet_jax.jobs import (
  by_machine,
  job_config,
  longer,
  preparation,
  results,
  resumable,
  run_log,
  tested_answers,
  user_checks,
)
from nasnet_jax.jobs.callbacks import NOBODY, Listeners, listeners
from nasnet_jax.models import families
from nasnet_jax.training import (
  checkpoint,
  datasets,
  evaluation,
  fit,
  hosts,
  mesh,
  own_parts,
  profile,
  recipes,
  stop,
  workdir,
)
from nasnet_jax.training.scalars import Scalars

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_KEY = {"id": 0, "stage": "train"}  # of its lines in `resumable.CURVES`

# May differ between two processes of one run: none changes the result, except
# for the rounding of sums over another number of devices (`mesh.data`).
MAY_CHANGE = (
  own_parts.FIELD,  # `own_parts.check` knows which may
  "callbacks",
  "log",
  "profile",
  "mesh",
  "data.data_dir",
  "data.options.path",  # the same images, as their fingerprint says
  "data.options.max_broken",
  "data.options.note",
  "data.stream.workers",
  "data.stream.max_broken",
  "train.checkpoint_seconds",
)


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
  network: nn.Module
  recipe: recipes.Recipe
  images: job_config.Splits
  augmentation: augment.Augmentation
  mesh: jax.sharding.Mesh
  start: Any
  shard_params: bool


def run(
  config, run_dir, *, command: str = "", callbacks: Iterable[Any] = ()
) -> dict[str, Any]:
  """Trains, or goes on with a training, until `result.json` is there.

  Args:
    config: a ConfigDict as in `configs/train_cifar.py`.
    run_dir: the run's folder; made if it is not there.
    command: how to start this again.
    callbacks: see `jobs.callbacks`; those of the config come after them.

  Returns:
    the content of result.json.

  Raises:
    Stopped: after Ctrl-C or SIGTERM; the same call goes on.
    ValueError: one line: a config, a folder or data that cannot be used.
    OSError: the folder cannot be written, or the disk is full.
  """
  with workdir.locked(run_dir) as folder, stop.on_signals() as request:
    user_checks.apart(config.data, folder)
    parts = prepare(config, before=job_config.known_config(folder))
    config = parts.config
    tell = listeners(config, callbacks)
    recorded = run_log.recorded(
      config,
      data_fingerprint=parts.images.fingerprint,
      cells=parts.space.to_json(parts.genotype),
      **_own_parts(config, parts),
      **job_config.recorded_split(parts.images),
    )
    own_parts.check(folder / results.CONFIG, recorded)
    longer.claim(folder, recorded, parts, MAY_CHANGE)
    result = complete(
      folder,
      config,
      request,
      lambda: _describe(parts),
      lambda console: _train(folder, config, parts, console, command),
      tell,
      keep_checkpoints=not parts.recipe.follows_its_length(),
    )
    _log.info("%s", summary(result))
    run_log.finish_page(folder)
  return result


def _own_parts(config, parts: Parts) -> Row:
  """What config.json and result.json say of users' parts; {} of none."""
  operations = getattr(parts.space, "operations", ())
  sources = [config.data.source]
  return own_parts.of({"operation": operations, "data source": sources})


def complete(
  folder,
  config,
  request,
  describe,
  work,
  tell: Listeners = NOBODY,
  keep_checkpoints: bool = False,
) -> Row:
  """The content of a claimed run's result.json, which is written if missing.

  Args:
    request: of `stop.on_signals`.
    describe: () -> None, logs what is about to be done.
    work: (console) -> the content of result.json.
    tell: the run's callbacks.
    keep_checkpoints: whether a finished training may go on for more epochs.
  """
  trace = profile.StepTrace(folder / "profile", config.get("profile", ""))
  with run_log.log_file(folder), Scalars(folder) as scalars, trace:
    if not hosts.of_first((folder / results.RESULT).exists()):
      console = Console(request, scalars, config.log.seconds, trace, tell)
      tell("on_start", folder, config.to_dict())
      describe()
      with run_log.page(folder):
        result = work(console)
        workdir.write_json(folder / results.RESULT, result)
      # Only a training that may go on needs more than its weights.
      if hosts.is_first() and not keep_checkpoints:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
      tell("on_end", result)
      hosts.wait()  # or the others would read what is not there yet
  return results.read_result(folder)


def summary(result: Row) -> str:
  """The result in a line or two."""
  n, top_5 = result["test_examples"], ""
  if len(result["data"]["classes"]) > 5:  # or all are among the first five
    top_5 = f"; top five {result['test_top_5'] / n:.4f}"
  return (
    f"test accuracy {result['test_accuracy']:.4f}"
    f" ({result['test_correct']:,} of {n:,}{top_5}),"
    f" {result['winner']['params']:,} parameters,"
    f" {result['winner']['macs']:,} multiply-adds"
  )


def prepare(
  config,
  images: job_config.Splits | None = None,
  devices=None,
  before: Row | None = None,
  memory: int | None = None,
) -> Parts:
  """All that a config stands for, or ValueError where parts of it do not fit
  together.

  Args:
    images: None: read now, as the config says.
    devices: to train on; None: those of this machine.
    before: config.json of the run that goes on; None: it begins.
    memory: of `by_machine.machine_of`.
  """
  if config.train.seed < 0:
    raise ValueError(f"train.seed is {config.train.seed}: give 0 or more")
  found = None
  if config.model.checkpoint:
    found = results.load(config.model.checkpoint)
  if images is None:
    images = job_config.load_images(
      config.data,
      {"train.batch_size": config.train.batch_size},
      job_config.split_of(before),
    )
  streamed = not isinstance(images.train, datasets.Images)
  config, chosen = by_machine.for_train(
    config,
    by_machine.machine_of(devices, memory),
    images.train.num_images,
    "stream" if streamed else "memory",
    before,
  )
  if found is not None:
    results.check_channels(found, images.name, images.image_shape[2])
  aug = job_config.get_augmentation(config.data, images)
  space, genotype, sizes = _architecture(config, found, images)
  network = families.network(space, genotype, sizes)
  families.of(space).check_side(sizes, images.image_shape[:2])
  recipe = recipes.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  recipe.make_schedule()
  if recipe.freeze and found is None:
    raise ValueError(
      "train.freeze trains the classifier alone, and the rest would stay as it"
      " was drawn: give config.model.checkpoint, or set train.freeze to False"
    )
  if recipe.patience_epochs and not images.valid.num_images:
    raise ValueError(
      "train.patience_epochs needs images to score: set data.num_valid"
    )
  on = mesh.make_mesh(1, config.mesh.data, devices)
  # Checks how batches divide.
  fit.make_step(network, recipe, aug, on, streamed=streamed)
  start = None
  if found is not None:
    preparation.tell_difference(found, aug, job_config.describe(images))
    start = results.transfer(found, keep_head=config.model.keep_head)
    _shapes(network, recipe, images, start)  # checks that the weights fit
  return Parts(
    config,
    chosen,
    space,
    genotype,
    network,
    recipe,
    images,
    aug,
    on,
    start,
    config.mesh.get("shard_params", False),
  )


def _architecture(config, found: results.Trained | None, images):
  """(space, genotype, sizes): the config's, and the checkpoint's where the
  config leaves them open."""
  classes = images.num_classes
  if found is not None and config.model.keep_head:
    old, new = found.result["data"]["classes"], images.class_names
    if old != list(new):
      raise ValueError(
        f"{config.model.checkpoint} tells {len(old)} classes apart, not the"
        f" {len(new)} of {images.name}: set config.model.keep_head to False"
      )
  cells = config.model.genotype or config.model.checkpoint
  if not cells:
    raise ValueError(
      "there is nothing to train: give config.model.checkpoint, the folder of"
      " a finished run, or take configs/train_cifar.py with"
      " config.model.genotype"
    )
  space, genotype = results.find_cells(cells)
  if "bn_epsilon" in config.network:  # all sizes, of whichever family
    sizes = job_config.get_network(config.network, classes, space)
  elif config.model.genotype:
    raise ValueError(
      "this config takes cells and sizes from config.model.checkpoint: leave"
      " out config.model.genotype, or take configs/train_cifar.py"
    )
  else:
    sizes = _sizes_of(found, config.network.to_dict(), classes)
  return space, genotype, sizes


def _sizes_of(found: results.Trained, fields, num_classes: int):
  """A trained network's sizes, with the fields that config.network sets."""
  sizes = found.network.config
  bn_decay = fields.pop("bn_decay")
  known = {field.name for field in dataclasses.fields(sizes)}
  for name in set(fields) - known:  # of cells, where these are none
    if fields.pop(name):
      raise ValueError(
        f"the network of {found.folder} has no {name}: leave out"
        f" config.network.{name}"
      )
  return dataclasses.replace(
    sizes,
    num_classes=num_classes,
    numerics=dataclasses.replace(sizes.numerics, bn_decay=bn_decay),
    **fields,
  )


def _shapes(network, recipe, images: job_config.Splits, start=None):
  """The state before the first update, as shapes."""
  shape = images.image_shape
  return jax.eval_shape(
    lambda: fit.init_state(network, recipe, shape, 1, 0, start)
  )


class Console(run_log.Console):
  """A training's console: a line for every point of the curve."""

  def __init__(self, *args):
    super().__init__(*args)
    self._best = None

  def after_point(self, row: Row):
    score = row["valid_accuracy"]
    words = [f"epoch {row['epoch']:g}"]
    for name, value in (("loss", row["loss"]), ("accuracy", row["accuracy"])):
      words.append(f"{name} {value:.4f}" if value is not None else "")
    if score is not None:
      self._best = max(score, self._best or 0.0)
      words.append(f"validation {score:.4f} (best {self._best:.4f})")
    words.append(f"{row['seconds']:.1f} s")
    self.say(", ".join(filter(None, words)))
    super().after_point(row)


def _describe(parts: Parts):
  job_config.tell_slow_statistics(
    parts.recipe.epochs
    * (parts.images.train.num_images // parts.recipe.batch_size),
    parts.network.config.numerics.bn_decay,
    "network.bn_decay",
  )
  images, config = parts.images, parts.network.config
  params, macs = counting.count_module(parts.network, images.image_shape)
  words = (
    f"{params:,} parameters, {macs:,} multiply-adds ({config.summary});"
    f" {images.name}:"
    f" {images.train.num_images:,} images to train on,"
    f" {images.valid.num_images:,} to validate,"
    f" {images.test.num_images:,} to test; {parts.mesh.size}"
    f" {jax.default_backend()} device(s)"
  )
  _log.info("%s", words)
  by_machine.tell(parts.chosen)
  platform.work_unit().set_notes(words)
  state = _shapes(parts.network, parts.recipe, images)
  _log.debug(
    "%s",
    parameter_overview.get_parameter_overview(
      state.params, include_stats=False
    ),
  )


def _train(folder, config, parts: Parts, console, command: str) -> Row:
  """Trains to the end, tests once, and returns the content of result.json."""
  images = parts.images
  valid = None
  if images.valid.num_images:
    valid = datasets.on_device(images.valid, parts.mesh)
  state, score = resumable.train(
    folder,
    _KEY,
    parts.network,
    parts.recipe,
    parts.augmentation,
    datasets.on_device(images.train, parts.mesh),
    config.train.seed,
    valid=valid,
    checkpoint_seconds=config.train.checkpoint_seconds,
    watch=resumable.Watch(
      console.in_fit, console.after_point, console.begin_fit
    ),
    mesh=parts.mesh,
    start_from=parts.start,
    shard_params=parts.shard_params,
  )
  weights = jax.tree.map(hosts.fetch, fit.variables_of(state))
  size = parts.recipe.eval_batch_size
  kept = tested_answers.Kept(images.class_names)
  # On one device, as `results.evaluate` does it.
  evaluate = evaluation.make_evaluate(
    parts.network, parts.augmentation, size, by_class=True, watch=kept.see
  )
  test = datasets.on_device(images.test)
  tested = evaluate(weights, test)
  kept.write(folder, tested.top_5)
  checkpoint.write(folder / results.WEIGHTS, weights)
  return _result(folder, config, parts, score, tested, command)


def _result(folder, config, parts: Parts, score, tested, command: str) -> Row:
  """The content of result.json, which with the weights is all that
  `results.load` needs."""
  shape = parts.images.image_shape
  params, macs = counting.count_module(parts.network, shape)
  points = workdir.keep_lines(folder / resumable.CURVES, lambda _: True, "")
  result = {
    "version": __version__,
    "job": "train",
    "space": parts.space.name,
    "space_options": parts.space.options,
    "seed": config.train.seed,
    "winner": {
      "genotype": parts.space.to_json(parts.genotype),
      "params": params,
      "macs": macs,
    },
    "valid_accuracy": score.accuracy if score else None,
    "test_accuracy": tested.accuracy,
    "test_correct": tested.correct,
    "test_top_5": tested.top_5,
    "test_mean_per_class": tested.mean_per_class,
    "test_examples": tested.examples,
    "eval_batch_size": parts.recipe.eval_batch_size,
    "network": results.describe_network(parts.network.config),
    "recipe": dataclasses.asdict(parts.recipe),
    "augmentation": dataclasses.asdict(parts.augmentation),
    "data": job_config.describe(parts.images),
    "cost": {"total_seconds": round(sum(r["seconds"] for r in points), 3)},
    "environment": run_log.environment(),
    "command": command,
    **_own_parts(config, parts),
  }
  return {**result, "how_to_load": report.how_to_load(result, folder)}
