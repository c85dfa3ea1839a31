"""The page of a search."""

import math
from typing import Any

import numpy as np

from nasnet_jax.report import (
  answer_sections,
  children_sections,
  front_sections,
  page,
  progress,
  runs,
  score_sections,
  search_sections,
  winner_sections,
  winners,
)


def sections(run: runs.Run, files: bool) -> list[str]:
  """HTML of the sections, the most important first.

  Args:
    files: whether figures are also written into the run's folder.
  """
  winner = winners.winner_of(run)
  return [
    summary(run, winner),
    winner_sections.drawings(run, winner, files),
    answer_sections.mistakes(run),
    search_sections.curves(run, files),
    search_sections.tradeoffs(run, winner, files),
    search_sections.best_children(run, files),
    score_sections.scores(run.history),
    children_sections.one_by_one(run),
    _cost(run),
    answer_sections.sample(run),
  ]


def below(run: runs.Run) -> str:
  """The line below the title: how far it is, and what is searched how."""
  history = run.history
  at = progress.of(run)
  text = progress.children(len(history)) if run.result else at.words
  over = int(history.over_limit.sum())
  failed = int(history.failed.sum()) - over
  if failed:
    text += f", {failed:,} failed"
  if over:
    text += f", {over:,} over the limit"
  words = [
    text,
    "" if run.result else progress.to_go(at),
    named("space", run.result.get("space") or space_name(run)),
    named("controller", strategy_of(run)),
    named("data", data_name(run)),
  ]
  return ", ".join(filter(None, words))


def named(what: str, name: str) -> str:
  return f"{what} {name}" if name else ""


def strategy_of(run: runs.Run) -> str:
  """The strategy's name; "" if neither file has it."""
  search = run.config.get("search")
  known = search.get("controller") if isinstance(search, dict) else None
  return str(run.result.get("controller") or known or "")


def space_name(run: runs.Run) -> str:
  return str(getattr(runs.space_of(run), "name", ""))


def data_name(run: runs.Run) -> str:
  """Of the images; before the end, of their source and its folder."""
  known = (run.result.get("data") or {}).get("name")
  data = run.config.get("data")
  if known or not isinstance(data, dict):
    return str(known or "")
  options = data.get("options") or {}
  path = options.get("path") or options.get("name") or ""
  name = str(path).rstrip("/").rpartition("/")[2]
  return " ".join(filter(None, [str(data.get("source") or ""), name]))


def summary(run: runs.Run, winner: winners.Winner | None) -> str:
  bar = "" if run.result else progress.html_of(progress.of(run))
  if winner is None:
    text = "There is nothing to show yet: no child has finished."
    if len(run.history):
      text = "All children so far failed."
    return page.section("Summary", f"<p>{text}</p>{bar}")
  accuracy = winners.test_accuracy(run.result) or (None, "")
  row = np.flatnonzero(run.history.id == winner.id)
  row = int(row[-1]) if len(row) else None
  reward = math.nan if row is None else run.history.reward[row]
  then = "" if row is None else winners.other_accuracy(run.history, row)
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
    ("Accuracy in the search", then, "on validation images"),
    _size(run, winner, row, "Parameters", "params"),
    _size(run, winner, row, "Multiply-adds per image", "macs"),
    ("Data", data.get("name"), data.get("note") or ""),
  ]
  return page.section("Summary", page.facts(facts) + bar + how_to_load(run))


def _size(run, winner: winners.Winner, row, title: str, name: str):
  """A tile of a size: of the final network, and of the child as searched where
  that is another one."""
  size, note = getattr(winner, name), ""
  searched = math.nan if row is None else getattr(run.history, name)[row]
  if winner.final and not math.isnan(searched) and searched != size:
    note = f"of the final network; {page.count(searched)} as searched"
  return title, page.count(size), note


def how_to_load(run: runs.Run) -> str:
  """How Python reads the network, from where its folder lies now."""
  text = run.result.get("how_to_load")
  if not text:
    return ""
  return (
    '<p style="margin-top:18px">The trained network, from Python:</p>'
    f"{page.code(text, wraps=False)}"
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
        ("Children", page.count(children), _children_words(run)),
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


def _children_words(run: runs.Run) -> str:
  stopped = int(run.history.stopped.sum())
  heirs = int((run.history.heir_of >= 0).sum())
  words = [
    f"{stopped:,} stopped early" if stopped else "",
    f"{heirs:,} began with their parent's weights" if heirs else "",
  ]
  return ", ".join(filter(None, words))


def _saved_words(cost: dict[str, Any]) -> str:
  if cost.get("shared_weights"):
    return "of the weights that all of them share"
  saved = page.decimal(cost.get("epochs_saved"), ",.1f")
  if saved is None:
    return ""
  seconds = page.duration(runs.number(cost.get("seconds_saved")))
  return f"{saved} more saved, about {seconds}"


def text(run: runs.Run) -> list[str]:
  """The lines of `summary_text`."""
  winner = winners.winner_of(run)
  lines = [below(run)]
  best = winners.best_row(run.history)
  if best is not None:
    reward, child = run.history.reward[best], run.history.id[best]
    accuracy = winners.other_accuracy(run.history, best)
    accuracy = f", accuracy {accuracy}" if accuracy else ""
    lines.append(f"best reward: {reward:.4f} (child {child}{accuracy})")
  lines += filter(None, [front_sections.line(run.history)])
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
  return lines
