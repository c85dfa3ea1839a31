"""Successive halving over epochs: children that fall behind stop early.

Jamieson and Talwalkar 2016, without rounds of its own: the form of Li et al.
2020 (ASHA) that stops children and resumes none, so that a slot is never held
for a child that waits. At a rung a child is evaluated; it goes on if it is in
the best 1/eta of all that got there so far, itself among them.

"So far" means: of the children that were asked for before it. They reach a
rung in that order anyway, and said like this a decision is a function of the
history alone: not of the number of devices, and not of when a run was killed.
"""

import collections
from collections.abc import Iterable
from typing import Any, NamedTuple

from nasnet_jax.jobs.architectures import was_stopped
from nasnet_jax.population.evaluation import Outcome, Stops
from nasnet_jax.search.rewards import Reward

Row = dict[str, Any]
OVER_LIMIT = "over_limit"  # status of a child that was never trained


class HalvingSettings(NamedTuple):
  """Of successive halving.

  Attributes:
    eta: the best 1/eta of a rung go on; 0: nobody is stopped.
    min_epochs: the first rung; each further one lies eta times as far.
  """

  eta: int = 0
  min_epochs: float = 1.0


OFF = HalvingSettings()


def check(settings: HalvingSettings) -> HalvingSettings:
  """The settings; ValueError, one line, for such as make no halving."""
  if settings.eta and settings.eta < 2:
    raise ValueError(
      f"search.halving.eta is {settings.eta}: give 2 or more (3 or 4"
      " are usual), or 0 to train every child to its end"
    )
  if settings.eta and not settings.min_epochs > 0:
    raise ValueError(
      f"search.halving.min_epochs is {settings.min_epochs}: the first rung"
      " must lie above 0 epochs"
    )
  return settings


class Halving:
  """What children reached at the rungs, and who goes on."""

  def __init__(
    self, settings: HalvingSettings, reward: Reward, rows: Iterable[Row] = ()
  ):
    """rows: of the history, whose children count as those of this process."""
    self.settings, self.reward = settings, reward
    # By rung: {child: reward}.
    self._results = collections.defaultdict(dict)
    for row in rows:
      for rung, accuracy in enumerate(row.get("rungs", ())):
        self._results[rung][row["id"]] = reward(accuracy, row)

  def stops(self, evaluator) -> Stops:
    """What an evaluator's queue is to do.

    Raises:
      ValueError: if the first rung is no earlier than a child's end.
    """
    settings, found = self.settings, []
    if not settings.eta:
      return Stops()
    end = evaluator.calls(evaluator.steps(1.0))
    epochs = settings.min_epochs
    while True:
      updates = max(1, round(epochs * evaluator.steps_per_epoch))
      calls = evaluator.calls(updates)
      if calls >= end:
        break
      if calls not in found:  # where a call is longer than a rung
        found.append(calls)
      epochs *= settings.eta
    if not found:
      raise ValueError(
        f"search.halving.min_epochs is {settings.min_epochs}, where children"
        " end: lower it, or set search.halving.eta to 0"
      )
    return Stops(tuple(found), self.keep)

  def keep(self, child: int, rung: int, outcome: Outcome) -> bool:
    """Whether a child goes on past a rung; its result counts from now on.

    Of equal rewards, that of the child asked for first is the better. The
    first child at a rung always goes on.
    """
    value = self.reward(outcome.reward, outcome._asdict())
    results = self._results[rung]
    results[child] = value
    before = [v for other, v in results.items() if other < child]
    better = sum(v >= value for v in before)
    return better < max(1, (len(before) + 1) // self.settings.eta)


class Spent(NamedTuple):
  """What children took.

  Attributes:
    stopped: children that were stopped early.
    epochs, seconds: of training, summed over children; of weights that they
      share, once.
    epochs_saved: not trained, of what their budgets allowed.
    seconds_saved: an estimate: those epochs at each child's own speed.
  """

  stopped: int
  epochs: float
  epochs_saved: float
  seconds: float
  seconds_saved: float


def spent(rows: Iterable[Row], epochs: float) -> Spent:
  """Sums up a history; epochs: those of a budget of 1."""
  total, shared = Spent(0, 0.0, 0.0, 0.0, 0.0), 0.0
  for row in rows:
    if row["status"] == OVER_LIMIT:
      continue
    made = row["steps"] / row["horizon"] if row.get("horizon") else 1.0
    whole = row["budget"] * epochs
    if row.get("shared_epochs"):
      shared, whole = max(shared, row["shared_epochs"]), 0.0
    saved = 1 - made
    mine = Spent(
      int(was_stopped(row)),
      made * whole,
      saved * whole,
      row["seconds"],
      row["seconds"] * saved / made,
    )
    total = Spent(*map(sum, zip(total, mine)))
  return total._replace(epochs=total.epochs + shared)
