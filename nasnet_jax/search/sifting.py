"""A strategy of which only the best proposals are trained (`search.prefilter`).

It is asked for `times` as many children, all are scored without training, and
those of the best scores go on. Of the others the strategy is told, at once,
that they failed: the contract's word for an answer that teaches nothing. So
nobody waits for them, no strategy proposes again what it remembers, and none
takes a score for an accuracy. They have numbers, and no line in the history:
children and budgets count what is trained.

Scores are a function of decisions and number, so this is a strategy like any
other: the journal has its asks and tells, and replaying it scores again.
"""

from collections.abc import Callable

import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.search import limits
from nasnet_jax.search.history import child_seed
from nasnet_jax.search.scoring import FREE

# Of proposals: f64[m], more is better; of those that are not to be trained, if
# there are others, -inf.
Judge = Callable[[base.Proposals], np.ndarray]


def sifted(
  controller: base.Controller, times: int, judge: Judge
) -> base.Controller:
  """The controller that proposes the best 1/times of another's proposals.

  Args:
    times: 2 or more.
  """

  def ask(state, rng, n: int):
    proposals, state = controller.ask(state, rng, n * times)
    if not len(proposals):
      return proposals, state
    kept = best(judge(proposals), -(-len(proposals) // times))
    rest = proposals.rows(~kept)
    if len(rest):
      state = controller.tell(state, rest, *_failed(controller, len(rest)))
    return proposals.rows(kept), state

  return controller._replace(ask=ask)


def best(scores: np.ndarray, count: int) -> np.ndarray:
  """bool[m]: so many of the highest scores; of equal ones the first, and those
  that are NaN last."""
  scores = np.where(np.isnan(scores), -np.inf, scores)
  order = np.argsort(-scores, kind="stable")
  return np.isin(np.arange(len(scores)), order[:count])


def _failed(controller: base.Controller, m: int):
  k = controller.objectives
  rewards = np.full(m if k == 1 else (m, k), np.nan, np.float32)
  return rewards, np.full(m, base.FAILED, np.int32)


def judge(evaluator, score: str, seed: int, limit) -> Judge:
  """Judges proposals by a score that the evaluator has.

  Args:
    score: of `scoring.FREE`, or a name of the evaluator's scores.
    seed: of the search.
    limit: `limits.LimitSettings`; who is over one comes last.
  """

  def values(proposals) -> list[float | None]:
    if score in FREE:
      rows = evaluator.costs(proposals.decisions)
    else:
      seeds = [child_seed(seed, int(child)) for child in proposals.id]
      rows = evaluator.score(proposals.decisions, np.array(seeds, np.uint32))
    return [row[score] for row in rows]

  def scores(proposals) -> np.ndarray:
    found = np.array(values(proposals), np.float64)  # of None: NaN
    over = limits.outcomes(limit, evaluator, proposals)
    return np.where(np.isin(proposals.id, list(over)), -np.inf, found)

  return scores
