"""What a controller is told of a child: its accuracy, or that and its cost.

Tan et al. 2019 (MnasNet), section 3.1: maximise ACC x (cost / T)^w, where w is
alpha up to the target T and beta beyond it. The paper's cost is latency on a
phone; here it is one of the numbers of `evaluation.Outcome`, latency on this
device among them.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# kind -> (alpha, beta) of Tan et al. 2019, section 3.1. Soft: twice the cost
# and 5 % more accuracy give the same reward. Hard: only cost beyond T counts.
KINDS = {
  "accuracy": (0.0, 0.0),
  "mnasnet_soft": (-0.07, -0.07),
  "mnasnet_hard": (0.0, -1.0),
}
COSTS = ("params", "macs", "bytes", "latency")
# Functions of a child's row, of a user's own file: {kind: function}.
OWN: dict[str, Callable[[dict[str, Any]], float | None]] = {}


class Reward(NamedTuple):
  """Called with an accuracy and a child's costs by name.

  Attributes:
    kind: one of KINDS; "accuracy" looks at no cost.
    cost: one of COSTS.
    target: T, in the cost's own unit.
    alpha, beta: the exponents up to T and beyond it.
  """

  kind: str = "accuracy"
  cost: str = "params"
  target: float = 0.0
  alpha: float = 0.0
  beta: float = 0.0

  def __call__(self, accuracy: float, costs: Mapping[str, Any]) -> float:
    """Raises ValueError if the child's cost was not counted."""
    if self.kind == "accuracy":
      return accuracy
    cost = costs.get(self.cost) or 0
    if not cost > 0:
      raise ValueError(
        f"search.reward.cost is {self.cost!r}, which this evaluator does not"
        " count: take another cost, or the reward 'accuracy'"
      )
    return mnasnet(accuracy, cost, self.target, self.alpha, self.beta)


ACCURACY = Reward()


class OwnReward(NamedTuple):
  """The same of a user's function.

  Attributes:
    kind: a key of OWN.
    cost: one of COSTS; bytes and latency are counted only if it says so.
  """

  kind: str
  cost: str = "params"

  def __call__(self, accuracy: float, costs: Mapping[str, Any]) -> float:
    """NaN for a child that failed, or that the function gives None for.

    Raises:
      ValueError: one line, for a function that fails or gives no number.
    """
    if not math.isfinite(accuracy):
      return math.nan
    row = {name: costs[name] for name in COSTS if costs.get(name)}
    return self.of_row({"accuracy": accuracy, **row})

  def of_row(self, row: dict[str, Any]) -> float:
    """The function's answer to a row."""
    where = f"search.reward.kind is {self.kind!r}, your function"
    try:
      found = OWN[self.kind](row)
      return math.nan if found is None else float(found)
    except KeyError as error:
      raise ValueError(
        f"{where}: a child's row has no {error}, only {', '.join(row)}; bytes"
        " and latency are counted where search.reward.cost says so"
      ) from error
    except Exception as error:  # whatever a user's function raises
      words = " ".join(str(error).split())[:200]
      raise ValueError(f"{where}: {type(error).__name__}: {words}") from error


def mnasnet(
  accuracy: float, cost: float, target: float, alpha: float, beta: float
) -> float:
  """ACC x (cost / T)^w (Tan et al. 2019, equations 2 and 3)."""
  return accuracy * (cost / target) ** (alpha if cost <= target else beta)


def make(
  kind: str,
  cost: str = "params",
  target: float = 0.0,
  alpha: float | None = None,
  beta: float | None = None,
) -> Reward:
  """The reward of a config's `search.reward`.

  Args:
    kind, cost, target: see `Reward`; a kind of OWN has no target and no
      exponents.
    alpha, beta: None: the paper's for that kind.

  Raises:
    ValueError: one line, for an unknown name, no target, or exponents that
      would reward cost.
  """
  if kind in OWN:
    return _own(kind, cost, target or alpha or beta)
  _check_name("kind", kind, [*KINDS, *OWN])
  if kind == "accuracy":
    return ACCURACY
  _check_name("cost", cost, list(COSTS))
  if not (math.isfinite(target) and target > 0):
    raise ValueError(
      f"search.reward.target is {target}: give the {cost} that children should"
      f" have at most, a number above 0, for {kind!r}"
    )
  exponents = [
    default if given is None else given
    for given, default in zip((alpha, beta), KINDS[kind], strict=True)
  ]
  for name, exponent in zip(("alpha", "beta"), exponents, strict=True):
    if not (math.isfinite(exponent) and exponent <= 0):
      raise ValueError(
        f"search.reward.{name} is {exponent}: above 0 it would reward cost;"
        " give 0 or less"
      )
  return Reward(kind, cost, float(target), *map(float, exponents))


def _own(kind: str, cost: str, numbers) -> OwnReward:
  """The user's reward, tried on a row before children are trained for it."""
  _check_name("cost", cost, list(COSTS))
  if numbers:
    raise ValueError(
      f"search.reward.kind is {kind!r}, your function, which takes no target,"
      " alpha or beta: leave them out"
    )
  reward = OwnReward(kind, cost)
  tried = {"params": 1_000_000, "macs": 10_000_000, cost: 1_000_000}
  if cost == "latency":
    tried[cost] = 0.01
  reward(0.5, tried)
  return reward


def _check_name(field: str, name: str, known: list[str]):
  if name not in known:
    nearest = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    own = "; a function of your own: --import=FILE" if field == "kind" else ""
    raise ValueError(
      f"search.reward.{field} is {name!r}; {hint}({', '.join(known)}){own}"
    )
