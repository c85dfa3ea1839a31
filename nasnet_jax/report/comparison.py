"""One HTML file that sets several runs side by side.

Like a run's own report it needs no network and no script, and shows running
and interrupted searches as well as finished ones.
"""

import html
import os
import pathlib

from nasnet_jax.data import buckets, places
from nasnet_jax.report import (
  architectures,
  comparison_charts,
  page,
  runs,
  search_charts,
  search_page,
  style,
  winners,
)
from nasnet_jax.report.labels import label_folders


def write_comparison(run_dirs, path) -> pathlib.Path | str:
  """Writes one page of several runs, and its pictures into `figures/` next to
  it.

  Args:
    run_dirs: the runs' folders, two or more.
    path: of the HTML file; or an address such as gs://bucket/page.html.

  Returns:
    the path.

  Raises:
    FileNotFoundError: if one of the folders does not exist.
    ValueError: for fewer than two, or one twice.
  """
  with places.sent(path) as place:
    _write(run_dirs, place)
  return path if buckets.is_address(path) else place


def _write(run_dirs, path: pathlib.Path):
  found = [runs.read_run(folder) for folder in run_dirs]
  if len(found) < 2 or len({run.path.resolve() for run in found}) < len(found):
    raise ValueError("a comparison needs two or more folders, each given once")
  named = dict(zip(label_folders([run.path for run in found]), found))
  sections = [
    _table(named, path.parent),
    _curves(named, path.parent / "figures"),
    _winners(named),
    _reproduce(named),
  ]
  running = sum(not run.result for run in found)
  below = f"{len(found)} runs" + (f", {running} not finished" * bool(running))
  title = ", ".join(named)
  if len(title) > 60:
    title = f"{len(found)} runs"
  runs.write_atomic(
    path, page.page(title, below, "".join(filter(None, sections)), running > 0)
  )


_HEAD = (
  "run",
  "strategy",
  "space",
  "children",
  "mean reward",
  "best reward",
  "test accuracy",
  "parameters",
  "multiply-adds",
  "training",
)


def _table(named: dict[str, runs.Run], folder: pathlib.Path) -> str:
  rows = "".join(_row(label, run, folder) for label, run in named.items())
  return page.section(
    "Side by side",
    page.table(_HEAD, rows, "Runs", "runs")
    + '<p style="margin-top:12px">Parameters and multiply-adds are the'
    " winner's, or those of the best child so far; training is that of all"
    " children. The 95 % interval of a test accuracy is that of the test"
    " images alone: another seed of the search may find something else.</p>",
  )


def _row(label: str, run: runs.Run, folder: pathlib.Path) -> str:
  history, won = run.history, winners.winner_of(run)
  reward = history.reward[~history.failed]
  failed = int(history.failed.sum())
  accuracy, note = winners.test_accuracy(run.result) or ("", "")
  note = note.split(",")[0].removeprefix("95% interval ")
  state = "" if run.result else "<br><small>not finished</small>"
  spread = f" ± {reward.std(ddof=1):.4f}" if len(reward) > 1 else ""
  values = [
    _link(label, run, folder) + state,
    html.escape(search_page.strategy_of(run)),
    html.escape(run.result.get("space") or search_page.space_name(run)),
    f"{len(history):,}" + (f", {failed:,} failed" if failed else ""),
    f"{reward.mean():.4f}{spread}" if len(reward) else "",
    f"{reward.max():.4f}" if len(reward) else "",
    f"<b>{accuracy}</b><br><small>{note}</small>",
    page.count(won.params).strip("?") if won else "",
    page.count(won.macs).strip("?") if won else "",
    page.duration(float(history.seconds.sum())) if len(history) else "",
  ]
  return page.row(values)


def _link(label: str, run: runs.Run, folder: pathlib.Path) -> str:
  """The run's name, with a link to its own report if there is one."""
  report = run.path / "report.html"
  is_mirror = places.shown(run.path) != str(run.path)
  if not report.exists() or is_mirror:  # no browser opens a bucket's address
    return html.escape(label)
  try:
    target = os.path.relpath(report.resolve(), folder.resolve())
  except ValueError:  # another drive
    target = report.resolve().as_uri()
  return (
    f'<a href="{html.escape(pathlib.PurePath(target).as_posix())}">'
    f"{html.escape(label)}</a>"
  )


def _curves(named: dict[str, runs.Run], folder: pathlib.Path) -> str:
  histories = {label: run.history for label, run in named.items()}
  charts = [
    (
      "compared_children",
      "Best reward so far (strong) and mean of the last 20 children (thin)",
      comparison_charts.compared_rewards_figure(histories, "children"),
    ),
    (
      "compared_seconds",
      "The same against the training that it took",
      comparison_charts.compared_rewards_figure(histories, "seconds"),
    ),
  ]
  charts += [
    (
      f"compared_{cost}",
      f"Pareto fronts: accuracy against {words.removesuffix(' per image')}",
      comparison_charts.compared_fronts_figure(histories, cost),
    )
    for cost, words in search_charts.COSTS.items()
  ]
  figures = [
    page.inline(style.save(figure, folder / name), name, caption)
    for name, caption, figure in charts
    if figure is not None
  ]
  if not figures:
    return ""
  return page.section(
    "The searches", f'<div class="figures">{"".join(figures)}</div>'
  )


def _winners(named: dict[str, runs.Run]) -> str:
  """The architectures that won, or lead."""
  parts, used = [], {}
  for number, (label, run) in enumerate(named.items()):
    won = winners.winner_of(run)
    if won is None:
      continue
    kind = "winner" if won.final else "best child so far"
    whose = "" if won.id < 0 else f": child {won.id}"
    parts.append(f"<h3>{html.escape(label)}, {kind}{whose}</h3>")
    parts.append(architectures.drawn(won.genotype, f"run{number}-"))
    drawn = won.genotype.get("cells", {})
    used |= {(label, name): cell for name, cell in drawn.items()}
  if not parts:
    return ""
  legend = page.legend(used) if used else ""
  return page.section("What they found", "".join(parts) + legend)


def _reproduce(named: dict[str, runs.Run]) -> str:
  parts = []
  for label, run in named.items():
    command = run.result.get("command") or run.config.get("command")
    if command:
      seed = run.result.get("seed", "")
      words = f", seed {html.escape(str(seed))}" if seed != "" else ""
      parts.append(f"<h3>{html.escape(label)}{words}</h3>{page.code(command)}")
  return page.section("Reproduce", "".join(parts)) if parts else ""
