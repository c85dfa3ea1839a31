"""The order of a cell's boxes in a drawing, and how far right each is.

A layered layout, bottom to top: the cell's inputs, its blocks by depth, the
output. A state that is read further up passes each layer in a lane of its own.
Blocks stand in the order of their numbers, for readers; lanes and sides are
chosen by hill climbing, for few crossings; places follow from what an item is
joined to. Lengths are inches.
"""

import itertools
from typing import Any, NamedTuple

OP_WIDTH, OP_HEIGHT = 0.7, 0.4
SIDE_GAP = 0.07  # between a block's two operations
PAD = 0.08  # between a block's panel and its boxes
STATE_WIDTH, STATE_HEIGHT = 0.62, 0.28
LANE_WIDTH = 0.1
ITEM_GAP = 0.16
_OUT_OF_ORDER = 99.0  # two blocks in the wrong order, in crossings
BLOCK_WIDTH = 2 * OP_WIDTH + SIDE_GAP + 2 * PAD


class Link(NamedTuple):
  """A piece of edge between an item of a layer and one of the next."""

  source: tuple
  target: tuple
  side: int | None  # the side of the target block


class Graph(NamedTuple):
  """A cell as layers of items and the links between them."""

  blocks: list[dict[str, Any]]
  num_inputs: int
  output: list[int]  # states, by their number or, if separate, in order
  separate: bool
  depth: list[int]  # by state
  layers: list[list[tuple]]  # ("state", s), ("block", k) or ("lane", s)
  links: list[list[Link]]  # links[l] run from layer l to layer l + 1


def _depths(blocks, num_inputs: int) -> list[int]:
  depth = [0] * num_inputs
  for block in blocks:
    depth.append(1 + max(depth[s] for s in block["inputs"]))
  return depth


def graph_of(cell: dict[str, Any]) -> Graph:
  """The graph of one cell of `CellSpace.to_json`."""
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
  graph = Graph(blocks, num_inputs, output, separate, depth, layers, [])
  return graph._replace(
    links=[_links(graph, level) for level in range(top - 1)]
  )


def carrier(graph: Graph, state: int, level: int) -> tuple:
  """The item of a layer that holds a state: its own box, or its lane."""
  if graph.depth[state] < level:
    return ("lane", state)
  if state < graph.num_inputs:
    return ("state", state)
  return ("block", state - graph.num_inputs)


def _links(graph: Graph, level: int) -> list[Link]:
  links = []
  for item in graph.layers[level + 1]:
    kind, index = item
    if kind == "lane":
      links.append(Link(carrier(graph, index, level), item, None))
    else:
      for side, state in enumerate(graph.blocks[index]["inputs"]):
        links.append(Link(carrier(graph, state, level), item, side))
  return links


def _width(item: tuple) -> float:
  widths = {"state": STATE_WIDTH, "block": BLOCK_WIDTH, "lane": LANE_WIDTH}
  return widths[item[0]]


def offset(link: Link, flipped: set) -> float:
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
  """The crossings between two layers, plus a little for the edges' length."""
  ends = [
    (below[k.source], above[k.target] + offset(k, flipped)) for k in links
  ]
  cost = 0.05 * sum(abs(a - b) for a, b in ends)
  for i, (a, b) in enumerate(ends):
    for c, d in ends[:i]:
      cost += (a - c) * (b - d) < 0
  return cost


def _disorder(layer: list[tuple]) -> float:
  """The cost of blocks that do not stand in the order of their numbers."""
  numbers = [index for kind, index in layer if kind == "block"]
  pairs = itertools.combinations(numbers, 2)
  return _OUT_OF_ORDER * sum(a > b for a, b in pairs)


def _starts(layers: list[list[tuple]]):
  """A few orders to start from: hill climbing alone can get stuck."""
  yield [list(layer) for layer in layers]
  yield [layers[0], *(layer[::-1] for layer in layers[1:])]
  for lanes_left in (True, False):
    yield [
      sorted(layer, key=lambda item: (item[0] == "lane") != lanes_left)
      for layer in layers
    ]


def order(graph: Graph) -> tuple[list[list[tuple]], set, list[dict]]:
  """Orders each layer's items and chooses which blocks swap their sides.

  The inputs keep their order: h_i on the left, earlier ones to the right.

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
    cost += sum(map(_disorder, layers))
    found.append((cost, layers, flipped, places))
  return min(found, key=lambda f: f[0])[1:]


def _climb(graph: Graph, layers) -> tuple[list[list[tuple]], set]:
  """Hill climbing: moves items and swaps sides while that helps."""
  flipped: set = set()

  def cost(level: int, layer, flips) -> float:
    """The cost of the gaps below and above a layer."""
    places = _pack(layer)
    below = _pack(layers[level - 1])
    total = _gap_cost(graph.links[level - 1], below, places, flips)
    total += _disorder(layer)
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


def separate(wanted: list[float], gaps: list[float]) -> list[float]:
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


def _places(graph: Graph, layers, flipped) -> list[dict[tuple, float]]:
  """x of each item's middle: near what it is linked to, without overlap."""
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
      places[level] = dict(zip(layer, separate(wanted, gaps), strict=True))
  return places


def _wanted(graph, places, flipped, level, item) -> float:
  """The mean of the places that pull at an item."""
  pulls = []
  if level > 0:
    for link in graph.links[level - 1]:
      if link.target == item:
        x = places[level - 1][link.source] - offset(link, flipped)
        pulls += [x] * _strength(link)
  if level < len(graph.links):
    for link in graph.links[level]:
      if link.source == item:
        x = places[level + 1][link.target] + offset(link, flipped)
        pulls += [x] * _strength(link)
  return sum(pulls) / len(pulls) if pulls else places[level][item]


def _strength(link: Link) -> int:
  """Lanes pull harder: a long edge should run straight."""
  return 4 if "lane" in (link.source[0], link.target[0]) else 1
