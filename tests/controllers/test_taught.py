"""Strategies that start from children of another search."""

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import make
from nasnet_jax.controllers.taught import taught

CHOICES = (3, 4, 2, 5)
OPTIONS = {
  "evolution": {"population": 8, "sample": 3},
  "genetic": {"population": 6},
  "local_search": {"memory": 40},
  "predictor_search": {"first": 4, "hidden": 4, "embedding": 2, "steps": 2},
}
COUNT = 6


def _key(i: int):
  return jax.random.fold_in(jax.random.key(3), i)


def _rewards(decisions) -> np.ndarray:
  return np.asarray(decisions).sum(-1).astype(np.float32) / 7


def _children(seed=0) -> np.ndarray:
  """Each another one."""
  places = np.random.default_rng(seed).permutation(120)[:COUNT]
  return np.stack(np.unravel_index(places, CHOICES), -1).astype(np.int32)


def _leaves(tree) -> list[bytes]:
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", ["evolution", "predictor_search"])
def test_a_taught_strategy_is_one_that_had_proposed_them_itself(name):
  controller = make(name, CHOICES, **OPTIONS[name])
  own, state = controller.ask(controller.init(_key(0)), _key(1), COUNT)
  rewards, ok = _rewards(own.decisions), np.zeros(COUNT, np.int32)
  state = controller.tell(state, own, rewards, ok)
  learnt = taught(controller, own.decisions, rewards)
  assert _leaves(learnt.init(_key(0))) == _leaves(state)
  after, state = controller.ask(state, _key(2), 4)
  first, _ = learnt.ask(learnt.init(_key(0)), _key(2), 4)
  np.testing.assert_array_equal(first.decisions, after.decisions)
  np.testing.assert_array_equal(first.id, np.arange(4))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("many", [1, 30])
def test_a_taught_search_keeps_its_shapes_and_counts_from_zero(name, many):
  controller = make(name, CHOICES, **OPTIONS[name])
  rows = np.tile(_children(), (-(-many // COUNT), 1))[:many]
  learnt = taught(controller, rows, _rewards(rows))
  state, ids = learnt.init(_key(0)), []
  shapes = [np.shape(x) for x in jax.tree.leaves(controller.init(_key(0)))]
  for turn in range(3):
    asked, state = learnt.ask(state, _key(turn), 5)
    ids += asked.id.tolist()
    ok = np.zeros(len(asked), np.int32)
    state = learnt.tell(state, asked, _rewards(asked.decisions), ok)
    assert [np.shape(x) for x in jax.tree.leaves(state)] == shapes
  assert ids == list(range(len(ids)))
  assert ids


def test_a_climb_starts_from_the_best_and_repeats_nobody():
  rows = _children()
  controller = make("local_search", CHOICES, **OPTIONS["local_search"])
  learnt = taught(controller, rows, _rewards(rows))
  asked, _ = learnt.ask(learnt.init(_key(0)), _key(1), 5)
  best = rows[_rewards(rows).argmax()]
  assert ((asked.decisions != best).sum(-1) == 1).all()
  known = {tuple(row) for row in rows.tolist()}
  assert not known & {tuple(row) for row in asked.decisions.tolist()}


def test_a_first_generation_comes_of_the_best_that_are_known():
  rows = np.concatenate([_children(), _children(1)])
  options = {"population": 6, "crossover": 0.0, "mutation": 0.0}
  learnt = taught(make("genetic", CHOICES, **options), rows, _rewards(rows))
  asked, _ = learnt.ask(learnt.init(_key(0)), _key(1), 6)
  best = np.argsort(-_rewards(rows), kind="stable")[:6]
  known = {tuple(row) for row in rows[best].tolist()}
  assert {tuple(row) for row in asked.decisions.tolist()} <= known


def test_evolution_without_ageing_keeps_the_best_of_too_many():
  rows = np.concatenate([_children(), _children(1)])
  options = {"population": 3, "sample": 2, "ageing": False}
  controller = make("evolution", CHOICES, **options)
  state = taught(controller, rows, _rewards(rows)).init(_key(0))
  best = np.sort(_rewards(rows))[-3:]
  np.testing.assert_array_equal(np.sort(state.rewards), best)
