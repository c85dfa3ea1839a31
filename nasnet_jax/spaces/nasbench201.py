"""The space of NAS-Bench-201 (Dong and Yang 2020): 15,625 small cells.

A cell has four nodes: 0 is its input, 3 its output. Each pair of nodes is an
edge with one of five operations; a node is the sum of what its edges bring.
The decisions are the edges' operations in the order of `EDGES`. Architectures
are the strings of the paper's code:

    |op~0|+|op~0|op~1|+|op~0|op~1|op~2|

one group per node 1, 2, 3, one "operation~from" per edge.
"""

import dataclasses
import functools
import itertools
import re

import numpy as np

from nasnet_jax.spaces import base

OPERATIONS = (
  "none",
  "skip_connect",
  "nor_conv_1x1",
  "nor_conv_3x3",
  "avg_pool_3x3",
)
NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))  # (to, from)


@dataclasses.dataclass(frozen=True)
class NasBench201Space:
  """See the top of this file, and `base.SearchSpace`."""

  name: str = "nasbench201"

  @property
  def num_choices(self) -> tuple[int, ...]:
    return (len(OPERATIONS),) * len(EDGES)

  @property
  def decision_names(self) -> tuple[str, ...]:
    return tuple(f"operation {to}<-{source}" for to, source in EDGES)

  @property
  def kinds(self) -> tuple[str, ...]:
    return ("operation",) * len(EDGES)

  @property
  def groups(self) -> tuple[int, ...]:
    """A group is a node, with the edges that lead to it."""
    return tuple(to - 1 for to, _ in EDGES)

  def decode(self, decisions) -> np.ndarray:
    """int[..., 6] -> strings [...]."""
    decisions = base.check_decisions(self.num_choices, decisions)
    rows = decisions.reshape(-1, len(EDGES))
    texts = [_join(OPERATIONS[op] for op in row) for row in rows]
    return np.array(texts, str).reshape(decisions.shape[:-1])

  def encode(self, architecture) -> np.ndarray:
    """Strings [...] -> int32[..., 6].

    Raises:
      ValueError: for a string that is no cell of this space.
    """
    texts = np.asarray(architecture)
    rows = [_row(str(text)) for text in texts.reshape(-1)]
    return np.array(rows, np.int32).reshape(*texts.shape, len(EDGES))

  def canonical(self, decisions) -> np.ndarray:
    """int[n, 6] -> int32[n, 6]: one cell for all that compute the same.

    Equal cells have the same trained functions, up to the order of sums: an
    edge is nothing (`none`), its source again (`skip_connect`), the average
    of each summand of its source (pooling is linear), or a ReLU, convolution
    and batch norm with weights of its own. Edges that do not reach the output
    do not count (their unused weights do, in a cell's parameters), and of
    nothing a batch norm makes its bias, whatever the kernel. Twice the same
    summand is not taken for once, though a batch norm behind it nearly
    undoes that.
    """
    decisions = base.check_decisions(self.num_choices, decisions)
    return _representatives()[row_number(decisions)]


def row_number(decisions) -> np.ndarray:
  """int[..., 6] -> int64[...]: place in the order of `all_cells`."""
  return np.ravel_multi_index(
    np.moveaxis(np.asarray(decisions), -1, 0), (len(OPERATIONS),) * len(EDGES)
  )


def all_cells() -> np.ndarray:
  """int32[15625, 6] in lexicographic order."""
  choices = itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
  return np.array(list(choices), np.int32)


def _join(names) -> str:
  """The string of a cell from its operations' names."""
  nodes = {to: "|" for to, _ in EDGES}
  for (to, source), name in zip(EDGES, names):
    nodes[to] += f"{name}~{source}|"
  return "+".join(nodes.values())


def _row(text: str) -> list[int]:
  groups = [re.findall(r"([^|~]+)~(\d)\|", g) for g in text.split("+")]
  edges = [(to, int(k)) for to, g in enumerate(groups, 1) for _, k in g]
  names = [op for g in groups for op, _ in g]
  if edges != list(EDGES) or _join(names) != text:
    raise ValueError(
      f"{text!r} is no cell of NAS-Bench-201: |op~0|+|op~0|op~1|+..."
    )
  unknown = [op for op in names if op not in OPERATIONS]
  if unknown:
    raise ValueError(
      f"operation {unknown[0]!r} is not one of: {', '.join(OPERATIONS)}"
    )
  return [OPERATIONS.index(op) for op in names]


# --- which cells compute the same ------------------------------------------
#
# A value is a sorted tuple of summands (name, poolings). The name of the
# cell's input is (); that of a convolution is a tuple that tells which one.

_BIAS = -1  # a batch norm of nothing


@functools.cache
def _representatives() -> np.ndarray:
  """int32[15625, 6]: for each cell the first that computes the same."""
  cells = all_cells()
  first: dict[tuple, int] = {}
  places = [
    first.setdefault(_function(tuple(map(int, row))), i)
    for i, row in enumerate(cells)
  ]
  return cells[places]


def _function(ops: tuple[int, ...]) -> tuple:
  """What a cell computes, written so that equal functions are equal tuples.

  Convolutions are numbered in the order of what they compute; where several
  compute the same of the same, all numberings are tried and the smallest
  result is kept.
  """
  output, convs = _expand(ops, {e: (e,) for e in range(len(EDGES))})
  live = _reached(output, convs)
  trees = _expand(ops, None)[1]
  order = sorted(live, key=lambda edge: trees[edge])
  twins = [list(g) for _, g in itertools.groupby(order, trees.__getitem__)]
  found = []
  for shuffled in itertools.product(*map(itertools.permutations, twins)):
    numbered = list(itertools.chain(*shuffled))
    names = {edge: (number,) for number, edge in enumerate(numbered)}
    names |= {e: (len(EDGES) + e,) for e in range(len(EDGES)) if e not in names}
    output, convs = _expand(ops, names)
    found.append((output, tuple(convs[edge] for edge in numbered)))
  return min(found)


def _expand(ops, names) -> tuple[tuple, dict[int, tuple]]:
  """(value of node 3, {edge: (operation, value of its source)} of all
  convolutions).

  Args:
    names: edge -> the name of its convolution; None: its own definition.
  """
  values = [[((), 0)], [], [], []]
  convs, constants = {}, set()
  for edge, ((to, source), op) in enumerate(zip(EDGES, ops)):
    value = tuple(sorted(values[source]))
    if op == SKIP:
      values[to] += value
    elif op == POOL:
      values[to] += [
        (name, 0 if name in constants else times + 1) for name, times in value
      ]
    elif op != NONE:
      convs[edge] = (op if value else _BIAS, value)
      name = names[edge] if names else convs[edge]
      values[to].append((name, 0))
      if not value:
        constants.add(name)
  return tuple(sorted(values[3])), convs


def _reached(output: tuple, convs: dict[int, tuple]) -> set[int]:
  """Edges of the convolutions that the output is made of; each is named by
  its edge."""
  live, waiting = set(), [output]
  while waiting:
    for name, _ in waiting.pop():
      if name and name[0] not in live:
        live.add(name[0])
        waiting.append(convs[name[0]][1])
  return live


NASBENCH201 = NasBench201Space()
