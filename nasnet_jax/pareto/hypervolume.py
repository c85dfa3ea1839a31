"""The hypervolume: how much a front has of all there is to have.

Zitzler and Thiele 1999, "Multiobjective evolutionary algorithms: a comparative
case study and the strength Pareto approach": the volume of what some row of
the front dominates, down to a reference point.
"""

import numpy as np


def hypervolume(rewards, reference) -> float:
  """The exact volume, by slices along the last objective (HSO: While et al.
  2006, "A faster algorithm for calculating hypervolume").

  Args:
    rewards: [n, k], larger is better. Rows that are not better than the
      reference in everything add nothing, and neither do failed ones.
    reference: [k].
  """
  values = np.asarray(rewards, np.float64)
  above = values - np.asarray(reference, np.float64)
  counts = np.isfinite(above).all(-1) & (above > 0).all(-1)
  return _volume(above[counts])


def by_child(rewards, reference) -> np.ndarray:
  """f64[n]: the hypervolume of the first child, of the first two, and so on.

  Args: as for `hypervolume`, children in order.
  """
  values = np.asarray(rewards, np.float64)
  found, volume = np.zeros(len(values)), 0.0
  kept = np.zeros((0, values.shape[1]))
  for i, row in enumerate(values):
    if np.isfinite(row).all() and not (kept >= row).all(-1).any():
      kept = np.concatenate([kept[~(row >= kept).all(-1)], row[None]])
      volume = hypervolume(kept, reference)
    found[i] = volume
  return found


def _volume(above: np.ndarray) -> float:
  """Of rows above 0, down to 0."""
  if not len(above):
    return 0.0
  order = np.argsort(-above[:, -1], kind="stable")
  rows, heights = above[order, :-1], above[order, -1]
  thick = heights - np.append(heights[1:], 0.0)
  if not rows.shape[1]:
    return float(heights[0])
  if rows.shape[1] == 1:
    return float(np.maximum.accumulate(rows[:, 0]) @ thick)
  return sum(
    float(thick[i]) * _volume(rows[: i + 1]) for i in np.flatnonzero(thick)
  )
