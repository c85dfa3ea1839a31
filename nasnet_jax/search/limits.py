"""Limits on what children may cost: who is over one is never trained.

Such a child counts as one of `search.children` and stands in the history, with
the status "over_limit" and what it would have cost. The strategy is told that
it failed, so none waits for it, and none learns from it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from nasnet_jax.controllers import base
from nasnet_jax.population.evaluation import OVER_LIMIT, Outcome
from nasnet_jax.search import halving

Row = dict[str, Any]
# Of a limit that nothing is below, so many children in a row are proof enough.
HOPELESS = 200


class LimitSettings(NamedTuple):
  """The most that a child may have; 0: any number.

  Attributes:
    params: trainable parameters.
    macs: multiply-accumulates per image.
    bytes: see `evaluation.Outcome`.
  """

  params: int = 0
  macs: int = 0
  bytes: int = 0


OFF = LimitSettings()


def check(settings: LimitSettings) -> LimitSettings:
  """The settings; ValueError, one line, for a number that is no limit."""
  for name, value in settings._asdict().items():
    if value < 0:
      raise ValueError(
        f"search.limit.{name} is {value}: give 0, for no limit, or more"
      )
  return settings


def outcomes(
  settings: LimitSettings, evaluator, proposals: base.Proposals
) -> dict[int, Outcome]:
  """Of the proposals that are over a limit, by id.

  Args:
    evaluator: one that has `costs`, if there is a limit.

  Raises:
    ValueError: if it does not count what is limited.
  """
  if settings == OFF or not len(proposals):
    return {}
  found = {}
  costs = evaluator.costs(proposals.decisions)
  for child, cost in zip(proposals.id.tolist(), costs, strict=True):
    if _is_over(settings, cost):
      counted = {k: int(v) for k, v in cost.items()}
      found[child] = Outcome(float("nan"), OVER_LIMIT, 0, 0.0, **counted)
  return found


def _is_over(settings: LimitSettings, cost: dict[str, float]) -> bool:
  for name, most in settings._asdict().items():
    if most and name not in cost:
      raise ValueError(
        f"search.limit.{name} is {most}, and this evaluator does not count"
        f" {name}: set it to 0"
      )
    if most and cost[name] > most:
      return True
  return False


def hopeless(settings: LimitSettings, rows: Iterable[Row]) -> str:
  """Why it is no use to go on, see `budgets.Over`; "" if it is."""
  if settings == OFF:
    return ""
  count = 0
  for row in rows:
    count = count + 1 if row["status"] == halving.OVER_LIMIT else 0
    if count >= HOPELESS:
      return f"search.limit: {HOPELESS} children in a row were over a limit"
  return ""


def no_winner(settings: LimitSettings, rows: list[Row]) -> str:
  """In words, why none of these rows can win."""
  over = [row for row in rows if row["status"] == halving.OVER_LIMIT]
  failed = len(rows) - len(over)
  if not over:
    return (
      f"all {failed} children failed, none can win: lower child.learning_rate,"
      " and start again in another folder"
    )
  words = " and ".join(
    f"search.limit.{name}={most} (the least was"
    f" {min(row[name] for row in over)})"
    for name, most in settings._asdict().items()
    if most
  )
  others = f", the other {failed} failed" if failed else ""
  return (
    f"{len(over)} of {len(rows)} children are over {words}{others}: none can"
    " win; raise the limit, and start again in another folder"
  )
