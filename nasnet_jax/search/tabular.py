"""Benchmarks in tables: decisions to rewards in microseconds, no training.

A `Table` holds the results of training many architectures, in which the
evaluator looks answers up. `nasbench201_table` reads NAS-Bench-201's,
`cell_table` that of cells of the PNAS space, which our own population trained.
"""

from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.population.evaluation import (
  FAILED,
  OK,
  Outcome,
  Progress,
)
from nasnet_jax.spaces.base import SearchSpace


class Table(NamedTuple):
  """Results of trainings. n architectures, E training lengths, S seeds.

  Attributes:
    space: the search space of the decisions.
    decisions: int32[n, D].
    epochs: E training lengths, ascending; a budget of 1 is the last.
    steps_per_epoch: updates.
    accuracy: f64[n, E, S] on validation images, in [0, 1]; NaN where a seed
      was not trained, or failed.
    seconds: f64[n, E] of one training; 0 where unknown.
    params, macs: int64[n].
    by_function: whether a row stands for all cells that compute the same, with
      canonical decisions; if not, every decision vector has its own row.
    about: how it was made, as JSON can hold it.
    latency: f64[n] seconds of a call; None: not measured.
  """

  space: SearchSpace
  decisions: np.ndarray
  epochs: tuple[int, ...]
  steps_per_epoch: int
  accuracy: np.ndarray
  seconds: np.ndarray
  params: np.ndarray
  macs: np.ndarray
  by_function: bool = False
  about: dict[str, Any] = {}  # noqa: RUF012 (never written to)
  latency: np.ndarray | None = None

  def mean(self) -> np.ndarray:
    """f64[n]: the mean accuracy after the full length, over the seeds that are
    known."""
    full = self.accuracy[:, -1]
    known = np.isfinite(full)
    total = np.where(known, full, 0).sum(-1)
    with np.errstate(invalid="ignore"):
      return total / known.sum(-1)


class TabularEvaluator:
  """Looks children up: an `evaluation.Evaluator`.

  A child's seconds are the table's, so curves of cost can be drawn.
  """

  def __init__(self, table: Table, answers: str = "seed"):
    """answers: "seed": a child's seed picks one of the table's seeds, so there
    is the noise of a real training; "mean": the mean of all, without noise."""
    if answers not in ("seed", "mean"):
      raise ValueError(f'answers is {answers!r}, not "seed" or "mean"')
    self.table, self.answers = table, answers
    rows = np.ascontiguousarray(table.decisions, np.int32)
    self._place = {row.tobytes(): i for i, row in enumerate(rows)}

  def rows(self, decisions) -> np.ndarray:
    """int64[n]: the table's rows of decisions int[n, D].

    Raises:
      ValueError: naming the first architecture that the table lacks.
    """
    space = self.table.space
    keys = np.asarray(decisions)
    if self.table.by_function:
      keys = space.canonical(keys)
    keys = np.ascontiguousarray(keys, np.int32)
    places = [self._place.get(row.tobytes(), -1) for row in keys]
    if -1 in places:
      missing = np.asarray(decisions)[places.index(-1)].tolist()
      raise ValueError(
        f"the table of space {space.name} lacks the decisions {missing}"
      )
    return np.array(places, np.int64)

  def costs(self, decisions) -> list[dict[str, float]]:
    """See `evaluation.Evaluator`."""
    table = self.table
    return [
      {"params": int(table.params[row]), "macs": int(table.macs[row])}
      for row in self.rows(decisions)
    ]

  def evaluate(
    self,
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
    progress: Progress | None = None,
  ) -> list[Outcome]:
    """See `evaluation.Evaluator`.

    Raises:
      ValueError: for an architecture or a budget that the table lacks.
    """
    outcomes = [
      self._outcome(row, int(seed), self._level(budget))
      for row, seed, budget in zip(self.rows(decisions), seeds, budgets)
    ]
    if progress:
      progress(1.0, "looked up")
    return outcomes

  def _level(self, budget: float) -> int:
    epochs = self.table.epochs
    wanted = float(budget) * epochs[-1]
    for level, length in enumerate(epochs):
      if abs(wanted - length) < 0.5:  # a budget is a float32
        return level
    known = ", ".join(f"{e / epochs[-1]:g} ({e} epochs)" for e in epochs)
    raise ValueError(
      f"a budget of {budget:g} is {wanted:g} epochs; the table knows {known}"
    )

  def _outcome(self, row: int, seed: int, level: int) -> Outcome:
    table = self.table
    known = table.accuracy[row, level]
    known = known[np.isfinite(known)]
    if not len(known):
      reward = np.nan
    elif self.answers == "mean":
      reward = known.mean()
    else:
      reward = known[seed % len(known)]
    return Outcome(
      reward=float(reward),
      status=OK if np.isfinite(reward) else FAILED,
      steps=table.epochs[level] * table.steps_per_epoch,
      seconds=float(table.seconds[row, level]),
      params=int(table.params[row]),
      macs=int(table.macs[row]),
      latency=0.0 if table.latency is None else float(table.latency[row]),
    )
