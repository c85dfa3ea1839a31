"""A training whose curve is written down as it goes, in a run's folder.

`retrain.jsonl` has a line per point of the curve, `checkpoints/<stage>_<id>`
the training's state. A later process goes on from the checkpoint, and writes
the points after it again.
"""

import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from nasnet_jax.data import augment
from nasnet_jax.training import (
  checkpoint,
  datasets,
  evaluation,
  fit,
  recipes,
  workdir,
)

CURVES = "retrain.jsonl"
Row = dict[str, Any]


class Watch(NamedTuple):
  """Callbacks that are told how a training goes.

  Attributes:
    tick: (stage, id, step, horizon), after each device call; may raise.
    point: (row of retrain.jsonl), for every point of a curve.
    begin: (stage, id, what it is made from), before the step is compiled.
  """

  tick: Callable[[str, int, int, int], None] = lambda *_: None
  point: Callable[[Row], None] = lambda row: None
  begin: Callable[[str, int, Any], None] = lambda *_: None


def checkpoints(folder, key: Row) -> pathlib.Path:
  """The folder of one training's checkpoints."""
  return pathlib.Path(folder) / "checkpoints" / f"{key['stage']}_{key['id']}"


def train(
  folder,
  key: Row,
  network: nn.Module,
  recipe: recipes.Recipe,
  aug: augment.Augmentation,
  images: datasets.Data,
  seed: int,
  *,
  valid: datasets.Data | None = None,
  checkpoint_seconds: float = 60.0,
  watch: Watch = Watch(),  # noqa: B008 (a tuple of functions, never changed)
  evaluate: Callable | None = None,
  **options,
) -> tuple[Any, Any]:
  """Trains one network, or goes on where an earlier process stopped.

  Args:
    folder: of the run.
    key: {"id", "stage"} of this training in the run.
    images: on the device.
    valid: images on which each point of the curve is scored, if any.
    checkpoint_seconds: least time between two saved states.
    evaluate: (variables, images) -> score; early stopping compares its
      `accuracy`. None: `evaluation.make_evaluate`'s.
    **options: of `fit.fit`: mesh, start_from, shard_params, make_loss.

  Returns:
    (state at the end, its score on `valid`). With `recipe.patience_epochs` the
    end may come early, and the state's `fit.variables_of` are the best ones.
  """
  mesh = options.get("mesh")
  if evaluate is None:
    evaluate = evaluation.make_evaluate(
      network, aug, recipe.eval_batch_size, mesh
    )
  horizon = recipe.horizon(images.num_images)
  mark = time.monotonic()
  score = None
  best = None
  if valid is not None and recipe.patience_epochs:
    best = _Best(folder, key, recipe.patience_epochs)
  for point in fit.fit(
    network,
    recipe,
    aug,
    images,
    seed,
    folder=checkpoints(folder, key),
    should_save=_every(checkpoint_seconds),
    tick=lambda step: watch.tick(key["stage"], key["id"], step, horizon),
    **options,
  ):
    done = point.step == horizon
    if valid is not None and (done or point.loss is not None):
      score = evaluate(fit.variables_of(point.state), valid)
    if point.loss is None:
      take_back(folder, key, point.step)
      if best is not None:
        best.look_back()
      if not done:
        about = (network, recipe, aug, images.image_shape)
        watch.begin(key["stage"], key["id"], about)
      continue
    row = _row(key, point, score, time.monotonic() - mark)
    mark = time.monotonic()
    if best is not None:
      best.keep(row, point.state)
    workdir.append_lines(pathlib.Path(folder) / CURVES, [row])
    watch.point(row)
    if best is not None and best.is_over(row):
      break
  state = point.state
  if best is not None:
    state = best.restored(state)
    score = evaluate(fit.variables_of(state), valid)
  return state, score


class _Best:
  """Early stopping: the best point so far, and its weights on the disk.

  Which point is best follows from the lines of the curve, so a process that
  goes on after a kill ends as if there had been none; points that it repeats
  write their weights again.
  """

  def __init__(self, folder, key: Row, patience: float):
    """patience: epochs without a better score after which training ends."""
    self._patience = patience
    self._key, self._folder = key, pathlib.Path(folder)
    self._path = checkpoints(folder, {**key, "stage": f"best_{key['stage']}"})
    self._row: Row | None = None

  def look_back(self):
    """Takes the best of the lines that count."""
    rows = workdir.keep_lines(self._folder / CURVES, lambda _: True, "")
    for row in rows:
      if all(row.get(name) == value for name, value in self._key.items()):
        self._take(row)

  def keep(self, row: Row, state):
    """Writes the weights of a point that is better than all before it."""
    if self._take(row):
      checkpoint.write(self._path, jax.device_get(fit.variables_of(state)))

  def _take(self, row: Row) -> bool:
    score = row["valid_accuracy"]
    if self._row is not None and score <= self._row["valid_accuracy"]:
      return False
    self._row = row
    return True

  def is_over(self, row: Row) -> bool:
    """Whether training ends at this point."""
    return row["epoch"] - self._row["epoch"] >= self._patience

  def restored(self, state):
    """The state with the best weights."""
    template = jax.device_get(fit.variables_of(state))
    return fit.with_variables(state, checkpoint.read(self._path, template))


def _every(seconds: float) -> Callable[[], bool]:
  """() -> whether that much time has passed since it last said so."""
  last = time.monotonic()

  def is_time() -> bool:
    nonlocal last
    now = time.monotonic()
    if now - last < seconds:
      return False
    last = now
    return True

  return is_time


def take_back(folder, key: Row, step: int):
  """Drops the lines of a curve after a step, which this process is going to
  write again."""

  def counts(row: Row) -> bool:
    this = all(row.get(name) == value for name, value in key.items())
    return not this or row["step"] <= step

  path = pathlib.Path(folder) / CURVES
  workdir.keep_lines(path, counts, "to be written again")


def _row(key: Row, point: fit.Point, score, seconds) -> Row:
  def number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN

  return {
    **key,
    "step": point.step,
    "epoch": round(point.epoch, 4),
    "loss": number(point.loss),
    "accuracy": number(point.accuracy),
    "valid_accuracy": score.accuracy if score else None,
    "seconds": round(seconds, 3),
  }
