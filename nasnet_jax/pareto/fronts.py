"""Who is better where several rewards count: fronts, crowding, ends, knee.

Rewards are [n, k], larger is better in each of the k columns. A row with a
number that is not finite is a child that failed: every other one dominates it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


def dominates(rewards) -> np.ndarray:
  """bool[n, n]: whether row i dominates row j: it is worse in nothing and
  better in something."""
  values = _comparable(rewards)
  no_worse = (values[:, None] >= values).all(-1)
  return no_worse & ~no_worse.T


def ranks(rewards) -> np.ndarray:
  """int64[n]: 0 on the front, 1 on that of the rest, and so on (Deb et al.
  2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II",
  section III.A)."""
  beats = dominates(rewards)
  found = np.full(len(beats), -1)
  rank = 0
  while (left := found < 0).any():
    found[left & ~beats[left].any(0)] = rank
    rank += 1
  return found


def crowding(rewards, rank) -> np.ndarray:
  """f64[n]: how much room a row has on its front (Deb et al. 2002, section
  III.B): the distances of its two neighbours, each objective over the front's
  range, summed up; infinite at the ends of an objective.

  Of equal rows the first has the room and the others have 0 (Fortin and
  Parizeau 2013, "Revisiting the NSGA-II crowding-distance computation"), or
  copies of an end would never die.

  Args:
    rank: int[n], of `ranks`.
  """
  values = np.asarray(rewards, np.float64)
  found = np.zeros(len(values))
  finite = np.isfinite(values).all(-1)
  for front in np.unique(rank[finite]):
    rows = np.flatnonzero(finite & (rank == front))
    different, first = np.unique(values[rows], axis=0, return_index=True)
    found[rows[first]] = sum(map(_room, different.T))
  return found


def standing(rewards) -> np.ndarray:
  """int64[n]: places by rank, then room, from 0, the best; equal ones share
  theirs. This is Deb et al.'s crowded comparison."""
  rank = ranks(rewards)
  room = crowding(rewards, rank)
  order = np.lexsort((-room, rank))
  rank, room = rank[order], room[order]
  behind = (rank[1:] != rank[:-1]) | (room[1:] != room[:-1])
  found = np.zeros(len(order), np.int64)
  found[order[1:]] = np.cumsum(behind)
  return found


def front(rewards) -> np.ndarray:
  """int64[m]: the rows that no other dominates, ascending, the first of equal
  ones; failed ones never."""
  values = np.asarray(rewards, np.float64)
  order = np.lexsort((-np.arange(len(values)), *values.T[::-1]))[::-1]
  order = order[np.isfinite(values[order]).all(-1)]
  kept = np.zeros(0, np.int64)
  for row in order:  # nobody later dominates anybody earlier
    if not (values[kept] >= values[row]).all(-1).any():
      kept = np.append(kept, row)
  return np.sort(kept)


class Place(NamedTuple):
  """A row's place on the front.

  Attributes:
    row: its number.
    ends: the objectives, by number, in which it is the best.
    knee: whether it is the knee.
  """

  row: int
  ends: tuple[int, ...]
  knee: bool


def places(rewards) -> list[Place]:
  """The front: the end of the first objective, the knee, the other ends, then
  the rest by room.

  The knee is the row farthest from the plane through the ends, each objective
  over the front's range: where the normalised rewards have the largest sum (Das
  1999, "On characterizing the knee of the Pareto curve based on normal-boundary
  intersection"). It is one of the ends where the front has no bulge. Of equal
  rows the first counts.
  """
  values = np.asarray(rewards, np.float64)
  rows = front(values)
  if not len(rows):
    return []
  mine = values[rows]
  ends = [_end(mine, k) for k in range(mine.shape[1])]
  knee = int(np.argmax(_scaled(mine).sum(-1)))
  room = crowding(mine, np.zeros(len(mine), int))
  rest = np.argsort(-room, kind="stable").tolist()
  order = dict.fromkeys([ends[0], knee, *ends[1:], *rest])
  return [
    Place(
      int(rows[i]),
      tuple(k for k, end in enumerate(ends) if end == i),
      i == knee,
    )
    for i in order
  ]


def words(ends: Iterable[str], knee: bool) -> str:
  """What a place is called: "most accuracy", "least params and the knee",
  "between".

  Args:
    ends: names of objectives; one with a "-" is of something of which less is
      better.
    knee: see `Place`.
  """
  found = [f"least {n[1:]}" if n[0] == "-" else f"most {n}" for n in ends]
  return " and ".join(found + ["the knee"] * knee) or "between"


def _comparable(rewards) -> np.ndarray:
  values = np.asarray(rewards, np.float64)
  finite = np.isfinite(values).all(-1, keepdims=True)
  return np.where(finite, values, -np.inf)


def _room(column: np.ndarray) -> np.ndarray:
  """f64[m]: of one objective of different rows on one front."""
  low, high = column.min(), column.max()
  if low == high:  # it sets nobody apart
    return np.zeros(len(column))
  order = np.argsort(column, kind="stable")
  found = np.full(len(column), np.inf)
  found[order[1:-1]] = column[order[2:]] - column[order[:-2]]
  return found / (high - low)


def _end(values: np.ndarray, objective: int) -> int:
  """The row that is the best in an objective; of equals, in the others."""
  others = [k for k in range(values.shape[1]) if k != objective]
  keys = [values[:, k] for k in (*others[::-1], objective)]
  return int(np.lexsort((-np.arange(len(values)), *keys))[-1])


def _scaled(values: np.ndarray) -> np.ndarray:
  """Each column from 0 to 1; one that is the same everywhere is 0."""
  low, high = values.min(0), values.max(0)
  return (values - low) / np.where(high > low, high - low, 1.0)
