"""Where the boxes of a cell's drawing go, and how its edges run.

`placement` orders the boxes and sets them side by side; here they get their
heights and edges. Edges bend only between layers, and a state that is read
further up passes each layer in a lane of its own; so no edge ever crosses a
box. Lengths are inches.
"""

from typing import Any, NamedTuple

from nasnet_jax.report import placement
from nasnet_jax.report.placement import (
  BLOCK_WIDTH,
  ITEM_GAP,
  OP_HEIGHT,
  OP_WIDTH,
  PAD,
  SIDE_GAP,
  STATE_HEIGHT,
  STATE_WIDTH,
)

JOIN = 0.16  # from the operations up to the combiner
COMBINE_HEIGHT = 0.2
COMBINE_WIDTH = {
  "add": 0.4,
  "concat": 0.54,
  "add_layer_norm": 0.62,
  "add_instance_norm": 0.62,
}
OUTPUT_WIDTH = 0.72  # of one of several
MARGIN = 0.14
TITLE_HEIGHT = 0.3
BLOCK_HEIGHT = 2 * PAD + OP_HEIGHT + JOIN + COMBINE_HEIGHT


Point = tuple[float, float]


class Box(NamedTuple):
  """A rectangle by its lower left corner.

  `key` names it in the drawing ("state-0", "block-2-side-1",
  "block-2-combine", "block-2" for the panel behind them, "output";
  "output-0" where outputs are passed on separately).
  """

  key: str
  x: float
  y: float
  width: float
  height: float

  @property
  def center(self) -> Point:
    return self.x + self.width / 2, self.y + self.height / 2


class Edge(NamedTuple):
  """A state on its way to a side of a block or to the output.

  `points` are the start, then per piece either one point (a straight line up)
  or three (a cubic Bezier curve).
  """

  key: str
  state: int
  start: Point
  pieces: tuple[tuple[Point, ...], ...]


class Layout(NamedTuple):
  """A drawing's size, boxes (panels first), edges and combiner joins."""

  width: float
  height: float
  panels: tuple[Box, ...]
  boxes: tuple[Box, ...]
  edges: tuple[Edge, ...]
  joins: tuple[Edge, ...]


def _block_boxes(k: int, block, middle: float, y: float, flip: bool):
  """The panel and the three boxes of a block."""
  left = middle - BLOCK_WIDTH / 2
  panel = Box(f"block-{k}", left, y, BLOCK_WIDTH, BLOCK_HEIGHT)
  boxes = []
  for side in range(2):
    x = left + PAD + (side != flip) * (OP_WIDTH + SIDE_GAP)
    key = f"block-{k}-side-{side}"
    boxes.append(Box(key, x, y + PAD, OP_WIDTH, OP_HEIGHT))
  width = COMBINE_WIDTH[block.get("combine", "add")]
  up = y + PAD + OP_HEIGHT + JOIN
  key = f"block-{k}-combine"
  boxes.append(Box(key, middle - width / 2, up, width, COMBINE_HEIGHT))
  return panel, boxes


def _curve(start: Point, end: Point) -> tuple[Point, Point, Point]:
  """A curve that leaves and arrives vertically, so it stays between the two
  heights."""
  half = (start[1] + end[1]) / 2
  return (start[0], half), (end[0], half), end


def _joins(k: int, state: int, boxes: list[Box]) -> list[Edge]:
  *sides, combine = boxes
  middle = combine.center[0]
  joins = []
  for side, box in enumerate(sides):
    x = box.center[0]
    start = (x, box.y + box.height)
    end = (middle + (0.1 if x > middle else -0.1), combine.y)
    joins.append(Edge(f"join-{k}-{side}", state, start, (_curve(start, end),)))
  return joins


class _Rows(NamedTuple):
  """Heights: layer l fills bottoms[l]..tops[l]; one more row is the output."""

  bottoms: list[float]
  tops: list[float]


def _rows(graph, places, flipped, ports) -> _Rows:
  """Gaps between layers grow with how far their edges go sideways."""
  bottoms, tops = [MARGIN], [MARGIN + STATE_HEIGHT]
  for level in range(1, len(places) + 1):
    if level < len(places):
      ways = [
        abs(
          places[level - 1][k.source]
          - places[level][k.target]
          - placement.offset(k, flipped)
        )
        for k in graph.links[level - 1]
      ]
    else:
      ways = [
        abs(places[-1][placement.carrier(graph, s, level - 1)] - x)
        for s, x in ports.items()
      ]
    gap = min(0.34 + 0.16 * max(ways, default=0), 1.1)
    bottoms.append(tops[-1] + gap)
    last = level == len(places)
    tops.append(bottoms[-1] + (STATE_HEIGHT if last else BLOCK_HEIGHT))
  return _Rows(bottoms, tops)


def _output_ports(graph, places) -> dict[int, float]:
  """state -> x at which it enters the output, from left to right."""
  level = len(places) - 1
  come = {
    s: places[-1][placement.carrier(graph, s, level)] for s in graph.output
  }
  order = sorted(come, key=lambda s: (come[s], s))
  if graph.separate:  # a box each
    gaps = [OUTPUT_WIDTH + ITEM_GAP] * (len(order) - 1)
    ports = placement.separate([come[s] for s in order], gaps)
    return dict(zip(order, ports, strict=True))
  middle = (min(come.values()) + max(come.values())) / 2
  step = min(0.5, max(0.16, (max(come.values()) - min(come.values())) / 8))
  half = (len(order) - 1) / 2
  return {s: middle + (i - half) * step for i, s in enumerate(order)}


def _route(graph, places, rows, state, start, level, x_end, y_end):
  """Pieces of an edge from a state's box to a port of layer `level`."""
  pieces = []
  x = start[0]
  first = graph.depth[state]
  if start[1] < rows.tops[first]:
    pieces.append(((x, rows.tops[first]),))
  for row in range(first + 1, level):
    lane = places[row][("lane", state)]
    here = (x, rows.tops[row - 1])
    pieces.append(_curve(here, (lane, rows.bottoms[row])))
    pieces.append(((lane, rows.tops[row]),))
    x = lane
  here = (x, rows.tops[level - 1])
  pieces.append(_curve(here, (x_end, rows.bottoms[level])))
  if y_end > rows.bottoms[level]:
    pieces.append(((x_end, y_end),))
  return tuple(pieces)


def _edges(graph, places, rows, ports, boxes: dict[str, Box]) -> list[Edge]:
  def start(state: int) -> Point:
    kind, index = placement.carrier(graph, state, graph.depth[state])
    box = boxes[
      f"state-{index}" if kind == "state" else f"block-{index}-combine"
    ]
    return box.center[0], box.y + box.height

  edges = []
  for k, block in enumerate(graph.blocks):
    for side, state in enumerate(block["inputs"]):
      box = boxes[f"block-{k}-side-{side}"]
      level = graph.depth[graph.num_inputs + k]
      pieces = _route(
        graph, places, rows, state, start(state), level, box.center[0], box.y
      )
      key = f"edge-{state}-block-{k}-side-{side}"
      edges.append(Edge(key, state, start(state), pieces))
  for state, x in ports.items():
    pieces = _route(
      graph, places, rows, state, start(state), len(places), x, rows.bottoms[-1]
    )
    key = f"edge-{state}-output"
    if graph.separate:
      key += f"-{graph.output.index(state)}"
    edges.append(Edge(key, state, start(state), pieces))
  return edges


def _output_boxes(graph, ports, y: float) -> list[Box]:
  if graph.separate:
    return [
      Box(
        f"output-{j}",
        ports[state] - OUTPUT_WIDTH / 2,
        y,
        OUTPUT_WIDTH,
        STATE_HEIGHT,
      )
      for j, state in enumerate(graph.output)
    ]
  middle = (min(ports.values()) + max(ports.values())) / 2
  spread = max(ports.values()) - min(ports.values())
  width = max(spread + 0.36, 1.0)
  return [Box("output", middle - width / 2, y, width, STATE_HEIGHT)]


def layout(cell: dict[str, Any]) -> Layout:
  """Lays out one cell of `CellSpace.to_json`: {"blocks": ..., "concat": ...},
  or "outputs" in place of "concat".

  A block's two sides may be drawn swapped where that saves crossings; their
  keys keep the genotype's order.

  Raises:
    ValueError: for a cell without blocks or without output.
  """
  if not cell["blocks"] or not (cell.get("outputs") or cell.get("concat")):
    raise ValueError("a cell to draw needs a block and an output")
  graph = placement.graph_of(cell)
  _, flipped, places = placement.order(graph)
  ports = _output_ports(graph, places)
  rows = _rows(graph, places, flipped, ports)

  panels, boxes, joins = [], [], []
  for s in range(graph.num_inputs):
    x = places[0][("state", s)] - STATE_WIDTH / 2
    boxes.append(Box(f"state-{s}", x, MARGIN, STATE_WIDTH, STATE_HEIGHT))
  for k, block in enumerate(graph.blocks):
    state, item = graph.num_inputs + k, ("block", k)
    level = graph.depth[state]
    panel, mine = _block_boxes(
      k, block, places[level][item], rows.bottoms[level], item in flipped
    )
    panels.append(panel)
    boxes += mine
    joins += _joins(k, state, mine)
  boxes += _output_boxes(graph, ports, rows.bottoms[-1])
  edges = _edges(graph, places, rows, ports, {b.key: b for b in boxes})
  return _framed(Layout(0, rows.tops[-1], panels, boxes, edges, joins))


def _framed(drawing: Layout) -> Layout:
  """Sets the width and moves everything to start at the margin."""
  rects = (*drawing.panels, *drawing.boxes)
  ways = [p[0] for e in drawing.edges for piece in e.pieces for p in piece]
  left = min(*(b.x for b in rects), *ways) - MARGIN
  right = max(*(b.x + b.width for b in rects), *ways) + MARGIN

  def point(p: Point) -> Point:
    return p[0] - left, p[1]

  def edge(e: Edge) -> Edge:
    pieces = tuple(tuple(map(point, piece)) for piece in e.pieces)
    return e._replace(start=point(e.start), pieces=pieces)

  return Layout(
    right - left,
    drawing.height + MARGIN,
    tuple(b._replace(x=b.x - left) for b in drawing.panels),
    tuple(b._replace(x=b.x - left) for b in drawing.boxes),
    tuple(map(edge, drawing.edges)),
    tuple(map(edge, drawing.joins)),
  )
