"""Who won a run, or leads it so far, and how well it does."""

import math
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.report import (
  block_drawings,
  cell_drawings,
  runs,
  stage_drawings,
  statistics,
)


class Winner(NamedTuple):
  """What the report shows as best: the result's, or the best child so far."""

  id: int
  genotype: dict[str, Any]
  params: float
  macs: float
  final: bool


def winner_of(run: runs.Run) -> Winner | None:
  """The result's winner; before there is one, the child of best reward."""
  if run.result.get("winner"):
    won = run.result["winner"]
    return Winner(
      int(won.get("id", -1)),
      won.get("genotype") or {},
      runs.number(won.get("params")),
      runs.number(won.get("macs")),
      True,
    )
  row = best_row(run.history)
  if row is None:
    return None
  history = run.history
  return Winner(
    int(history.id[row]),
    decode(run, row),
    float(history.params[row]),
    float(history.macs[row]),
    False,
  )


def decode(run: runs.Run, row: int) -> dict[str, Any]:
  """The genotype of one line as JSON; {} if its space is not known."""
  space = runs.space_of(run)
  if space is None or not hasattr(space, "to_json"):
    return {}
  try:
    return space.to_json(space.decode(run.history.decisions[row]))
  except (TypeError, ValueError):
    return {}


def best_row(history: runs.History) -> int | None:
  if history.failed.all():
    return None
  return int(np.nanargmax(history.reward))


def other_accuracy(history: runs.History, row: int) -> str:
  """A child's accuracy in the search; "" where the reward is just that."""
  accuracy = history.accuracy[row]
  # Rewards are float32 and accuracies are not.
  if math.isnan(accuracy) or abs(accuracy - history.reward[row]) < 1e-6:
    return ""
  return f"{accuracy:.4f}"


def test_accuracy(result: dict[str, Any]) -> tuple[str, str] | None:
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


def genotype_lines(genotype: dict[str, Any]) -> list[str]:
  lines = stage_drawings.stage_text(genotype) if "stages" in genotype else []
  if "architecture" in genotype:
    lines = [words for words, _ in block_drawings.block_rows(genotype)]
  lines += genotype.get("layers", [])  # of a chain of modules
  for name, cell in genotype.get("cells", {}).items():
    lines.append(cell_drawings.cell_title(name).lower())
    lines += [f"  {line}" for line in cell_drawings.cell_text(cell)]
  return lines
