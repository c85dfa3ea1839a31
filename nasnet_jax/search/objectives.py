"""Several objectives of a search: what each child is told to have of them.

The first is accuracy. It is what stands where one number is wanted: a child's
`reward` in the history, the best so far, `search.patience`, who wins.
"""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nasnet_jax import controllers
from nasnet_jax.controllers import base
from nasnet_jax.search import rewards

Row = dict[str, Any]
_FIRST = "accuracy"
# A "-" says that less is better.
KNOWN = (_FIRST, *(f"-{cost}" for cost in rewards.COSTS))
_MEASURED = "-latency"


class Objectives(NamedTuple):
  """Called like a `rewards.Reward`: a child's rewards, larger is better.

  Attributes:
    names: two or more of KNOWN, accuracy first.
  """

  names: tuple[str, ...]

  def __call__(
    self, accuracy: float, costs: Mapping[str, Any]
  ) -> tuple[float, ...]:
    """All NaN for a child that failed.

    Raises:
      ValueError: one line, if a cost was not counted.
    """
    if not math.isfinite(accuracy):
      return (math.nan,) * len(self.names)
    return accuracy, *(-_cost(name, costs) for name in self.names[1:])

  @property
  def cost(self) -> str:
    """See `evaluation.Costs.also`."""
    return "latency" if _MEASURED in self.names else "params"


def _cost(name: str, costs: Mapping[str, Any]) -> float:
  cost = costs.get(name[1:]) or 0
  if not cost > 0:
    raise ValueError(
      f"search.objectives has {name!r}, and this evaluator does not count"
      f" {name[1:]}: take another objective"
    )
  return cost


def make(names: Iterable[str]) -> Objectives:
  """The objectives of a config's `search.objectives`.

  Raises:
    ValueError: one line, for fewer than two, an unknown one, one that stands
      twice, or another first one than accuracy.
  """
  names = (names,) if isinstance(names, str) else tuple(names)
  for name in names:
    _check_name(name)
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"search.objectives has {name!r} twice: leave one out")
  if len(names) < 2:
    raise ValueError(
      f"search.objectives is {names}: give two or more, as in ('accuracy',"
      " '-params'), or none, (), and search.reward is what counts"
    )
  if names[0] != _FIRST:
    raise ValueError(
      f"search.objectives begins with {names[0]!r}: begin with {_FIRST!r},"
      " which is what counts where one number is wanted"
    )
  return Objectives(names)


def _check_name(name: str):
  if name in KNOWN:
    return
  if name in rewards.COSTS:
    hint = f"less of it is better, so write '-{name}' "
  elif str(name).strip("+-") == _FIRST:
    hint = f"more of it is better, so write {_FIRST!r} "
  else:
    nearest = difflib.get_close_matches(str(name), KNOWN, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
  known = ", ".join(KNOWN)
  raise ValueError(f"search.objectives has {name!r}; {hint}({known})")


def check(objectives: Objectives, search):
  """Raises ValueError, one line, for other fields of `search` that several
  objectives cannot go with."""
  why = f"search.objectives is {objectives.names}"
  if search.reward.kind != "accuracy":
    raise ValueError(
      f"{why}, and search.reward.kind {search.reward.kind!r} is one number in"
      " place of them: set it to 'accuracy', or search.objectives to ()"
    )
  if search.halving.eta:
    raise ValueError(
      f"{why}, and successive halving compares children in one number: set"
      " search.halving.eta to 0, or search.objectives to ()"
    )


def controller(name: str, space, options: Row, count: int) -> base.Controller:
  """The strategy, which is told so many objectives of each child.

  Raises:
    ValueError: one line, for a strategy that is told another number.
  """
  if count > 1 and _is_told_how_many(name):
    options = {"objectives": count, **options}
  made = controllers.make(name, space, **options)
  if made.objectives == count:
    return made
  if count == 1:
    raise ValueError(
      f"search.controller {name!r} wants several rewards of a child (pareto),"
      " and search.objectives names none: give ('accuracy', '-params'), say"
    )
  raise ValueError(
    f"search.objectives are {count}, and search.controller {name!r} is told"
    f" {made.objectives} of each child: take 'evolution' with"
    " search.controller_options.evolution.pareto, or set search.objectives to"
    " () and weigh them in search.reward"
  )


def _is_told_how_many(name: str) -> bool:
  factory = controllers.CONTROLLERS.get(name)
  return bool(factory and "objectives" in inspect.signature(factory).parameters)


def require_one(made: base.Controller, strategy: str, who: str):
  """Raises ValueError for a strategy of several rewards where `who` is told one
  of each child."""
  if made.objectives > 1:
    raise ValueError(
      f"strategy {strategy!r} wants {made.objectives} rewards of a child"
      f" (pareto), and {who} is told one: leave pareto out, or search with a"
      " config that has search.objectives"
    )
