"""Published cells against their sources, written down independently."""

import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.spaces.cell_literals import from_slim

# tensorflow/models, research/slim/nets/nasnet/nasnet_utils.py: the arguments
# of NasNetANormalCell and NasNetAReductionCell.
NASNET_A_SLIM = {
  "normal": (
    [
      "separable_5x5_2",
      "separable_3x3_2",
      "separable_5x5_2",
      "separable_3x3_2",
      "avg_pool_3x3",
      "none",
      "avg_pool_3x3",
      "avg_pool_3x3",
      "separable_3x3_2",
      "none",
    ],
    [0, 1, 1, 1, 0, 1, 1, 1, 0, 0],
    [1, 0, 0, 0, 0, 0, 0],
  ),
  "reduction": (
    [
      "separable_5x5_2",
      "separable_7x7_2",
      "max_pool_3x3",
      "separable_7x7_2",
      "avg_pool_3x3",
      "separable_5x5_2",
      "none",
      "avg_pool_3x3",
      "separable_3x3_2",
      "max_pool_3x3",
    ],
    [0, 1, 0, 1, 0, 1, 3, 2, 2, 0],
    [1, 1, 1, 0, 0, 0, 0],
  ),
}


@pytest.mark.smoke
def test_nasnet_a_is_the_cell_of_slim():
  assert {
    name: from_slim(*lists) for name, lists in NASNET_A_SLIM.items()
  } == zoo.cells.NASNET_A


@pytest.mark.smoke
def test_nasnet_a_concatenates_six_and_four_states():
  # The released sizes need these; the paper's figure shows five and three.
  genotype = zoo.cells.genotype("nasnet_a")
  assert genotype.concat.sum(-1).tolist() == [6, 4]
  drawn = gt.loose_ends(genotype.inputs, genotype.active)
  assert drawn.sum(-1).tolist() == [5, 3]


def test_every_published_cell_is_valid_in_its_space():
  for name, (space, _) in zoo.cells.CELLS.items():
    genotype = gt.validate(zoo.cells.genotype(name), len(space.operations))
    assert genotype.num_cells == len(space.cells)
    assert genotype.active.all()


def test_a_genotype_is_the_literal_in_numbers():
  operations = zoo.cells.NASNET.operations
  genotype = zoo.cells.genotype("nasnet_a")
  for c, cell in enumerate(("normal", "reduction")):
    blocks, concat = zoo.cells.NASNET_A[cell]
    for b, (left, right, op1, op2) in enumerate(blocks):
      assert genotype.inputs[c, b].tolist() == [left, right]
      assert [operations[o] for o in genotype.ops[c, b]] == [op1, op2]
    assert np.flatnonzero(genotype.concat[c]).tolist() == concat
  assert (genotype.combine == gt.ADD).all()


def test_an_unknown_name_is_named_with_those_known():
  with pytest.raises(ValueError, match="'nasnet_z' is not one of: nasnet_a"):
    zoo.cells.genotype("nasnet_z")
