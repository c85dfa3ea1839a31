"""Drawings of Genetic CNN's stages, and stages as text.

A stage is a column of nodes, bottom to top in their order; edges between
neighbours are straight, others arcs beside the column, so none crosses a node.
"""

from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from nasnet_jax.report import style

RADIUS = 0.16  # lengths are inches
ROW = 0.55  # between middles of nodes
ARC = 0.2  # how far an arc reaches out, per row that it passes
MARGIN = 0.2
TITLE = 0.34
END_WIDTH, END_HEIGHT = 0.7, 0.28

Point = tuple[float, float]


class _Arc(NamedTuple):
  """An edge; places in the column, and the side of it: -1, 1 or 0 (none)."""

  start: int
  end: int
  side: int


class _Stage(NamedTuple):
  """A stage's column, from bottom to top, and its edges."""

  nodes: list[Any]
  arcs: list[_Arc]

  def reach(self, side: int) -> float:
    """Inches from the middle of the column to the outermost arc there."""
    passed = [arc.end - arc.start - 1 for arc in self.arcs if arc.side == side]
    return max(END_WIDTH / 2, RADIUS + ARC * max(passed, default=0))

  @property
  def width(self) -> float:
    return self.reach(-1) + self.reach(1) + 2 * MARGIN

  @property
  def height(self) -> float:
    return (len(self.nodes) - 1) * ROW + END_HEIGHT + 2 * MARGIN + TITLE


def stage_text(genotype: dict[str, Any]) -> list[str]:
  """A `StageSpace.to_json` dict in words, a line per node that reads others."""
  lines = []
  for number, stage in enumerate(genotype["stages"]):
    lines.append(f"stage {number} ({stage['nodes']} nodes)")
    if not stage["edges"]:
      lines.append("  one convolution")
    for node in range(stage["nodes"]):
      reads = [str(i) for i, j in stage["edges"] if j == node]
      if reads:
        lines.append(f"  node {node} reads {', '.join(reads)}")
  return lines


def draw_stages(genotype: dict[str, Any], path=None) -> Figure:
  """Draws the graphs of a `StageSpace.to_json` dict side by side.

  Nodes that a stage leaves out are not drawn. With a path also writes it as
  .svg and .png.
  """
  drawn = [_stage(stage) for stage in genotype["stages"]]
  width = sum(stage.width for stage in drawn)
  height = max(stage.height for stage in drawn)
  figure = style.new_figure(width, height, None)
  with style.style():
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    left = 0.0
    for number, stage in enumerate(drawn):
      _draw(axes, stage, left, height, f"Stage {number}")
      left += stage.width
  if path is not None:
    style.save(figure, path)
  return figure


def _stage(stage: dict[str, Any]) -> _Stage:
  edges = [tuple(edge) for edge in stage["edges"]]
  if not edges:
    return _Stage(["input"], [])
  nodes = sorted({node for edge in edges for node in edge})
  fed = {j for _, j in edges}
  read = {i for i, _ in edges}
  edges += [("input", node) for node in nodes if node not in fed]
  edges += [(node, "output") for node in nodes if node not in read]
  column = ["input", *nodes, "output"]
  place = {node: i for i, node in enumerate(column)}
  return _Stage(column, _arcs([(place[a], place[b]) for a, b in edges]))


def _arcs(edges: list[tuple[int, int]]) -> list[_Arc]:
  """Each edge on the side where it overlaps with fewer others."""
  arcs: list[_Arc] = []
  for start, end in sorted(edges, key=lambda edge: edge[1] - edge[0]):
    if end - start == 1:
      arcs.append(_Arc(start, end, 0))
      continue
    taken = [arc.side for arc in arcs if arc.start < end and start < arc.end]
    arcs.append(
      _Arc(start, end, -1 if taken.count(-1) <= taken.count(1) else 1)
    )
  return arcs


def _draw(axes, stage: _Stage, left: float, height: float, title: str) -> None:
  axes.text(
    left + MARGIN,
    height - 0.08,
    title,
    fontsize=10.5,
    weight="bold",
    va="top",
  )
  x = left + MARGIN + stage.reach(-1)
  top = height - TITLE - MARGIN - END_HEIGHT / 2
  bottom = top - (len(stage.nodes) - 1) * ROW
  places = [(x, bottom + i * ROW) for i in range(len(stage.nodes))]
  for arc in stage.arcs:
    _edge(axes, stage, places, arc)
  for node, place in zip(stage.nodes, places, strict=True):
    _node(axes, node, place)


def _edge(axes, stage: _Stage, places: list[Point], arc: _Arc) -> None:
  (x, y), (_, y_end) = places[arc.start], places[arc.end]
  ends = (stage.nodes[arc.start], stage.nodes[arc.end])
  if arc.side:
    out = RADIUS + ARC * (arc.end - arc.start - 1)
    start, end = (
      (x + arc.side * (END_WIDTH / 2 if isinstance(n, str) else RADIUS), h)
      for n, h in zip(ends, (y, y_end), strict=True)
    )
    # A cubic reaches three quarters of the way to its control points.
    far = x + arc.side * (RADIUS + (out - RADIUS) / 0.75 + 0.1)
    points = [start, (far, y), (far, y_end), end]
    path = Path(points, [Path.MOVETO] + [Path.CURVE4] * 3)
  else:
    up, down = (END_HEIGHT / 2 if isinstance(n, str) else RADIUS for n in ends)
    path = Path([(x, y + up), (x, y_end - down)])
  axes.add_patch(
    FancyArrowPatch(
      path=path,
      arrowstyle="-|>",
      mutation_scale=7,
      linewidth=1.0,
      color=style.LIGHT["ink"],
    )
  )


def _node(axes, node, place: Point) -> None:
  colors = style.LIGHT
  x, y = place
  if isinstance(node, str):
    shape = FancyBboxPatch(
      (x - END_WIDTH / 2, y - END_HEIGHT / 2),
      END_WIDTH,
      END_HEIGHT,
      boxstyle="round,pad=0,rounding_size=0.08",
      facecolor=colors["panel"],
      edgecolor=colors["ink"],
    )
  else:
    shape = Circle(
      place,
      RADIUS,
      facecolor=colors["conv"],
      edgecolor=colors["conv_edge"],
    )
  shape.set_zorder(3)
  axes.add_patch(shape)
  axes.text(x, y, str(node), fontsize=8.5, ha="center", va="center", zorder=4)
