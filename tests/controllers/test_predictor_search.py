"""Search led by a predictor, on lists of decisions."""

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.controllers import base, make, predictors, surrogate
from nasnet_jax.controllers.predictor_search import mutate, near_best, spread

LIST = (3, 2, 4, 1, 5)  # 120 architectures
LARGE = (4, 5, 3, 2) * 5  # 6e10
OPTIONS = {"hidden": 8, "embedding": 4, "steps": 30}


def key(i):
  return jax.random.fold_in(jax.random.key(6), i)


def reward(decisions):
  """f32[n]: each decision has a best choice, and two must fit together."""
  value = np.cos(decisions * 1.7 + np.arange(decisions.shape[1])).sum(-1)
  value += 2.0 * (decisions[:, 0] == decisions[:, 2])
  return np.float32(0.8 + 0.01 * value)


def tell(controller, state, proposals, rewards=None):
  if rewards is None:
    rewards = reward(proposals.decisions)
  status = np.zeros(len(proposals), np.int32)
  return controller.tell(state, proposals, rewards, status)


def play(controller, sizes, seed=0, reward=reward):
  """(decisions of each ask, the last state), all answered at once."""
  state, asked = controller.init(key(seed)), []
  for i, n in enumerate(sizes):
    proposals, state = controller.ask(state, key(100 * seed + i), n)
    state = tell(controller, state, proposals, reward(proposals.decisions))
    asked.append(proposals.decisions)
  return asked, state


@pytest.fixture
def fits(monkeypatch):
  """A list that gets the number of answers of every fit."""
  calls, original = [], surrogate.fit

  def fit(predictor, params, inputs, targets, rows, rng, **options):
    calls.append(len(rows))
    return original(predictor, params, inputs, targets, rows, rng, **options)

  monkeypatch.setattr(surrogate, "fit", fit)
  return calls


def test_one_fit_serves_several_asks(fits):
  controller = make("predictor_search", LIST, first=6, per_fit=4, **OPTIONS)
  play(controller, [1] * 16)
  assert fits == [6, 10, 14]  # the first six were random
  fits.clear()
  play(controller, [6, 3, 3, 9])
  # One proposal of the first fit is left when three are wanted.
  assert fits == [6, 9, 12]


def test_without_answers_proposals_stay_random(fits):
  controller = make("predictor_search", LARGE, first=6, **OPTIONS)
  state, seen = controller.init(key(0)), []
  for i in range(4):
    proposals, state = controller.ask(state, key(i), 6)
    seen.append(proposals.decisions)
  assert fits == []
  assert len(np.unique(np.concatenate(seen), axis=0)) == 24
  failed = np.full(6, base.FAILED, np.int32)
  state = controller.tell(state, proposals, np.zeros(6), failed)
  controller.ask(state, key(5), 6)
  assert fits == []


@pytest.mark.parametrize("exploration", [0.0, 2.0])
def test_it_proposes_the_best_of_all_that_is_new(monkeypatch, exploration):
  controller = make(
    "predictor_search",
    LIST,
    first=10,
    exploration=exploration,
    near=0.0,
    **OPTIONS,
  )
  asked, state = play(controller, [10])
  scored = {}

  def predict(predictor, params, inputs, *, blocks):
    rng = np.random.default_rng(0)
    scored["inputs"] = inputs
    scored["members"] = rng.uniform(size=(5, len(inputs))).astype(np.float32)
    return scored["members"]

  monkeypatch.setattr(surrogate, "predict", predict)
  proposals, _ = controller.ask(state, key(1), 7)
  assert len(scored["inputs"]) == 120 - 10
  members = scored["members"]
  scores = members.mean(0) + exploration * members.std(0)
  best = scored["inputs"][np.argsort(-scores)[:7]]
  choices = predictors.list_tokens(proposals.decisions)
  model = predictors.Mlp(predictors.list_vocabulary(LIST))
  np.testing.assert_array_equal(model.inputs(choices), best)
  everything = np.concatenate([*asked, proposals.decisions])
  assert len(np.unique(everything, axis=0)) == 17


@pytest.mark.parametrize("choices", [LIST, LARGE])
def test_a_share_of_the_proposals_are_neighbours_of_the_best(choices):
  def ask(near, n=10):
    controller = make(
      "predictor_search", choices, first=12, near=near, **OPTIONS
    )
    (first,), state = play(controller, [12])
    proposals, _ = controller.ask(state, key(1), n)
    best = first[np.argmax(reward(first))]
    return first, proposals.decisions, (proposals.decisions != best).sum(-1)

  _, plain, _ = ask(0.0)
  first, some, changes = ask(0.3)
  assert (changes[-3:] == 1).all()
  known = {row.tobytes() for row in plain}
  # The predictor's best come first; they leave room for the neighbours only.
  kept = [row.tobytes() in known for row in some]
  assert all(kept[:7])
  everything = np.concatenate([first, some])
  assert len(np.unique(everything, axis=0)) == 22
  _, _, changes = ask(1.0, n=4)  # so few that the best child has enough
  assert (changes == 1).all()


def test_where_the_best_child_has_no_new_neighbour_the_next_one_has():
  controller = make(
    "predictor_search", LIST, first=12, per_fit=4, near=1.0, **OPTIONS
  )
  asked, _ = play(controller, [12] + [4] * 4)
  decisions = np.concatenate(asked)
  for end in range(12, 28, 4):
    before, rewards = decisions[:end], reward(decisions[:end])
    order = np.argsort(-rewards, kind="stable")
    around = [spaces.base.neighbours(LIST, before[i]) for i in order]
    seen = {row.tobytes() for row in before}
    left = [{row.tobytes() for row in rows} - seen for rows in around]
    first = next(rows for rows in left if rows)
    new = {row.tobytes() for row in decisions[end : end + 4]}
    assert len(new & first) == min(4, len(first))


def test_neighbours_of_the_first_child_that_has_any_are_found():
  space = base.as_space((3, 3))
  best = np.array([[0, 0], [2, 2]], np.int32)
  far = np.array([[1, 1], [2, 1], [1, 2]], np.int32)  # two changes from (0, 0)
  np.testing.assert_array_equal(near_best(space, best, far), [1, 2])
  near = np.append(far, np.int32([[0, 2]]), axis=0)
  np.testing.assert_array_equal(near_best(space, best, near), [3])
  assert len(near_best(space, best[:1], far)) == 0


def test_only_the_order_of_rewards_counts():
  controller = make("predictor_search", LIST, **OPTIONS)
  sizes = [10, 5, 5]
  plain, _ = play(controller, sizes)
  bent, _ = play(
    controller, sizes, reward=lambda d: np.exp(20 * reward(d)) - 1e7
  )
  np.testing.assert_array_equal(np.concatenate(plain), np.concatenate(bent))


def test_ranks_are_spread_evenly_and_equal_rewards_share_theirs():
  found = spread(np.float32([0.5, 0.9, 0.1, 0.9]))
  np.testing.assert_allclose(found, [0.375, 0.75, 0.125, 0.75])


def test_the_order_of_the_answers_does_not_matter():
  controller = make("predictor_search", LARGE, **OPTIONS)
  proposals, asked = controller.ask(controller.init(key(0)), key(1), 30)

  def after(order):
    state = asked
    for part in np.array_split(order, 3):
      state = tell(controller, state, proposals.rows(part))
    return controller.ask(state, key(2), 10)

  one, other = after(np.arange(30)), after(np.arange(30)[::-1])
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


def test_equal_cells_are_proposed_once():
  space = spaces.get("pnas", 2, spaces.PNAS.operations[:3])
  controller = make("predictor_search", space, **OPTIONS)
  asked, _ = play(controller, [20] * 6)
  decisions = np.concatenate(asked)
  canonical = space.canonical(decisions)
  assert len(np.unique(canonical, axis=0)) == len(decisions) == 120


def test_more_than_the_pool_may_be_asked_for():
  controller = make("predictor_search", LARGE, pool=16, **OPTIONS)
  asked, _ = play(controller, [10, 300])
  assert [len(d) for d in asked] == [10, 300]
  assert len(np.unique(np.concatenate(asked), axis=0)) == 310


def test_mutations_differ_in_one_to_three_decisions():
  rng = np.random.default_rng(0)
  choices = (*LARGE, 1, 1)
  parents = np.stack([np.zeros(22, np.int32), np.array(choices, np.int32) - 1])
  children = mutate(choices, rng, parents, 4000)
  assert children.dtype == np.int32
  assert ((children >= 0) & (children < choices)).all()
  changes = (children[:, None] != parents).sum(-1).min(-1)
  assert np.bincount(changes).tolist()[0] == 0
  assert (np.bincount(changes)[1:] > 1200).all()
  assert len(np.bincount(changes)) == 4
  # Every other value of every decision occurs.
  for i, c in enumerate(choices):
    assert len(np.unique(children[:, i])) == c
  only = mutate((1, 3), rng, np.array([[0, 1]], np.int32), 50)
  assert (only[:, 1] != 1).all()


def test_a_full_memory_keeps_the_best_and_the_newest():
  controller = make("predictor_search", LARGE, max_children=12, **OPTIONS)
  asked, state = play(controller, [12] + [2] * 12)
  decisions = np.concatenate(asked)
  kept = np.sort(state.ids)
  assert len(kept) == 12
  assert {*range(36 - 6, 36)} <= {*kept.tolist()}  # the newest half
  order = np.argsort(-reward(decisions))
  assert {*order[:2].tolist()} <= {*kept.tolist()}
  assert kept[0] < 36 - 12  # not just the newest twelve
  rows = np.argsort(state.ids)
  np.testing.assert_array_equal(state.decisions[rows], decisions[kept])
  np.testing.assert_array_equal(state.rewards[rows], reward(decisions[kept]))


def test_an_answer_to_a_forgotten_child_harms_nothing():
  controller = make("predictor_search", LARGE, max_children=12, **OPTIONS)
  early, state = controller.ask(controller.init(key(0)), key(1), 12)
  for i in range(4):
    later, state = controller.ask(state, key(2 + i), 9)
    state = tell(controller, state, later)
  before = jax.tree.map(np.array, state)
  forgotten = early.rows(~np.isin(early.id, state.ids))
  assert len(forgotten) == 12
  state = tell(controller, state, forgotten)
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state)):
    np.testing.assert_array_equal(a, b)


def test_it_finds_the_best_of_a_small_space_early():
  everything = np.indices(LIST).reshape(5, -1).T
  best = reward(everything).max()
  found = 0
  for seed in range(6):
    controller = make("predictor_search", LIST, hidden=16, embedding=4)
    asked, _ = play(controller, [10] + [5] * 3, seed)
    found += reward(np.concatenate(asked)).max() == best
  assert found >= 5  # at random: 0.2 of them


@pytest.mark.parametrize("near", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(near):
  with pytest.raises(ValueError, match="a share, from 0 to 1"):
    make("predictor_search", LIST, near=near)


@pytest.mark.parametrize("option", ["first", "per_fit", "pool", "steps"])
def test_sizes_below_one_are_refused(option):
  with pytest.raises(ValueError, match="1 or more"):
    make("predictor_search", LIST, **{option: 0})
