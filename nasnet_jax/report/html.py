"""One HTML file per run: what won, how it looks, how the search went.

The file needs no network and no script. It is written anew from the run's
folder each time, so it serves a running search as well as a finished one.
"""

import html
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.report import cells, curves, runs, stages, statistics, style

_TOP = 10  # children listed while there is no final ranking yet

_CSS = """
:root{color-scheme:light dark;--paper:#fff;--page:#f6f7f9;--ink:#1f2933;
--muted:#5f6b7a;--edge:#e0e4e9;--accent:#2563c9;--code:#f3f5f7}
@media (prefers-color-scheme:dark){:root{--paper:#12171d;--page:#0b0f13;
--ink:#e8ebee;--muted:#9aa6b4;--edge:#2a323b;--accent:#6ea4f7;--code:#1b222a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.6rem;line-height:1.2;margin:0}
h2{font-size:1.12rem;margin:0 0 12px}
p{margin:0 0 12px}
.sub{color:var(--muted);margin:4px 0 20px}
section{background:var(--paper);border:1px solid var(--edge);
border-radius:10px;padding:18px;margin:0 0 16px}
.facts{display:grid;gap:14px 28px;margin:0;
grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.facts dt{color:var(--muted);font-size:.84rem}
.facts dd{margin:0;font-size:1.25rem;font-weight:600;
font-variant-numeric:tabular-nums}
.facts dd small{display:block;font-size:.82rem;font-weight:400;
color:var(--muted)}
.figures{display:grid;gap:20px;
grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}
.cells{display:flex;flex-wrap:wrap;gap:20px 32px;align-items:flex-start}
figure{margin:0;min-width:0;max-width:100%}
figcaption{font-size:.88rem;color:var(--muted);margin:0 0 6px}
.scroll{overflow-x:auto;max-width:100%}
.figures svg{display:block;width:100%;height:auto;max-width:620px}
.cells svg{display:block;height:auto}
svg *{stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif!important}
table{border-collapse:collapse;width:100%;font-size:.92rem;
font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--edge);
white-space:nowrap;vertical-align:top}
th{color:var(--muted);font-weight:500}
td:last-child,th:last-child{text-align:left}
td:first-child,th:first-child{padding-left:0}
tr.won td{font-weight:600}
tr.won td:last-child{font-weight:400}
pre{background:var(--code);border-radius:8px;padding:10px 12px;margin:0 0 12px;
overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,
"DejaVu Sans Mono",monospace}
summary{cursor:pointer;color:var(--accent)}
.legend{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:.86rem;
color:var(--muted);margin:14px 0 0}
.legend i{display:inline-block;width:14px;height:14px;border-radius:4px;
border:1.5px solid;margin-right:6px;vertical-align:-2px}
"""


class _Winner(NamedTuple):
  """What the report shows as best: the result's, or the best child so far."""

  id: int
  genotype: dict[str, Any]
  params: float
  macs: float
  final: bool


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
  winner = _winner(run)
  sections = [
    _summary(run, winner),
    _cells(run, winner),
    _curves(run),
    _tradeoffs(run, winner),
    _top(run),
    _cost(run),
    _reproduce(run),
  ]
  return runs.write_atomic(
    run.path / "report.html", _page(run, "".join(filter(None, sections)))
  )


def summary_text(run_dir) -> str:
  """The run in a few lines for a terminal: what won and how well it does."""
  run = runs.read_run(run_dir)
  winner = _winner(run)
  lines = [_progress(run)]
  best = _best_row(run.history)
  if best is not None:
    reward, child = run.history.reward[best], run.history.id[best]
    accuracy = _other_accuracy(run.history, best)
    accuracy = f", accuracy {accuracy}" if accuracy else ""
    lines.append(f"best reward: {reward:.4f} (child {child}{accuracy})")
  if winner is not None:
    kind = "winner" if winner.final else "best child so far"
    lines.append(
      f"{kind}: child {winner.id}, {_count(winner.params)} parameters,"
      f" {_count(winner.macs)} multiply-adds"
    )
  accuracy = _accuracy(run.result)
  if accuracy:
    lines.append(f"test accuracy: {accuracy[0]} ({accuracy[1]})")
  if winner is not None:
    lines += _genotype_lines(winner.genotype)
  if run.result.get("how_to_load"):
    lines += ["", str(run.result["how_to_load"])]
  return "\n".join(lines)


def _genotype_lines(genotype: dict[str, Any]) -> list[str]:
  lines = stages.stage_text(genotype) if "stages" in genotype else []
  for name, cell in genotype.get("cells", {}).items():
    lines.append(cells.cell_title(name).lower())
    lines += [f"  {line}" for line in cells.cell_text(cell)]
  return lines


def _best_row(history: runs.History) -> int | None:
  if history.failed.all():
    return None
  return int(np.nanargmax(history.reward))


def _other_accuracy(history: runs.History, row: int) -> str:
  """A child's accuracy in the search; "" where the reward is just that."""
  accuracy = history.accuracy[row]
  # Rewards are float32 and accuracies are not.
  if math.isnan(accuracy) or abs(accuracy - history.reward[row]) < 1e-6:
    return ""
  return f"{accuracy:.4f}"


def _winner(run: runs.Run) -> _Winner | None:
  """The result's winner; before there is one, the child of best reward."""
  if run.result.get("winner"):
    won = run.result["winner"]
    return _Winner(
      int(won.get("id", -1)),
      won.get("genotype") or {},
      runs.number(won.get("params")),
      runs.number(won.get("macs")),
      True,
    )
  row = _best_row(run.history)
  if row is None:
    return None
  history = run.history
  return _Winner(
    int(history.id[row]),
    _decode(run, row),
    float(history.params[row]),
    float(history.macs[row]),
    False,
  )


def _decode(run: runs.Run, row: int) -> dict[str, Any]:
  """The genotype of one line as JSON; {} if its space is not known."""
  space = runs.space_of(run)
  if space is None or not hasattr(space, "to_json"):
    return {}
  try:
    return space.to_json(space.decode(run.history.decisions[row]))
  except (TypeError, ValueError):
    return {}


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


def _accuracy(result: dict[str, Any]) -> tuple[str, str] | None:
  """The test accuracy, and its interval in words; None if not tested."""
  accuracy = runs.number(result.get("test_accuracy"))
  if math.isnan(accuracy):
    return None
  total = runs.number(result.get("test_examples"))
  correct = runs.number(result.get("test_correct"))
  if math.isnan(total) or math.isnan(correct):
    return f"{accuracy:.2%}", "number of test images not known"
  low, high = statistics.wilson_interval(correct, total)
  return (
    f"{accuracy:.2%}",
    f"95% interval {low:.2%} to {high:.2%},"
    f" {correct:,.0f} of {total:,.0f} test images",
  )


def _count(value: float) -> str:
  """1234567 -> "1,234,567", 2.1e9 -> "2.10 billion"; "?" if not known."""
  if math.isnan(value):
    return "?"
  for scale, name in ((1e9, "billion"), (1e7, "million")):
    if value >= scale:
      return f"{value / (1e9 if scale == 1e9 else 1e6):.2f} {name}"
  return f"{value:,.0f}"


def _duration(seconds: float) -> str:
  if math.isnan(seconds):
    return "?"
  if seconds < 120:
    return f"{seconds:.0f} s"
  if seconds < 7200:
    return f"{seconds / 60:.1f} min"
  return f"{seconds / 3600:.1f} h"


def _page(run: runs.Run, body: str) -> str:
  name = html.escape(run.path.resolve().name)
  running = not run.result
  # A running search: the open page looks again by itself.
  refresh = '<meta http-equiv="refresh" content="60">' if running else ""
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"{refresh}<title>{name}</title>"
    f"<style>{_CSS}{style.stylesheet()}</style></head>\n"
    f"<body><main><h1>{name}</h1>"
    f'<p class="sub">{html.escape(_progress(run))}{_state(run)}</p>\n'
    f"{body}</main></body></html>\n"
  )


def _state(run: runs.Run) -> str:
  if run.result:
    return ""
  if not run.changed:
    return ". No child has finished yet."
  return f". Not finished; the last child was written {run.changed}."


def _section(title: str, body: str) -> str:
  return f"<section><h2>{title}</h2>{body}</section>\n"


def _facts(facts) -> str:
  """[(name, value, note)...] as tiles; those without a value are left out."""
  tiles = []
  for name, value, note in facts:
    if value not in (None, "", "?"):
      small = f"<small>{html.escape(note)}</small>" if note else ""
      tiles.append(
        f"<div><dt>{html.escape(name)}</dt>"
        f"<dd>{html.escape(str(value))}{small}</dd></div>"
      )
  return f'<dl class="facts">{"".join(tiles)}</dl>'


def _summary(run: runs.Run, winner: _Winner | None) -> str:
  if winner is None:
    if len(run.history):
      return _section("Summary", "<p>All children so far failed.</p>")
    return _section("Summary", "<p>There is nothing to show yet.</p>")
  accuracy = _accuracy(run.result) or (None, "")
  row = np.flatnonzero(run.history.id == winner.id)
  reward = run.history.reward[row[-1]] if len(row) else math.nan
  accuracy_then = _other_accuracy(run.history, row[-1]) if len(row) else ""
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
    ("Parameters", _count(winner.params), ""),
    ("Multiply-adds per image", _count(winner.macs), ""),
    ("Data", data.get("name"), data.get("note") or ""),
  ]
  return _section("Summary", _facts(facts) + _how_to_load(run.result))


def _how_to_load(result: dict[str, Any]) -> str:
  text = result.get("how_to_load")
  if not text:
    return ""
  return (
    '<p style="margin-top:18px">The trained network, from Python:</p>'
    f"<pre>{html.escape(str(text))}</pre>"
  )


def _inline(svg: str, name: str, caption: str, natural: bool = False) -> str:
  """A figure inside the page; a natural one keeps a legible size."""
  picture = style.for_page(svg, name, html.escape(caption))
  if natural:
    # Points are 4/3 pixels. Wide cells may shrink by a third, then scroll.
    width = float(picture.split('width="')[1].split("pt")[0]) * 4 / 3
    size = f"width:{width:.0f}px;max-width:max(100%,{width / 1.5:.0f}px)"
    picture = picture.replace("<svg", f'<svg style="{size}"', 1)
  return (
    f"<figure><figcaption>{html.escape(caption)}</figcaption>"
    f'<div class="scroll">{picture}</div></figure>'
  )


def _cells(run: runs.Run, winner: _Winner | None) -> str:
  if winner and winner.genotype.get("stages"):
    return _stages(run, winner)
  drawn = winner.genotype.get("cells") if winner else None
  if not drawn:
    return ""
  folder = run.path / "figures"
  cells.draw_genotype(winner.genotype, folder / "cells")
  figures = []
  for name, cell in drawn.items():
    title = cells.cell_title(name)
    stem = "cell" if name == "cell" else f"cell_{name}"
    style.save(cells.draw_cell(cell, title), folder / stem)
    svg = style.to_svg(cells.draw_cell(cell, ""))
    figures.append(_inline(svg, stem, title, natural=True))
  whose = "Cells of the winner" if winner.final else "Cells of the best child"
  return _section(
    whose,
    f'<div class="cells">{"".join(figures)}</div>{_legend(drawn)}'
    f"{_as_text(winner.genotype)}",
  )


def _stages(run: runs.Run, winner: _Winner) -> str:
  figure = stages.draw_stages(winner.genotype, run.path / "figures" / "stages")
  whose = "Stages of the winner" if winner.final else "Stages of the best child"
  drawn = _inline(style.to_svg(figure), "stages", "Its graphs", natural=True)
  return _section(whose, drawn + _as_text(winner.genotype))


def _as_text(genotype: dict[str, Any]) -> str:
  text = html.escape("\n".join(_genotype_lines(genotype)))
  return (
    f"<details><summary>The same as text</summary><pre>{text}</pre></details>"
  )


def _legend(drawn: dict[str, Any]) -> str:
  """The colours of the operations, for the families that occur."""
  used = {
    cells.op_family(op)
    for cell in drawn.values()
    for block in cell["blocks"]
    for op in block["operations"]
  }
  entries = [
    f'<span><i class="{family}"></i>{words}</span>'
    for family, words in cells.FAMILIES.items()
    if family in used
  ]
  css = _legend_css(style.LIGHT) + (
    f"@media (prefers-color-scheme:dark){{{_legend_css(style.DARK)}}}"
  )
  return f'<style>{css}</style><p class="legend">{"".join(entries)}</p>'


def _legend_css(colors: dict[str, str]) -> str:
  return "".join(
    f".legend .{family}{{background:{colors[family]};"
    f"border-color:{colors[family + '_edge']}}}"
    for family in cells.FAMILIES
  )


def _curves(run: runs.Run) -> str:
  history, space = run.history, runs.space_of(run)
  charts = []
  if len(history):
    charts += [
      ("reward", "Reward by child", curves.reward_figure(history)),
      (
        "operations",
        "Operations the controller chose",
        curves.operations_figure(history, space),
      ),
    ]
  charts.append(
    (
      "retrain",
      "Retraining: the ranked children and the winner",
      curves.retrain_figure(run.curves),
    )
  )
  figures = _drawn(run, charts)
  if not figures:
    return ""
  note = ""
  if history.skipped:
    note = f"<p>{history.skipped} lines of the history cannot be read.</p>"
  return _section(
    "The search", f'{note}<div class="figures">{"".join(figures)}</div>'
  )


def _drawn(run: runs.Run, charts) -> list[str]:
  """[(name, caption, figure or None)] written as files and for the page."""
  return [
    _inline(style.save(figure, run.path / "figures" / name), name, caption)
    for name, caption, figure in charts
    if figure is not None
  ]


def _tradeoffs(run: runs.Run, winner: _Winner | None) -> str:
  """Accuracy against each cost, with the children that no other beats."""
  history = run.history
  won = winner.id if winner is not None and winner.final else None
  charts = [
    (
      f"accuracy_{cost}",
      f"Accuracy against {words.removesuffix(' per image')}",
      curves.tradeoff_figure(history, cost, won, runs.target_of(run, cost)),
    )
    for cost, words in curves.COSTS.items()
  ]
  figures = _drawn(run, charts)
  if not figures:
    return ""
  return _section(
    "Accuracy against cost",
    f'<div class="figures">{"".join(figures)}</div>{_front_table(history)}',
  )


def _front_table(history: runs.History) -> str:
  """The children on any Pareto front, by rising number of parameters."""
  fronts = {cost: curves.front(history, cost) for cost in curves.COSTS}
  fronts = {cost: rows for cost, rows in fronts.items() if len(rows)}
  members = sorted(
    {int(row) for rows in fronts.values() for row in rows},
    key=lambda row: (history.params[row], row),
  )
  body = []
  for row in members:
    on = [curves.COSTS[c] for c, rows in fronts.items() if row in rows]
    values = [
      history.id[row],
      f"{history.accuracy[row]:.2%}",
      *(_count(getattr(history, cost)[row]) for cost in fronts),
      ", ".join(words.removesuffix(" per image") for words in on),
    ]
    cells_of = "".join(f"<td>{value}</td>" for value in values)
    body.append(f"<tr>{cells_of}</tr>")
  head = "".join(
    f"<th>{words}</th>"
    for words in (
      "child",
      "accuracy",
      *(curves.COSTS[cost] for cost in fronts),
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
  return _section(
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
      "genotype": _decode(run, int(i)),
    }
    for i in order
  ]


def _top_row(row: dict[str, Any], won: bool) -> str:
  lines = _genotype_lines(row.get("genotype") or {})
  text = html.escape("\n".join(lines))
  shown = ""
  if lines:
    shown = f"<details><summary>show</summary><pre>{text}</pre></details>"
  values = [
    html.escape(str(row.get("id", ""))),
    _decimal(row.get("reward"), ".4f") or "",
    _decimal(row.get("valid_accuracy"), ".2%") or "",
    _count(runs.number(row.get("params"))),
    _count(runs.number(row.get("macs"))),
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
  return _section(
    "Cost",
    _facts(
      [
        ("Children", _count(children), _stopped_words(run)),
        (
          "Epochs of children",
          _decimal(cost.get("child_epochs"), ",.1f"),
          _saved_words(cost),
        ),
        ("Training of children", _duration(spent), "summed over children"),
        ("Per child", f"{each:.2f} s" if each == each else "?", ""),
        ("Whole job", _duration(total), "with the final stage"),
      ]
    ),
  )


def _decimal(value, form: str) -> str | None:
  value = runs.number(value)
  return None if math.isnan(value) else format(value, form)


def _stopped_words(run: runs.Run) -> str:
  stopped = int(run.history.stopped.sum())
  return f"{stopped:,} stopped early" if stopped else ""


def _saved_words(cost: dict[str, Any]) -> str:
  saved = _decimal(cost.get("epochs_saved"), ",.1f")
  if saved is None:
    return ""
  seconds = _duration(runs.number(cost.get("seconds_saved")))
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
  return _section("Reproduce", "".join(parts)) if parts else ""
