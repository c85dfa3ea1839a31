"""What the charts have in common: axes, lines, points, legends, colours."""

import matplotlib.ticker
import numpy as np

from nasnet_jax.report import runs, statistics, style
from nasnet_jax.report.style import LIGHT

WIDTH, HEIGHT = 4.6, 3.0  # inches; legible on a phone, enlarged on a desk
_WINDOW = 20  # children; a round of the NASNet controller


# Colours of lines, the strongest first, and dashes for when they repeat.
COLORS = ("accent", "second", "good", "previous", "line", "bad")
DASHES = ("-", "--", ":", "-.")


def new_axes(rows: int = 1, height: float = HEIGHT, shares=None):
  """A figure and its axes, one above the other, with a common x.

  Args:
    shares: of the height that each gets; None: equal ones.
  """
  figure = style.new_figure(WIDTH, height, "constrained")
  axes = figure.subplots(
    rows, 1, sharex=True, squeeze=False, height_ratios=shares
  )[:, 0]
  return figure, axes


def cut(upper, lower) -> None:
  """Shows that two axes are one, from which a part is cut out."""
  upper.spines.bottom.set_visible(False)
  upper.tick_params(bottom=False)
  lower.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(2))
  stroke = {
    "marker": [(-1, -0.6), (1, 0.6)],
    "markersize": 7,
    "color": LIGHT["line"],
    "clip_on": False,
    "linestyle": "none",
  }
  upper.plot([0], [0], transform=upper.transAxes, **stroke)
  lower.plot([0], [1], transform=lower.transAxes, **stroke)


def legend(axes) -> None:
  """One row above the chart, as wide as the figure, so it hides no point."""
  axes.figure.legend(
    loc="outside upper left",
    ncols=5,
    borderpad=0,
    handlelength=1.1,
    handletextpad=0.5,
    columnspacing=1.0,
  )


def legend_in_columns(figure, axes=None) -> None:
  """Two columns above the chart, for labels that are long.

  Args:
    axes: whose lines are named; None: those of all.
  """
  named = () if axes is None else axes.get_legend_handles_labels()
  figure.legend(
    *named, loc="outside upper left", ncols=2, borderpad=0, handlelength=1.9
  )


def points(axes, x, y) -> None:
  """A cloud of points; thousands become one picture inside the SVG."""
  many = len(x) > style.MAX_VECTOR_POINTS
  _cloud(axes, x, y, style.RASTER if many else LIGHT["accent"], "child")


def failed(axes, x, what: str = "failed", color: str = "bad") -> None:
  """Marks children without a reward along the bottom: crosses, or thin ticks if
  many."""
  many = len(x) > 100
  axes.plot(
    x,
    np.full(len(x), 0.015),
    "|" if many else "x",
    markersize=4.5,
    alpha=0.35 if many else 1,
    color=LIGHT[color],
    transform=axes.get_xaxis_transform(),
    rasterized=len(x) > style.MAX_VECTOR_POINTS,
    clip_on=False,
  )
  label = f"{what} ({len(x):,})"
  mark = "|" if many else "x"
  axes.plot([], [], mark, markersize=4.5, color=LIGHT[color], label=label)


def stopped(axes, x, y) -> None:
  """The points of children that were stopped early, in grey: their accuracies
  do not compare with the others'."""
  _cloud(axes, x, y, LIGHT["line"], "stopped")


def _cloud(axes, x, y, color: str, label: str) -> None:
  """The points, and an entry of the legend that looks like one of them."""
  many = len(x) > style.MAX_VECTOR_POINTS
  look = {"markeredgewidth": 0, "color": color, "linestyle": "none"}
  axes.plot(
    x,
    y,
    marker="o",
    markersize=1.5 if many else 3.8,
    alpha=0.35 if many else 0.7,
    rasterized=many,
    **look,
  )
  axes.plot([], [], marker="o", markersize=3.8, alpha=0.7, label=label, **look)


def number(history: runs.History) -> np.ndarray:
  """int[n], where each child stands on an axis of children: its own number,
  as tables and text have it; where lines have none, their places from 0."""
  if len(np.unique(history.id)) == len(history) and (history.id >= 0).all():
    return history.id
  return np.arange(len(history))


def in_order(history: runs.History) -> tuple[np.ndarray, np.ndarray]:
  """(rising numbers of the children, the rows that they have)."""
  numbers = number(history)
  order = np.argsort(numbers, kind="stable")
  return numbers[order], order


def epochs(axes, last: float) -> None:
  """An x axis of epochs, from the start of a training on, in whole numbers."""
  axes.set_xlim(0, max(1.0, last) * 1.03)
  whole_numbers(axes.xaxis)


def whole_numbers(axis) -> None:
  """Has an axis show whole numbers only, with commas."""
  axis.set_major_locator(
    matplotlib.ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10])
  )
  axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))


def window(children: int) -> int:
  """Of how many children the rolling mean is."""
  return max(_WINDOW, children // 100)


def mean_line(axes, number, reward, **line) -> None:
  """The rolling mean, once there are as many children as it is over. A long
  search gets a longer window, or the line would be a band of noise."""
  over = window(len(reward))
  if len(reward) <= over:  # a single point is no line
    return
  mean = statistics.rolling_mean(reward, over)
  every = max(1, len(reward) // 500)
  look = {
    "color": LIGHT["ink"],
    "linewidth": 1.4,
    "label": f"mean of last {over}",
  }
  axes.plot(number[over - 1 :: every], mean[over - 1 :: every], **(look | line))


def best_line(axes, number, best, **line) -> None:
  """The best so far as steps, of which only the corners are drawn."""
  known = np.flatnonzero(~np.isnan(best))
  if not len(known):
    return
  number, best = number[known], best[known]
  corner = np.concatenate([[True], best[1:] > best[:-1]])
  corner[-1] = True
  look = {"color": LIGHT["second"], "linewidth": 1.8, "label": "best so far"}
  axes.step(number[corner], best[corner], where="post", **(look | line))


def looks(histories):
  """(the look of its line, history) of each of label -> history."""
  for i, history in enumerate(histories.values()):
    color = LIGHT[COLORS[i % len(COLORS)]]
    dashes = DASHES[i // len(COLORS) % len(DASHES)]
    yield {"color": color, "linestyle": dashes, "linewidth": 1.8}, history


def unit(largest: float) -> tuple[float, str]:
  """(what to divide values by, how to say that behind an axis' label)."""
  for scale, name in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
    if largest >= scale:
      return scale, f", {name}"
  return 1.0, ""
