"""How far a run is: what is done of what was asked for, and the time to go."""

import math
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.report import page, runs
from nasnet_jax.spaces import compound_scaling


class Progress(NamedTuple):
  """How far a run is.

  Attributes:
    words: what is done of what.
    share: 0 to 1; NaN where it is not known how much was asked for.
    seconds: to go; NaN where nothing tells.
  """

  words: str
  share: float = math.nan
  seconds: float = math.nan


def of(run: runs.Run) -> Progress:
  """How far a run is that has no result yet."""
  if run.kind == "scale":
    return _of_scaling(run)
  if run.kind in ("train", "detect"):
    return _of_training(run)
  return _of_search(run)


def html_of(at: Progress) -> str:
  """A bar; "" where it would say nothing."""
  if not 0 <= at.share <= 1:
    return ""
  return (
    '<div class="progress" role="progressbar" aria-label="progress"'
    f' aria-valuenow="{100 * at.share:.0f}" aria-valuemin="0"'
    f' aria-valuemax="100"><i style="width:{100 * at.share:.1f}%"></i></div>'
  )


def to_go(at: Progress) -> str:
  """The time to go, in words; "" if it is not known."""
  if math.isnan(at.seconds):
    return ""
  return f"about {page.duration(at.seconds)} to go"


def children(count: int) -> str:
  return f"{count:,} {'child' if count == 1 else 'children'}"


def _asked(config: dict[str, Any], *names: str) -> float:
  """A number of the config; NaN where it is not there."""
  value: Any = config
  for name in names:
    value = value.get(name) if isinstance(value, dict) else None
  return runs.number(value)


def _of_search(run: runs.Run) -> Progress:
  done = len(run.history)
  asked = _asked(run.config, "search", "children")
  if run.curves or (done and done >= asked):
    return _of_final_stage(run)
  if math.isnan(asked):
    return Progress(children(done))
  left = (asked - done) * _seconds_per_child(run)
  return Progress(f"{done:,} of {asked:,.0f} children", done / asked, left)


def _seconds_per_child(run: runs.Run) -> float:
  """By the clock. The first round compiles, so where there is no other its
  children's own seconds count, if they are less."""
  rows, _ = runs.read_lines(run.path / "metrics.jsonl")
  rows = [row for row in rows if row.get("group") == "search"]
  steps = np.array([0.0, *(runs.number(row.get("step")) for row in rows)])
  seconds = np.array([runs.number(row.get("seconds")) for row in rows])
  came = np.diff(steps)
  first = 1 if len(came) > 1 else 0
  if len(came) == 1:
    own = runs.number(rows[0].get("child_seconds"))
    seconds = np.fmin(seconds, own)
  total = came[first:].sum()
  return float(seconds[first:].sum() / total) if total > 0 else math.nan


def _of_final_stage(run: runs.Run) -> Progress:
  """The epochs of all trainings after the search."""
  each = _asked(run.config, "final", "rank_epochs")
  last = _asked(run.config, "final", "epochs")
  top = _asked(run.config, "final", "top_k")
  ranked = sum(curve.stage == "rank" for curve in run.curves)
  if any(curve.stage == "final" for curve in run.curves):
    words = "the winner trains"
  elif math.isnan(top):
    words = "the best children are retrained"
  else:
    words = f"retraining {max(1, ranked)} of the {top:.0f} best"
  words = f"{children(len(run.history))}; {words}"
  return _in_epochs(words, run.curves, each * top + last)


def _of_training(run: runs.Run) -> Progress:
  asked = _asked(run.config, "train", "epochs")
  done = _epochs(run.curves)
  if math.isnan(asked):
    return Progress(f"{done:g} epochs")
  words = f"epoch {done:g} of {asked:g}"
  return _in_epochs(words, run.curves, asked)


def _of_scaling(run: runs.Run) -> Progress:
  done = len(runs.read_lines(run.path / "scaled.jsonl")[0])
  asked = _trainings(run.config)
  words = f"{done:,} {'training' if done == 1 else 'trainings'}"
  if math.isnan(asked):
    return Progress(words)
  at = _in_epochs(
    f"{done:,} of {asked:,.0f} trainings",
    run.curves,
    asked * _asked(run.config, "train", "epochs"),
  )
  return at._replace(share=done / asked)


def _trainings(config: dict[str, Any]) -> float:
  """Of a scaling run; NaN if its config does not tell."""
  fields = config.get("scale")
  if not isinstance(fields, dict):
    return math.nan
  try:
    points = len(fields["points"] or ()) or len(
      compound_scaling.grid(
        fields["target"], fields["tolerance"], fields["step"]
      )
    )
    return fields["seeds"] * (1 + points + len(fields["phis"]))
  except (KeyError, TypeError, ValueError):
    return math.nan


def _epochs(curves: list[runs.Curve]) -> float:
  ends = [curve.epoch[-1] for curve in curves if len(curve.epoch)]
  return float(np.nansum(ends)) if ends else 0.0


def _in_epochs(words: str, curves: list[runs.Curve], asked: float) -> Progress:
  done = _epochs(curves)
  share = done / asked if asked > 0 else math.nan
  return Progress(words, share, (asked - done) * _seconds_per_epoch(curves))


def _seconds_per_epoch(curves: list[runs.Curve]) -> float:
  """The first point of each curve has the compiling in it, so it counts only
  where there is no other."""
  seconds, epochs = [], []
  for curve in curves:
    came = np.diff(curve.epoch, prepend=0.0)
    seconds.append(curve.seconds)
    epochs.append(came)
  first = 1 if any(len(part) > 1 for part in epochs) else 0
  total = sum(float(np.nansum(part[first:])) for part in epochs)
  spent = sum(float(np.nansum(part[first:])) for part in seconds)
  return spent / total if total > 0 else math.nan
