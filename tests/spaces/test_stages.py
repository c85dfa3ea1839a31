"""Genetic CNN's space: bits, graphs, equal graphs, JSON."""

import itertools
import json

import numpy as np
import pytest

from nasnet_jax.spaces import base, stages
from nasnet_jax.spaces.stages import GENETIC_CNN, StageGenotype, StageSpace

SMALL = StageSpace("small", (4,))


def test_the_space_is_a_search_space():
  assert isinstance(GENETIC_CNN, base.SearchSpace)


@pytest.mark.parametrize(
  ("nodes", "bits"), [((3, 5), 13), ((3, 4, 5), 19), ((2,), 1)]
)
def test_bits_are_the_papers(nodes, bits):
  space = StageSpace("s", nodes)
  assert space.num_choices == (2,) * bits
  assert len(space.kinds) == len(space.groups) == bits
  assert len(set(space.decision_names)) == bits


def test_bits_come_node_by_node():
  assert StageSpace("s", (4,)).pairs == (
    (0, 0, 1),
    (0, 0, 2),
    (0, 1, 2),
    (0, 0, 3),
    (0, 1, 3),
    (0, 2, 3),
  )
  decisions = np.zeros(19, int)
  decisions[3 + 2] = 1
  edges = GENETIC_CNN.decode(decisions).edges
  assert np.argwhere(edges).tolist() == [[1, 1, 2]]
  assert GENETIC_CNN.decision_names[5] == "stage 1 edge 1 to 2"
  assert GENETIC_CNN.groups[5] == 1


def test_decisions_and_graphs_translate_both_ways():
  decisions = GENETIC_CNN.sample(np.random.default_rng(0), 50)
  genotype = GENETIC_CNN.decode(decisions)
  np.testing.assert_array_equal(GENETIC_CNN.encode(genotype), decisions)
  one = GENETIC_CNN.decode(decisions[0])
  again = GENETIC_CNN.from_json(
    json.loads(json.dumps(GENETIC_CNN.to_json(one)))
  )
  np.testing.assert_array_equal(again.edges, one.edges)


def _names(edges, order):
  return {(order.index(i), order.index(j)) for i, j in edges}


def test_equal_graphs_and_only_they_share_a_canonical_row():
  everything = np.array(list(itertools.product((0, 1), repeat=6)))
  canonical = SMALL.canonical(everything)
  graphs = [
    frozenset(map(tuple, np.argwhere(SMALL.decode(row).edges[0])))
    for row in everything
  ]
  for a, b in itertools.combinations(range(64), 2):
    equal = any(
      _names(graphs[a], list(order)) == graphs[b]
      for order in itertools.permutations(range(4))
    )
    assert equal == (canonical[a] == canonical[b]).all()
  np.testing.assert_array_equal(SMALL.canonical(canonical), canonical)


@pytest.mark.parametrize(
  ("edges", "line"),
  [([[1, 0]], "no edge from node 1"), ([[0, 4]], "no edge from node 0 to")],
)
def test_impossible_edges_are_named(edges, line):
  with pytest.raises(ValueError, match=line):
    SMALL.from_json({"stages": [{"nodes": 4, "edges": edges}]})


def test_graphs_of_another_space_are_refused():
  with pytest.raises(ValueError, match="stages of"):
    SMALL.from_json(GENETIC_CNN.to_json(GENETIC_CNN.decode(np.zeros(19, int))))
  backwards = np.zeros((1, 4, 4), bool)
  backwards[0, 2, 1] = True
  with pytest.raises(ValueError, match="leads back"):
    SMALL.encode(StageGenotype(backwards))


@pytest.mark.parametrize("nodes", [(), (1, 3), (3, stages.MOST_NODES + 1)])
def test_impossible_numbers_of_nodes_are_refused(nodes):
  with pytest.raises(ValueError, match="nodes"):
    StageSpace("s", nodes)
