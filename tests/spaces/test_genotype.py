"""What makes a genotype legal, and what its default output is."""

import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.spaces import SPACES
from nasnet_jax.spaces import genotype as gt

NASNET_A = zoo.cells.genotype("nasnet_a")
NUM_OPERATIONS = len(SPACES["nasnet"].operations)


def _changed(leaf, index, value):
  array = np.array(getattr(NASNET_A, leaf))
  array[index] = value
  return NASNET_A._replace(**{leaf: array})


@pytest.mark.smoke
def test_validate_keeps_values_and_sets_types():
  loose = gt.Genotype(*(np.asarray(x).tolist() for x in NASNET_A))
  valid = gt.validate(loose, NUM_OPERATIONS)
  for got, want in zip(valid, NASNET_A):
    np.testing.assert_array_equal(got, want)
  kinds = [leaf.dtype for leaf in valid]
  assert kinds == [np.int32, np.int32, np.int32, bool, bool]


@pytest.mark.parametrize(
  ("genotype", "line"),
  [
    (_changed("inputs", (0, 1, 0), 3), "not computed before it"),
    (_changed("inputs", (0, 1, 0), -1), "not computed before it"),
    (_changed("ops", (1, 4, 1), 13), "an operation is outside 0..12"),
    (_changed("ops", (1, 4, 1), -1), "an operation is outside 0..12"),
    (_changed("combine", (0, 0), 4), "no index into add, concat, add_layer"),
    (_changed("combine", (0, 0), -1), "no index into add, concat, add_layer"),
    (_changed("active", (0, 2), False), "must come before inactive ones"),
    (_changed("active", (0, 4), False), "contains an inactive block"),
    (_changed("concat", 1, False), "a cell concatenates no state"),
    (
      NASNET_A._replace(ops=NASNET_A.ops[:, :4]),
      "genotype.ops has shape (2, 4, 2), not (2, 5, 2)",
    ),
    (
      NASNET_A._replace(concat=NASNET_A.concat[:, :5]),
      "genotype.concat has shape (2, 5), not (2, 7)",
    ),
  ],
)
def test_validate_names_the_fault_in_one_line(genotype, line):
  with pytest.raises(ValueError) as error:
    gt.validate(genotype, NUM_OPERATIONS)
  assert line in str(error.value)
  assert "\n" not in str(error.value)


def test_cells_of_four_inputs_count_blocks_from_state_four():
  blocks = np.zeros((1, 2, 2), int)
  genotype = gt.Genotype(
    blocks, blocks, blocks[..., 0], blocks[..., 0] == 0, np.ones((1, 6), bool)
  )
  inputs = blocks.copy()
  inputs[0, 1] = 3, 4
  gt.validate(genotype._replace(inputs=inputs), 1, num_inputs=4)
  inputs[0, 1] = 3, 5
  with pytest.raises(ValueError, match="not computed before it"):
    gt.validate(genotype._replace(inputs=inputs), 1, num_inputs=4)
  with pytest.raises(ValueError, match=r"has shape \(1, 6\), not \(1, 4\)"):
    gt.validate(genotype, 1)


def test_a_block_may_read_its_direct_predecessor():
  gt.validate(_changed("inputs", (0, 1, 0), 2), NUM_OPERATIONS)


def _slow_loose_ends(inputs, active):
  read = {s for b, on in enumerate(active) if on for s in inputs[b]}
  return [False, False] + [
    bool(on) and k + 2 not in read for k, on in enumerate(active)
  ]


def test_loose_ends_are_the_active_blocks_that_no_active_block_reads():
  rng = np.random.default_rng(0)
  space = SPACES["nasnet"]
  inputs = space.decode(space.sample(rng, 200)).inputs
  active = np.arange(5) < rng.integers(1, 6, (200, 2, 1))
  got = gt.loose_ends(inputs, active)
  for row in np.ndindex(200, 2):
    assert got[row].tolist() == _slow_loose_ends(inputs[row], active[row])


def test_padding_adds_inactive_blocks_and_changes_nothing_else():
  padded = gt.validate(gt.pad_blocks(NASNET_A, 8), NUM_OPERATIONS)
  assert padded.num_blocks == 8
  assert not padded.active[:, 5:].any()
  np.testing.assert_array_equal(padded.inputs[:, :5], NASNET_A.inputs)
  np.testing.assert_array_equal(padded.ops[:, :5], NASNET_A.ops)
  np.testing.assert_array_equal(padded.concat[:, :7], NASNET_A.concat)
  assert not padded.concat[:, 7:].any()


def test_padding_to_fewer_blocks_is_an_error():
  with pytest.raises(ValueError, match="5 blocks does not fit in 4"):
    gt.pad_blocks(NASNET_A, 4)


def test_stacked_genotypes_are_a_population():
  population = gt.stack([NASNET_A, NASNET_A, NASNET_A])
  assert population.inputs.shape == (3, 2, 5, 2)
  assert population.num_cells == 2
  assert population.num_blocks == 5
  np.testing.assert_array_equal(population.concat[1], NASNET_A.concat)
