"""What the charts have in common: axes, lines, points, legends, colours."""

import matplotlib.ticker
import numpy as np

from nasnet_jax.report import statistics, style
from nasnet_jax.report.style import LIGHT

WIDTH, HEIGHT = 4.6, 3.0  # inches; legible on a phone, enlarged on a desk
_WINDOW = 20  # children; a round of the NASNet controller


# Colours of lines, the strongest first, and dashes for when they repeat.
COLORS = ("accent", "second", "good", "previous", "line", "bad")
DASHES = ("-", "--", ":", "-.")


def new_axes(rows: int = 1, height: float = HEIGHT):
  """A figure and its axes, one above the other, with a common x."""
  figure = style.new_figure(WIDTH, height, "constrained")
  axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
  return figure, axes


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


def legend_in_columns(figure) -> None:
  """Two columns above the chart, for labels that are long."""
  figure.legend(
    loc="outside upper left", ncols=2, borderpad=0, handlelength=1.9
  )


def points(axes, x, y) -> None:
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


def failed(axes, x) -> None:
  """Marks failed children along the bottom: crosses, or thin ticks if many."""
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


def stopped(axes, x, y) -> None:
  """The points of children that were stopped early, in grey: their accuracies
  do not compare with the others'."""
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


def whole_numbers(axis) -> None:
  """Has an axis show whole numbers only, with commas."""
  axis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
  axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))


def mean_line(axes, number, reward, **line) -> None:
  """The rolling mean. A long search gets a longer window, or the line would be
  a band of noise."""
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
