"""A search without rounds: a slot whose child is done takes the next at once.

The controller is asked for as many children as slots are free, and is told the
answer of each child when it ends; children that end together are told together.
The files are those of `rounds`; "round" in the history counts the tells.

The order in which children end is a pure function of the journal: slots advance
in lockstep, so a clock that counts calls of the compiled step says when a child
began and when it ended. A process that goes on after a kill trains the pending
children again, from their start; it then holds an answer back until every
child that ended earlier by the clock has answered. So a killed run ends like
one that was not. The clock's number of slots is that of the first process.
"""

import logging
import pathlib
import time
from collections.abc import Callable, Iterable

import numpy as np

from nasnet_jax.controllers import base, journal
from nasnet_jax.population.evaluation import Outcome, Progress, Queue
from nasnet_jax.search import budgets, heirs, limits, rounds
from nasnet_jax.search.halving import Halving
from nasnet_jax.search.rounds import RoundSettings, Row, Standing

_log = logging.getLogger(__name__)


def run(
  folder: pathlib.Path,
  controller: base.Controller,
  evaluator,
  settings: RoundSettings,
  *,
  progress: Progress | None = None,
  finished: Callable[[list[Row], int, float], None] = lambda *_: None,
  over: budgets.Over = budgets.never,
) -> list[Row]:
  """Searches to the last child; see `rounds.run`.

  Args:
    evaluator: one that has a `Queue`.
    finished: called after every `children_per_round` answers, when the
      controller's state is saved, too.
    over: asked whenever slots are free; children under way are finished.
  """
  events = journal.read(folder / rounds.JOURNAL)
  at = rounds.resume(folder, controller, settings, events)
  rounds.tell_start(at, settings)
  rounds.remember(evaluator, at, {})
  heirs.open_folder(folder, settings.inherit, evaluator, controller, at)
  clock = Clock.after(events, at, evaluator)
  judge = Halving(settings.halving, settings.reward, at.rows)
  queue = evaluator.queue(judge.stops(evaluator))
  new, ends = at.pending, False
  fresh, start = 0, time.monotonic()
  while len(at.rows) < settings.children:
    ends = ends or rounds.ends_early(over, at.rows, settings)
    if not ends:
      before = len(at.pending)
      at = _fill(folder, controller, settings, at, clock)
      new = base.join([new, at.pending.rows(slice(before, None))])
    if not len(at.pending):
      break
    outcomes = limits.outcomes(settings.limit, evaluator, new)
    clock.drop(outcomes)
    rest = new.rows(~np.isin(new.id, list(outcomes)))
    queue.add(rest.id, *rounds.to_train(rest, settings, at.rows))
    new = new.rows(slice(0, 0))
    if not outcomes:
      outcomes = _wait(at, clock, queue, evaluator, settings, progress)
    fresh += len(outcomes)
    at = rounds.tell(folder, controller, settings, at, outcomes)
    heirs.keep_parents(settings.inherit, evaluator, controller, at)
    if fresh >= settings.children_per_round:
      rounds.save(folder, at)
      finished(at.rows, fresh, time.monotonic() - start)
      fresh, start = 0, time.monotonic()
  if fresh:
    finished(at.rows, fresh, time.monotonic() - start)
  if len(at.rows) < settings.children and not ends:
    _log.info("the controller has no more proposals: the search ends here")
  return at.rows


def _fill(folder, controller, settings, at: Standing, clock) -> Standing:
  """Asks for children for all free slots."""
  pending = len(at.pending)
  left = settings.children - len(at.rows) - pending
  n = min(clock.slots - pending, left)
  if n < 1:
    return at
  at = rounds.ask(folder, controller, settings, at, n)
  clock.begin(at.pending.id[pending:])
  return at


def _wait(
  at: Standing, clock, queue: Queue, evaluator, settings, progress
) -> dict[int, Outcome]:
  """Trains until there are answers that may be told."""
  while not (answers := clock.next(queue)):
    for child, outcome in queue.advance():
      clock.end(child, outcome, evaluator.calls(outcome.steps))
    if progress:
      share = len(at.rows) / settings.children
      progress(share, f"{len(at.pending)} children under way")
  return answers


class Clock:
  """When children began and ended, in calls of the step, as if no slot ever
  waited.

  Attributes:
    slots: how many children train at once.
    now: when the last answers were told.
    began: when each pending child began.
    ended: (when, outcome) of each pending child that has ended.
  """

  def __init__(self, slots: int):
    self.slots, self.now = slots, 0
    self.began: dict[int, int] = {}
    self.ended: dict[int, tuple[int, Outcome]] = {}

  @classmethod
  def after(cls, events, at: Standing, evaluator) -> "Clock":
    """The clock of a search that stands where its journal ends."""
    asks = [event for event in events if isinstance(event, journal.Ask)]
    clock = cls(asks[0].n if asks else evaluator.slots)
    calls = {row["id"]: evaluator.calls(row["steps"]) for row in at.rows}
    # Ids ascend over all asks.
    ids = iter(sorted([*calls, *at.pending.id.tolist()]))
    for event in events:
      if isinstance(event, journal.Ask):
        clock.begin(next(ids) for _ in range(event.came))
      else:
        children = event.id.tolist()
        clock.now = clock.began[children[0]] + calls[children[0]]
        for child in children:
          del clock.began[child]
    return clock

  def begin(self, children: Iterable[int]):
    """Children take free slots now."""
    self.began.update((int(child), self.now) for child in children)

  def end(self, child: int, outcome: Outcome, calls: int):
    """Notes that a child ended so many calls after it began."""
    self.ended[child] = self.began[child] + calls, outcome

  def drop(self, children: Iterable[int]):
    """Children that end where they began, untrained."""
    for child in children:
      del self.began[child]

  def next(self, queue: Queue) -> dict[int, Outcome]:
    """The next answers, all of the same moment; none while a child that is
    still under way may end before them or with them."""
    if not self.ended:
      return {}
    first = min(when for when, _ in self.ended.values())
    under_way = self.began.keys() - self.ended.keys()
    if any(self.began[c] + queue.due(c) <= first for c in under_way):
      return {}
    self.now = first
    answers = {c: o for c, (when, o) in self.ended.items() if when == first}
    for child in answers:
      del self.ended[child], self.began[child]
    return answers
