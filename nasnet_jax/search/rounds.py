"""Rounds of ask, train, tell, each committed in one step.

A round is finished once its answers stand in the journal as one line, behind
its children in the history. Whatever a killed process wrote of another round
is taken back, and the round is done again: same proposals, same seeds, same
rewards. Children of it that were done are not trained again: their answers
wait in `round.jsonl`. The controller's checkpoint only saves replaying a long
journal.

`asynchronous.run` does without rounds and shares what is written, and how.
"""

import contextlib
import functools
import logging
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base, journal
from nasnet_jax.population.evaluation import Evaluator, Outcome, Progress
from nasnet_jax.population.slots import drain
from nasnet_jax.search import budgets, heirs, history, limits
from nasnet_jax.search.halving import OFF, Halving, HalvingSettings
from nasnet_jax.search.history import Row, child_seed
from nasnet_jax.search.objectives import Objectives
from nasnet_jax.search.rewards import ACCURACY, Reward
from nasnet_jax.training import checkpoint, hosts, live, workdir

_log = logging.getLogger(__name__)

HISTORY, JOURNAL, CHECKPOINTS, ROUND = (
  "history.jsonl",
  "journal.jsonl",
  "checkpoints/controller",
  "round.jsonl",
)
# Seconds between two checkpoints of the controller's state: rounds that only
# look up a table take less time than writing one does.
_PAUSE = 2.0
_DRAWN = 2**31 - 1  # no number of an ask: keeps apart draws that nobody is told


class RoundSettings(NamedTuple):
  """Of the rounds.

  Attributes:
    children: to be evaluated in all.
    children_per_round: asked for at a time.
    seed: of the controller and of every child.
    reward: what the controller is told of a child, one number or several.
    halving: who is stopped early.
    asynchronous: no rounds; see `asynchronous.run`.
    budget: what may end it before the last child.
    limit: what children may cost.
    inherit: of a child's training, what one gets that begins with its parent's
      weights; 0: none does.
  """

  children: int
  children_per_round: int
  seed: int
  reward: Reward | Objectives = ACCURACY
  halving: HalvingSettings = OFF
  asynchronous: bool = False
  budget: budgets.BudgetSettings = budgets.OFF
  limit: limits.LimitSettings = limits.OFF
  inherit: float = 0.0


class Standing(NamedTuple):
  """Where a search stands between two answers.

  Attributes:
    state: the controller's.
    pending: proposals that were asked for and not yet told, by id.
    asks, rounds: answers of the controller, and to it, that count.
    rows: of the history, all of children that were told.
  """

  state: Any
  pending: base.Proposals
  asks: int
  rounds: int
  rows: list[Row]


def run(
  folder: pathlib.Path,
  controller: base.Controller,
  evaluator: Evaluator,
  settings: RoundSettings,
  *,
  progress: Progress | None = None,
  finished: Callable[[list[Row], int, float], None] = lambda *_: None,
  over: budgets.Over = budgets.never,
) -> list[Row]:
  """All rounds that are still to come.

  Args:
    folder: the run's.
    progress: see `Evaluator`; raising leaves the round to the next process.
    finished: called after each round with all rows, the number of this
      round's, and its seconds.
    over: asked before each round, on all hosts alike.

  Returns:
    the history's rows, one per child.

  Raises:
    WorkdirError, ValueError: if the folder's files contradict each other.
  """
  at = resume(folder, controller, settings)
  tell_start(at, settings)
  known = _answered(folder, at.pending)
  remember(evaluator, at, known)
  heirs.open_folder(folder, settings.inherit, evaluator, controller, at)
  judge = Halving(
    settings.halving,
    settings.reward,
    [*at.rows, *({"id": i, **o._asdict()} for i, o in known.items())],
  )
  saved = at.rounds, time.monotonic()
  while len(at.rows) < settings.children:
    start = time.monotonic()
    if not len(at.pending):
      if ends_early(over, at.rows, settings):
        break
      left = settings.children - len(at.rows)
      n = min(settings.children_per_round, left)
      at = ask(folder, controller, settings, at, n)
    if not len(at.pending):
      _log.info("the controller has no more proposals: the search ends here")
      break
    prepare(folder, controller, evaluator, settings, at, progress)
    known |= limits.outcomes(settings.limit, evaluator, at.pending)
    outcomes = known | _evaluate(
      folder,
      evaluator,
      at.pending.rows(~np.isin(at.pending.id, list(known))),
      settings,
      judge,
      progress,
      at.rows,
    )
    fresh = len(outcomes)
    at = tell(folder, controller, settings, at, outcomes)
    heirs.keep_parents(settings.inherit, evaluator, controller, at)
    # Clocks of hosts differ, and all of them write it.
    if hosts.count() > 1 or time.monotonic() - saved[1] >= _PAUSE:
      save(folder, at)
      saved = at.rounds, time.monotonic()
    known = {}
    if hosts.is_first():
      (folder / ROUND).unlink(missing_ok=True)
    finished(at.rows, fresh, time.monotonic() - start)
  if at.rounds > saved[0]:
    save(folder, at)
  return at.rows


def prepare(folder, controller, evaluator, settings, at: Standing, progress):
  """Tells an evaluator that wants it of the round to come."""
  if not hasattr(evaluator, "before_round"):
    return

  def draw(n: int) -> np.ndarray:
    rng = jax.random.fold_in(jax.random.key(settings.seed), _DRAWN)
    rng = jax.random.fold_in(rng, at.rounds)
    return controller.ask(at.state, rng, n)[0].decisions  # nobody's children

  evaluator.before_round(folder, at.rounds, draw, progress)


def ends_early(
  over: budgets.Over, rows: list[Row], settings: RoundSettings
) -> bool:
  """Whether no further child is to be proposed, which is then told."""
  reason = over(rows) or limits.hopeless(settings.limit, rows)
  if reason:
    _log.info(
      "%s; no further child is tried, %d of %d are done",
      reason,
      len(rows),
      settings.children,
    )
  return bool(reason)


def tell_start(at: Standing, settings: RoundSettings):
  """A line for a search that goes on, which looks like a new one."""
  if at.asks:
    _log.info("goes on with %d of %d children", len(at.rows), settings.children)


def resume(
  folder: pathlib.Path,
  controller: base.Controller,
  settings: RoundSettings,
  events: list[journal.Ask | journal.Tell] | None = None,
) -> Standing:
  """What the folder says of children that were told, and takes back the rest.

  Args:
    events: of the journal, where they have been read already.
  """
  events = journal.read(folder / JOURNAL) if events is None else events
  tells = [i for i, e in enumerate(events) if isinstance(e, journal.Tell)]
  rows = workdir.keep_lines(
    folder / HISTORY,
    lambda row: row.get("round", 0) < len(tells),
    "of a round that was not finished",
  )
  told = [int(child) for i in tells for child in events[i].id]
  if [row.get("id") for row in rows] != told:
    raise workdir.WorkdirError(
      f"{folder / HISTORY} has other children than {folder / JOURNAL}: put"
      " back what was changed or take another folder"
    )
  rng = jax.random.key(settings.seed)
  saved, state, pending = _restore(folder, controller, rng, events)
  after = tells[saved - 1] + 1 if saved else 0
  with _learning_again(len(events) - after) as progress:
    replayed = journal.replay(
      controller._replace(init=lambda _: state),
      rng,
      events[after:],
      pending,
      progress,
    )
  hosts.agree("where the search stands", (replayed.state, replayed.pending))
  asks = len(events) - len(tells)
  return Standing(replayed.state, replayed.pending, asks, len(tells), rows)


_SOON = 3.0  # seconds; what is shorter needs no word


@contextlib.contextmanager
def _learning_again(count: int):
  """Tells of a long replay; yields (events done so far) -> None."""
  start = time.monotonic()
  told = False

  def progress(done: int):
    nonlocal told
    spent = time.monotonic() - start
    if spent < _SOON:
      return
    left = spent / done * (count - done)
    if not told:
      _log.info(
        "no saved state of the strategy is there: it learns again from the"
        " journal, about %s",
        live.duration(spent + left),
      )
      told = True
    live.show(f"the strategy learns again, {done} of {count}", left=left)

  yield progress
  live.hide()


def _restore(
  folder, controller, rng, events
) -> tuple[int, Any, base.Proposals | None]:
  """(tells that the state has learnt from, state, proposals that were pending
  then; None for none), the newest there is."""
  first = controller.init(rng)
  nobody, _ = controller.ask(first, rng, 0)
  pending = _pending_after(events)

  def template(step: int):
    if not pending[step]:
      return first
    return first, jax.tree.map(
      lambda x: np.zeros((pending[step], *x.shape[1:]), x.dtype), nobody
    )

  last = len(pending) - 1
  try:
    restored = checkpoint.restore(folder / CHECKPOINTS, template, last)
  except checkpoint.CheckpointError as error:  # of another version
    _log.warning("%s: the journal is taken in its place", error)
    restored = None
  if restored is None:
    return 0, first, None
  step, tree = restored
  return (step, *tree) if pending[step] else (step, tree, None)


def remember(evaluator, at: Standing, known: dict[int, Outcome]):
  """Tells the evaluator what was measured before: that is not there again.

  Args:
    known: answers to pending children, by id.
  """
  if not hasattr(evaluator, "remember"):
    return
  for row in at.rows:
    if row.get("latency"):
      evaluator.remember(np.asarray(row["decisions"]), row["latency"])
  for child, decisions in zip(at.pending.id, at.pending.decisions, strict=True):
    outcome = known.get(int(child))
    if outcome and outcome.latency:
      evaluator.remember(np.asarray(decisions), outcome.latency)


def _pending_after(events) -> list[int]:
  """The number of pending proposals after each tell; [0] is the start."""
  counts, pending = [0], 0
  for event in events:
    if isinstance(event, journal.Ask):
      pending += event.came
    else:
      pending -= len(event.id)
      counts.append(pending)
  return counts


def ask(
  folder, controller, settings: RoundSettings, at: Standing, n: int
) -> Standing:
  """Asks for n more proposals. Without an answer nothing has happened."""
  rng = jax.random.fold_in(jax.random.key(settings.seed), at.asks)
  proposals, state = controller.ask(at.state, rng, n)
  if not len(proposals):
    return at
  if hosts.is_first():
    journal.record_ask(folder / JOURNAL, rng, n, proposals)
  pending = base.join([at.pending, proposals])
  return at._replace(state=state, pending=pending, asks=at.asks + 1)


def to_train(
  proposals: base.Proposals, settings: RoundSettings, rows: list[Row]
) -> tuple[np.ndarray, ...]:
  """(decisions, seeds, budgets) as evaluators take them, and the parents, if
  weights are inherited.

  Args:
    rows: of the history so far.
  """
  seeds = [child_seed(settings.seed, int(child)) for child in proposals.id]
  parents = heirs.parents_of(settings.inherit, proposals, rows)
  heirs.tell_failed(settings.inherit, proposals, parents)
  arrays = (
    np.asarray(proposals.decisions, np.int32),
    np.array(seeds, np.uint32),
    heirs.budgets(settings.inherit, proposals, parents),
  )
  return (*arrays, parents) if settings.inherit else arrays


def _evaluate(
  folder,
  evaluator,
  proposals,
  settings: RoundSettings,
  judge: Halving,
  progress,
  rows: list[Row],
) -> dict[int, Outcome]:
  """The outcome of every proposal, by id. rows: of the history so far."""
  if not len(proposals):
    return {}
  children = to_train(proposals, settings, rows)
  ids = proposals.id.tolist()
  if not hasattr(evaluator, "queue"):
    return dict(zip(ids, evaluator.evaluate(*children, progress), strict=True))
  queue = evaluator.queue(judge.stops(evaluator))
  queue.add(ids, *children)
  return drain(queue, progress, functools.partial(_note, folder / ROUND))


def _note(path: pathlib.Path, done: list[tuple[int, Outcome]]):
  """Answers of a round under way, which the next process need not ask for."""
  rows = [{"id": child, **o._asdict()} for child, o in done]
  for row in rows:  # JSON has no NaN
    if not math.isfinite(row["reward"]):
      row["reward"] = None
  workdir.append_lines(path, rows)


def _answered(folder, pending: base.Proposals) -> dict[int, Outcome]:
  """What an earlier process knew of pending proposals, by id."""
  ids = pending.id.tolist()
  rows = workdir.keep_lines(
    folder / ROUND,
    lambda row: row.get("id") in ids,
    "of children that were told",
  )
  found = {}
  for row in rows:
    child = row.pop("id")
    if row["reward"] is None:
      row["reward"] = math.nan
    found[child] = Outcome(**{**row, "rungs": tuple(row["rungs"])})
  return found


def tell(
  folder,
  controller,
  settings: RoundSettings,
  at: Standing,
  outcomes: dict[int, Outcome],
) -> Standing:
  """Tells the controller of some pending children, in one portion.

  History, then the journal's line: with that, it has happened.

  Args:
    outcomes: by child.
  """
  mine = np.isin(at.pending.id, list(outcomes))
  told, pending = at.pending.rows(mine), at.pending.rows(~mine)
  ordered = [outcomes[int(child)] for child in told.id]
  answers = history.answers(ordered, settings.reward)
  fresh = history.lines(told, ordered, *answers, settings, at.rounds, at.rows)
  state = controller.tell(at.state, told, *answers)
  workdir.append_lines(folder / HISTORY, fresh)
  if hosts.is_first():
    journal.record_tell(folder / JOURNAL, told, *answers)
  return Standing(state, pending, at.asks, at.rounds + 1, at.rows + fresh)


def save(folder, at: Standing):
  """Writes a checkpoint of the controller's state."""
  hosts.agree(f"the controller's state after round {at.rounds}", at.state)
  tree = (at.state, at.pending) if len(at.pending) else at.state
  checkpoint.save(folder / CHECKPOINTS, at.rounds, tree)
