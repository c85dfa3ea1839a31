"""One HTML file per run: what won, how it looks, how the search went.

The file needs no network; without its script, only what drawings say under a
pointer is missing. It is written anew from the run's folder each time, so it
serves a running search as well as a finished one.
"""

import html
import json
import math
import pathlib
from typing import Any

import numpy as np

from nasnet_jax.data import paths
from nasnet_jax.report import (
  hover,
  page,
  runs,
  scalings,
  search_sections,
  winner_sections,
  winners,
)


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
      winner_sections.drawings(run, winner),
      search_sections.curves(run),
      search_sections.tradeoffs(run, winner),
      search_sections.best_children(run),
      _cost(run),
    ]
  body = "".join([*sections, _reproduce(run)])
  return runs.write_atomic(run.path / "report.html", _page(run, below, body))


def finish_report(run_dir) -> pathlib.Path:
  """The report of a finished run, written unless there is one that is as new as
  the run's result."""
  folder = paths.local(run_dir)
  page_file, result = folder / "report.html", folder / "result.json"
  if (
    page_file.exists()
    and page_file.stat().st_mtime_ns >= result.stat().st_mtime_ns
  ):
    return page_file
  return write_report(folder)


def summary_text(run_dir) -> str:
  """The run in a few lines for a terminal: what won, and its accuracy."""
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
