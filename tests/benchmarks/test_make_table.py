"""Which cells the table of trained cells holds."""

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.controllers import base


@pytest.fixture(scope="module")
def make_table(script):
  return script("make_table")


@pytest.fixture(scope="module")
def parts(make_table):
  return {p.name: p.cells for p in make_table.choose_cells(20, 3)}


def test_the_parts_are_what_they_say(make_table, parts):
  assert {name: len(cells) for name, cells in parts.items()} == {
    "repeated": 60,
    "one_block": 136,  # Liu et al. 2018, section 3.1
    "chain": 336,  # the space "pnas_chain" has four cells of one block more
    "random": 80,
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
  # The noise is also asked of three chains of five blocks.
  chains = spaces.get("pnas_chain", num_blocks=5)
  longest = make_table.SPACE.canonical(chains.in_whole(chains.all_cells()))
  known = {row.tobytes() for row in [*cells, *longest]}
  assert all(row.tobytes() in known for row in parts["repeated"])
  again = np.unique(parts["repeated"], axis=0)
  assert np.unique(again[:, 0], return_counts=True)[1].tolist() == [6] * 5
  np.testing.assert_array_equal(parts["repeated"][::2], parts["repeated"][1::2])


def test_the_list_is_proposed_in_its_order_and_ends(make_table, parts):
  cells = parts["random"][:12]
  controller = make_table.from_list(cells)
  state = controller.init(jax.random.key(0))
  found = []
  for n in (5, 5, 5, 5):
    proposals, state = controller.ask(state, jax.random.key(1), n)
    rewards = np.zeros(len(proposals), np.float32)
    state = controller.tell(state, proposals, rewards, rewards.astype(int))
    found.append(proposals)
  assert [len(p) for p in found] == [5, 5, 2, 0]
  joined = base.join(found)
  np.testing.assert_array_equal(joined.decisions, cells)
  assert joined.id.tolist() == list(range(12))


def test_noise_is_told_apart_from_the_differences_of_cells(make_table):
  rng = np.random.default_rng(0)
  rows = []
  for level in (0, 3):
    for _ in range(400):
      cell = rng.normal(0.3, 0.02)
      for _ in range(2):
        reward = cell + rng.normal(0, 0.01)
        rows.append({"decisions": [level], "reward": reward})
  rows[1]["reward"] = None  # a training that failed
  found = [line.split(", ") for line in make_table.noise(rows).split("\n")[1:]]
  assert [line[:2] for line in found] == [["1", "399"], ["4", "400"]]
  for line in found:
    assert float(line[3]) == pytest.approx(0.02, rel=0.15)
    assert float(line[4]) == pytest.approx(0.01, rel=0.15)
