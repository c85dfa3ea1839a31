"""What a strategy is told of a child, and what the history says of it."""

import math
from typing import Any

import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.population.evaluation import NO_PARENT, OVER_LIMIT, Outcome
from nasnet_jax.search import halving, heirs
from nasnet_jax.search.objectives import Objectives
from nasnet_jax.search.rewards import Reward

Row = dict[str, Any]


def child_seed(search_seed: int, child: int) -> int:
  """uint32, all that is random in a child's training; never changes."""
  sequence = np.random.SeedSequence([search_seed, child])
  return int(sequence.generate_state(1, np.uint32)[0])


def answers(
  outcomes: list[Outcome], reward: Reward | Objectives
) -> tuple[np.ndarray, np.ndarray]:
  """(rewards f32[m] or [m, k], status i32[m]); a reward that is no number
  failed."""
  values = [reward(o.reward, o._asdict()) for o in outcomes]
  rewards = np.array(values, np.float32)
  status = np.array([o.status for o in outcomes], np.int32)
  status[status == OVER_LIMIT] = base.FAILED  # a strategy knows no others
  finite = np.isfinite(rewards).reshape(len(outcomes), -1).all(-1)
  status[~finite] = base.FAILED
  rewards[status != base.OK] = math.nan
  return rewards, status


def lines(
  told: base.Proposals,
  outcomes: list[Outcome],
  rewards: np.ndarray,
  status: np.ndarray,
  settings,
  rounds: int,
  before: list[Row],
) -> list[Row]:
  """A row for each child of one portion.

  Args:
    told: the children, in the order of their outcomes.
    rewards, status: of `answers`.
    settings: a `rounds.RoundSettings`.
    rounds: how many were told before.
    before: the rows of all children that were told before.
  """
  rows, names = [], getattr(settings.reward, "names", ())
  parents = heirs.parents_of(settings.inherit, told, before)
  parents[[o.status == OVER_LIMIT for o in outcomes]] = NO_PARENT
  shares = heirs.budgets(settings.inherit, told, parents)
  for i, (outcome, reward, state) in enumerate(zip(outcomes, rewards, status)):
    ok = bool(state == base.OK)
    child = int(told.id[i])
    row = {
      "id": child,
      "round": rounds,
      "decisions": np.asarray(told.decisions[i]).tolist(),
      "seed": child_seed(settings.seed, child),
      "budget": float(shares[i]),
      "steps": int(outcome.steps),
      "accuracy": float(outcome.reward) if ok else None,
      "reward": float(np.ravel(reward)[0]) if ok else None,
      "status": "ok" if ok else _why_not(outcome),
      "params": int(outcome.params),
      "macs": int(outcome.macs),
      "seconds": round(float(outcome.seconds), 3),
    }
    if names:
      values = reward.tolist() if ok else [None] * len(names)
      row["objectives"] = dict(zip(names, values, strict=True))
    if outcome.bytes:
      row["bytes"] = int(outcome.bytes)
    if outcome.latency:
      row["latency"] = float(outcome.latency)
    if outcome.horizon:
      row["horizon"] = int(outcome.horizon)
      row["rungs"] = list(outcome.rungs)
    if outcome.scores:
      row["scores"] = outcome.scores
    if outcome.shared_epochs:
      row["shared_epochs"] = round(float(outcome.shared_epochs), 3)
    row |= heirs.words(settings.inherit, told.rows([i]), parents[i])
    rows.append(row)
  return rows


def _why_not(outcome: Outcome) -> str:
  return halving.OVER_LIMIT if outcome.status == OVER_LIMIT else "failed"
