"""The charts that compare searches or strategies."""

import math

import numpy as np
from matplotlib.figure import Figure

from nasnet_jax.report import charts, runs, statistics, style
from nasnet_jax.report.search_charts import COSTS, front
from nasnet_jax.report.style import LIGHT

_FIRST_QUERY = 10  # where `searches_figure` begins: fewer queries say little


def compared_rewards_figure(
  histories: dict[str, runs.History], against: str
) -> Figure | None:
  """Best reward so far and mean of the last children, of several runs.

  Args:
    histories: label -> history.
    against: what the x axis counts: "children", or "seconds" of their training.

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
  spans = [_span(history) for history in histories.values()]
  parts = _parts(spans)
  with style.style():
    figure, panels = charts.new_axes(
      len(parts), shares=[3.0] + [1.0] * (len(parts) - 1)
    )
    for axes, (low, high) in zip(panels, parts):
      for label, (look, history) in zip(histories, charts.looks(histories)):
        _reward_lines(axes, history, minutes, {**look, "label": label})
      room = 0.08 * (high - low) or 0.02
      axes.set_ylim(low - room, high + room)
    if len(panels) > 1:
      charts.cut(*panels)
    panels[-1].set_xlabel(
      "minutes of training, summed over children" if minutes else "child"
    )
    panels[0].set_ylabel("reward")
    panels[-1].set_xlim(left=0)
    if not minutes:
      charts.whole_numbers(panels[-1].xaxis)
    charts.legend_in_columns(figure, panels[0])
  return figure


def _reward_lines(axes, history: runs.History, minutes: bool, look) -> None:
  """A run's best so far, and thin the mean of its last children."""
  x, order = charts.in_order(history)
  if minutes:
    x, order = np.cumsum(history.seconds) / 60, slice(None)
  reward = history.reward[order]
  ok = ~np.isnan(reward)
  faint = look | {"linewidth": 0.8, "alpha": 0.8, "label": None}
  charts.mean_line(axes, x[ok], reward[ok], **faint)
  charts.best_line(axes, x, statistics.running_best(reward), **look)


def _span(history: runs.History) -> tuple[float, float]:
  """The rewards that a run's lines are about: those of its best so far, from
  where a tenth of its children are done, and of its mean."""
  reward = history.reward[~history.failed]
  best = statistics.running_best(reward)
  window = charts.window(len(reward))
  mean = statistics.rolling_mean(reward, window)[window - 1 :]
  return float(min([best[len(best) // 10], *mean])), float(best[-1])


_GAP = 0.35  # of the whole height: so large an empty part is cut out


def _parts(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
  """The parts of an axis that show these spans, the upper first: two where one
  poor run would press the others together, else one."""
  low, high = min(s[0] for s in spans), max(s[1] for s in spans)
  order = sorted(spans, key=lambda span: -span[1])
  for i in range(len(order) - 1, 0, -1):
    floor = min(span[0] for span in order[:i])
    ceiling = order[i][1]
    if floor - ceiling > _GAP * (high - low):
      return [(floor, high), (low, ceiling)]
  return [(low, high)]


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
  fronts = {
    label: _front(history, cost) for label, history in histories.items()
  }
  costs, accuracies = np.concatenate([*fronts.values()], 1)
  most, least = -_floor(-costs), _floor(accuracies)
  if costs[accuracies.argmax()] > most:  # the best is never left out
    most = float(costs.max())
  scale, unit = charts.unit(float(costs.max()))
  with style.style():
    figure, (axes,) = charts.new_axes()
    for label, (look, _) in zip(histories, charts.looks(histories)):
      x, y = fronts[label]
      axes.step(
        x / scale,
        y,
        where="post",
        marker="o",
        markersize=3.5,
        label=label,
        **(look | {"linewidth": 1.4}),
      )
      _outside(axes, x, y, scale, most, least, look["color"])
    out = int(((costs > most) | (accuracies < least)).sum())
    if out:
      axes.set_xlim(right=(most + 0.04 * (most - costs.min())) / scale)
      axes.set_ylim(bottom=least - 0.06 * (accuracies.max() - least))
      _tell_outside(axes, out, costs, accuracies, most, least, scale)
    axes.set_xlabel(f"{COSTS[cost]}{unit}")
    axes.set_ylabel("validation accuracy, %")
    charts.legend_in_columns(figure)
  return figure


def _front(history: runs.History, cost: str) -> np.ndarray:
  """f64[2, n]: cost and accuracy in % of a run's Pareto front."""
  best = front(history, cost)
  return np.stack([getattr(history, cost)[best], 100 * history.accuracy[best]])


def _floor(values: np.ndarray) -> float:
  """The least value that an axis shows: all, unless a third of them or fewer
  lie beyond so large a gap that they would press the others together."""
  ordered = np.sort(values)
  least = ordered[0]
  for i in range(len(ordered) // 3):
    if ordered[i + 1] - ordered[i] > _GAP * (ordered[-1] - ordered[i]):
      least = ordered[i + 1]
  return float(least)


def _outside(axes, x, y, scale: float, most: float, least: float, color):
  """Marks points beyond the axes at their edges, in a run's colour."""
  low, far = y < least, x > most
  for which, mark in ((low & ~far, "v"), (far, ">")):
    if not which.any():
      continue
    transform = axes.get_xaxis_transform()
    at = x[which] / scale, np.full(which.sum(), 0.02)
    if mark == ">":
      transform = axes.get_yaxis_transform()
      at = np.full(which.sum(), 0.985), np.maximum(y[which], least)
    axes.plot(
      *at,
      mark,
      color=color,
      markersize=4.5,
      transform=transform,
      clip_on=False,
    )


def _tell_outside(axes, out: int, costs, accuracies, most, least, scale):
  words = []
  if (accuracies < least).any():
    words.append(f"down to {accuracies.min():.1f} %")
  if (costs > most).any():
    words.append(f"up to {costs.max() / scale:,.3g}")
  axes.text(
    0.985,
    0.04,
    f"{out} of {len(costs)} outside: {', '.join(words)}",
    transform=axes.transAxes,
    ha="right",
    va="bottom",
    fontsize="small",
    color=LIGHT["muted"],
  )


def searches_figure(
  curves: dict[str, np.ndarray], ylabel: str, best: float | None = None
) -> Figure:
  """The best so far against queries, of several strategies.

  A line is the mean over runs, its band the 95 % interval of that mean.

  Args:
    curves: label -> f64[runs, queries].
    ylabel: what the values are.
    best: the best value of the whole space, drawn as a line.
  """
  with style.style():
    figure, (axes,) = charts.new_axes(height=4.2)
    lowest = math.inf
    for i, (label, runs_of) in enumerate(curves.items()):
      color = LIGHT[charts.COLORS[i % len(charts.COLORS)]]
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
        linestyle=charts.DASHES[i // len(charts.COLORS) % len(charts.DASHES)],
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
    charts.legend_in_columns(figure)
  return figure


def draw_searches(
  curves: dict[str, np.ndarray], path, ylabel: str, best: float | None = None
) -> None:
  """Writes `searches_figure` as .svg and .png."""
  style.save(searches_figure(curves, ylabel, best), path)
