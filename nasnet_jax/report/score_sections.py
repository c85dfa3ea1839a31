"""Scores of initial weights: of the best children, and how well they rank."""

import html
import math

import numpy as np

from nasnet_jax.report import children_sections, page, runs, statistics

_FREE = {"params": "parameters", "macs": "multiply-adds"}


def scores(history: runs.History) -> str:
  """The section; "" of a search without scores."""
  if not history.scores:
    return ""
  return page.section(
    "Scores without training",
    '<div class="figures">'
    f"<div>{_correlations(history)}</div><div>{_best(history)}</div></div>",
  )


def rank_correlations(history: runs.History) -> dict[str, tuple[float, int]]:
  """(Spearman's of it and accuracy, over so many children) of each score, and
  of what is known of every child: those that trained to their end."""
  free = {words: getattr(history, name) for name, words in _FREE.items()}
  found = {}
  for name, values in {**history.scores, **free}.items():
    known = ~np.isnan(values) & ~np.isnan(history.accuracy) & ~history.stopped
    together = statistics.spearman(values[known], history.accuracy[known])
    found[name] = together, int(known.sum())
  return found


def _correlations(history: runs.History) -> str:
  body = [
    page.row([html.escape(name), page.decimal(value, "+.2f") or "?", count])
    for name, (value, count) in rank_correlations(history).items()
  ]
  note = (
    '<p class="sub">Rank correlation (Spearman) with accuracy. A search takes'
    " children that it thinks good, so it is smaller here than among random"
    " ones.</p>"
  )
  head = ("score", "with accuracy", "children")
  return note + page.table(head, "".join(body), "Rank correlations", "named")


def _best(history: runs.History) -> str:
  """The best children's."""
  rows = children_sections.best_rows(history)
  if not rows:
    return ""
  body = [
    page.row(
      [
        history.id[row],
        f"{history.reward[row]:.4f}",
        *(_number(values[row]) for values in history.scores.values()),
      ]
    )
    for row in rows
  ]
  head = ("child", "reward", *history.scores)
  return page.table(head, "".join(body), "Scores of the best children")


def _number(value: float) -> str:
  return "-" if math.isnan(value) else f"{value:.4g}"
