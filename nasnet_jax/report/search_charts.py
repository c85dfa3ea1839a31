"""The charts of one search. Each function returns a matplotlib figure."""

import math

import numpy as np
from matplotlib.figure import Figure

from nasnet_jax.report import cell_drawings, charts, runs, statistics, style
from nasnet_jax.report.style import LIGHT

_MARGIN = 0.09  # of an axis, so that no mark lies on its end


def reward_figure(history: runs.History) -> Figure:
  """Reward by child: points, best so far, rolling mean, failed children."""
  with style.style():
    figure, (axes,) = charts.new_axes()
    number, order = charts.in_order(history)
    reward = history.reward[order]
    ok = ~np.isnan(reward)
    charts.points(axes, number[ok], reward[ok])
    charts.mean_line(axes, number[ok], reward[ok])
    charts.best_line(axes, number, statistics.running_best(reward))
    over = np.zeros_like(ok)
    if len(history.over_limit):
      over = history.over_limit[order]
    if (~ok & ~over).any():
      charts.failed(axes, number[~ok & ~over])
    if over.any():
      charts.failed(axes, number[over], "over the limit", "line")
    axes.set_xlabel("child")
    axes.set_ylabel("reward")
    around = 0.5 + 0.01 * np.ptp(number)
    axes.set_xlim(number[0] - around, number[-1] + around)
    axes.margins(y=_MARGIN)
    charts.whole_numbers(axes.xaxis)
    charts.legend(axes)
  return figure


def operations_figure(history: runs.History, space) -> Figure | None:
  """Operations' shares over time. None for a space without operations, and
  where there is no time yet over which they could change: in the first round,
  or with children for one window only."""
  if not hasattr(space, "operations"):
    return None
  rows, decisions = runs.valid_decisions(history, space)
  windows = min(48, math.ceil(len(rows) / 10))
  if windows < 2 or len(np.unique(history.round[rows])) < 2:
    return None
  numbers = charts.number(history)[rows]
  order = np.argsort(numbers, kind="stable")
  numbers, decisions = numbers[order], decisions[order]
  ops = _operations(space.decode(decisions)).reshape(len(rows), -1)
  middle, shares = statistics.operation_shares(
    ops, len(space.operations), windows
  )
  # The first and last window reach to the ends of the chart.
  middle = np.interp(middle, np.arange(len(rows)), numbers)
  x = np.concatenate([numbers[:1], middle, numbers[-1:]])
  y = np.concatenate([shares[:1], shares, shares[-1:]])
  order, colors = _by_family(space.operations)
  with style.style():
    figure, (axes,) = charts.new_axes()
    areas = axes.stackplot(x, y[:, order].T * 100, colors=colors, linewidth=0.5)
    for area in areas:
      area.set_edgecolor(LIGHT["paper"])
    axes.set_xlim(numbers[0], numbers[-1])
    axes.set_ylim(0, 100)
    axes.grid(False)
    axes.set_xlabel("child")
    axes.set_ylabel("share of all operations, %")
    charts.whole_numbers(axes.xaxis)
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
  """int[n, ...]: the operations of cells, with -1 in blocks that are left out,
  or the operations of rows of blocks."""
  if hasattr(genotypes, "operation"):
    return genotypes.operation
  return np.where(genotypes.active[..., None], genotypes.ops, -1)


def _by_family(operations) -> tuple[list[int], list[str]]:
  """(operations, those of a family next to each other; a colour for each)."""
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
  """int[k]: the rows of the Pareto front, by rising cost: children that no
  other beats in both accuracy and cost. Children that failed or were stopped
  early are left out."""
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
    winner: id of the child to mark as the winner.
    target: the reward's target for this cost, to be marked.

  Returns:
    None if no child that ran to its end has both numbers.
  """
  value, accuracy = getattr(history, cost), 100 * history.accuracy
  best = front(history, cost)
  if not len(best):
    return None
  scale, unit = charts.unit(float(np.nanmax(value)))
  known = ~(np.isnan(accuracy) | np.isnan(value))
  ended = known & ~history.stopped
  with style.style():
    figure, (axes,) = charts.new_axes()
    charts.points(axes, value[ended] / scale, accuracy[ended])
    early = known & history.stopped
    if early.any():
      charts.stopped(axes, value[early] / scale, accuracy[early])
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
        "o",  # a ring, so that the point within it can be seen
        markersize=11,
        markerfacecolor="none",
        markeredgewidth=2,
        markeredgecolor=LIGHT["good"],
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
    axes.margins(_MARGIN)
    charts.legend(axes)
  return figure
