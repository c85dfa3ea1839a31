"""Which cells the table of trained cells holds."""

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import base


@pytest.fixture(scope="module")
def make_table(script):
  return script("make_table")


@pytest.fixture(scope="module")
def parts(make_table):
  return {p.name: p.cells for p in make_table.choose_cells(20, 6)}


def test_the_parts_are_what_they_say(make_table, parts):
  assert {name: len(cells) for name, cells in parts.items()} == {
    "one_block": 136,  # Liu et al. 2018, section 3.1
    "chain": 1360,
    "random": 80,
    "repeated": 12,
  }
  assert (parts["one_block"][:, 0] == 0).all()
  levels = np.unique(parts["random"][:, 0], return_counts=True)
  assert levels[0].tolist() == [1, 2, 3, 4]
  assert levels[1].tolist() == [20] * 4


def test_all_cells_are_canonical_and_different_but_the_repeated(
  make_table, parts
):
  once = [parts[name] for name in ("one_block", "chain", "random")]
  cells = np.concatenate(once)
  np.testing.assert_array_equal(make_table.SPACE.canonical(cells), cells)
  assert len(np.unique(cells, axis=0)) == len(cells)
  known = {row.tobytes() for row in cells}
  assert all(row.tobytes() in known for row in parts["repeated"])
  assert len(np.unique(parts["repeated"], axis=0)) == 6


def test_the_list_is_proposed_in_its_order_and_ends(make_table, parts):
  controller = make_table.from_list(parts["repeated"])
  state = controller.init(jax.random.key(0))
  found = []
  for n in (5, 5, 5, 5):
    proposals, state = controller.ask(state, jax.random.key(1), n)
    rewards = np.zeros(len(proposals), np.float32)
    state = controller.tell(state, proposals, rewards, rewards.astype(int))
    found.append(proposals)
  assert [len(p) for p in found] == [5, 5, 2, 0]
  joined = base.join(found)
  np.testing.assert_array_equal(joined.decisions, parts["repeated"])
  assert joined.id.tolist() == list(range(12))
