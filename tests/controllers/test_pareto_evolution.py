"""Evolution of several objectives: who is a parent, who dies, how it learns."""

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import base, evolution, journal, make
from nasnet_jax.pareto import fronts, hypervolume

LISTS = (4,) * 10


def key(i):
  return jax.random.fold_in(jax.random.key(3), i)


def told(controller, state, rewards):
  """The state after children with these rewards, in order."""
  rewards = np.array(rewards, np.float32)
  proposals, state = controller.ask(state, key(0), len(rewards))
  status = np.zeros(len(rewards), np.int32)
  return controller.tell(state, proposals, rewards, status)


def test_the_worst_by_rank_then_room_dies_and_of_equals_the_oldest():
  controller = evolution.evolution(LISTS, population=4, pareto=True)
  first = [[0, 4], [1, 3], [2, 2], [4, 0]]  # one front
  state = told(controller, controller.init(key(0)), first)
  beaten = told(controller, state, [[1, 1]])
  np.testing.assert_array_equal(beaten.rewards, first)
  assert beaten.serial.tolist() == [0, 1, 2, 3]
  assert int(beaten.born) == 5
  # Beats [1, 3] and [2, 2], of which the former has less room among the beaten.
  better = told(controller, state, [[3, 3]])
  places = fronts.standing(np.array([*first, [3, 3]]))
  assert places[1] == places[2] == places.max()  # both are ends of their front
  np.testing.assert_array_equal(better.rewards[1], [3, 3])  # the older one
  assert better.serial.tolist() == [0, 4, 2, 3]


def test_a_front_never_shrinks_whatever_comes():
  controller = evolution.evolution(LISTS, population=50, pareto=True)
  random, state, best = np.random.default_rng(0), controller.init(key(0)), 0.0
  for _ in range(20):
    rewards = random.normal(size=(7, 2))
    state = told(controller, state, rewards)
    now = hypervolume.hypervolume(state.rewards, [-9, -9])
    assert now >= best * (1 - 1e-12)  # rounding
    best = now


def test_a_parent_is_the_best_of_its_sample_by_rank_and_room():
  controller = evolution.evolution(
    LISTS, population=6, sample=40, identity=1.0, pareto=True
  )
  rewards = [[0, 4], [1, 1], [2, 2], [4, 0], [0, 0], [np.nan, 9]]
  state = told(controller, controller.init(key(0)), rewards)
  proposals, _ = controller.ask(state, key(1), 40)
  parents = {tuple(row) for row in proposals.decisions[1:]}  # the first: random
  ends = {tuple(state.decisions[0]), tuple(state.decisions[3])}
  assert parents == ends  # of a sample of 40 of 5 both are always there


def test_taught_children_are_the_best_by_rank_and_room():
  controller = evolution.evolution(LISTS, population=2, pareto=True)
  rewards = np.array([[0, 4], [1, 1], [4, 0], [0, 0]], np.float32)
  decisions = np.arange(40, dtype=np.int32).reshape(4, 10) % 4
  state = controller.teach(controller.init(key(0)), decisions, rewards)
  np.testing.assert_array_equal(state.rewards, rewards[[0, 2]])
  np.testing.assert_array_equal(state.decisions, decisions[[0, 2]])


def test_one_objective_that_is_not_finite_makes_a_child_a_failed_one():
  controller = evolution.evolution(LISTS, population=4, pareto=True)
  state = told(controller, controller.init(key(0)), [[0, 1], [9, np.inf]])
  assert int(state.born) == 1


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"objectives": 1}, "objectives is 1: pareto=True compares children in 2"),
    ({"ageing": False}, "ageing=False lets the worst of a sample die"),
  ],
)
def test_what_pareto_cannot_go_with_is_refused_in_a_line(options, words):
  with pytest.raises(ValueError, match=words) as error:
    make("evolution", LISTS, pareto=True, **options)
  assert "\n" not in str(error.value)


def test_rewards_of_another_number_of_objectives_are_refused():
  controller = make("evolution", LISTS, pareto=True, objectives=3)
  assert controller.objectives == 3
  proposals, state = controller.ask(controller.init(key(0)), key(1), 4)
  for rewards in (np.zeros(4), np.zeros((4, 2))):
    with pytest.raises(ValueError, match=r"not \(4, 3\)"):
      controller.tell(state, proposals, rewards, np.zeros(4, np.int32))
  assert make("evolution", LISTS).objectives == 1


def test_a_journal_has_lists_of_rewards_and_those_of_one_reward_as_before(
  tmp_path,
):
  path = tmp_path / "journal.jsonl"
  proposals, _ = base.number(0, np.zeros((2, 3), np.int32))
  status = np.zeros(2, np.int32)
  two = np.array([[0.9, -70_000], [np.nan, np.nan]], np.float32)
  journal.record_tell(path, proposals, two, status)
  journal.record_tell(path, proposals, np.array([0.9, np.nan]), status)
  assert path.read_text() == (
    '{"tell": [0, 1], "rewards": [[0.8999999761581421, -70000.0],'
    ' ["nan", "nan"]], "status": [0, 0]}\n'
    '{"tell": [0, 1], "rewards": [0.8999999761581421, "nan"],'
    ' "status": [0, 0]}\n'
  )
  several, one = journal.read(path)
  assert several.rewards.tobytes() == two.tobytes()
  assert one.rewards.shape == (2,)


def volume(controller, seed, children=300):
  """The hypervolume of what it finds between two landscapes."""
  random = np.random.default_rng(seed)
  tables = random.normal(size=(2, len(LISTS), 4))

  def rewards_of(decisions):
    alone = tables[:, np.arange(len(LISTS)), decisions]  # [2, n, D]
    pairs = np.tanh(3 * alone[..., :-1] * alone[..., 1:])
    return np.float32((alone.sum(-1) + pairs.sum(-1)).T / 10)

  state, found = controller.init(key(seed)), []
  for i in range(children // 20):
    rng = jax.random.fold_in(key(seed), i)
    proposals, state = controller.ask(state, rng, 20)
    found.append(rewards_of(proposals.decisions))
    rewards = found[-1] if controller.objectives > 1 else found[-1][:, 0]
    status = np.zeros(20, np.int32)
    state = controller.tell(state, proposals, rewards, status)
  return hypervolume.hypervolume(np.concatenate(found), [-2, -2])


def test_it_beats_random_search_and_a_search_of_one_objective():
  pareto = make("evolution", LISTS, population=20, sample=5, pareto=True)
  one = make("evolution", LISTS, population=20, sample=5)
  control = make("random_search", LISTS)
  found = np.array(
    [[volume(c, seed) for c in (pareto, one, control)] for seed in range(5)]
  )
  assert (found[:, 0] > found[:, 2]).all()
  assert (found[:, 0] > found[:, 1]).all()
  assert found[:, 0].mean() > 1.1 * found[:, 2].mean()
