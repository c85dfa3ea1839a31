"""Evolution: the distribution of mutations, who becomes a parent, who dies."""

import jax
import numpy as np
import pytest
from scipy import stats

from nasnet_jax import spaces
from nasnet_jax.controllers import base, evolution
from nasnet_jax.spaces.base import ListSpace

CHOICES = (2, 3, 1, 4, 13, 2)
MEMBERS = 100_000


def key(i):
  return jax.random.fold_in(jax.random.key(5), i)


def reward(row):
  """Any function of one architecture's decisions."""
  return np.float32(np.sin(np.dot(row, np.arange(1, len(row) + 1))))


def ask_and_tell(controller, state, n, rewards=None, i=1):
  proposals, state = controller.ask(state, key(i), n)
  if rewards is None:
    rewards = [reward(row) for row in proposals.decisions]
  rewards = np.asarray(rewards, np.float32)
  status = np.zeros(len(rewards), np.int32)
  return proposals, controller.tell(state, proposals, rewards, status)


def mutants(space, identity=0.05, redraw=True):
  """(parents, children) int32[MEMBERS, D], each mutated once."""
  rng = np.random.default_rng(0)
  parents = spaces.base.sample(space.num_choices, rng, MEMBERS)
  mutation = evolution.mutation_of(space, redraw)
  return parents, evolution.mutate(mutation, rng, parents, identity)


def assert_shares(observed, expected):
  """Counts against shares that sum to one."""
  expected = np.asarray(expected) * np.sum(observed)
  if len(expected) > 1:
    assert stats.chisquare(observed, expected).pvalue > 1e-5  # of fifty tests


def test_kinds_of_mutation_decisions_and_values_come_as_in_the_paper():
  space = spaces.NASNET_CONCAT  # inputs, operations and combiners
  parents, children = mutants(space)
  differs = parents != children
  assert set(differs.sum(1)) == {0, 1}
  # Of a kind's mutations, how many show: an input always becomes another one,
  # an operation or a combiner may be drawn again.
  shown = {"input": 1, "operation": 12 / 13, "combiner": 1 / 2}
  kinds = np.array(space.kinds)
  columns = {kind: differs[:, kinds == kind].sum(0) for kind in shown}
  shares = [0.95 / 3 * share for share in shown.values()]
  counts = [column.sum() for column in columns.values()]
  rest = MEMBERS - sum(counts)
  assert_shares([*counts, rest], [*shares, 1 - sum(shares)])
  for counts in columns.values():
    assert_shares(counts, np.full(len(counts), 1 / len(counts)))
  for i, choices in enumerate(space.num_choices):
    rows = differs[:, i]
    shift = (children[rows, i] - parents[rows, i]) % choices
    counts = np.bincount(shift, minlength=choices)[1:]
    assert_shares(counts, np.full(choices - 1, 1 / (choices - 1)))


@pytest.mark.parametrize("identity", [0.0, 0.3, 1.0])
def test_only_the_identity_copies_where_nothing_is_drawn_again(identity):
  parents, children = mutants(ListSpace(CHOICES), identity, redraw=False)
  copies = (parents == children).all(1).mean()
  assert copies == pytest.approx(identity, abs=0.005)
  counts = (parents != children).sum(0)
  assert counts[2] == 0  # one choice: never what is mutated
  if identity < 1:
    assert_shares(np.delete(counts, 2), np.full(5, 0.2))


def test_a_list_mutates_all_decisions_alike_and_may_draw_a_value_again():
  parents, children = mutants(ListSpace((4,) * 5), identity=0.0)
  differs = parents != children
  assert (~differs.any(1)).mean() == pytest.approx(1 / 4, abs=0.005)
  assert_shares(differs.sum(0), np.full(5, 0.2))


def test_a_space_without_a_choice_stays_as_it_is():
  parents, children = mutants(ListSpace((1, 1)))
  assert (parents == children).all()


def plain_loop(space, children, size, sample, ageing):
  """Algorithm 1 of the paper, one child at a time, on the same dice."""
  members, history = [], []  # (serial, reward, decisions)
  kinds = list(dict.fromkeys(space.kinds))
  for serial in range(children):
    dice = np.random.default_rng(np.asarray(jax.random.key_data(key(serial))))
    if serial < size:
      child = dice.integers(0, space.num_choices, (1, len(space.kinds)))[0]
    else:
      drawn = [members[i] for i in dice.integers(0, size, sample)]
      parent = drawn[0]
      for other in drawn:
        if other[1] > parent[1]:
          parent = other
      child = list(parent[2])
      keeps = dice.random() < 0.05
      kind = kinds[dice.integers(0, len(kinds), 1)[0]]
      places = [i for i, k in enumerate(space.kinds) if k == kind]
      place = places[dice.integers(0, [len(places)])[0]]
      choices = [space.num_choices[place]]
      another = (child[place] + dice.integers(1, choices)[0]) % choices[0]
      anything = dice.integers(0, choices)[0]
      if not keeps:
        child[place] = another if kind == "input" else anything
    child = (serial, reward(child), tuple(int(c) for c in child))
    history.append(child[2])
    if serial < size:
      members.append(child)
      continue
    dead = min(members) if ageing else min((m[1], m[0], m) for m in drawn)[2]
    members[members.index(dead)] = child
  return history, {m[2] for m in members}


@pytest.mark.parametrize("ageing", [True, False])
def test_told_one_at_a_time_it_is_the_loop_of_the_paper(ageing):
  space = spaces.get("nasnet", num_blocks=2)
  controller = evolution.evolution(
    space, population=15, sample=4, ageing=ageing
  )
  state, history = controller.init(key(0)), []
  for i in range(200):
    proposals, state = ask_and_tell(controller, state, 1, i=i)
    history.append(tuple(proposals.decisions[0].tolist()))
  expected, members = plain_loop(space, 200, 15, 4, ageing)
  assert history == expected
  assert {tuple(row.tolist()) for row in state.decisions} == members
  assert len(set(history)) > 50


def test_the_oldest_dies_however_good_it_is():
  controller = evolution.evolution(CHOICES, population=10, sample=3)
  state, told = controller.init(key(0)), []
  for i, n in enumerate((4, 13, 1, 40, 7)):
    proposals, state = controller.ask(state, key(i), n)
    order = np.random.default_rng(i).permutation(n)  # told in any order
    rewards = -np.arange(len(told), len(told) + n, dtype=np.float32)
    told += proposals.decisions[order].tolist()
    state = controller.tell(
      state, proposals.rows(order), rewards, np.zeros(n, np.int32)
    )
    newest = np.arange(max(len(told) - 10, 0), len(told))
    alive = state.serial != evolution.NOBODY
    order = np.argsort(state.serial[alive])
    assert (state.serial[alive][order] == newest).all()
    assert (state.rewards[alive][order] == -newest).all()
    assert state.decisions[alive][order].tolist() == told[-10:]


def test_without_ageing_the_worst_of_the_sample_dies():
  controller = evolution.evolution(
    CHOICES, population=10, sample=3, ageing=False
  )
  rewards = np.random.default_rng(0).permutation(10)
  _, state = ask_and_tell(controller, controller.init(key(0)), 10, rewards)
  spared = 0
  for i in range(60):
    proposals, new = ask_and_tell(controller, state, 1, [100 + i], i)
    sample = proposals.extras["sample"][0]
    dead = np.setdiff1d(state.serial, new.serial)
    in_sample = np.isin(state.serial, sample)
    assert dead == state.serial[in_sample][state.rewards[in_sample].argmin()]
    spared += state.rewards[state.serial == dead] > state.rewards.min()
    state = new
  assert spared > 10  # not the worst of all


def test_without_ageing_a_sample_that_died_meanwhile_costs_the_worst_of_all():
  controller = evolution.evolution(
    CHOICES, population=4, sample=1, ageing=False
  )
  _, state = ask_and_tell(controller, controller.init(key(0)), 4, [1, 2, 3, 4])
  proposals, state = controller.ask(state, key(2), 30)
  rewards = np.arange(10, 40, dtype=np.float32)
  state = controller.tell(state, proposals, rewards, np.zeros(30, np.int32))
  assert sorted(state.rewards) == [36, 37, 38, 39]


def test_the_best_of_the_sample_is_the_parent():
  controller = evolution.evolution(
    (1000,) * 4, population=20, sample=3, identity=1.0
  )
  rewards = np.random.default_rng(0).permutation(20)
  members, state = ask_and_tell(
    controller, controller.init(key(0)), 20, rewards
  )
  children, _ = controller.ask(state, key(2), 20_000)
  same = (children.decisions[:, None] == members.decisions).all(-1)
  counts = same.sum(0)[np.argsort(rewards)]
  assert counts.sum() == 20_000
  # With replacement: all three are among the k worst with (k/20)^3.
  assert_shares(counts, np.diff((np.arange(21) / 20) ** 3))


def test_proposals_are_random_until_the_population_was_asked_for():
  controller = evolution.evolution(
    (1000,) * 4, population=10, sample=3, identity=1.0
  )
  first, state = ask_and_tell(controller, controller.init(key(0)), 4)
  mixed, state = controller.ask(state, key(2), 20)
  everything = np.concatenate([first.decisions, mixed.decisions[:6]])
  assert len(np.unique(everything, axis=0)) == 10
  # The rest are children of the four that have answered.
  children = mixed.decisions[6:]
  same = (children[:, None] == first.decisions).all(-1)
  assert same.any(1).all()
  assert same.any(0).sum() > 1


def test_proposals_stay_random_while_nobody_has_answered():
  controller = evolution.evolution((1000,) * 4, population=10, identity=1.0)
  state, asked = controller.init(key(0)), []
  for i in range(3):
    proposals, state = controller.ask(state, key(i), 8)
    asked.append(proposals.decisions)
  assert len(np.unique(np.concatenate(asked), axis=0)) == 24


@pytest.mark.parametrize("ageing", [True, False])
def test_a_failed_child_never_becomes_a_parent(ageing):
  controller = evolution.evolution(
    (1000,) * 4, population=10, sample=3, identity=1.0, ageing=ageing
  )
  members, state = controller.ask(controller.init(key(0)), key(1), 10)
  rewards = np.full(10, 0.5, np.float32)
  status = np.zeros(10, np.int32)
  rewards[:3], status[3:6] = [np.nan, np.inf, -np.inf], base.FAILED
  rewards[3:6] = 9.0
  state = controller.tell(state, members, rewards, status)
  children, _ = controller.ask(state, key(2), 1000)
  same = (children.decisions[:, None] == members.decisions).all(-1)
  assert not same[:, :6].any()
  assert same[:, 6:].any(1).all()


@pytest.mark.parametrize("option", ["population", "sample"])
def test_sizes_below_one_are_refused(option):
  with pytest.raises(ValueError, match=f"{option}.*at least 1"):
    evolution.evolution(CHOICES, **{option: 0})


def test_an_identity_that_is_no_probability_is_refused():
  with pytest.raises(ValueError, match=r"a probability, not 1\.5"):
    evolution.evolution(CHOICES, identity=1.5)
