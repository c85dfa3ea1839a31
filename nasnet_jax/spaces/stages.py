"""Genetic CNN's space: binary graphs of convolutions, stage by stage.

Xie & Yuille 2017, section 3.1: a network is S stages with pooling between
them, and stage s has K_s ordered nodes. One bit for each pair i < j of a
stage's nodes says whether node j reads node i; the bits of node 1's inputs
come first, then those of node 2's, and so on.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.spaces import base

# More would make `canonical` try more than 5,040 orders of nodes.
MOST_NODES = 7


class StageGenotype(NamedTuple):
  """The graphs of a network; a pytree, so that many can be stacked.

  Attributes:
    edges: bool[..., S, K, K]; edges[s, i, j]: node j of stage s reads node i.
      Only i < j; stages with fewer than K nodes have False beyond theirs.
  """

  edges: Any


@dataclasses.dataclass(frozen=True)
class StageSpace:
  """All networks of stages with so many nodes.

  Attributes:
    name: key in `SPACES`.
    nodes: K_s of each stage.
  """

  name: str
  nodes: tuple[int, ...]

  def __post_init__(self):
    if not self.nodes or not 2 <= min(self.nodes) <= max(self.nodes) <= (
      MOST_NODES
    ):
      raise ValueError(
        f"space.nodes is {self.nodes}: give each stage 2 to {MOST_NODES} nodes"
      )

  @property
  def options(self) -> dict[str, Any]:
    """What `spaces.get` needs beside the name; JSON can hold it."""
    return {"nodes": list(self.nodes)}

  @property
  def summary(self) -> str:
    """The space in a few words."""
    return f"stages of {', '.join(map(str, self.nodes))} nodes"

  @property
  def pairs(self) -> tuple[tuple[int, int, int], ...]:
    """(stage, i, j) of each bit: node j of the stage may read node i."""
    return tuple(
      (stage, i, j)
      for stage, nodes in enumerate(self.nodes)
      for j in range(1, nodes)
      for i in range(j)
    )

  @property
  def num_choices(self) -> tuple[int, ...]:
    return (2,) * len(self.pairs)

  @property
  def decision_names(self) -> tuple[str, ...]:
    return tuple(f"stage {s} edge {i} to {j}" for s, i, j in self.pairs)

  @property
  def kinds(self) -> tuple[str, ...]:
    return ("edge",) * len(self.pairs)

  @property
  def groups(self) -> tuple[int, ...]:
    """A group is a stage: what crossover swaps whole."""
    return tuple(stage for stage, _, _ in self.pairs)

  def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
    return base.sample(self.num_choices, rng, n)

  def neighbours(self, decisions) -> np.ndarray:
    return base.neighbours(self.num_choices, decisions)

  def decode(self, decisions) -> StageGenotype:
    """int[..., D] -> StageGenotype with edges [..., S, K, K]."""
    decisions = base.check_decisions(self.num_choices, decisions)
    most = max(self.nodes)
    shape = (*decisions.shape[:-1], len(self.nodes), most, most)
    edges = np.zeros(shape, bool)
    edges[self._places()] = decisions
    return StageGenotype(edges)

  def encode(self, genotype: StageGenotype) -> np.ndarray:
    """StageGenotype -> int32[..., D].

    Raises:
      ValueError: for an edge that no decision of this space makes.
    """
    edges = np.asarray(genotype.edges, bool)
    most = max(self.nodes)
    if edges.shape[-3:] != (len(self.nodes), most, most):
      raise ValueError(
        f"edges of shape {edges.shape[-3:]} are not those of {self.nodes} nodes"
      )
    decisions = edges[self._places()].astype(np.int32)
    if (self.decode(decisions).edges != edges).any():
      raise ValueError("an edge leads back, or to a node that a stage lacks")
    return decisions

  def _places(self):
    """Index of all bits' places in edges, in the order of decisions."""
    stages, i, j = np.array(self.pairs).T
    return (..., stages, i, j)

  def canonical(self, decisions) -> np.ndarray:
    """int[n, D] -> int32[n, D]: one representative per set of equal networks.

    Nodes of a stage all do the same, so their order does not matter: of all
    orders in which edges lead forward, the one with the smallest bits is kept.
    """
    decisions = base.check_decisions(self.num_choices, decisions)
    edges = self.decode(decisions.reshape(-1, decisions.shape[-1])).edges
    best = edges.copy()
    for stage, nodes in enumerate(self.nodes):
      best[:, stage, :nodes, :nodes] = _canonical_stage(
        edges[:, stage, :nodes, :nodes]
      )
    return self.encode(StageGenotype(best)).reshape(decisions.shape)

  def key(self, decisions) -> str:
    """A hash that equal networks share. decisions: int[D]."""
    return base.key(self, decisions)

  def to_json(self, genotype: StageGenotype) -> dict[str, Any]:
    """A readable dict; `from_json` is the inverse."""
    decisions = self.encode(genotype)
    stages = [{"nodes": nodes, "edges": []} for nodes in self.nodes]
    for bit, (stage, i, j) in zip(decisions, self.pairs, strict=True):
      if bit:
        stages[stage]["edges"].append([i, j])
    return {"space": self.name, "stages": stages}

  def from_json(self, data: dict[str, Any]) -> StageGenotype:
    """The genotype of a dict as `to_json` writes it; ValueError in a line."""
    stages = data.get("stages", [])
    nodes = tuple(stage.get("nodes") for stage in stages)
    if nodes != self.nodes:
      raise ValueError(
        f"stages of {nodes} nodes are not the space's {self.nodes}"
      )
    most = max(self.nodes)
    edges = np.zeros((len(self.nodes), most, most), bool)
    for s, stage in enumerate(stages):
      for i, j in stage["edges"]:
        if not 0 <= i < j < self.nodes[s]:
          raise ValueError(f"stage {s} has no edge from node {i} to node {j}")
        edges[s, i, j] = True
    return StageGenotype(edges)


def _canonical_stage(edges: np.ndarray) -> np.ndarray:
  """bool[n, K, K] -> the smallest of all legal orders of nodes, per row."""
  nodes = edges.shape[-1]
  bits = [(i, j) for j in range(1, nodes) for i in range(j)]
  weights = np.zeros((nodes, nodes), np.int64)
  for place, (i, j) in enumerate(reversed(bits)):
    weights[i, j] = 1 << place
  best = (edges * weights).sum((1, 2))
  result = edges.copy()
  for order in itertools.permutations(range(nodes)):
    moved = edges[:, order][:, :, order]
    number = (moved * weights).sum((1, 2))
    better = (number < best) & ~np.tril(moved).any((1, 2))
    best = np.where(better, number, best)
    result[better] = moved[better]
  return result


# Xie & Yuille 2017: S = 3, K = (3, 4, 5) on CIFAR-10 and (3, 5) on MNIST.
GENETIC_CNN = StageSpace("genetic_cnn", (3, 4, 5))
