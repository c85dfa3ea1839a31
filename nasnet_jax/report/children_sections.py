"""The children that are worth having, each drawn, with the command that trains
it."""

import html
from typing import Any

import numpy as np

from nasnet_jax.report import (
  architectures,
  full_size,
  page,
  runs,
  search_charts,
  winners,
)

_MOST = 16  # of them on a page, which stays small
_SO_FAR = 5  # the best, while there is no ranking: this page is made often


def one_by_one(run: runs.Run) -> str:
  """The best children and those of the Pareto fronts, behind clicks."""
  found = _chosen(run)
  parts = [_one(run, *one) for one in found[:_MOST]]
  parts = [part for part in parts if part]
  if not parts:
    return ""
  note = "The best, and those of the Pareto fronts"
  if full_size.train(run, 0):
    note += ", each with the command that trains it at full size"
  left = len(found) - _MOST
  if left > 0:
    note += f". {left:,} more of the fronts are in the table above"
  return page.section(
    "Children to take", f'<p class="sub">{note}.</p>{"".join(parts)}'
  )


def _chosen(run: runs.Run) -> list[tuple[int, str]]:
  """(row of the history, what it is): the best first, then the fronts'."""
  history = run.history
  by_id = {int(child): row for row, child in enumerate(history.id)}
  what: dict[int, list[str]] = {}
  ranked = [row.get("id") for row in run.result.get("top_k") or ()]
  won = (run.result.get("winner") or {}).get("id")
  for child in ranked:
    if child in by_id:
      words = "winner" if child == won else "retrained"
      what.setdefault(by_id[child], []).append(words)
  if not ranked:
    for row in best_rows(history, _SO_FAR):
      what.setdefault(row, [])
  fronts: dict[int, list[str]] = {}
  for cost, words in search_charts.COSTS.items():
    for row in search_charts.front(history, cost)[::-1]:
      name = words.split(" per ")[0].split(" in ")[0]
      fronts.setdefault(int(row), []).append(name)
  for row, names in fronts.items():
    words = f"on the front of {' and of '.join(names)}"
    what.setdefault(row, []).append(words)
  return [(row, ", ".join(words)) for row, words in what.items()]


def best_rows(history: runs.History, count: int = 10) -> list[int]:
  """The rows of best reward."""
  ok = np.flatnonzero(~history.failed)
  order = ok[np.argsort(-history.reward[ok], kind="stable")][:count]
  return order.tolist()


def _one(run: runs.Run, row: int, what: str) -> str:
  history = run.history
  genotype: dict[str, Any] = winners.decode(run, row)
  child = int(history.id[row])
  drawn = architectures.drawn(genotype, f"child{child}-")
  if not drawn:
    return ""
  parent = int(history.heir_of[row])
  numbers = [
    what,
    f"reward {history.reward[row]:.4f}",
    f"{page.count(history.params[row])} parameters as searched",
    f"with weights of child {parent}" if parent >= 0 else "",
  ]
  line = full_size.train(run, child)
  return page.details(
    f"child {child} <small>{html.escape(', '.join(filter(None, numbers)))}"
    "</small>",
    (page.code(line) if line else "") + drawn,
  )
