"""When a search ends before its last child: hours, epochs, patience.

Whichever comes first ends it: no further child is proposed, those under way
are finished, and the final stage follows. Epochs and patience follow from the
history alone, so they end a search at the same child however often it was
killed, on whatever machine. Hours are those of the first host's clock.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from nasnet_jax.search import halving
from nasnet_jax.search.run_clock import RunClock
from nasnet_jax.training import hosts

Row = dict[str, Any]

# (rows of the history so far) -> why no further child is to be proposed, in
# words; "" if one is. Once a reason is given, it is given for all later rows.
Over = Callable[[list[Row]], str]


def never(rows: list[Row]) -> str:
  """An `Over` of a search without a budget."""
  del rows
  return ""


class BudgetSettings(NamedTuple):
  """What a search may take; 0: no limit.

  Attributes:
    hours: of the whole run, restarts and final stage included.
    epochs: trained, summed over all children.
    patience: children in a row of which none was better than the best before.
  """

  hours: float = 0.0
  epochs: float = 0.0
  patience: int = 0


OFF = BudgetSettings()


def check(settings: BudgetSettings) -> BudgetSettings:
  """The settings; ValueError, one line, for a number that is no budget."""
  for name, value in settings._asdict().items():
    if not (math.isfinite(value) and value >= 0):
      raise ValueError(
        f"search.{name} is {value}: give 0, for no limit, or more"
      )
  return settings


def reproducible(settings: BudgetSettings, child_epochs: float) -> Over:
  """The budgets that follow from the history.

  Args:
    child_epochs: those of a child of budget 1.
  """

  def over(rows: list[Row]) -> str:
    return _no_epochs_left(settings.epochs, rows, child_epochs) or (
      _no_patience_left(settings.patience, rows)
    )

  return over


def _no_epochs_left(limit: float, rows: list[Row], child_epochs: float) -> str:
  if not limit:
    return ""
  trained = halving.spent(rows, child_epochs).epochs
  if trained < limit:
    return ""
  return f"search.epochs is {limit:g}, and children trained {trained:g}"


def _no_patience_left(limit: int, rows: Iterable[Row]) -> str:
  """Looks where a round ended, as the search does."""
  if not limit:
    return ""
  best, since, number = None, 0, None
  for row in [*rows, {"round": None}]:
    if number is not None and row["round"] != number and since >= limit:
      than = "the best" if best is None else f"child {best['id']}"
      return (
        f"search.patience is {limit}, and the last {since} children were no"
        f" better than {than}"
      )
    number = row["round"]
    if row["round"] is None or row["status"] == halving.OVER_LIMIT:
      continue  # who was not trained says nothing
    since += 1
    value = row["reward"]
    if value is not None and (best is None or value > best["reward"]):
      best, since = row, 0
  return ""


class Hours:
  """An `Over`: whether another round and the final stage do not fit any more.

  What was decided stays, in the run's folder, until `search.hours` changes.
  """

  def __init__(
    self,
    hours: float,
    clock: RunClock,
    children_per_round: int,
    final_seconds: Callable[[list[Row]], float],
  ):
    """final_seconds: of the whole final stage, from rows of the history; called
    on all hosts alike."""
    self._hours, self._clock = hours, clock
    self._per_round, self._final_seconds = children_per_round, final_seconds

  def __call__(self, rows: list[Row]) -> str:
    if not self._hours or not rows:
      return ""
    limit, words = 3600 * self._hours, f"search.hours is {self._hours:g}"
    if hosts.of_first(self._clock.known("over") == self._hours):
      return f"{words}, and the time was up"
    last = sum(row["seconds"] for row in rows[-self._per_round :])
    final = self._final_seconds(rows)
    ends = self._clock.seconds + last + final
    if not hosts.of_first(ends > limit):
      return ""
    self._clock.note("over", self._hours)
    return (
      f"{words}: after {self._clock.seconds / 3600:.2f} h another round of"
      f" {last / 3600:.2f} h would leave too little for the final stage's"
      f" {final / 3600:.2f} h"
    )


def first_of(*budgets: Over) -> Over:
  """Whichever comes first."""

  def over(rows: list[Row]) -> str:
    return next(filter(None, (budget(rows) for budget in budgets)), "")

  return over
