"""The charts of a run. Each function returns a matplotlib figure."""

import math
import pathlib
from typing import Any

import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from nasnet_jax.report import cell_drawings, runs, statistics, style
from nasnet_jax.report.style import LIGHT

WIDTH, HEIGHT = 4.6, 3.0  # inches; legible on a phone, enlarged on a desk
_WINDOW = 20  # children; a round of the NASNet controller
_FIRST_QUERY = 10  # where the charts of searches begin: below lies luck


def _axes(rows: int = 1, height: float = HEIGHT):
  """A figure and its axes, one above the other, with a common x."""
  figure = style.new_figure(WIDTH, height, "constrained")
  axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
  return figure, axes


def _legend(axes) -> None:
  """Above the chart, where it hides no point, over the figure's width."""
  axes.figure.legend(
    loc="outside upper left",
    ncols=5,
    borderpad=0,
    handlelength=1.1,
    handletextpad=0.5,
    columnspacing=1.0,
  )


def _points(axes, x, y) -> None:
  """A cloud of points; thousands become one picture inside the SVG."""
  many = len(x) > style.MAX_VECTOR_POINTS
  color = style.RASTER if many else LIGHT["accent"]
  axes.plot(
    x,
    y,
    "o",
    markersize=1.5 if many else 3.2,
    markeredgewidth=0,
    alpha=0.35 if many else 0.6,
    color=color,
    rasterized=many,
  )
  axes.plot([], [], "o", markersize=3.5, color=color, label="child")


def _failed(axes, x) -> None:
  """Marks along the bottom: crosses, or thin ticks where there are many."""
  many = len(x) > 100
  axes.plot(
    x,
    np.full(len(x), 0.015),
    "|" if many else "x",
    markersize=4.5,
    alpha=0.35 if many else 1,
    color=LIGHT["bad"],
    transform=axes.get_xaxis_transform(),
    rasterized=len(x) > style.MAX_VECTOR_POINTS,
    clip_on=False,
  )
  label = f"failed ({len(x):,})"
  mark = "|" if many else "x"
  axes.plot([], [], mark, markersize=4.5, color=LIGHT["bad"], label=label)


def _whole_numbers(axis) -> None:
  axis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
  axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))


def reward_figure(history: runs.History) -> Figure:
  """Reward by child: points, best so far, rolling mean, failed children."""
  with style.style():
    figure, (axes,) = _axes()
    number = np.arange(1, len(history) + 1)
    ok = ~history.failed
    _points(axes, number[ok], history.reward[ok])
    _mean_line(axes, number[ok], history.reward[ok])
    _best_line(axes, number, statistics.running_best(history.reward))
    if not ok.all():
      _failed(axes, number[~ok])
    axes.set_xlabel("child")
    axes.set_ylabel("reward")
    axes.set_xlim(0, max(len(history), 1) * 1.01 + 0.5)
    _whole_numbers(axes.xaxis)
    _legend(axes)
  return figure


def _mean_line(axes, number, reward, **line) -> None:
  """A long search needs a longer window, or the line is a band of noise."""
  window = max(_WINDOW, len(reward) // 100)
  mean = statistics.rolling_mean(reward, window)
  every = max(1, len(reward) // 500)
  look = {
    "color": LIGHT["ink"],
    "linewidth": 1.4,
    "label": f"mean of last {window}",
  }
  axes.plot(
    number[window - 1 :: every], mean[window - 1 :: every], **(look | line)
  )


def _best_line(axes, number, best, **line) -> None:
  """Steps, drawn from the corners alone."""
  known = np.flatnonzero(~np.isnan(best))
  if not len(known):
    return
  number, best = number[known], best[known]
  corner = np.concatenate([[True], best[1:] > best[:-1]])
  corner[-1] = True
  look = {"color": LIGHT["second"], "linewidth": 1.8, "label": "best so far"}
  axes.step(number[corner], best[corner], where="post", **(look | line))


def operations_figure(history: runs.History, space) -> Figure | None:
  """Operations' shares over time, or None for a space without operations."""
  if not hasattr(space, "operations"):
    return None
  rows, decisions = runs.valid_decisions(history, space)
  if len(rows) < 2:
    return None
  ops = _operations(space.decode(decisions)).reshape(len(rows), -1)
  windows = min(48, math.ceil(len(rows) / 10))
  middle, shares = statistics.operation_shares(
    ops, len(space.operations), windows
  )
  # The first and last window reach to the ends of the chart.
  x = np.concatenate([[1], middle, [len(rows)]])
  y = np.concatenate([shares[:1], shares, shares[-1:]])
  order, colors = _by_family(space.operations)
  with style.style():
    figure, (axes,) = _axes()
    areas = axes.stackplot(x, y[:, order].T * 100, colors=colors, linewidth=0.5)
    for area in areas:
      area.set_edgecolor(LIGHT["paper"])
    axes.set_xlim(1, len(rows))
    axes.set_ylim(0, 100)
    axes.grid(False)
    axes.set_xlabel("child")
    axes.set_ylabel("share of all operations, %")
    _whole_numbers(axes.xaxis)
    names = [cell_drawings.op_label(space.operations[o]) for o in order]
    axes.legend(
      areas[::-1],  # as they lie on each other
      names[::-1],
      loc="center left",
      bbox_to_anchor=(1.01, 0.5),
      borderaxespad=0,
      labelspacing=0.35,
      handlelength=1,
      handleheight=0.9,
    )
  return figure


def _operations(genotypes) -> np.ndarray:
  """int[n, ...], the operations of cells, -1 in blocks left out, or of rows of
  blocks."""
  if hasattr(genotypes, "operation"):
    return genotypes.operation
  return np.where(genotypes.active[..., None], genotypes.ops, -1)


def _by_family(operations) -> tuple[list[int], list[str]]:
  """Operations with those of a family together, and a colour for each."""
  order, colors = [], []
  for family in cell_drawings.FAMILIES:
    shades = style.SHADES[family]
    members = [
      i
      for i, op in enumerate(operations)
      if cell_drawings.op_family(op) == family
    ]
    order += members
    colors += [shades[k % len(shades)] for k in range(len(members))]
  return order, colors


# Costs of a child, as columns of the history, in words.
COSTS = {
  "params": "parameters",
  "macs": "multiply-adds per image",
  "bytes": "bytes moved per image",
  "latency": "latency in seconds",
}


def front(history: runs.History, cost: str) -> np.ndarray:
  """int[k]: the children that no other beats in accuracy and cost, by rising
  cost. Failed ones and those that were stopped early are none of them."""
  value = np.where(history.stopped, math.nan, history.accuracy)
  return statistics.pareto_front(getattr(history, cost), value)


def tradeoff_figure(
  history: runs.History,
  cost: str,
  winner: int | None = None,
  target: float | None = None,
) -> Figure | None:
  """Validation accuracy against a cost with the Pareto front.

  Args:
    history: the children.
    cost: the column on the x axis.
    winner: id of the child to mark.
    target: of the reward, to mark.

  Returns:
    None if no child that ran to its end has both numbers.
  """
  value, accuracy = getattr(history, cost), 100 * history.accuracy
  best = front(history, cost)
  if not len(best):
    return None
  scale, unit = _unit(float(np.nanmax(value)))
  known = ~(np.isnan(accuracy) | np.isnan(value))
  ended = known & ~history.stopped
  with style.style():
    figure, (axes,) = _axes()
    _points(axes, value[ended] / scale, accuracy[ended])
    early = known & history.stopped
    if early.any():
      _stopped(axes, value[early] / scale, accuracy[early])
    axes.step(
      value[best] / scale,
      accuracy[best],
      where="post",
      color=LIGHT["second"],
      linewidth=1.4,
      marker="o",
      markersize=3.5,
      label="Pareto front",
    )
    mine = known & (history.id == winner) if winner is not None else []
    if np.any(mine):
      axes.plot(
        value[mine] / scale,
        accuracy[mine],
        "*",
        markersize=12,
        color=LIGHT["good"],
        markeredgecolor=LIGHT["paper"],
        label="winner",
        linestyle="none",
      )
    if target is not None:
      axes.axvline(
        target / scale,
        color=LIGHT["ink"],
        linewidth=1.0,
        linestyle="--",
        label="target",
      )
    axes.set_xlabel(f"{COSTS[cost]}{unit}")
    axes.set_ylabel("validation accuracy, %")
    _legend(axes)
  return figure


def compared_rewards_figure(
  histories: dict[str, runs.History], against: str
) -> Figure | None:
  """Best reward so far and mean of the last children, of several runs.

  Args:
    histories: label -> history.
    against: "children", or "seconds" of their training.

  Returns:
    None if no child of any run has a reward (or none has seconds).
  """
  histories = {
    label: history
    for label, history in histories.items()
    if not history.failed.all()
    and (against == "children" or history.seconds.sum() > 0)
  }
  if not histories:
    return None
  minutes = against == "seconds"
  with style.style():
    figure, (axes,) = _axes()
    for label, (look, history) in zip(histories, _looks(histories)):
      x = np.arange(1, len(history) + 1)
      if minutes:
        x = np.cumsum(history.seconds) / 60
      ok = ~history.failed
      faint = look | {"linewidth": 0.8, "alpha": 0.8, "label": None}
      _mean_line(axes, x[ok], history.reward[ok], **faint)
      best = statistics.running_best(history.reward)
      _best_line(axes, x, best, **look, label=label)
    axes.set_xlabel(
      "minutes of training, summed over children" if minutes else "child"
    )
    axes.set_ylabel("reward")
    axes.set_xlim(left=0)
    if not minutes:
      _whole_numbers(axes.xaxis)
    _compared_legend(figure)
  return figure


def compared_fronts_figure(
  histories: dict[str, runs.History], cost: str
) -> Figure | None:
  """The Pareto fronts of several runs: validation accuracy against a cost.

  Returns:
    None if there is no front of any run.
  """
  histories = {
    label: history
    for label, history in histories.items()
    if len(front(history, cost))
  }
  if not histories:
    return None
  largest = max(np.nanmax(getattr(h, cost)) for h in histories.values())
  scale, unit = _unit(float(largest))
  with style.style():
    figure, (axes,) = _axes()
    for label, (look, history) in zip(histories, _looks(histories)):
      best = front(history, cost)
      axes.step(
        getattr(history, cost)[best] / scale,
        100 * history.accuracy[best],
        where="post",
        marker="o",
        markersize=3.5,
        label=label,
        **(look | {"linewidth": 1.4}),
      )
    axes.set_xlabel(f"{COSTS[cost]}{unit}")
    axes.set_ylabel("validation accuracy, %")
    _compared_legend(figure)
  return figure


def _looks(histories):
  """(colour and dashes, history) of each."""
  for i, history in enumerate(histories.values()):
    color = LIGHT[_TRAININGS[i % len(_TRAININGS)]]
    dashes = _DASHES[i // len(_TRAININGS) % len(_DASHES)]
    yield {"color": color, "linestyle": dashes, "linewidth": 1.8}, history


def _compared_legend(figure) -> None:
  figure.legend(
    loc="outside upper left", ncols=2, borderpad=0, handlelength=1.9
  )


def _stopped(axes, x, y) -> None:
  """Children that were not trained to their end: no match for the others."""
  many = len(x) > style.MAX_VECTOR_POINTS
  axes.plot(
    x,
    y,
    "o",
    markersize=1.5 if many else 3.2,
    markeredgewidth=0,
    alpha=0.35 if many else 0.6,
    color=LIGHT["line"],
    rasterized=many,
  )
  axes.plot([], [], "o", markersize=3.5, color=LIGHT["line"], label="stopped")


def _unit(largest: float) -> tuple[float, str]:
  for scale, name in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
    if largest >= scale:
      return scale, f", {name}"
  return 1.0, ""


def retrain_figure(curves: list[runs.Curve]) -> Figure | None:
  """Loss and accuracy of the final stage against epochs, or None."""
  if not curves:
    return None
  with style.style():
    figure, (loss, accuracy) = _axes(2, 4.2)
    epochs = _in_epochs(curves)
    for curve in curves:
      _draw_curve(loss, accuracy, curve, epochs)
    loss.set_ylabel("training loss")
    accuracy.set_ylabel("accuracy, %")
    accuracy.set_xlabel("epoch" if epochs else "step")
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


# One per training, strongest first; beyond these they repeat.
_TRAININGS = ("accent", "second", "good", "previous", "line", "bad")


def training_figure(
  curves: list[tuple[str, runs.Curve]], score: str = ""
) -> Figure:
  """Loss and accuracy of trainings side by side, against epochs.

  Args:
    curves: (label, curve); equal labels share a colour, such as seeds of one
      setting.
    score: what the numbers on the validation images are, where they are no
      accuracies: those of the training images are then left out. Where there
      are none on validation images either, the loss alone is drawn.
  """
  labels = list(dict.fromkeys(label for label, _ in curves))
  colors = {
    label: LIGHT[_TRAININGS[i % len(_TRAININGS)]]
    for i, label in enumerate(labels)
  }
  scored = any(
    np.isfinite(curve.valid_accuracy).any()
    or (not score and np.isfinite(curve.accuracy).any())
    for _, curve in curves
  )
  with style.style():
    figure, rows = _axes(2, 4.2) if scored else _axes()
    loss, accuracy = rows[0], rows[-1]  # one and the same if nothing is scored
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
            marker="o" if known.sum() == 1 else None,
            label=f"{label}, {what}" if len(labels) > 1 else what,
          )
    accuracy.set_ylabel(f"{score or 'accuracy'}, %")
    loss.set_ylabel("training loss")
    accuracy.set_xlabel("epoch")
    kinds = style.legend_entries(accuracy)
    figure.legend(
      kinds.values(),
      kinds.keys(),
      loc="outside upper left",
      # In one column where two would leave the picture.
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
    path: of the picture, with either ending or none.
    score: see `training_figure`.
  """
  found = []
  for label, many in folders.items():
    many = many if isinstance(many, list | tuple) else [many]
    for folder in many:
      read = runs.read_retrain(pathlib.Path(folder) / "retrain.jsonl")
      found += [(label, curve) for curve in read]
  style.save(training_figure(found, score), path)


_DASHES = ("-", "--", ":", "-.")


def searches_figure(
  curves: dict[str, np.ndarray], ylabel: str, best: float | None = None
) -> Figure:
  """The best so far against queries, of several strategies.

  A line is the mean over runs, its band the 95 % interval of that mean.

  Args:
    curves: label -> f64[runs, queries].
    ylabel: what the values are.
    best: the best value there is, drawn as a line.
  """
  with style.style():
    figure, (axes,) = _axes(height=4.2)
    lowest = math.inf
    for i, (label, runs_of) in enumerate(curves.items()):
      color = LIGHT[_TRAININGS[i % len(_TRAININGS)]]
      queries = np.arange(1, runs_of.shape[1] + 1)
      mean = runs_of.mean(0)
      error = 1.96 * runs_of.std(0, ddof=min(1, len(runs_of) - 1))
      error /= math.sqrt(len(runs_of))
      axes.fill_between(
        queries, mean - error, mean + error, color=color, alpha=0.2, linewidth=0
      )
      axes.plot(
        queries,
        mean,
        color=color,
        linestyle=_DASHES[i // len(_TRAININGS) % len(_DASHES)],
        linewidth=1.4,
        label=label,
      )
      lowest = min(lowest, mean[min(_FIRST_QUERY, len(mean)) - 1])
    if best is not None:
      axes.axhline(best, color=LIGHT["ink"], linewidth=0.8, label="best cell")
    highest = best if best is not None else axes.get_ylim()[1]
    if highest > lowest:
      axes.set_ylim(lowest, highest + 0.03 * (highest - lowest))
    axes.set_xscale("log")
    axes.set_xlim(_FIRST_QUERY, max(c.shape[1] for c in curves.values()))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("queries")
    axes.set_ylabel(f"{ylabel}, best so far")
    figure.legend(
      loc="outside upper left",
      ncols=2,
      borderpad=0,
      handlelength=1.9,
    )
  return figure


def draw_searches(
  curves: dict[str, np.ndarray], path, ylabel: str, best: float | None = None
) -> None:
  """Writes `searches_figure` as .svg and .png."""
  style.save(searches_figure(curves, ylabel, best), path)


def _in_epochs(curves: list[runs.Curve]) -> bool:
  return all(np.isfinite(c.epoch).all() for c in curves)


def _draw_curve(loss, accuracy, curve: runs.Curve, epochs: bool) -> None:
  """Adds one network: the ranked ones thin, the final one strong."""
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
      marker="o" if known.sum() == 1 else None,
      markersize=4,
      label=f"{stage}, {what}",
    )
