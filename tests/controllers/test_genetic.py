"""Genetic CNN's algorithm: generations, selection, crossover, mutation."""

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import genetic
from nasnet_jax.spaces.stages import GENETIC_CNN

OK = np.zeros(20, np.int32)


def key(i):
  return jax.random.fold_in(jax.random.key(3), i)


def rng(i=0):
  return np.random.default_rng(i)


def told(controller, state, proposals, rewards, status=None):
  status = OK[: len(proposals)] if status is None else status
  return controller.tell(state, proposals, np.float32(rewards), status)


def test_the_first_generation_is_uniform():
  controller = genetic.genetic(GENETIC_CNN, population=2000)
  proposals, _ = controller.ask(controller.init(key(0)), key(1), 2000)
  share = proposals.decisions.mean(0)
  assert share.shape == (19,)
  np.testing.assert_allclose(share, 0.5, atol=0.06)


def test_the_next_generation_waits_for_the_whole_one():
  controller = genetic.genetic((2,) * 6, population=5)
  state = controller.init(key(0))
  first, state = controller.ask(state, key(1), 3)
  second, state = controller.ask(state, key(2), 9)
  none, state = controller.ask(state, key(3), 9)
  assert [len(p) for p in (first, second, none)] == [3, 2, 0]
  state = told(controller, state, second, [0.5, 0.6])
  assert not len(controller.ask(state, key(4), 9)[0])
  state = told(controller, state, first, [0.1, 0.2, 0.3])
  proposals, state = controller.ask(state, key(5), 9)
  assert len(proposals) == 5
  assert proposals.id.tolist() == [5, 6, 7, 8, 9]
  assert int(state.generation) == 1


def test_answers_find_their_individual_in_any_order():
  controller = genetic.genetic((2,) * 6, population=4)
  state = controller.init(key(0))
  proposals, state = controller.ask(state, key(1), 4)
  rewards = np.float32([0.1, 0.2, 0.3, 0.4])
  order = np.array([2, 0, 3, 1])
  state = told(controller, state, proposals.rows(order), rewards[order])
  np.testing.assert_array_equal(state.rewards, rewards)


def test_selection_goes_by_how_much_better_than_the_worst():
  rewards = np.float32([0.5, 0.6, 0.8, 0.5])
  drawn = genetic.select(rng(), np.arange(4)[:, None], rewards, 20_000)
  share = np.bincount(drawn[:, 0], minlength=4) / len(drawn)
  np.testing.assert_allclose(share, [0, 0.25, 0.75, 0], atol=0.015)


def test_equally_good_individuals_are_selected_alike():
  drawn = genetic.select(
    rng(), np.arange(2)[:, None], np.float32([0.5, 0.5]), 10_000
  )
  share = np.bincount(drawn[:, 0], minlength=2) / len(drawn)
  np.testing.assert_allclose(share, 0.5, atol=0.03)


def test_a_failed_individual_never_becomes_a_parent():
  controller = genetic.genetic(
    (9,) * 3, population=4, crossover=0.0, mutation=0.0
  )
  for seed in range(10):
    proposals, state = controller.ask(controller.init(key(0)), key(seed), 4)
    rewards, status = np.float32([0.1, 0.2, 0.9, 0.3]), np.array([0, 0, 1, 0])
    state = told(controller, state, proposals, rewards, status)
    after, _ = controller.ask(state, key(seed + 50), 4)
    parents = proposals.decisions[[1, 3]].tolist()
    assert all(row in parents for row in after.decisions.tolist())


def test_crossover_swaps_whole_groups_of_a_pair_and_nothing_else():
  groups = np.array([0, 0, 1, 1, 1, 2])
  parents = np.arange(7)[:, None] * np.ones((1, 6), int)
  counts, crossed_pairs = np.zeros(3), 0
  for i in range(1500):
    children, done = genetic.cross(rng(i), parents, groups, 0.4, 0.3)
    assert (done[0:6:2] == done[1:6:2]).all() and not done[6]
    for a in range(0, 6, 2):
      swapped = children[a] != a
      assert set(children[a]) <= {a, a + 1}
      np.testing.assert_array_equal(
        children[a + 1], np.where(swapped, a, a + 1)
      )
      for g in range(3):
        assert len(set(swapped[groups == g])) == 1
      if done[a]:
        crossed_pairs += 1
        counts += [swapped[groups == g][0] for g in range(3)]
      else:
        assert not swapped.any()
    assert (children[6] == 6).all()
  assert abs(crossed_pairs / 4500 - 0.4) < 0.03
  np.testing.assert_allclose(counts / crossed_pairs, 0.3, atol=0.04)


def test_mutation_changes_single_decisions_to_other_values():
  choices = np.array([2, 5, 1])
  children = np.tile([1, 3, 0], (4000, 1))
  crossed = np.arange(4000) % 2 == 0
  mutants = genetic.mutate(rng(), children, crossed, choices, 0.8, 0.1)
  np.testing.assert_array_equal(mutants[crossed], children[crossed])
  changed = (mutants != children)[~crossed]
  np.testing.assert_allclose(changed.mean(0)[:2], 0.08, atol=0.02)
  assert not changed[:, 2].any()
  values = mutants[~crossed][changed[:, 1], 1]
  assert set(values) == {0, 1, 2, 4}


def test_stages_are_what_crossover_swaps():
  controller = genetic.genetic(
    GENETIC_CNN,
    population=2,
    crossover=1.0,
    crossover_group=0.5,
    mutation=0.0,
  )
  groups = np.asarray(GENETIC_CNN.groups)
  mixed = 0
  for seed in range(20):
    proposals, state = controller.ask(controller.init(key(0)), key(seed), 2)
    state = told(controller, state, proposals, [0.5, 0.5])
    after, _ = controller.ask(state, key(seed + 100), 2)
    for g in range(3):
      parts = proposals.decisions[:, groups == g].tolist()
      assert all(
        row in parts for row in after.decisions[:, groups == g].tolist()
      )
    rows = proposals.decisions.tolist()
    mixed += any(row not in rows for row in after.decisions.tolist())
  assert mixed


def test_a_generation_of_failures_is_followed_by_a_random_one():
  controller = genetic.genetic((2,) * 8, population=6)
  state = controller.init(key(0))
  proposals, state = controller.ask(state, key(1), 6)
  state = told(controller, state, proposals, [np.nan] * 6)
  again, _ = controller.ask(state, key(2), 6)
  assert len(again) == 6
  assert (again.decisions != proposals.decisions).any()


@pytest.mark.parametrize("option", [{"population": 0}, {"mutation": 1.5}])
def test_impossible_options_are_refused(option):
  with pytest.raises(ValueError, match="population must be"):
    genetic.genetic((2, 2), **option)
