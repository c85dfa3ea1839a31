"""One HTML file per run: what won, how it looks, how the search went.

The file needs no network; without its script, all is there but what drawings
say under a pointer. It is written anew from the run's folder each time, so it
serves a running search as well as a finished one.
"""

import html
import json
import math
import pathlib
from typing import Any

import numpy as np

from nasnet_jax.report import (
  block_drawings,
  cell_drawings,
  hover,
  page,
  runs,
  scalings,
  search_charts,
  stage_drawings,
  style,
  winners,
)

_TOP = 10  # children listed while there is no final ranking yet


def write_report(run_dir) -> pathlib.Path:
  """Writes `report.html` and `figures/` into a run's folder.

  Works on a running search too. Files are replaced whole, so a reader never
  sees half of one.

  Returns:
    the path of report.html.

  Raises:
    FileNotFoundError: if there is no such folder.
  """
  run = runs.read_run(run_dir)
  trainings = scalings.rows_of(run)
  if trainings:
    state = "" if run.result else ". Not finished."
    below = scalings.progress(trainings) + state
    sections = [scalings.section(run, trainings)]
  else:
    winner = winners.winner_of(run)
    below = html.escape(_progress(run)) + _state(run)
    sections = [
      _summary(run, winner),
      _cells(run, winner),
      _curves(run),
      _tradeoffs(run, winner),
      _top(run),
      _cost(run),
    ]
  body = "".join([*sections, _reproduce(run)])
  return runs.write_atomic(run.path / "report.html", _page(run, below, body))


def finish_report(run_dir) -> pathlib.Path:
  """The report of a finished run; written unless one is there that is not older
  than its result, such as one of the run when it was under way."""
  folder = pathlib.Path(run_dir)
  page_file, result = folder / "report.html", folder / "result.json"
  if (
    page_file.exists()
    and page_file.stat().st_mtime_ns >= result.stat().st_mtime_ns
  ):
    return page_file
  return write_report(folder)


def summary_text(run_dir) -> str:
  """The run in a few lines for a terminal: what won and how well it does."""
  run = runs.read_run(run_dir)
  trainings = scalings.rows_of(run)
  if trainings:
    return f"{scalings.progress(trainings)}\n{scalings.table(trainings)}"
  winner = winners.winner_of(run)
  lines = [_progress(run)]
  best = winners.best_row(run.history)
  if best is not None:
    reward, child = run.history.reward[best], run.history.id[best]
    accuracy = winners.other_accuracy(run.history, best)
    accuracy = f", accuracy {accuracy}" if accuracy else ""
    lines.append(f"best reward: {reward:.4f} (child {child}{accuracy})")
  if winner is not None:
    kind = "winner" if winner.final else "best child so far"
    lines.append(
      f"{kind}: child {winner.id}, {page.count(winner.params)} parameters,"
      f" {page.count(winner.macs)} multiply-adds"
    )
  accuracy = winners.test_accuracy(run.result)
  if accuracy:
    lines.append(f"test accuracy: {accuracy[0]} ({accuracy[1]})")
  if winner is not None:
    lines += winners.genotype_lines(winner.genotype)
  if run.result.get("how_to_load"):
    lines += ["", str(run.result["how_to_load"])]
  return "\n".join(lines)


def _progress(run: runs.Run) -> str:
  history = run.history
  text = f"{len(history):,} {'child' if len(history) == 1 else 'children'}"
  failed = int(history.failed.sum())
  if failed:
    text += f", {failed:,} failed"
  space = run.result.get("space") or getattr(runs.space_of(run), "name", "")
  controller = run.result.get("controller", "")
  data = (run.result.get("data") or {}).get("name", "")
  words = [
    f"space {space}" if space else "",
    f"controller {controller}" if controller else "",
    f"data {data}" if data else "",
  ]
  return ", ".join([text, *filter(None, words)])


def _page(run: runs.Run, below: str, body: str) -> str:
  name = run.path.resolve().name
  return page.page(
    name,
    below,
    body,
    refresh=not run.result,
    css=hover.CSS,
    script=hover.SCRIPT,
  )


def _state(run: runs.Run) -> str:
  if run.result:
    return ""
  if not run.changed:
    return ". No child has finished yet."
  return f". Not finished; the last child was written {run.changed}."


def _summary(run: runs.Run, winner: winners.Winner | None) -> str:
  if winner is None:
    if len(run.history):
      return page.section("Summary", "<p>All children so far failed.</p>")
    return page.section("Summary", "<p>There is nothing to show yet.</p>")
  accuracy = winners.test_accuracy(run.result) or (None, "")
  row = np.flatnonzero(run.history.id == winner.id)
  reward = run.history.reward[row[-1]] if len(row) else math.nan
  accuracy_then = (
    winners.other_accuracy(run.history, row[-1]) if len(row) else ""
  )
  data = run.result.get("data") or {}
  kind = "Winner" if winner.final else "Best child so far"
  facts = [
    (kind, f"child {winner.id}", f"of {len(run.history):,}"),
    ("Test accuracy", *accuracy),
    (
      "Reward in the search",
      None if math.isnan(reward) else f"{reward:.4f}",
      "not a test accuracy",
    ),
    ("Accuracy in the search", accuracy_then, "on validation images"),
    ("Parameters", page.count(winner.params), ""),
    ("Multiply-adds per image", page.count(winner.macs), ""),
    ("Data", data.get("name"), data.get("note") or ""),
  ]
  return page.section("Summary", page.facts(facts) + _how_to_load(run.result))


def _how_to_load(result: dict[str, Any]) -> str:
  text = result.get("how_to_load")
  if not text:
    return ""
  return (
    '<p style="margin-top:18px">The trained network, from Python:</p>'
    f"<pre>{html.escape(str(text))}</pre>"
  )


def _cells(run: runs.Run, winner: winners.Winner | None) -> str:
  if winner and winner.genotype.get("stages"):
    return _stages(run, winner)
  if winner and winner.genotype.get("architecture"):
    return _blocks(run, winner)
  drawn = winner.genotype.get("cells") if winner else None
  if not drawn:
    return ""
  folder = run.path / "figures"
  cell_drawings.draw_genotype(winner.genotype, folder / "cells")
  operations, costs = hover.read_costs(run, winner.final)
  figures = []
  for name, cell in drawn.items():
    title = cell_drawings.cell_title(name)
    stem = "cell" if name == "cell" else f"cell_{name}"
    style.save(cell_drawings.draw_cell(cell, title), folder / stem)
    svg = style.to_svg(cell_drawings.draw_cell(cell, ""))
    figure = page.inline(svg, stem, title, natural=True)
    said = hover.tips(cell, operations, costs.get(name))
    figures.append(hover.put(figure, stem, said))
  whose = "Cells of the winner" if winner.final else "Cells of the best child"
  note = "Point at a box to see what it reads"
  note += ", and what it costs in all cells of its kind." if costs else "."
  return page.section(
    whose,
    f'<p class="sub">{note}</p>'
    f'<div class="cells">{"".join(figures)}</div>{page.legend(drawn)}'
    f"{_as_text(winner.genotype)}",
  )


def _stages(run: runs.Run, winner: winners.Winner) -> str:
  figure = stage_drawings.draw_stages(
    winner.genotype, run.path / "figures" / "stages"
  )
  whose = "Stages of the winner" if winner.final else "Stages of the best child"
  drawn = page.inline(
    style.to_svg(figure), "stages", "Its graphs", natural=True
  )
  return page.section(whose, drawn + _as_text(winner.genotype))


def _blocks(run: runs.Run, winner: winners.Winner) -> str:
  figure = block_drawings.draw_blocks(
    winner.genotype, run.path / "figures" / "blocks"
  )
  whose = "Blocks of the winner" if winner.final else "Blocks of the best child"
  drawn = page.inline(
    style.to_svg(figure), "blocks", "From the image on", natural=True
  )
  return page.section(whose, drawn + _as_text(winner.genotype))


def _as_text(genotype: dict[str, Any]) -> str:
  text = html.escape("\n".join(winners.genotype_lines(genotype)))
  return (
    f"<details><summary>The same as text</summary><pre>{text}</pre></details>"
  )


def _curves(run: runs.Run) -> str:
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
      search_charts.retrain_figure(run.curves),
    )
  )
  figures = _drawn(run, charts)
  if not figures:
    return ""
  note = ""
  if history.skipped:
    note = f"<p>{history.skipped} lines of the history cannot be read.</p>"
  return page.section(
    "The search", f'{note}<div class="figures">{"".join(figures)}</div>'
  )


def _drawn(run: runs.Run, charts) -> list[str]:
  """[(name, caption, figure or None)] written as files and for the page."""
  return [
    page.inline(style.save(figure, run.path / "figures" / name), name, caption)
    for name, caption, figure in charts
    if figure is not None
  ]


def _tradeoffs(run: runs.Run, winner: winners.Winner | None) -> str:
  """Accuracy against each cost, with the children that no other beats."""
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
  figures = _drawn(run, charts)
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


def _top(run: runs.Run) -> str:
  rows = run.result.get("top_k")
  if rows:
    title = "Best children, retrained for longer"
  else:
    rows, title = _top_so_far(run), "Best children so far"
  if not rows:
    return ""
  won = (run.result.get("winner") or {}).get("id")
  body = "".join(_top_row(row, row.get("id") == won) for row in rows)
  return page.section(
    title,
    '<div class="scroll"><table><thead><tr><th>child</th><th>reward</th>'
    "<th>validation accuracy</th><th>parameters</th><th>multiply-adds</th>"
    f"<th>cells</th></tr></thead><tbody>{body}</tbody></table></div>",
  )


def _top_so_far(run: runs.Run) -> list[dict[str, Any]]:
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


def _top_row(row: dict[str, Any], won: bool) -> str:
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


def _cost(run: runs.Run) -> str:
  if not len(run.history):
    return ""
  cost = run.result.get("cost") or {}
  children = runs.number(cost.get("children", len(run.history)))
  spent = runs.number(
    cost.get("child_seconds", float(run.history.seconds.sum()))
  )
  total = runs.number(cost.get("total_seconds"))
  each = spent / children if children else math.nan
  return page.section(
    "Cost",
    page.facts(
      [
        ("Children", page.count(children), _stopped_words(run)),
        (
          "Epochs of children",
          page.decimal(cost.get("child_epochs"), ",.1f"),
          _saved_words(cost),
        ),
        ("Training of children", page.duration(spent), "summed over children"),
        ("Per child", f"{each:.2f} s" if each == each else "?", ""),
        ("Whole job", page.duration(total), "with the final stage"),
      ]
    ),
  )


def _stopped_words(run: runs.Run) -> str:
  stopped = int(run.history.stopped.sum())
  return f"{stopped:,} stopped early" if stopped else ""


def _saved_words(cost: dict[str, Any]) -> str:
  saved = page.decimal(cost.get("epochs_saved"), ",.1f")
  if saved is None:
    return ""
  seconds = page.duration(runs.number(cost.get("seconds_saved")))
  return f"{saved} more saved, about {seconds}"


def _reproduce(run: runs.Run) -> str:
  parts = []
  command = run.result.get("command") or run.config.get("command")
  if command:
    parts.append(f"<pre>{html.escape(str(command))}</pre>")
  if "seed" in run.result:
    seed = html.escape(str(run.result["seed"]))
    parts.append(f"<p>Seed {seed}.</p>")
  for title, value in (
    ("Environment", run.result.get("environment")),
    ("Config", run.config),
    ("Data", run.result.get("data")),
  ):
    if value:
      text = html.escape(json.dumps(value, indent=2, sort_keys=True))
      parts.append(
        f"<details><summary>{title}</summary><pre>{text}</pre></details>"
      )
  return page.section("Reproduce", "".join(parts)) if parts else ""
