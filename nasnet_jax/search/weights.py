"""Whose weights children are judged by: their own, from nothing or from their
parent's on, or those that all share."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

from nasnet_jax.spaces.cells import CellSpace

_log = logging.getLogger(__name__)
_KINDS = ("alone", "shared", "inherit")
_INHERIT = {"epochs": 1.0}  # defaults
_HAVE_A_POLICY = ("ppo", "reinforce")  # so they say what they would propose


def absent() -> dict[str, Any]:
  """What a search does without these fields, see `search_config.absent`."""
  defaults = {
    f"search.{part}.{name}": value
    for part, fields in _defaults().items()
    for name, value in fields.items()
  }
  return {"search.weights": "alone", **defaults}


def _defaults() -> dict[str, dict[str, Any]]:
  """Of the fields that go with each kind of weights."""
  from nasnet_jax.population.shared_training import SharedSettings

  return {"inherit": _INHERIT, "shared": dataclasses.asdict(SharedSettings())}


def are_shared(config) -> bool:
  """Whether children share their weights; see `kind_of`."""
  return kind_of(config) == "shared"


def kind_of(config) -> str:
  """The kind of weights: "alone", "shared" or "inherit".

  Raises:
    ValueError: for an unknown kind of weights.
  """
  kind = config.search.get("weights", "alone")
  if kind not in _KINDS:
    raise ValueError(
      f"search.weights is {kind!r}, not one of: {', '.join(_KINDS)}"
    )
  return kind


def inherited_share(config) -> float:
  """Of the full training, what a child gets that inherits weights; 0: none
  does.

  Raises:
    ValueError: for epochs that are no part of the full training.
  """
  if kind_of(config) != "inherit":
    return 0.0
  epochs = _INHERIT | dict(config.search.get("inherit") or {})
  epochs, most = epochs["epochs"], config.child.epochs
  if not (math.isfinite(epochs) and 0 < epochs <= most):
    raise ValueError(
      f"search.inherit.epochs is {epochs}: give more than 0, and child.epochs"
      f" ({most}) at most, which children without a parent train"
    )
  return epochs / most


def tell(config):
  """A line on what children inherit, and on fields that were given and mean
  nothing."""
  kind = kind_of(config)
  share = inherited_share(config)
  if share:
    _log.info(
      "children with a parent begin with its final weights and train %g epochs,"
      " the others %g",
      share * config.child.epochs,
      config.child.epochs,
    )
  for part, known in _defaults().items():
    given = config.search.get(part) or {}
    unused = [name for name, value in given.items() if value != known.get(name)]
    if unused and part != kind:
      _log.warning(
        'search.%s.%s is not used: search.weights is "%s"',
        part,
        ", .".join(sorted(unused)),
        kind,
      )


def tell_counted_in_full(config):
  """A line on each thing for which children train less than is counted."""
  if config.search.halving.eta:
    _log.warning(
      "search.halving.eta is %g, and every child is counted with all of"
      " child.epochs: those that are stopped early train less",
      config.search.halving.eta,
    )
  if kind_of(config) == "inherit":
    _log.warning(
      'search.weights is "inherit", and every child is counted with all of'
      " child.epochs: those with a parent train search.inherit.epochs"
    )


def evaluator(config, space) -> Callable:
  """What makes the evaluator; takes what a `PopulationEvaluator` takes.

  Raises:
    ValueError: one line, for a search that cannot share weights.
  """
  from nasnet_jax.population import (
    inheriting,
    shared_evaluator,
    shared_training,
  )
  from nasnet_jax.population.evaluator import PopulationEvaluator

  kind = kind_of(config)
  if kind != "shared":
    inherits = kind == "inherit"
    return inheriting.InheritingEvaluator if inherits else PopulationEvaluator
  settings = shared_training.SharedSettings(
    **(config.search.get("shared") or {})
  )
  _check(config.search, settings, space)
  return functools.partial(
    shared_evaluator.SharedEvaluator,
    settings=settings,
    seed=config.search.seed,
  )


def check_strategy(config, space, controller):
  """Refuses what cannot inherit weights.

  Raises:
    ValueError: one line.
  """
  if kind_of(config) != "inherit":
    return
  why, search = 'search.weights is "inherit"', config.search
  if not _has_parents(controller):
    raise ValueError(
      f"{why}, but search.controller {search.controller} has no parents to"
      " inherit from: set it to evolution or local_search, or search.weights to"
      ' "alone"'
    )
  _check_cells(why, space)
  if search.halving.eta:
    raise ValueError(
      f"{why}, and rungs compare children by the epochs from nothing: set"
      " search.halving.eta to 0"
    )


def _check_cells(why: str, space):
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"{why}, but children of space {space.name} have no cells: set it to"
      ' "alone", or take a space of cells'
    )


def _has_parents(controller) -> bool:
  """Whether it says who they are: a strategy of one's own may do half of it."""
  import jax

  if controller.parents is None:
    return False
  rng = jax.random.key(0)
  nobody, _ = controller.ask(controller.init(rng), rng, 0)
  return not isinstance(nobody.parent, tuple)


def _check(search, settings, space):
  why = 'search.weights is "shared"'
  _check_cells(why, space)
  if search.halving.eta:
    raise ValueError(
      f"{why}, so no child has epochs to be stopped in: set search.halving.eta"
      " to 0"
    )
  if search.asynchronous:
    raise ValueError(
      f"{why}, which train between rounds: set search.asynchronous to False"
    )
  if (
    settings.sampling == "strategy" and search.controller not in _HAVE_A_POLICY
  ):
    raise ValueError(
      f'search.shared.sampling is "strategy", but {search.controller} has no'
      f' policy to sample: set it to "uniform", or search.controller to'
      f" {' or '.join(_HAVE_A_POLICY)}"
    )
