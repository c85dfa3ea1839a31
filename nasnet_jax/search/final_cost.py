"""How long the final stage will take, from a few measured updates of it."""

import logging
import time
from typing import Any, NamedTuple

from nasnet_jax.search.final import FinalSettings, network_of, top_children
from nasnet_jax.training import datasets, fit, recipes

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_CALLS = 6  # of the compiled step that are made
_WARM = 2  # the first of them, which count with compiling
_EVALUATION = 1 / 3  # of an update's work: no backward pass
_MARGIN = 1.1


class Measured(NamedTuple):
  """A few updates of a network of the final stage.

  Attributes:
    first_seconds: until its step was compiled and ran.
    image_seconds: of an update, per image.
    macs: of the same child in the history.
  """

  first_seconds: float
  image_seconds: float
  macs: int


class _Enough(Exception):
  """Enough updates were made."""


def measure(
  child: Row,
  space,
  settings: FinalSettings,
  train: datasets.Images,
  tick=lambda *_: None,
) -> Measured:
  """Trains a child for a few updates, as the ranking would.

  Args:
    tick: see `resumable.Watch`.
  """
  network = network_of(space, child["decisions"], settings.network)
  recipe = settings.rank
  horizon = recipe.horizon(train.num_images)
  seen = [(0, time.monotonic())]  # (step, when)

  def count(step: int):
    seen.append((step, time.monotonic()))
    tick("measure", child["id"], step, horizon)
    if len(seen) > _CALLS:
      raise _Enough

  try:
    for _ in fit.fit(
      network, recipe, settings.augmentation, train, settings.seed, tick=count
    ):
      pass
  except _Enough:
    pass
  first = min(_WARM, len(seen) - 2)
  (before, start), (after, end) = seen[first], seen[-1]
  images = (after - before) * recipe.batch_size
  return Measured(start - seen[0][1], (end - start) / images, child["macs"])


class FinalSeconds:
  """Called with rows of the history: seconds of the final stage that would
  follow. The first call measures, and notes what it found for later ones."""

  def __init__(self, space, settings: FinalSettings, images, clock, tick):
    """images: `job_config.Splits`; tick: see `resumable.Watch`."""
    self._space, self._settings, self._images = space, settings, images
    self._clock, self._tick = clock, tick

  def __call__(self, rows: list[Row]) -> float:
    children = top_children(rows, self._space, self._settings.top_k)
    if not children:
      return 0.0
    known = self._clock.known("final")
    if known is None:
      _log.info("timing the final stage by a few updates, for search.hours")
      known = measure(
        children[0],
        self._space,
        self._settings,
        datasets.on_device(self._images.train),
        self._tick,
      )._asdict()
      self._clock.note("final", known)
    return expected_seconds(
      Measured(**known),
      children,
      self._settings,
      self._images.train.num_images,
      self._images.valid.num_images,
    )


def expected_seconds(
  measured: Measured,
  children: list[Row],
  settings: FinalSettings,
  num_train: int,
  num_valid: int,
) -> float:
  """Of ranking these children and training the most expensive of them."""
  one = measured.image_seconds / max(1, measured.macs)  # image and MAC
  costs = [max(1, child["macs"]) for child in children]
  each = _images_seen(settings.rank, num_train, num_valid)
  last = _images_seen(settings.final, num_train + num_valid, 0)
  compiling = (len(children) + 1) * measured.first_seconds
  work = one * (sum(costs) * each + max(costs) * last)
  return _MARGIN * (work + compiling)


def _images_seen(recipe: recipes.Recipe, num_train: int, num_valid: int):
  """Images of a training, those of its evaluations by their share of work."""
  updates = recipe.horizon(num_train)
  points = -(-updates // recipe.report_every(num_train))
  return updates * recipe.batch_size + _EVALUATION * points * num_valid
