"""Of a search of several objectives: its front, and how it grew."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nasnet_jax.pareto import fronts, hypervolume
from nasnet_jax.report import charts as common
from nasnet_jax.report import page, runs, style
from nasnet_jax.report.search_charts import COSTS
from nasnet_jax.report.style import LIGHT

_MOST = 3  # objectives whose volume is computed soon enough for a page


def charts(history: runs.History) -> list[tuple[str, str, Figure | None]]:
  """[(name, caption, figure)]; none of a search of one objective, or without a
  child that succeeded."""
  if not len(_places(history)):
    return []
  names = [_plain(name) for name in history.objectives[:2]]
  found = [("front", f"The front: {' against '.join(names)}", _front(history))]
  k = len(history.objectives)
  if k <= _MOST:
    found.append(
      (
        "hypervolume",
        f"Hypervolume of {k} objectives by child: each from its worst among the"
        " children, 0, to its best, 1",
        _hypervolume(history),
      )
    )
  return found


def table(history: runs.History) -> str:
  """The front's children in the order of the final stage, behind a click."""
  body = []
  for place in _places(history):
    values: list[Any] = [history.id[place.row]]
    values += [
      _value(name, history.rewards[place.row, k])
      for k, name in enumerate(history.objectives)
    ]
    body.append(page.row([*values, words(history.objectives, place)]))
  if not body:
    return ""
  head = ("child", *map(_plain, history.objectives), "on the front")
  title = "The children on the front of all objectives"
  note = ""
  if len(history.objectives) > _MOST:
    note = (
      f'<p class="sub">No hypervolume: it is shown of up to {_MOST}'
      " objectives.</p>"
    )
  return note + page.details(
    title, page.table(head, "".join(body), title, "words")
  )


def line(history: runs.History) -> str:
  """In words, who is on the front; "" if there is none."""
  places = _places(history)
  if not places:
    return ""
  named = [
    f"child {history.id[p.row]} {words(history.objectives, p)}"
    for p in places
    if p.ends or p.knee
  ]
  return f"front of {len(places):,} children: {', '.join(named)}"


def words(names: tuple[str, ...], place: fronts.Place) -> str:
  """What a child is on the front."""
  return fronts.words([names[k] for k in place.ends], place.knee)


def volumes(history: runs.History) -> np.ndarray:
  """f64[n]: the hypervolume after each child in the order of their numbers,
  each objective from its worst among them all, 0, to its best, 1."""
  _, order = common.in_order(history)
  rewards = history.rewards[order]
  low, high = np.nanmin(rewards, 0), np.nanmax(rewards, 0)
  values = (rewards - low) / np.where(high > low, high - low, 1.0)
  return hypervolume.by_child(values, np.zeros(len(low)))


def _places(history: runs.History) -> list[fronts.Place]:
  if len(history.objectives) < 2:
    return []
  order = np.argsort(history.id, kind="stable")  # of equals, the earliest child
  ended = np.where(history.stopped[:, None], np.nan, history.rewards)[order]
  return [p._replace(row=int(order[p.row])) for p in fronts.places(ended)]


def _plain(name: str) -> str:
  """An objective as its axis has it."""
  if name == "accuracy":
    return "validation accuracy"
  words = COSTS.get(name[1:], name)
  return words.removesuffix(" per image").removesuffix(" in seconds")


def _value(name: str, reward: float) -> str:
  if name == "accuracy":
    return f"{reward:.2%}"
  return f"{-reward:.4g} s" if name == "-latency" else page.count(-reward)


def _front(history: runs.History) -> Figure:
  """The second objective against the first; the front is that of all."""
  places = _places(history)
  y, x = 100 * history.rewards[:, 0], -history.rewards[:, 1]
  known = ~np.isnan(x)
  scale, unit = common.unit(float(np.nanmax(x)))
  members = np.array([p.row for p in places])
  members = members[np.argsort(x[members], kind="stable")]
  with style.style():
    figure, (axes,) = common.new_axes()
    common.points(axes, x[known] / scale, y[known])
    axes.plot(
      x[members] / scale,
      y[members],
      "o",
      # Of more than two the front is no line here.
      linestyle="-" if len(history.objectives) == 2 else "none",
      drawstyle="steps-post",
      linewidth=1.4,
      markersize=4.5,
      color=LIGHT["second"],
      label="front",
    )
    _rings(axes, [p.row for p in places if p.ends], x / scale, y, "end", "ink")
    _rings(
      axes, [p.row for p in places if p.knee], x / scale, y, "knee", "good"
    )
    name = history.objectives[1]
    axes.set_xlabel(f"{COSTS.get(name[1:], name)}{unit}")
    axes.set_ylabel("validation accuracy, %")
    axes.margins(0.09)
    common.legend(axes)
  return figure


def _rings(axes, rows, x, y, label: str, color: str):
  axes.plot(
    x[rows],
    y[rows],
    "o",  # a ring, so that the point within it can be seen
    markersize={"end": 9, "knee": 13}[label],
    markerfacecolor="none",
    markeredgewidth=1.6,
    markeredgecolor=LIGHT[color],
    label=label,
    linestyle="none",
  )


def _hypervolume(history: runs.History) -> Figure:
  number, _ = common.in_order(history)
  with style.style():
    figure, (axes,) = common.new_axes()
    common.best_line(axes, number, volumes(history), label="hypervolume")
    axes.set_xlabel("child")
    axes.set_ylabel("hypervolume")
    axes.set_ylim(0, 1)
    common.whole_numbers(axes.xaxis)
  return figure
