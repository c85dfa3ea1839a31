"""The report's sections about the children: charts, trade-offs, the best."""

import html
from typing import Any

from nasnet_jax.report import (
  children_sections,
  front_sections,
  page,
  runs,
  search_charts,
  style,
  training_charts,
  winners,
)


def curves(run: runs.Run, files: bool) -> str:
  """How the search went; "" before there is anything.

  Args:
    files: whether the figures are also written into `figures/`.
  """
  history, space = run.history, runs.space_of(run)
  if not len(history):
    return ""
  charts = [
    ("reward", "Reward by child", search_charts.reward_figure(history)),
    (
      "operations",
      "Operations the controller chose",
      search_charts.operations_figure(history, space),
    ),
  ]
  charts += front_sections.charts(history)
  figures = written(run, charts, files)
  note = ""
  if history.skipped:
    note = f"<p>{history.skipped} lines of the history cannot be read.</p>"
  return page.section(
    "The search",
    f'{note}<div class="figures">{"".join(figures)}</div>'
    f"{front_sections.table(history)}",
  )


def written(run: runs.Run, charts, files: bool) -> list[str]:
  """[(name, caption, figure or None)] -> the figures for the page, each also
  written as files if that is asked for."""
  found = []
  for name, caption, figure in charts:
    if figure is None:
      continue
    path = run.path / "figures" / name
    svg = style.save(figure, path) if files else style.to_svg(figure)
    found.append(page.inline(svg, name, caption))
  return found


def tradeoffs(run: runs.Run, winner: winners.Winner | None, files: bool) -> str:
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
  figures = written(run, charts, files)
  if not figures:
    return ""
  note = ""
  if won is not None:
    note = (
      '<p class="sub">Children as they were searched; the final network may be'
      " larger.</p>"
    )
  return page.section(
    "Accuracy against cost",
    f'{note}<div class="figures">{"".join(figures)}</div>'
    f"{_front_table(history)}",
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
    body.append(page.row(values))
  head = (
    "child",
    "accuracy",
    *(search_charts.COSTS[cost] for cost in fronts),
    "on the front of",
  )
  title = "The children on the Pareto fronts"
  return page.details(title, page.table(head, "".join(body), title, "words"))


def best_children(run: runs.Run, files: bool) -> str:
  """How the best children were retrained, or the best so far."""
  rows = run.result.get("top_k")
  if not rows:
    charts = written(run, [_retraining(run)], files)
    body = (
      f'<div class="figures">{"".join(charts)}{_best_so_far(run)}</div>'
      if charts
      else _best_so_far(run)
    )
    return page.section("Best children so far", body) if body else ""
  (chart, *_) = written(run, [_retraining(run)], files) or [""]
  return page.section(
    "Best children, retrained for longer",
    f'<div class="figures">{chart}<div>{_retrained(run, rows)}</div></div>',
  )


def _retraining(run: runs.Run):
  return (
    "retrain",
    "Retraining: the ranked children and the winner",
    training_charts.retrain_figure(run.curves),
  )


def _best_so_far(run: runs.Run) -> str:
  history = run.history
  rows = children_sections.best_rows(history)
  if not rows:
    return ""
  accuracies = any(winners.other_accuracy(history, row) for row in rows)
  body = [
    page.row(
      [
        history.id[row],
        f"{history.reward[row]:.4f}",
        *([f"{history.accuracy[row]:.2%}"] if accuracies else []),
        page.count(history.params[row]),
        page.count(history.macs[row]),
      ]
    )
    for row in rows
  ]
  accuracy = ["accuracy"] if accuracies else []
  head = ["child", "reward", *accuracy, "parameters", "multiply-adds"]
  return page.table(head, "".join(body), "Best children so far")


_SIZES = (
  '<td></td><th scope="colgroup" colspan="2">as searched</th>'
  '<th scope="colgroup" colspan="3">the final network</th></tr><tr>'
)


def _which(row: dict[str, Any]) -> list[str]:
  """A retrained child, and what it is on the front, if there is one."""
  return [str(row.get("id", "")), str(row.get("on_front") or "")]


def _retrained(run: runs.Run, rows: list[dict[str, Any]]) -> str:
  """A table of both sizes of a child: it is searched small."""
  history = run.history
  searched = dict(zip(history.id.tolist(), history.params.tolist()))
  won = (run.result.get("winner") or {}).get("id")
  body = [
    page.row(
      [
        html.escape(", ".join(filter(None, _which(row)))),
        page.decimal(row.get("reward"), ".4f") or "",
        page.count(runs.number(searched.get(row.get("id")))),
        page.decimal(row.get("valid_accuracy"), ".2%") or "",
        page.count(runs.number(row.get("params"))),
        page.count(runs.number(row.get("macs"))),
      ],
      row.get("id") == won,
    )
    for row in rows
  ]
  head = (
    "child",
    "reward",
    "parameters",
    "validation",
    "parameters",
    "multiply-adds",
  )
  cells = "".join(f'<th scope="col">{words}</th>' for words in head)
  head = f"{_SIZES}{cells}"
  return page.table(head, "".join(body), "Retrained children", "tight")
