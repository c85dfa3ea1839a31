"""Scores without training: which ones a search writes down, and who is sifted
by them before training (`prefilter`)."""

import difflib
import logging
from typing import Any, NamedTuple

from nasnet_jax.scores import formulas
from nasnet_jax.search import weights

_log = logging.getLogger(__name__)
FREE = ("params", "macs")  # of `evaluation.Costs`: they take no network
# Those that sift by themselves, or keep only whole generations.
_CANNOT_SIFT = {
  "genetic": "breeds from whole generations, of which a tenth would be left",
  "progressive": "already trains the best of what its predictor has sifted",
}


class Prefilter(NamedTuple):
  """Who of the proposals is trained.

  Attributes:
    times: as many are asked for; 0 or 1: all are trained.
    score: of `formulas.NAMES` or FREE; more of it is better.
  """

  times: int = 0
  score: str = "synflow"

  @property
  def is_on(self) -> bool:
    return self.times > 1


def absent() -> dict[str, Any]:
  """What a search does without these fields, see `search_config.absent`."""
  return {
    "search.scores": (),
    "search.score_images": 64,
    "search.prefilter": 0,
    "search.prefilter_score": Prefilter().score,
  }


def prefilter(config) -> Prefilter:
  """Of the config.

  Raises:
    ValueError: one line, for numbers, names or strategies that cannot be.
  """
  search = config.search
  found = Prefilter(
    search.get("prefilter", 0),
    search.get("prefilter_score", Prefilter().score),
  )
  if found.times < 0:
    raise ValueError(
      f"search.prefilter is {found.times}: give how many times as many children"
      " are asked for as are trained, or 0"
    )
  _check_name("search.prefilter_score is", found.score, FREE)
  if found.is_on and search.controller in _CANNOT_SIFT:
    raise ValueError(
      f"search.prefilter is {found.times}, but {search.controller}"
      f" {_CANNOT_SIFT[search.controller]}: set it to 0, or take another"
      " search.controller"
    )
  return found


def settings(config, space=None):
  """`child_scores.ScoreSettings` of the config.

  Args:
    space: to check that it has these scores.

  Raises:
    ValueError: one line, for a score that is unknown or not defined.
  """
  from nasnet_jax.population import child_scores

  search, sifted = config.search, prefilter(config)
  names = tuple(search.get("scores") or ())
  for name in names:
    _check_name("search.scores has", name)
  if sifted.is_on and sifted.score not in (*names, *FREE):
    names = (*names, sifted.score)
  found = child_scores.ScoreSettings(names, search.get("score_images", 64))
  if names and found.images < 2:
    raise ValueError(
      f"search.score_images is {found.images}: give 2 or more, of which batch"
      " norms take their statistics"
    )
  if names and weights.are_shared(config):
    raise ValueError(
      f'search.weights is "shared", and scores ({", ".join(names)}) are of'
      ' weights of a child\'s own: set search.weights to "alone", or'
      " search.scores to () and search.prefilter to 0"
    )
  if space is not None:
    child_scores.check_space(names, space)
  return found


def _check_name(where: str, name, more: tuple[str, ...] = ()):
  known = (*formulas.NAMES, *more)
  if name in known:
    return
  hint = ""
  if name in FREE:
    hint = "which every child has in its line anyway: leave it out "
  elif nearest := difflib.get_close_matches(str(name), known, n=1):
    hint = f"did you mean {nearest[0]!r}? "
  raise ValueError(f"{where} {name!r}; {hint}({', '.join(known)})")


def check_evaluator(config, evaluator):
  """Raises ValueError, one line, if it cannot score as the config asks."""
  sifted, wanted = prefilter(config), settings(config).names
  missing = set(wanted) - set(getattr(evaluator, "score_names", ()))
  if missing:
    raise ValueError(
      "this evaluator makes no networks whose initial weights could be scored:"
      " set search.scores to (), and search.prefilter to 0"
    )
  if sifted.is_on and sifted.score in FREE and not hasattr(evaluator, "costs"):
    raise ValueError(
      f"search.prefilter_score is {sifted.score!r}, and this evaluator counts"
      " no costs before training: set search.prefilter to 0"
    )


def tell(config):
  """A line on what is sifted, and on fields that mean nothing."""
  search, sifted = config.search, prefilter(config)
  default = absent()
  if sifted.is_on:
    _log.info(
      "prefilter: of %d times as many proposals those of most %s are trained,"
      " and the strategy is told that the others failed",
      sifted.times,
      sifted.score,
    )
  elif sifted.score != default["search.prefilter_score"]:
    _log.warning("search.prefilter_score is not used: search.prefilter is 0")
  images = search.get("score_images", 64)
  if images != default["search.score_images"] and not settings(config).names:
    _log.warning("search.score_images is not used: search.scores is ()")


def tell_uncounted(config, space):
  """A line on scores, of which a forecast of the training knows nothing.

  Raises:
    ValueError: as `settings`.
  """
  names = settings(config, space).names
  if names:
    _log.warning(
      "scores (%s) are measured by a program of their own, which is not counted"
      " here",
      ", ".join(names),
    )
