"""The scaling job: coefficients by a grid search, then larger networks.

Tan & Le 2019, section 3.3: at phi = 1 every point of a grid is trained, the
best coefficients are kept, and phi is raised. Validation images decide which
are the best; for the table, every network is also tested.
"""

import logging
import shutil
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax import __version__, report
from nasnet_jax.costs import counting
from nasnet_jax.data import augment, pixels
from nasnet_jax.jobs import (
  by_machine,
  job_config,
  results,
  resumable,
  run_log,
  user_checks,
)
from nasnet_jax.jobs.callbacks import listeners
from nasnet_jax.models import families
from nasnet_jax.spaces import compound_scaling
from nasnet_jax.training import (
  datasets,
  evaluation,
  fit,
  mesh,
  recipes,
  stop,
  workdir,
)
from nasnet_jax.training.scalars import Scalars

_log = logging.getLogger(__name__)
Row = dict[str, Any]
ROWS = "scaled.jsonl"

# May differ between two processes of one run: neither changes the result.
MAY_CHANGE = (
  "callbacks",
  "log",
  "data.data_dir",
  "data.options.path",  # the same images, as their fingerprint says
  "data.options.max_broken",
  "data.options.note",
  "data.stream.workers",
  "data.stream.max_broken",
  "train.checkpoint_seconds",
)
# What a run does without a field, for `workdir.claim`.
ABSENT = {
  "data.augmentation.layers": augment.Augmentation.layers,
  "data.augmentation.magnitude": augment.Augmentation.magnitude,
}


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
  sizes: Any
  recipe: recipes.Recipe
  images: job_config.Splits
  mesh: jax.sharding.Mesh
  points: tuple[compound_scaling.Coefficients, ...]


class Member(NamedTuple):
  """One training: a baseline grown by phi with these coefficients.

  Attributes:
    id: of its line and its checkpoints.
    stage: "baseline", "grid" or "phi".
    seed: of its training.
  """

  id: int
  stage: str
  coefficients: compound_scaling.Coefficients
  phi: float
  seed: int


def run(
  config, run_dir, *, command: str = "", callbacks: Iterable[Any] = ()
) -> Row:
  """Trains, or goes on with it, until `result.json` is there.

  Args:
    config: a ConfigDict as in `configs/scale_grid.py`.
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
    tell = listeners(config, callbacks)
    parts = _prepare(config, job_config.known_config(folder))
    config = parts.config
    workdir.claim(
      folder / "config.json",
      run_log.recorded(
        config,
        data_fingerprint=parts.images.fingerprint,
        cells=parts.space.to_json(parts.genotype),
        **job_config.recorded_split(parts.images),
      ),
      MAY_CHANGE,
      ABSENT,
    )
    with run_log.log_file(folder), Scalars(folder) as scalars:
      if not (folder / results.RESULT).exists():
        console = run_log.Console(
          request, scalars, config.log.seconds, tell=tell
        )
        tell("on_start", folder, config.to_dict())
        by_machine.tell(parts.chosen)
        job_config.tell_slow_statistics(
          parts.recipe.epochs
          * (parts.images.train.num_images // parts.recipe.batch_size),
          parts.sizes.numerics.bn_decay,
          "network.bn_decay",
        )
        with run_log.page(folder):
          rows, chosen = _search(folder, config, parts, console)
          result = _result(config, parts, rows, chosen, command)
          workdir.write_json(folder / results.RESULT, result)
        tell("on_end", result)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
      page = report.finish_report(folder)
    result = results.read_result(folder)
    _log.info("%s", report.summary_text(folder))
    _log.info("report: %s", page)
  return result


def _prepare(config, before: Row | None = None) -> Parts:
  fields = config.scale
  if fields.seeds < 1:
    raise ValueError(f"scale.seeds is {fields.seeds}: give 1 or more")
  if fields.points:
    points = tuple(
      compound_scaling.Coefficients(*point) for point in fields.points
    )
  else:
    points = tuple(
      compound_scaling.grid(fields.target, fields.tolerance, fields.step)
    )
  images = job_config.load_images(
    config.data,
    {"train.batch_size": config.train.batch_size},
    job_config.split_of(before),
  )
  streamed = not isinstance(images.train, datasets.Images)
  config, chosen = by_machine.for_train(
    config,
    by_machine.machine_of(),
    images.train.num_images,
    "stream" if streamed else "memory",
    before,
  )
  if not images.valid.num_images:
    raise ValueError("coefficients are chosen by a score: set data.num_valid")
  space, genotype = results.find_cells(config.model.genotype)
  sizes = job_config.get_network(config.network, images.num_classes, space)
  family = families.of(space)
  family.check_side(sizes, images.image_shape[:2])
  family.scaled(sizes, compound_scaling.factors(points[0], 1))
  recipe = recipes.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  recipe.make_schedule()
  devices = mesh.make_mesh(1, config.mesh.data)
  # Checks how batches divide.
  fit.make_step(
    families.network(space, genotype, sizes),
    recipe,
    job_config.get_augmentation(config.data, images),
    devices,
    streamed=streamed,
  )
  return Parts(
    config,
    chosen,
    space,
    genotype,
    sizes,
    recipe,
    images,
    devices,
    points,
  )


def _search(folder, config, parts: Parts, console):
  """(rows of all trainings, index of the best point)."""
  seeds = range(config.train.seed, config.train.seed + config.scale.seeds)
  number = iter(range(10**9))

  def train(stage, coefficients, phi) -> list[Row]:
    return [
      _train(
        folder,
        config,
        parts,
        console,
        Member(next(number), stage, coefficients, phi, seed),
      )
      for seed in seeds
    ]

  rows = train("baseline", compound_scaling.Coefficients(1.0, 1.0, 1.0), 0.0)
  grid = [train("grid", point, 1.0) for point in parts.points]
  chosen = compound_scaling.best(
    [np.mean([row["valid_accuracy"] for row in group]) for group in grid],
    [group[0]["macs"] for group in grid],
  )
  rows += [row for group in grid for row in group]
  for phi in config.scale.phis:
    rows += train("phi", parts.points[chosen], float(phi))
  return rows, chosen


def _train(folder, config, parts: Parts, console, member: Member) -> Row:
  """The row of one training; trains it if it is not there."""
  known = workdir.keep_lines(folder / ROWS, lambda _: True, "")
  if member.id < len(known):
    return known[member.id]
  factors = compound_scaling.factors(member.coefficients, member.phi)
  images = _at(config, parts, factors.resolution)
  aug = job_config.get_augmentation(config.data, parts.images)
  family = families.of(parts.space)
  sizes = family.scaled(parts.sizes, factors)
  network = families.network(parts.space, parts.genotype, sizes)
  params, macs = counting.count_module(network, images.image_shape)
  key = {"id": member.id, "stage": member.stage}
  state, score = resumable.train(
    folder,
    key,
    network,
    parts.recipe,
    aug,
    datasets.on_device(images.train),
    member.seed,
    valid=datasets.on_device(images.valid),
    checkpoint_seconds=config.train.checkpoint_seconds,
    watch=resumable.Watch(
      console.in_fit, console.after_point, console.begin_fit
    ),
    mesh=parts.mesh,
  )
  tested = _test(network, aug, parts.recipe, state, images.test)
  row = {
    **key,
    "seed": member.seed,
    "coefficients": list(member.coefficients),
    "phi": member.phi,
    **factors._asdict(),
    "sizes": sizes.summary,
    "side": images.image_shape[0],
    "params": params,
    "macs": macs,
    "valid_accuracy": score.accuracy,
    "test_accuracy": tested.accuracy,
    "test_correct": tested.correct,
    "test_examples": tested.examples,
  }
  workdir.append_lines(folder / ROWS, [row])
  shutil.rmtree(resumable.checkpoints(folder, key), ignore_errors=True)
  console.say(
    f"{member.stage} {member.id}: {sizes.summary}, {row['side']} pixels,"
    f" {macs / 1e6:.1f}M multiply-adds: validation {score.accuracy:.4f}"
  )
  return row


def _test(network, aug: augment.Augmentation, recipe, state, images):
  evaluate = evaluation.make_evaluate(network, aug, recipe.eval_batch_size)
  weights = jax.device_get(fit.variables_of(state))
  return evaluate(weights, datasets.on_device(images))


def _at(config, parts: Parts, resolution: float) -> job_config.Splits:
  """The images at another resolution: read again if the config sets their side,
  else scaled from those that were read."""
  side = compound_scaling.round_side(parts.images.image_shape[0], resolution)
  if side == parts.images.image_shape[0]:
    return parts.images
  data = config.data.copy_and_resolve_references()
  options = data.stream if "stream" in data else data.options
  if options.image_size is not None:
    options.image_size = side
    return job_config.load_images(
      data,
      {"train.batch_size": config.train.batch_size},
      parts.images.split,
    )

  def scale(images: datasets.Images) -> datasets.Images:
    if not images.num_images:
      return images
    fitted = [pixels.fit(image, side) for image in images.images]
    return images._replace(images=np.stack(fitted))

  train, valid, test = (
    scale(split)
    for split in (parts.images.train, parts.images.valid, parts.images.test)
  )
  return parts.images._replace(train=train, valid=valid, test=test)


def _result(config, parts: Parts, rows, chosen: int, command: str) -> Row:
  """result.json: what was chosen, and every row."""
  point = parts.points[chosen]
  return {
    "version": __version__,
    "job": "scale",
    "space": parts.space.name,
    "space_options": parts.space.options,
    "winner": {
      "genotype": parts.space.to_json(parts.genotype),
      "coefficients": point._asdict(),
      "cost": point.cost,
    },
    "network": results.describe_network(parts.sizes),
    "data": job_config.describe(parts.images),
    "rows": rows,
    "environment": run_log.environment(),
    "seed": config.train.seed,
    "command": command,
  }
