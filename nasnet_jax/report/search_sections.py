"""The report's sections about the children: charts, trade-offs, the best."""

import html
from typing import Any

import numpy as np

from nasnet_jax.report import (
  page,
  runs,
  search_charts,
  style,
  training_charts,
  winners,
)

_TOP = 10  # children listed while there is no final ranking yet


def curves(run: runs.Run) -> str:
  """How the search and its retraining went; "" before there is anything."""
  history, space = run.history, runs.space_of(run)
  charts = []
  if len(history):
    charts += [
      ("reward", "Reward by child", search_charts.reward_figure(history)),
      (
        "operations",
        "Operations the controller chose",
        search_charts.operations_figure(history, space),
      ),
    ]
  charts.append(
    (
      "retrain",
      "Retraining: the ranked children and the winner",
      training_charts.retrain_figure(run.curves),
    )
  )
  figures = _written(run, charts)
  if not figures:
    return ""
  note = ""
  if history.skipped:
    note = f"<p>{history.skipped} lines of the history cannot be read.</p>"
  return page.section(
    "The search", f'{note}<div class="figures">{"".join(figures)}</div>'
  )


def _written(run: runs.Run, charts) -> list[str]:
  """[(name, caption, figure or None)] -> the figures for the page, each also
  written as files."""
  return [
    page.inline(style.save(figure, run.path / "figures" / name), name, caption)
    for name, caption, figure in charts
    if figure is not None
  ]


def tradeoffs(run: runs.Run, winner: winners.Winner | None) -> str:
  """Accuracy against each cost, with the Pareto fronts."""
  history = run.history
  won = winner.id if winner is not None and winner.final else None
  charts = [
    (
      f"accuracy_{cost}",
      f"Accuracy against {words.removesuffix(' per image')}",
      search_charts.tradeoff_figure(
        history, cost, won, runs.target_of(run, cost)
      ),
    )
    for cost, words in search_charts.COSTS.items()
  ]
  figures = _written(run, charts)
  if not figures:
    return ""
  return page.section(
    "Accuracy against cost",
    f'<div class="figures">{"".join(figures)}</div>{_front_table(history)}',
  )


def _front_table(history: runs.History) -> str:
  """The children on any Pareto front, by rising number of parameters."""
  fronts = {
    cost: search_charts.front(history, cost) for cost in search_charts.COSTS
  }
  fronts = {cost: rows for cost, rows in fronts.items() if len(rows)}
  members = sorted(
    {int(row) for rows in fronts.values() for row in rows},
    key=lambda row: (history.params[row], row),
  )
  body = []
  for row in members:
    on = [search_charts.COSTS[c] for c, rows in fronts.items() if row in rows]
    values = [
      history.id[row],
      f"{history.accuracy[row]:.2%}",
      *(page.count(getattr(history, cost)[row]) for cost in fronts),
      ", ".join(words.removesuffix(" per image") for words in on),
    ]
    cells_of = "".join(f"<td>{value}</td>" for value in values)
    body.append(f"<tr>{cells_of}</tr>")
  head = "".join(
    f"<th>{words}</th>"
    for words in (
      "child",
      "accuracy",
      *(search_charts.COSTS[cost] for cost in fronts),
      "on the front of",
    )
  )
  return (
    "<details><summary>The children on the Pareto fronts</summary>"
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
    f"<tbody>{''.join(body)}</tbody></table></div></details>"
  )


def best_children(run: runs.Run) -> str:
  """A table of the children that were retrained, or of the best so far."""
  rows = run.result.get("top_k")
  if rows:
    title = "Best children, retrained for longer"
  else:
    rows, title = _best_so_far(run), "Best children so far"
  if not rows:
    return ""
  won = (run.result.get("winner") or {}).get("id")
  body = "".join(_row(row, row.get("id") == won) for row in rows)
  return page.section(
    title,
    '<div class="scroll"><table><thead><tr><th>child</th><th>reward</th>'
    "<th>validation accuracy</th><th>parameters</th><th>multiply-adds</th>"
    f"<th>cells</th></tr></thead><tbody>{body}</tbody></table></div>",
  )


def _best_so_far(run: runs.Run) -> list[dict[str, Any]]:
  history = run.history
  ok = np.flatnonzero(~history.failed)
  order = ok[np.argsort(-history.reward[ok], kind="stable")][:_TOP]
  return [
    {
      "id": int(history.id[i]),
      "reward": float(history.reward[i]),
      "params": float(history.params[i]),
      "macs": float(history.macs[i]),
      "genotype": winners.decode(run, int(i)),
    }
    for i in order
  ]


def _row(row: dict[str, Any], won: bool) -> str:
  lines = winners.genotype_lines(row.get("genotype") or {})
  text = html.escape("\n".join(lines))
  shown = ""
  if lines:
    shown = f"<details><summary>show</summary><pre>{text}</pre></details>"
  values = [
    html.escape(str(row.get("id", ""))),
    page.decimal(row.get("reward"), ".4f") or "",
    page.decimal(row.get("valid_accuracy"), ".2%") or "",
    page.count(runs.number(row.get("params"))),
    page.count(runs.number(row.get("macs"))),
    shown,
  ]
  start = '<tr class="won">' if won else "<tr>"
  return start + "".join(f"<td>{v}</td>" for v in values) + "</tr>"
