"""Rounds of ask, train, tell, each committed in one step.

A round is finished once its answers stand in the journal as one line, behind
its children in the history. Whatever a killed process wrote of another round
is taken back, and the round is done again: same proposals, same seeds, same
rewards. The controller's checkpoint only saves replaying a long journal.
"""

import logging
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base, journal
from nasnet_jax.evaluators import Evaluator, Outcome, Progress
from nasnet_jax.training import checkpoint, workdir

_log = logging.getLogger(__name__)

HISTORY, JOURNAL, CHECKPOINTS = (
  "history.jsonl",
  "journal.jsonl",
  "checkpoints/controller",
)
Row = dict[str, Any]


class Settings(NamedTuple):
  """Of the rounds.

  Attributes:
    children: to be evaluated in all.
    children_per_round: asked for at a time.
    seed: of the controller and of every child.
  """

  children: int
  children_per_round: int
  seed: int


class Standing(NamedTuple):
  """Where a search stands between two rounds.

  Attributes:
    state: the controller's.
    pending: proposals that were asked for and not yet evaluated.
    rounds: finished ones.
    rows: of the history, all of finished rounds.
  """

  state: Any
  pending: base.Proposals
  rounds: int
  rows: list[Row]


def child_seed(search_seed: int, child: int) -> int:
  """uint32, all that is random in a child's training; never changes."""
  sequence = np.random.SeedSequence([search_seed, child])
  return int(sequence.generate_state(1, np.uint32)[0])


def run(
  folder: pathlib.Path,
  controller: base.Controller,
  evaluator: Evaluator,
  settings: Settings,
  *,
  progress: Progress | None = None,
  finished: Callable[[list[Row], int, float], None] = lambda *_: None,
) -> list[Row]:
  """All rounds that are still to come.

  Args:
    folder: the run's.
    progress: see `Evaluator`; raising leaves the round to the next process.
    finished: called after each round with all rows, the number of this
      round's, and its seconds.

  Returns:
    the history's rows, one per child.

  Raises:
    WorkdirError, ValueError: if the folder's files contradict each other.
  """
  at = resume(folder, controller, settings)
  while len(at.rows) < settings.children:
    start = time.monotonic()
    at = _ask(folder, controller, settings, at)
    if not len(at.pending):
      _log.info("the controller has no more proposals: the search ends here")
      break
    outcomes = _evaluate(evaluator, at.pending, settings.seed, progress)
    fresh = _rows(at, outcomes, settings.seed)
    at = _commit(folder, controller, at, fresh, outcomes)
    finished(at.rows, len(fresh), time.monotonic() - start)
  return at.rows


def resume(
  folder: pathlib.Path, controller: base.Controller, settings: Settings
) -> Standing:
  """What the folder says of finished rounds, and takes back what is not."""
  events = journal.read(folder / JOURNAL)
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
  saved, state = _restore(folder, controller, rng, len(tells))
  after = tells[saved - 1] + 1 if saved else 0
  replayed = journal.replay(
    controller._replace(init=lambda _: state), rng, events[after:]
  )
  return Standing(replayed.state, replayed.pending, len(tells), rows)


def _restore(folder, controller, rng, rounds: int) -> tuple[int, Any]:
  """(rounds that the state has learnt from, state), the newest there is."""
  first = controller.init(rng)
  restored = checkpoint.restore(folder / CHECKPOINTS, first)
  if restored is None or restored[0] > rounds:
    return 0, first
  return restored


def _ask(folder, controller, settings: Settings, at: Standing) -> Standing:
  """Makes sure that there are proposals, if the controller has any."""
  if len(at.pending):
    return at
  rng = jax.random.fold_in(jax.random.key(settings.seed), at.rounds)
  n = min(settings.children_per_round, settings.children - len(at.rows))
  proposals, state = controller.ask(at.state, rng, n)
  if len(proposals):
    journal.record_ask(folder / JOURNAL, rng, n, proposals)
  return at._replace(state=state, pending=proposals)


def _evaluate(evaluator, proposals, seed: int, progress) -> list[Outcome]:
  seeds = [child_seed(seed, int(child)) for child in proposals.id]
  return evaluator.evaluate(
    np.asarray(proposals.decisions, np.int32),
    np.array(seeds, np.uint32),
    np.asarray(proposals.budget, np.float32),
    progress,
  )


def _answers(outcomes: list[Outcome]) -> tuple[np.ndarray, np.ndarray]:
  """(rewards f32[m], status i32[m]); a reward that is no number failed."""
  rewards = np.array([o.reward for o in outcomes], np.float32)
  status = np.array([o.status for o in outcomes], np.int32)
  status[~np.isfinite(rewards)] = base.FAILED
  rewards[status != base.OK] = math.nan
  return rewards, status


def _rows(at: Standing, outcomes: list[Outcome], seed: int) -> list[Row]:
  rewards, status = _answers(outcomes)
  rows = []
  for i, outcome in enumerate(outcomes):
    ok = bool(status[i] == base.OK)
    child = int(at.pending.id[i])
    rows.append(
      {
        "id": child,
        "round": at.rounds,
        "decisions": np.asarray(at.pending.decisions[i]).tolist(),
        "seed": child_seed(seed, child),
        "budget": float(at.pending.budget[i]),
        "steps": int(outcome.steps),
        "reward": float(rewards[i]) if ok else None,
        "status": "ok" if ok else "failed",
        "params": int(outcome.params),
        "macs": int(outcome.macs),
        "seconds": round(float(outcome.seconds), 3),
      }
    )
  return rows


def _commit(folder, controller, at: Standing, fresh, outcomes) -> Standing:
  """History, then the journal's line: with that, the round is finished."""
  rewards, status = _answers(outcomes)
  state = controller.tell(at.state, at.pending, rewards, status)
  workdir.append_lines(folder / HISTORY, fresh)
  journal.record_tell(folder / JOURNAL, at.pending, rewards, status)
  checkpoint.save(folder / CHECKPOINTS, at.rounds + 1, state)
  nobody = at.pending.rows(slice(0, 0))
  return Standing(state, nobody, at.rounds + 1, at.rows + fresh)
