"""Children that begin with their parent's weights: who does, and what is kept.

All of it follows from the history: a child inherits if its strategy named a
parent, and that one succeeded. Final weights are kept of children that are
under way, that are the parent of one under way, and that may become a parent.
"""

import logging
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.population.evaluation import NO_PARENT

_log = logging.getLogger(__name__)
Row = dict[str, Any]


def parents_of(
  share: float, proposals: base.Proposals, rows: Iterable[Row]
) -> np.ndarray:
  """int64[m]: whose weights each child begins with, or NO_PARENT.

  Args:
    share: `RoundSettings.inherit`.
    proposals: of m children.
    rows: of the history, in which all parents stand.
  """
  nobody = np.full(len(proposals), NO_PARENT, np.int64)
  if not share:
    return nobody
  named = np.asarray(proposals.parent)
  failed = [row["id"] for row in rows if row["status"] != "ok"]
  return np.where((named >= 0) & ~np.isin(named, failed), named, nobody)


def budgets(
  share: float, proposals: base.Proposals, parents: np.ndarray
) -> np.ndarray:
  """f32[m]: shares of the full training. parents: of `parents_of`."""
  whole = np.asarray(proposals.budget, np.float32)
  return np.where(parents == NO_PARENT, whole, whole * np.float32(share))


def words(share: float, child: base.Proposals, parent: int) -> Row:
  """What the history's line of one child says of its parent."""
  if not np.size(child.parent):  # of a strategy that has none
    return {}
  named = int(child.parent[0])
  row: Row = {"parent": named if named >= 0 else None}
  if share:
    row["inherited"] = bool(parent != NO_PARENT)
  return row


def tell_failed(share: float, proposals: base.Proposals, parents: np.ndarray):
  """A line on each child that a failed parent leaves nothing."""
  if not share:
    return
  named = np.asarray(proposals.parent)
  for i in np.flatnonzero((named >= 0) & (parents == NO_PARENT)):
    _log.warning(
      "child %d: its parent, child %d, failed, so it trains from nothing and in"
      " full",
      proposals.id[i],
      named[i],
    )


def open_folder(folder: pathlib.Path, share: float, evaluator, controller, at):
  """Has the evaluator keep weights in the run's folder, where any are to be.

  Args:
    at: a `rounds.Standing`.
  """
  if share:
    evaluator.open_folder(folder)
    keep_parents(share, evaluator, controller, at)


def keep_parents(share: float, evaluator, controller, at):
  """Throws away the weights of who cannot become a parent any more.

  Args:
    at: a `rounds.Standing`.
  """
  if not share:
    return
  kept = (controller.parents(at.state), at.pending.parent, at.pending.id)
  evaluator.keep_only({int(child) for ids in kept for child in ids})
