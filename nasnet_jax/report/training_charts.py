"""The charts of trainings: loss and accuracy against epochs."""

import math
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nasnet_jax.report import charts, runs, style
from nasnet_jax.report.style import LIGHT


def retrain_figure(curves: list[runs.Curve]) -> Figure | None:
  """Loss and accuracy of the final stage against epochs, or None."""
  if not curves:
    return None
  with style.style():
    figure, (loss, accuracy) = charts.new_axes(2, 4.2)
    epochs = _in_epochs(curves)
    for curve in curves:
      _draw_curve(loss, accuracy, curve, epochs)
    loss.set_ylabel("training loss")
    accuracy.set_ylabel("accuracy, %")
    accuracy.set_xlabel("epoch" if epochs else "step")
    ends = [c.epoch[-1] if epochs else c.step[-1] for c in curves]
    charts.epochs(accuracy, float(max(ends)))
    # One entry per kind of line, not one per network.
    kinds = style.legend_entries(accuracy)
    loss.legend(
      kinds.values(),
      kinds.keys(),
      loc="lower left",
      bbox_to_anchor=(0, 1),
      ncols=2,
      borderaxespad=0.2,
    )
    figure.align_ylabels()
  return figure


def _draw_curve(loss, accuracy, curve: runs.Curve, epochs: bool) -> None:
  """Adds one network's lines: thin for a ranked one, thick for the winner."""
  final = curve.stage == "final"
  stage = "winner" if final else "ranked"
  x = curve.epoch if epochs else curve.step
  for axes, values, what, dashes in (
    (loss, curve.loss, "training", "-"),
    (accuracy, curve.accuracy * 100, "training", "-"),
    (accuracy, curve.valid_accuracy * 100, "validation", "--"),
  ):
    known = np.isfinite(values)
    if not known.any():
      continue
    axes.plot(
      x[known],
      values[known],
      color=LIGHT["accent"] if final else LIGHT["line"],
      linewidth=1.8 if final else 1.0,
      linestyle=dashes,
      **_point(known.sum(), what),
      markersize=4,
      label=f"{stage}, {what}",
    )


def _point(count: int, what: str) -> dict[str, str]:
  """The look of a curve of one point, where dashes tell nothing."""
  if count > 1:
    return {}
  return {
    "marker": "o",
    "fillstyle": "none" if what == "validation" else "full",
  }


def _in_epochs(curves: list[runs.Curve]) -> bool:
  return all(np.isfinite(c.epoch).all() for c in curves)


def training_figure(
  curves: list[tuple[str, runs.Curve]], score: str = ""
) -> Figure:
  """Loss and accuracy of trainings side by side, against epochs.

  Args:
    curves: (label, curve); equal labels share a colour, such as seeds of one
      setting.
    score: name of the validation images' numbers, if they are not accuracies;
      the training images' accuracies are then left out. If there are no numbers
      on validation images either, the loss alone is drawn.
  """
  labels = list(dict.fromkeys(label for label, _ in curves))
  colors = {
    label: LIGHT[charts.COLORS[i % len(charts.COLORS)]]
    for i, label in enumerate(labels)
  }
  scored = any(
    np.isfinite(curve.valid_accuracy).any()
    or (not score and np.isfinite(curve.accuracy).any())
    for _, curve in curves
  )
  with style.style():
    figure, rows = charts.new_axes(2, 4.2) if scored else charts.new_axes()
    loss, accuracy = rows[0], rows[-1]  # the same axes if nothing is scored
    for label, curve in curves:
      answers = curve.accuracy * (math.nan if score else 100)
      for axes, values, what, dashes in (
        (loss, curve.loss, "training", "-"),
        (accuracy, answers, "training", "-"),
        (accuracy, curve.valid_accuracy * 100, "validation", "--"),
      ):
        known = np.isfinite(values)
        if known.any():
          axes.plot(
            curve.epoch[known],
            values[known],
            color=colors[label],
            linestyle=dashes,
            **_point(known.sum(), what),
            label=f"{label}, {what}" if len(labels) > 1 else what,
          )
    accuracy.set_ylabel(f"{score or 'accuracy'}, %")
    loss.set_ylabel("training loss")
    accuracy.set_xlabel("epoch")
    ends = [curve.epoch for _, curve in curves]
    charts.epochs(accuracy, float(np.nanmax(np.concatenate([*ends, [0]]))))
    kinds = style.legend_entries(loss, accuracy)
    figure.legend(
      kinds.values(),
      kinds.keys(),
      loc="outside upper left",
      # Two columns of long labels would not fit into the picture.
      ncols=2 if max(map(len, kinds), default=0) < 28 else 1,
      borderpad=0,
      handlelength=1.6,
    )
    figure.align_ylabels()
  return figure


def draw_trainings(folders: dict[str, Any], path, score: str = "") -> None:
  """Writes the curves of training runs as .svg and .png.

  Args:
    folders: label -> folder of a run, or several of them.
    path: of the picture, with or without one of the endings.
    score: see `training_figure`.
  """
  found = []
  for label, many in folders.items():
    many = many if isinstance(many, list | tuple) else [many]
    for folder in many:
      read = runs.read_retrain(pathlib.Path(folder) / "retrain.jsonl")
      found += [(label, curve) for curve in read]
  style.save(training_figure(found, score), path)
