"""The chains: a part of the PNAS space."""

import numpy as np
import pytest

from nasnet_jax import spaces

CHAIN = spaces.get("pnas_chain", num_blocks=5)
WHOLE = spaces.get("pnas", min_blocks=1)


def test_the_space_of_the_table_has_up_to_four_blocks():
  assert len(spaces.get("pnas_chain").all_cells()) == 4 + 16 + 64 + 256


def test_all_cells_are_those_of_one_to_five_blocks_of_four_kinds():
  cells = CHAIN.all_cells()
  counts = np.unique(cells[:, 0], return_counts=True)[1]
  assert counts.tolist() == [4, 16, 64, 256, 1024]
  assert (np.diff(cells[:, 0]) >= 0).all()


def test_no_two_chains_are_equal_as_cells_of_the_whole_space():
  cells = WHOLE.canonical(CHAIN.in_whole(CHAIN.all_cells()))
  assert len(np.unique(cells, axis=0)) == 1364


def test_a_block_reads_the_state_before_it_and_the_cell_before():
  cell = np.zeros(21, int)
  cell[0] = 2  # three blocks
  cell[[3, 4]] = 1, 1
  cell[[7, 8]] = 0, 1
  text = CHAIN.to_json(CHAIN.decode(cell))["cells"]["cell"]
  assert [b["inputs"] for b in text["blocks"]] == [[0, 1], [2, 1], [3, 1]]
  assert [b["operations"] for b in text["blocks"]] == [
    ["max_pool_3x3", "sep_conv_5x5"],
    ["sep_conv_3x3", "sep_conv_5x5"],
    ["sep_conv_3x3", "identity"],
  ]
  assert text["concat"] == [2, 3, 4]


def test_encode_is_the_inverse_of_decode():
  cells = CHAIN.all_cells()
  np.testing.assert_array_equal(CHAIN.encode(CHAIN.decode(cells)), cells)


def test_a_cell_that_is_no_chain_is_refused():
  chain = CHAIN.in_whole(CHAIN.all_cells()[100])
  for place, value in ((5, 0), (2, 0), (3, 1), (4, 2)):
    other = chain.copy()
    assert other[place] != value
    other[place] = value
    with pytest.raises(ValueError, match="none of space pnas_chain"):
      CHAIN.encode(WHOLE.decode(other))


def test_what_stands_behind_the_last_block_does_not_count():
  rng = np.random.default_rng(0)
  cells = CHAIN.sample(rng, 50)
  forms = CHAIN.canonical(cells)
  for cell, form in zip(cells, forms):
    assert CHAIN.to_json(CHAIN.decode(cell)) == CHAIN.to_json(
      CHAIN.decode(form)
    )
    assert (form[1 + 4 * (cell[0] + 1) :] == 0).all()


def test_its_operations_cannot_be_chosen():
  with pytest.raises(ValueError, match="operations of space pnas_chain"):
    spaces.get("pnas_chain", operations=("identity",))
  assert spaces.get("pnas_chain", **CHAIN.options) == CHAIN
