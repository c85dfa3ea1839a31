"""Where the boxes of a cell's drawing go, and how its edges run.

A layered layout, bottom to top: the cell's inputs, its blocks by depth, the
output or outputs. A state that is read further up passes each layer in
a lane of its own, and edges bend only between layers; so no edge ever crosses
a box. Lengths are inches.
"""

import itertools
from typing import Any, NamedTuple

OP_WIDTH, OP_HEIGHT = 0.7, 0.4
SIDE_GAP = 0.07  # between a block's two operations
PAD = 0.08  # between a block's panel and its boxes
JOIN = 0.16  # from the operations up to the combiner
COMBINE_HEIGHT = 0.2
COMBINE_WIDTH = {
  "add": 0.4,
  "concat": 0.54,
  "add_layer_norm": 0.62,
  "add_instance_norm": 0.62,
}
STATE_WIDTH, STATE_HEIGHT = 0.62, 0.28
OUTPUT_WIDTH = 0.72  # of one of several
LANE_WIDTH = 0.1
ITEM_GAP = 0.16
MARGIN = 0.14
TITLE_HEIGHT = 0.3
BLOCK_WIDTH = 2 * OP_WIDTH + SIDE_GAP + 2 * PAD
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


class _Link(NamedTuple):
  """A piece of edge between an item of a layer and one of the next."""

  source: tuple
  target: tuple
  side: int | None  # the side of the target block


class _Graph(NamedTuple):
  blocks: list[dict[str, Any]]
  num_inputs: int
  output: list[int]  # states, by their number or, if separate, in order
  separate: bool
  depth: list[int]  # by state
  layers: list[list[tuple]]  # ("state", s), ("block", k) or ("lane", s)
  links: list[list[_Link]]  # links[l] run from layer l to layer l + 1


def _depths(blocks, num_inputs: int) -> list[int]:
  depth = [0] * num_inputs
  for block in blocks:
    depth.append(1 + max(depth[s] for s in block["inputs"]))
  return depth


def _graph(cell: dict[str, Any]) -> _Graph:
  blocks, separate = cell["blocks"], "outputs" in cell
  # A cell passes on as many states as it reads.
  output = cell["outputs"] if separate else sorted(set(cell["concat"]))
  num_inputs = len(output) if separate else 2
  depth = _depths(blocks, num_inputs)
  top = max(depth) + 1
  highest = list(depth)  # where each state is read last
  for k, block in enumerate(blocks):
    for s in block["inputs"]:
      highest[s] = max(highest[s], depth[num_inputs + k])
  for s in output:
    highest[s] = top
  layers = [[("state", s) for s in range(num_inputs)]]
  for level in range(1, top):
    own = [
      ("block", k) for k in range(len(blocks)) if depth[num_inputs + k] == level
    ]
    lanes = [
      ("lane", s) for s in range(len(depth)) if depth[s] < level < highest[s]
    ]
    # h_i starts left and the others right, so do their lanes.
    layers.append(lanes[:1] + own + lanes[1:])
  graph = _Graph(blocks, num_inputs, output, separate, depth, layers, [])
  return graph._replace(
    links=[_links(graph, level) for level in range(top - 1)]
  )


def _carrier(graph: _Graph, state: int, level: int) -> tuple:
  """The item of a layer at which a state is at hand."""
  if graph.depth[state] < level:
    return ("lane", state)
  if state < graph.num_inputs:
    return ("state", state)
  return ("block", state - graph.num_inputs)


def _links(graph: _Graph, level: int) -> list[_Link]:
  links = []
  for item in graph.layers[level + 1]:
    kind, index = item
    if kind == "lane":
      links.append(_Link(_carrier(graph, index, level), item, None))
    else:
      for side, state in enumerate(graph.blocks[index]["inputs"]):
        links.append(_Link(_carrier(graph, state, level), item, side))
  return links


def _width(item: tuple) -> float:
  widths = {"state": STATE_WIDTH, "block": BLOCK_WIDTH, "lane": LANE_WIDTH}
  return widths[item[0]]


def _offset(link: _Link, flipped: set) -> float:
  """x of the target's port, from the middle of the target."""
  if link.side is None:
    return 0.0
  right = link.side != (link.target in flipped)
  return (OP_WIDTH + SIDE_GAP) / 2 * (1 if right else -1)


def _pack(layer: list[tuple]) -> dict[tuple, float]:
  """Items side by side around zero: item -> x of its middle."""
  total = sum(map(_width, layer)) + ITEM_GAP * (len(layer) - 1)
  places, left = {}, -total / 2
  for item in layer:
    places[item] = left + _width(item) / 2
    left += _width(item) + ITEM_GAP
  return places


def _gap_cost(links, below, above, flipped) -> float:
  """Crossings between two layers, and a little for the way edges go."""
  ends = [
    (below[k.source], above[k.target] + _offset(k, flipped)) for k in links
  ]
  cost = 0.05 * sum(abs(a - b) for a, b in ends)
  for i, (a, b) in enumerate(ends):
    for c, d in ends[:i]:
      cost += (a - c) * (b - d) < 0
  return cost


def _starts(layers: list[list[tuple]]):
  """A few orders to start from: hill climbing alone can get stuck."""
  yield [list(layer) for layer in layers]
  yield [layers[0], *(layer[::-1] for layer in layers[1:])]
  for lanes_left in (True, False):
    yield [
      sorted(layer, key=lambda item: (item[0] == "lane") != lanes_left)
      for layer in layers
    ]


def _order(graph: _Graph) -> tuple[list[list[tuple]], set, list[dict]]:
  """Orders each layer's items and chooses which blocks swap their sides.

  The inputs stay: h_i left, the earlier ones to the right of it.

  Returns:
    layers, the blocks with swapped sides, x of each item's middle by layer.
  """
  found = []
  for start in _starts(graph.layers):
    layers, flipped = _climb(graph, start)
    places = _places(graph, layers, flipped)
    cost = sum(
      _gap_cost(links, places[level], places[level + 1], flipped)
      for level, links in enumerate(graph.links)
    )
    found.append((cost, layers, flipped, places))
  return min(found, key=lambda f: f[0])[1:]


def _climb(graph: _Graph, layers) -> tuple[list[list[tuple]], set]:
  """Moves items and swaps sides while that helps; cells are small."""
  flipped: set = set()

  def cost(level: int, layer, flips) -> float:
    """Of the two gaps around a layer."""
    places = _pack(layer)
    below = _pack(layers[level - 1])
    total = _gap_cost(graph.links[level - 1], below, places, flips)
    if level + 1 < len(layers):
      above = _pack(layers[level + 1])
      total += _gap_cost(graph.links[level], places, above, flips)
    return total

  better = True
  while better:
    better = False
    for level in range(1, len(layers)):
      best = cost(level, layers[level], flipped)
      for layer, flips in _moves(layers[level], flipped):
        new = cost(level, layer, flips)
        if new < best - 1e-9:
          best, better = new, True
          layers[level], flipped = layer, flips
          break
  return layers, flipped


def _moves(layer: list[tuple], flipped: set):
  """All layers that differ by one item's place, or by one block's sides."""
  for item in layer:
    if item[0] == "block":
      yield layer, flipped ^ {item}
  for i, item in enumerate(layer):
    rest = layer[:i] + layer[i + 1 :]
    for j in range(len(layer)):
      if j != i:
        yield [*rest[:j], item, *rest[j:]], flipped


def _separate(wanted: list[float], gaps: list[float]) -> list[float]:
  """The x nearest to `wanted` (least squares) with x[i+1] - x[i] >= gaps[i].

  Without the gaps it is isotonic regression: pool adjacent violators.
  """
  shift = [0.0]
  for gap in gaps:
    shift.append(shift[-1] + gap)
  pools: list[list[float]] = []  # [mean, size]
  for want, offset in zip(wanted, shift, strict=True):
    pools.append([want - offset, 1])
    while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
      mean, size = pools.pop()
      last = pools[-1]
      last[0] = (last[0] * last[1] + mean * size) / (last[1] + size)
      last[1] += size
  flat = [mean for mean, size in pools for _ in range(int(size))]
  return [x + offset for x, offset in zip(flat, shift, strict=True)]


def _places(graph: _Graph, layers, flipped) -> list[dict[tuple, float]]:
  """x of each item's middle: near what it is joined to, without overlap."""
  places = [_pack(layer) for layer in layers]
  levels = list(range(len(layers)))
  for sweep in range(16):
    for level in levels if sweep % 2 else reversed(levels):
      layer = layers[level]
      wanted = [_wanted(graph, places, flipped, level, item) for item in layer]
      gaps = [
        (_width(a) + _width(b)) / 2 + ITEM_GAP
        for a, b in itertools.pairwise(layer)
      ]
      places[level] = dict(zip(layer, _separate(wanted, gaps), strict=True))
  return places


def _wanted(graph, places, flipped, level, item) -> float:
  """The mean of the places that pull at an item."""
  pulls = []
  if level > 0:
    for link in graph.links[level - 1]:
      if link.target == item:
        x = places[level - 1][link.source] - _offset(link, flipped)
        pulls += [x] * _strength(link)
  if level < len(graph.links):
    for link in graph.links[level]:
      if link.source == item:
        x = places[level + 1][link.target] + _offset(link, flipped)
        pulls += [x] * _strength(link)
  return sum(pulls) / len(pulls) if pulls else places[level][item]


def _strength(link: _Link) -> int:
  """Lanes pull harder: a long edge should run straight."""
  return 4 if "lane" in (link.source[0], link.target[0]) else 1


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
  """Leaves and arrives vertically, so it stays between the two heights."""
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
          - _offset(k, flipped)
        )
        for k in graph.links[level - 1]
      ]
    else:
      ways = [
        abs(places[-1][_carrier(graph, s, level - 1)] - x)
        for s, x in ports.items()
      ]
    gap = min(0.34 + 0.16 * max(ways, default=0), 1.1)
    bottoms.append(tops[-1] + gap)
    last = level == len(places)
    tops.append(bottoms[-1] + (STATE_HEIGHT if last else BLOCK_HEIGHT))
  return _Rows(bottoms, tops)


def _output_ports(graph, places) -> dict[int, float]:
  """state -> x at which it enters the output, in the order they come."""
  level = len(places) - 1
  come = {s: places[-1][_carrier(graph, s, level)] for s in graph.output}
  order = sorted(come, key=lambda s: (come[s], s))
  if graph.separate:  # a box each
    gaps = [OUTPUT_WIDTH + ITEM_GAP] * (len(order) - 1)
    ports = _separate([come[s] for s in order], gaps)
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
    kind, index = _carrier(graph, state, graph.depth[state])
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
  graph = _graph(cell)
  _, flipped, places = _order(graph)
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
