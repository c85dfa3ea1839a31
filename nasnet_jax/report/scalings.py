"""Scaling studies: the chart of accuracy against multiply-adds, the table."""

import html
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from nasnet_jax.report import charts, page, progress, runs, style
from nasnet_jax.report.style import LIGHT

Row = dict[str, Any]
_WIDTH, _HEIGHT = 3.4, 3.1  # inches, of one baseline
_LOOK = {
  "depth": ("accent", "^"),
  "width": ("second", "s"),
  "resolution": ("good", "D"),
  "all three": ("previous", "o"),
}


def rows_of(run: runs.Run) -> list[Row]:
  """The trainings of a scaling run, finished or not; none of another run."""
  if run.result:
    return run.result["rows"] if run.result.get("job") == "scale" else []
  return runs.read_lines(run.path / "scaled.jsonl")[0]


def grown(row: Row) -> str:
  """What was grown: "depth", "width", "resolution", several of them, all three,
  or "" of a baseline."""
  names = ("depth", "width", "resolution")
  found = [n for n, c in zip(names, row["coefficients"]) if c != 1]
  return "all three" if len(found) == 3 else " and ".join(found)


def by_network(rows: list[Row]) -> list[list[Row]]:
  """The rows of each stage and network together, seeds in their order."""
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    key = (row["stage"], row["phi"], *row["coefficients"])
    groups.setdefault(key, []).append(row)
  return list(groups.values())


def scalings_figure(studies: dict[str, list[Row]]) -> Figure:
  """Test accuracy against multiply-adds, a panel for each baseline.

  Small marks are seeds, large ones their means; lines start at the baseline.

  Args:
    studies: title -> rows as in a scaling run's result.json.
  """
  with style.style():
    # One alone is as large as the other charts of a page, and so its letters.
    width = _WIDTH * len(studies) if len(studies) > 1 else charts.WIDTH
    figure = style.new_figure(width, _HEIGHT, "constrained")
    panels = figure.subplots(1, len(studies), squeeze=False)[0]
    for axes, (title, rows) in zip(panels, studies.items()):
      _panel(axes, rows)
      axes.set_title(title if len(studies) > 1 else "")
    panels[0].set_ylabel("test accuracy, %")
    kinds = style.legend_entries(*panels)
    figure.legend(
      kinds.values(),
      kinds.keys(),
      loc="outside upper left",
      ncols=5 if len(studies) > 1 else 3,
      borderpad=0,
      handlelength=1.6,
    )
  return figure


def _panel(axes, rows: list[Row]) -> None:
  groups = by_network(rows)
  start = [group for group in groups if not grown(group[0])]
  ways: dict[str, list[list[Row]]] = {}
  for group in groups:
    if grown(group[0]):
      ways.setdefault(grown(group[0]), []).append(group)
  for way, members in ways.items():
    color, mark = _LOOK.get(way, ("line", "v"))
    line = sorted(start + members, key=lambda group: group[0]["macs"])
    look = {"color": LIGHT[color], "markeredgewidth": 0}
    axes.plot(*_means(line), color=LIGHT[color], linewidth=1.2)
    axes.plot(*_means(members), mark, markersize=6.5, label=way, **look)
    _seeds(axes, members, mark, look)
  look = {"color": LIGHT["ink"], "markeredgewidth": 0}
  axes.plot(*_means(start), "o", markersize=6.5, label="baseline", **look)
  _seeds(axes, start, "o", look)
  axes.set_xscale("log")
  macs = [row["macs"] / 1e6 for row in rows]
  # Twice the cost is the step that such a study is about.
  doublings = math.log2(max(macs) / min(macs)) if macs else 0
  axes.set_xticks([min(macs) * 2**i for i in range(round(doublings) + 1)])
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
  axes.yaxis.set_major_locator(MaxNLocator(6))
  axes.set_xlabel("multiply-adds, millions")


def _means(groups: list[list[Row]]) -> tuple[list[float], list[float]]:
  return (
    [group[0]["macs"] / 1e6 for group in groups],
    [100 * np.mean([row["test_accuracy"] for row in g]) for g in groups],
  )


def _seeds(axes, groups, mark: str, look) -> None:
  seeds = [row for group in groups if len(group) > 1 for row in group]
  axes.plot(
    [row["macs"] / 1e6 for row in seeds],
    [100 * row["test_accuracy"] for row in seeds],
    mark,
    markersize=3,
    alpha=0.55,
    **look,
  )


def draw_scalings(studies: dict[str, list[Row]], path) -> str:
  """Writes `scalings_figure` as .svg and .png; returns the SVG text."""
  return style.save(scalings_figure(studies), path)


# What these, to the power of phi, multiply (Tan & Le 2019).
_SCALES = {"alpha": "depth", "beta": "width", "gamma": "resolution"}


def table(rows: list[Row]) -> str:
  """A line per network, means over seeds, like Tan & Le 2019, table 3."""
  lines = ["depth  width  resolution  MACs  parameters  validation  test"]
  for group in by_network(rows):
    row = group[0]
    scores = [
      f"{100 * np.mean([r[name] for r in group]):.2f}"
      for name in ("valid_accuracy", "test_accuracy")
    ]
    size = f"{row['macs'] / 1e6:.1f}M  {row['params']:,}"
    lines.append(
      f"{row['depth']:.3g}  {row['width']:.3g}  {row['resolution']:.3g}"
      f"  {size}  {'  '.join(scores)}  ({row['stage']}, phi {row['phi']:g})"
    )
  return "\n".join(lines)


def count(rows: list[Row]) -> str:
  """How many trainings there are, in words."""
  return f"{len(rows):,} {'training' if len(rows) == 1 else 'trainings'}"


def below(run: runs.Run) -> str:
  """The line below the title of a scaling run's page."""
  at = progress.of(run)
  words = [
    count(rows_of(run)) if run.result else at.words,
    "" if run.result else progress.to_go(at),
  ]
  return ", ".join(filter(None, words))


def text(run: runs.Run) -> list[str]:
  """The lines of `summary_text`."""
  rows = rows_of(run)
  return [below(run), *([table(rows)] if rows else [])]


def sections(run: runs.Run, files: bool) -> list[str]:
  """HTML of a scaling run: what was chosen, the chart, all networks.

  Args:
    files: whether the chart is also written into the run's folder.
  """
  rows = rows_of(run)
  bar = "" if run.result else progress.html_of(progress.of(run))
  if not rows:
    words = "There is nothing to show yet: no training has finished."
    return [page.section("Scaling", f"<p>{words}</p>{bar}")]
  chosen = (run.result.get("winner") or {}).get("coefficients") or {}
  facts = page.facts(
    [
      *(
        (f"Best {name}", value, f"for {_SCALES[name]}")
        for name, value in chosen.items()
      ),
      ("Trainings", page.count(len(rows)), "" if run.result else "so far"),
    ]
  )
  figure = scalings_figure({"": rows})
  path = run.path / "figures" / "scaling"
  svg = style.save(figure, path) if files else style.to_svg(figure)
  chart = page.inline(svg, "scaling", "Accuracy against multiply-adds")
  return [
    page.section("Scaling", facts + bar),
    page.section(
      "Networks", f'<div class="figures">{chart}</div>{_table(rows)}'
    ),
  ]


def _table(rows: list[Row]) -> str:
  head = (
    "grown",
    "phi",
    "depth",
    "width",
    "resolution",
    "parameters",
    "multiply-adds",
    "validation",
    "test",
  )
  body = ""
  for group in by_network(rows):
    row = group[0]
    values = [
      html.escape(grown(row) or "baseline"),
      f"{row['phi']:g}",
      *(f"{row[name]:.3g}" for name in head[2:5]),
      page.count(row["params"]),
      page.count(row["macs"]),
      *(
        f"{np.mean([r[name] for r in group]):.2%}"
        for name in ("valid_accuracy", "test_accuracy")
      ),
    ]
    body += page.row(values)
  return page.table(head, body, "Networks", "named")
