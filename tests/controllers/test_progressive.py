"""Progressive search, level by level."""

import itertools

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.controllers import base, make, predictors, surrogate
from nasnet_jax.controllers.progressive import expand, new_blocks
from nasnet_jax.training import checkpoint

PNAS = spaces.get("pnas", min_blocks=1)
SMALL = spaces.get("pnas", 3, PNAS.operations[:3], min_blocks=1)
ONE_BLOCK, BEAM = 21, 10  # cells of the small space's first level, and K
OPTIONS = {"beam": BEAM, "hidden": 8, "embedding": 4}


def key(i):
  return jax.random.fold_in(jax.random.key(5), i)


def small(**changes):
  return make("progressive", SMALL, **(OPTIONS | changes))


def tell(controller, state, proposals, rewards, failed=()):
  """The state after all answers; rows `failed` gave none."""
  status = np.zeros(len(proposals), np.int32)
  status[list(failed)] = base.FAILED
  return controller.tell(state, proposals, rewards, status)


def play(controller, reward, asks, n=1000, seed=0):
  """(proposals of each ask, the last state), all answered at once."""
  state, asked = controller.init(key(seed)), []
  for i in range(asks):
    proposals, state = controller.ask(state, key(1000 * seed + i), n)
    state = tell(controller, state, proposals, reward(proposals.decisions))
    asked.append(proposals)
  return asked, state


@pytest.fixture
def reward(quality):
  return lambda decisions: quality(SMALL, decisions).astype(np.float32)


def slow_form(decisions):
  """Equal for cells of the small space that differ in the order of blocks or
  sides alone: the least of all orders, each a tuple of pairs of sides."""
  count = int(decisions[0]) + 1
  blocks, found = decisions[1 : 1 + 4 * count].reshape(-1, 4).tolist(), []
  for order in itertools.permutations(range(count)):
    place = {0: 0, 1: 1, **{k + 2: i + 2 for i, k in enumerate(order)}}
    moved = [
      tuple(sorted([(place[a], c), (place[b], d)]))
      for a, b, c, d in (blocks[k] for k in order)
    ]
    if all(side[0] < i + 2 for i, block in enumerate(moved) for side in block):
      found.append(tuple(moved))
  return min(found)


@pytest.mark.parametrize(
  ("blocks", "raw", "unordered", "candidates"),
  [
    (0, 256, 136, None),
    (1, 576, 300, 147_456),
    (2, 1024, 528, 262_144),
    (3, 1600, 820, 409_600),
    (4, 2304, 1176, 589_824),
  ],
)
def test_blocks_of_each_level_are_as_many_as_in_the_paper(
  blocks, raw, unordered, candidates
):
  choices = PNAS.num_choices[1 + 4 * blocks : 5 + 4 * blocks]
  assert np.prod(choices) == raw
  assert candidates in (None, 256 * raw)
  every = itertools.product(*map(range, choices))
  pairs = {tuple(sorted([(a, c), (b, d)])) for a, b, c, d in every}
  found = new_blocks(PNAS, blocks)
  assert len(found) == unordered
  assert {((a, c), (b, d)) for a, b, c, d in found.tolist()} == pairs


def test_the_paper_trains_1160_cells_the_first_136_all_of_one_block():
  controller = make("progressive", PNAS)
  state = controller.init(key(0))
  assert len(state.rewards) == 136 + 4 * 256
  proposals, _ = controller.ask(state, key(1), 500)
  assert len(proposals) == 136
  assert (proposals.decisions[:, 0] == 0).all()
  canonical = PNAS.canonical(proposals.decisions)
  np.testing.assert_array_equal(canonical, proposals.decisions)
  assert len(np.unique(canonical, axis=0)) == 136


@pytest.mark.parametrize("blocks", [1, 2])
def test_expansion_equals_a_slow_enumeration(blocks):
  parents = SMALL.sample(np.random.default_rng(blocks), 12)
  parents[:, 0] = blocks - 1
  parents = np.unique(SMALL.canonical(parents), axis=0)
  found = expand(SMALL, parents, 0)
  np.testing.assert_array_equal(SMALL.canonical(found), found)
  slow = set()
  first = 1 + 4 * blocks
  for parent in parents:
    for block in itertools.product(
      *map(range, SMALL.num_choices[first : first + 4])
    ):
      child = parent.copy()
      child[0] += 1
      child[first : first + 4] = block
      slow.add(slow_form(child))
  assert len(found) == len(slow)
  assert {slow_form(row) for row in found} == slow


def test_an_ask_ends_with_its_level_and_the_next_waits_for_all_answers(reward):
  controller = small()
  state = controller.init(key(0))
  first, state = controller.ask(state, key(1), 15)
  rest, state = controller.ask(state, key(2), 15)
  assert (len(first), len(rest)) == (15, 6)
  none, state = controller.ask(state, key(3), 15)
  assert len(none) == 0
  state = tell(controller, state, rest, reward(rest.decisions))
  missing = first.rows(slice(1, None))
  state = tell(controller, state, missing, reward(missing.decisions))
  none, state = controller.ask(state, key(4), 15)
  assert len(none) == 0
  last = first.rows(slice(0, 1))
  state = tell(controller, state, last, reward(last.decisions))
  second, _ = controller.ask(state, key(5), 15)
  assert len(second) == BEAM
  assert (second.decisions[:, 0] == 1).all()


def test_after_the_last_level_the_search_ends(reward):
  asked, _ = play(small(), reward, 5)
  assert [len(p) for p in asked] == [ONE_BLOCK, BEAM, BEAM, 0, 0]
  everything = np.concatenate([p.decisions for p in asked])
  assert len({slow_form(row) for row in everything}) == 41
  counts = [p.decisions[:, 0].tolist() for p in asked[:3]]
  assert counts == [[0] * ONE_BLOCK, [1] * BEAM, [2] * BEAM]


@pytest.mark.parametrize("predictor", predictors.PREDICTORS)
@pytest.mark.parametrize("exploration", [0.0, 3.0])
def test_a_level_is_the_best_of_all_candidates_best_first(
  reward, predictor, exploration
):
  controller = small(predictor=predictor, exploration=exploration)
  asked, state = play(controller, reward, 2)
  kind = predictors.PREDICTORS[predictor]
  model = kind(predictors.cell_vocabulary(SMALL), 4, 8)
  candidates = expand(SMALL, asked[0].decisions, 0)
  inputs = model.inputs(predictors.cell_tokens(SMALL, candidates))
  found = surrogate.predict(model, state.params, inputs, blocks=2)
  scores = found.mean(0) + exploration * found.std(0)
  chosen = [
    np.flatnonzero((candidates == row).all(1)).item()
    for row in asked[1].decisions
  ]
  assert (np.diff(scores[chosen]) <= 1e-6).all()
  assert scores[chosen].min() >= np.sort(scores)[-BEAM] - 1e-6


def test_exploration_changes_what_is_chosen(reward):
  plain, curious = (
    play(small(exploration=c), reward, 2)[0][1].decisions for c in (0.0, 30.0)
  )
  assert {*map(slow_form, plain)} != {*map(slow_form, curious)}


def test_the_predictor_learns_from_all_answers_at_the_papers_rates(
  reward, monkeypatch
):
  calls, original = [], surrogate.fit

  def fit(model, params, inputs, targets, rows, rng, **options):
    calls.append((len(rows), options))
    return original(model, params, inputs, targets, rows, rng, **options)

  monkeypatch.setattr(surrogate, "fit", fit)
  play(small(epochs=4, batch_size=7), reward, 4)
  assert [rows for rows, _ in calls] == [21, 31]
  assert [options["learning_rate"] for _, options in calls] == [0.01, 0.002]
  assert [options["steps"] for _, options in calls] == [12, 18]
  assert [options["blocks"] for _, options in calls] == [1, 2]


def test_failed_cells_are_not_expanded_and_block_no_level(reward):
  controller = small()
  first, state = controller.ask(controller.init(key(0)), key(1), 100)
  rewards = reward(first.decisions)
  order = np.argsort(-rewards)
  failed, good = order[:-2], order[-2:]  # all but the two worst fail
  state = tell(controller, state, first, rewards, failed)
  second, state = controller.ask(state, key(2), 100)
  children = expand(SMALL, first.decisions[np.sort(good)], 0)
  assert len(second) == BEAM
  legal = {slow_form(row) for row in children}
  assert {slow_form(row) for row in second.decisions} <= legal
  nobody = np.arange(BEAM)
  state = tell(controller, state, second, np.full(BEAM, np.nan), nobody)
  assert len(controller.ask(state, key(3), 100)[0]) == 0


def test_the_order_of_the_answers_does_not_matter(reward):
  controller = small()
  first, asked = controller.ask(controller.init(key(0)), key(1), 100)

  def after(order):
    state = asked
    for part in np.array_split(order, 4):
      told = first.rows(part)
      state = tell(controller, state, told, reward(told.decisions))
    return controller.ask(state, key(2), 100)

  one = after(np.arange(ONE_BLOCK))
  other = after(np.random.default_rng(0).permutation(ONE_BLOCK))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("predictor", predictors.PREDICTORS)
def test_a_search_goes_on_in_the_middle_of_a_level(reward, predictor, tmp_path):
  controller = small(predictor=predictor)
  asked, _ = play(controller, reward, 7, n=8)
  assert [len(p) for p in asked] == [8, 8, 5, 8, 2, 8, 2]
  _, middle = play(controller, reward, 4, n=8)
  pending, middle = controller.ask(middle, key(4), 1)  # of the second level
  checkpoint.write(tmp_path / "state", middle)
  again = small(predictor=predictor)
  restored = checkpoint.read(tmp_path / "state", again.init(key(9)))
  restored = tell(again, restored, pending, reward(pending.decisions))
  rest, restored = again.ask(restored, key(4), 8)
  restored = tell(again, restored, rest, reward(rest.decisions))
  np.testing.assert_array_equal(
    np.concatenate([pending.decisions, rest.decisions]), asked[4].decisions
  )
  third, _ = again.ask(restored, key(5), 8)
  np.testing.assert_array_equal(third.decisions, asked[5].decisions)


def test_two_kinds_of_cells_grow_in_turn():
  space = spaces.get("nasnet_concat", 3, ("identity", "conv_1x1"), min_blocks=1)
  controller = make("progressive", space, first_level=30, **OPTIONS)

  def reward(decisions):
    return np.float32(0.8 + 0.001 * (decisions % 7).sum(-1))

  asked, state = play(controller, reward, 6)
  sizes = [
    np.unique(p.decisions[:, [0, 16]], axis=0).tolist() for p in asked[:5]
  ]
  assert sizes == [[[0, 0]], [[1, 0]], [[1, 1]], [[2, 1]], [[2, 2]]]
  assert [len(p) for p in asked] == [30, BEAM, BEAM, BEAM, BEAM, 0]
  assert len(state.rewards) == 30 + 4 * BEAM
  everything = np.concatenate([p.decisions for p in asked])
  np.testing.assert_array_equal(space.canonical(everything), everything)
  assert len(np.unique(everything, axis=0)) == len(everything)


def test_it_finds_better_cells_than_random_search(quality):
  """On five landscapes, at 136 + 4 x 30 cells with noise."""
  controller = make("progressive", PNAS, beam=30, hidden=32, embedding=16)
  for seed in range(5):
    noise = np.random.default_rng(seed)

    def reward(decisions, seed=seed, noise=noise):
      clean = quality(PNAS, decisions, seed)
      return np.float32(clean + noise.normal(0, 0.003, len(clean)))

    asked, _ = play(controller, reward, 5, seed=seed)
    last = quality(PNAS, asked[-1].decisions, seed)
    random = PNAS.sample(noise, 256)
    random[:, 0] = 4  # cells of five blocks, the best there are
    random = quality(PNAS, random, seed)
    assert last.mean() > np.quantile(random, 0.95)
    assert last.max() > random.max()


@pytest.mark.parametrize(
  ("space", "options", "words"),
  [
    ((2, 3), {}, "min_blocks=1"),
    (spaces.PNAS, {}, "config.space.min_blocks"),
    (SMALL, {"predictor": "mpl"}, "not one of: mlp, lstm"),
    (SMALL, {"beam": 0}, "at least 1"),
  ],
)
def test_what_it_cannot_search_is_refused(space, options, words):
  with pytest.raises(ValueError, match=words):
    make("progressive", space, **options)


def test_a_space_whose_sides_differ_is_grown_within_its_own_choices():
  chain = spaces.get("pnas_chain")
  controller = make("progressive", chain, beam=500, epochs=1, members=1)
  state = controller.init(key(0))
  seen = []
  for number in range(4):
    proposals, state = controller.ask(state, key(number), 500)
    seen.append(proposals.decisions)
    rewards = np.full(len(proposals), 0.5, np.float32)
    state = controller.tell(state, proposals, rewards, np.zeros(len(rewards)))
  assert [len(level) for level in seen] == [4, 16, 64, 256]
  found = np.unique(np.concatenate(seen), axis=0)
  np.testing.assert_array_equal(found, chain.all_cells())
