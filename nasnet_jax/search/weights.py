"""Whose weights children are judged by: their own, or those all share."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

from nasnet_jax.spaces.cells import CellSpace

_log = logging.getLogger(__name__)
_KINDS = ("alone", "shared")
_HAVE_A_POLICY = ("ppo", "reinforce")  # so they say what they would propose


def absent() -> dict[str, Any]:
  """What a search does without these fields, see `search_config.absent`."""
  defaults = {f"search.shared.{k}": v for k, v in _defaults().items()}
  return {"search.weights": "alone", **defaults}


def _defaults() -> dict[str, Any]:
  from nasnet_jax.population.shared_training import SharedSettings

  return dataclasses.asdict(SharedSettings())


def are_shared(config) -> bool:
  """Whether children share their weights.

  Raises:
    ValueError: for an unknown kind of weights.
  """
  kind = config.search.get("weights", "alone")
  if kind not in _KINDS:
    raise ValueError(
      f"search.weights is {kind!r}, not one of: {', '.join(_KINDS)}"
    )
  return kind == "shared"


def tell_unused(config):
  """A line on fields that were given and mean nothing."""
  if are_shared(config):
    return
  given, known = config.search.get("shared") or {}, _defaults()
  unused = [name for name, value in given.items() if value != known.get(name)]
  if unused:
    _log.warning(
      'search.shared.%s is not used: search.weights is "alone"',
      ", .".join(sorted(unused)),
    )


def evaluator(config, space) -> Callable:
  """What makes the evaluator; takes what a `PopulationEvaluator` takes.

  Raises:
    ValueError: one line, for a search that cannot share weights.
  """
  from nasnet_jax.population import shared_evaluator, shared_training

  settings = shared_training.SharedSettings(
    **(config.search.get("shared") or {})
  )
  _check(config.search, settings, space)
  return functools.partial(
    shared_evaluator.SharedEvaluator,
    settings=settings,
    seed=config.search.seed,
  )


def _check(search, settings, space):
  why = 'search.weights is "shared"'
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"{why}, but children of space {space.name} have no cells: set it to"
      ' "alone", or take a space of cells'
    )
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
