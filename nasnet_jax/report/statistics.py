"""The numbers behind a report's charts. NumPy only."""

import itertools
import math

import numpy as np


def wilson_interval(
  correct: float, total: float, z: float = 1.959964
) -> tuple[float, float]:
  """The 95% interval of a share, after Wilson (1927).

  Unlike the normal approximation it stays within 0..1 and is not empty when
  all answers are right.
  """
  if total <= 0:
    return 0.0, 1.0
  share = correct / total
  scale = 1 + z * z / total
  middle = (share + z * z / (2 * total)) / scale
  spread = share * (1 - share) / total + z * z / (4 * total * total)
  half = z * math.sqrt(spread) / scale
  return max(0.0, middle - half), min(1.0, middle + half)


def running_best(reward: np.ndarray) -> np.ndarray:
  """float[n]: the best reward so far; NaN before the first that is one."""
  best = np.maximum.accumulate(np.where(np.isnan(reward), -np.inf, reward))
  return np.where(np.isinf(best), np.nan, best)


def rolling_mean(values: np.ndarray, window: int) -> np.ndarray:
  """float[n]: the mean of the last `window` values, of fewer at the start."""
  total = np.concatenate([[0.0], np.cumsum(values)])
  end = np.arange(1, len(values) + 1)
  start = np.maximum(end - window, 0)
  return (total[end] - total[start]) / (end - start)


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
  """int[k]: rows that no other beats, by rising cost.

  A row is beaten by one that costs no more and is worth at least as much (of
  equal rows, the first stays). Rows with a NaN are never on the front.
  """
  known = np.flatnonzero(~(np.isnan(cost) | np.isnan(value)))
  order = known[np.lexsort((known, -value[known], cost[known]))]
  if not len(order):
    return order
  before = np.concatenate([[-np.inf], running_best(value[order])[:-1]])
  return order[value[order] > before]


def spearman(a, b) -> float:
  """The rank correlation, equal values sharing their ranks' mean; NaN of fewer
  than two values, or of values that are all equal."""
  a, b = ranks(a), ranks(b)
  if len(a) < 2 or not (np.ptp(a) and np.ptp(b)):
    return math.nan
  return float(np.corrcoef(a, b)[0, 1])


def kendall(a, b) -> float:
  """Kendall's tau-b, which allows for ties; NaN where all are equal."""
  x, y = (np.sign(np.subtract.outer(v, v)) for v in map(ranks, (a, b)))
  scale = math.sqrt((x != 0).sum() * (y != 0).sum())
  return float((x * y).sum() / scale) if scale else math.nan


def ranks(values) -> np.ndarray:
  """float[n], of which equal values share their mean."""
  _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - counts / 2)[place]


def operation_shares(
  ops: np.ndarray, num_operations: int, windows: int
) -> tuple[np.ndarray, np.ndarray]:
  """How often each operation was chosen, window by window.

  Args:
    ops: int[n, slots], the operations of n children in order; -1 for none.
    num_operations: length of the space's list.
    windows: at most so many windows of equal length (but for one).

  Returns:
    float[w] the middle of each window, in children from 0, and
    float[w, num_operations] shares that sum to 1.
  """
  bounds = np.linspace(0, len(ops), min(windows, len(ops)) + 1).astype(int)
  shares = np.stack(
    [
      np.bincount(ops[a:b].ravel() + 1, minlength=num_operations + 1)[1:]
      for a, b in itertools.pairwise(bounds)
    ]
  )
  shares = shares / shares.sum(-1, keepdims=True)
  return (bounds[:-1] + bounds[1:] - 1) / 2, shares
