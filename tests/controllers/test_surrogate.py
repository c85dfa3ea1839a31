"""Predictors against the papers' formulas in NumPy, and their ensembles."""

import logging

import jax
import numpy as np
import pytest
from scipy import stats

from nasnet_jax import spaces
from nasnet_jax.controllers import predictors, surrogate

PNAS = spaces.get("pnas", min_blocks=1)
SMALL = spaces.get("pnas", 3, PNAS.operations[:3], min_blocks=1)
TWO_CELLS = spaces.get("nasnet_concat", 3, min_blocks=1)


def cells(space, n, seed=0, blocks=None):
  """int32[n, D], canonical; of one size if it is given."""
  decisions = space.sample(np.random.default_rng(seed), n)
  if blocks is not None:
    decisions[:, :: space.decisions_per_cell] = blocks - 1
  return space.canonical(decisions)


def random_params(predictor, seed, members=2):
  """All weights normal, in float32."""
  rng = np.random.default_rng(seed)
  shapes = surrogate.init_ensemble(predictor, rng, members)
  return jax.tree.map(
    lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes
  )


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def tables_of(predictor, params):
  """The embedding tables, apart, in float64."""
  ends = np.cumsum(predictor.vocabulary.tables)
  return np.split(params.embedding.astype(np.float64), ends[:-1])


def slow_mlp(predictor, params, blocks):
  """f64[]: the words of the paper for one child, a list of lists of tokens."""
  tables = tables_of(predictor, params)
  params = jax.tree.map(lambda x: x.astype(np.float64), params)
  slots = predictor.vocabulary.slots
  concatenated = [
    np.concatenate([tables[s][t] for s, t in zip(slots, block)])
    for block in blocks
  ]
  mean = np.mean(concatenated, axis=0)
  kernel1 = params.kernel1.reshape(-1, predictor.hidden)
  hidden = np.maximum(mean @ kernel1 + params.bias1, 0)
  hidden = np.maximum(hidden @ params.kernel2 + params.bias2, 0)
  return sigmoid(hidden @ params.head_kernel + params.head_bias)


def slow_lstm(predictor, params, blocks):
  """f64[], as `slow_mlp`."""
  tables = tables_of(predictor, params)
  params = jax.tree.map(lambda x: x.astype(np.float64), params)
  hidden = cell = np.zeros(predictor.hidden)
  for block in blocks:
    for slot, token in zip(predictor.vocabulary.slots, block):
      inputs = tables[slot][token] @ params.input_kernel
      gates = inputs + hidden @ params.hidden_kernel + params.bias
      enter, forget, new, leave = np.split(gates, 4)
      cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
      hidden = sigmoid(leave) * np.tanh(cell)
  return sigmoid(hidden @ params.head_kernel + params.head_bias)


def blocks_of(space, decisions):
  """The tokens of one child as the tables' rows, cell by cell."""
  genotype = space.decode(decisions)
  listed = []
  for c in range(genotype.num_cells):
    for b in range(genotype.num_blocks):
      if not genotype.active[c, b]:
        continue
      inputs = genotype.inputs[c, b] + c * (space.num_blocks + 1)
      ops = genotype.ops[c, b] + c * len(space.operations)
      block = [*inputs.tolist(), *ops.tolist()]
      if len(space.combiners) > 1:
        block.append(int(genotype.combine[c, b]) + 2 * c)
      listed.append(block)
  return listed


@pytest.mark.smoke
@pytest.mark.parametrize("space", [SMALL, TWO_CELLS], ids=["one", "two cells"])
@pytest.mark.parametrize("name", predictors.PREDICTORS)
def test_predictions_are_the_papers_formula(name, space):
  slow = {"mlp": slow_mlp, "lstm": slow_lstm}[name]
  vocabulary = predictors.cell_vocabulary(space)
  predictor = predictors.PREDICTORS[name](vocabulary, 6, 5)
  params = random_params(predictor, 1)
  decisions = cells(space, 30)
  tokens = predictors.cell_tokens(space, decisions)
  inputs = predictor.inputs(tokens)
  blocks = int(tokens.used.sum(-1).max())
  found = surrogate.predict(predictor, params, inputs, blocks=blocks)
  for member in range(2):
    own = jax.tree.map(lambda x, m=member: x[m], params)
    expected = [
      slow(predictor, own, blocks_of(space, row)) for row in decisions
    ]
    np.testing.assert_allclose(found[member], expected, atol=2e-6)


def test_the_mlp_for_lists_embeds_each_decision_by_itself():
  choices = (3, 1, 5, 2)
  predictor = predictors.Mlp(predictors.list_vocabulary(choices), 6, 5)
  params = random_params(predictor, 2)
  assert params.embedding.shape == (2, sum(choices), 6)
  rng = np.random.default_rng(0)
  decisions = rng.integers(0, choices, (20, 4))
  inputs = predictor.inputs(predictors.list_tokens(decisions))
  found = surrogate.predict(predictor, params, inputs, blocks=1)
  own = jax.tree.map(lambda x: x[1], params)
  expected = [slow_mlp(predictor, own, [row]) for row in decisions]
  np.testing.assert_allclose(found[1], expected, atol=2e-6)


def test_the_papers_sizes_and_initial_values():
  vocabulary = predictors.cell_vocabulary(PNAS)
  assert vocabulary.tables == (6, 8)  # states that a block may read; ops
  assert vocabulary.slots == (0, 0, 1, 1)
  decisions = cells(PNAS, 200)
  tokens = predictors.cell_tokens(PNAS, decisions)
  for predictor in (predictors.Mlp(vocabulary), predictors.Lstm(vocabulary)):
    params = surrogate.init_ensemble(predictor, np.random.default_rng(0), 5)
    assert params.embedding.shape == (5, 14, 100)
    largest = np.abs(params.embedding).max()
    assert 0.099 < largest <= 0.1
    assert abs(np.mean(params.embedding)) < 0.005
    found = surrogate.predict(
      predictor, params, predictor.inputs(tokens), blocks=5
    )
    # sigmoid(1.8), which it leaves by what untrained kernels add.
    np.testing.assert_allclose(found, 0.858, atol=0.03)
    assert abs(found.mean() - 0.858) < 0.01
    assert not np.allclose(params.embedding[0], params.embedding[1])


def test_members_see_different_four_fifths():
  rows = np.arange(50) * 3 + 1  # ids with gaps, as failures leave
  parts = surrogate.member_rows(rows, 5)
  left_out = [set(rows) - set(part) for part in parts]
  assert all(len(out) == 10 for out in left_out)
  assert set().union(*left_out) == set(rows)  # so no two overlap
  assert set(surrogate.member_rows(rows, 1)[0]) == set(rows)
  assert surrogate.member_rows(np.array([5]), 5) == [[5]] * 5


def test_batches_bring_each_child_once_before_any_comes_again():
  rows, rng = np.arange(7) * 3, np.random.default_rng(0)
  stream = surrogate.draw_batches(rng, rows, 10, 4).ravel()
  assert len(stream) == 40
  for start in range(0, 35, 7):
    assert set(stream[start : start + 7]) == set(rows)
  assert (stream[:7] != stream[7:14]).any()


def fitted(predictor, inputs, targets, rows, **changes):
  """An ensemble of two after a short fit."""
  options = {"steps": 30, "learning_rate": 0.01, "batch_size": 8, "blocks": 3}
  params = surrogate.init_ensemble(predictor, np.random.default_rng(1), 2)
  return surrogate.fit(
    predictor,
    params,
    inputs,
    targets,
    rows,
    np.random.default_rng(2),
    **(options | changes),
  )


@pytest.fixture(scope="module", params=predictors.PREDICTORS)
def small(request):
  """(a small predictor, inputs of 64 cells, targets)."""
  kind = predictors.PREDICTORS[request.param]
  predictor = kind(predictors.cell_vocabulary(SMALL), 4, 8)
  tokens = predictors.cell_tokens(SMALL, cells(SMALL, 64))
  targets = np.random.default_rng(3).uniform(0.6, 0.9, 64)
  return predictor, predictor.inputs(tokens), targets.astype(np.float32)


def same_members(one, other):
  """bool[2]: whose weights are equal to the last bit."""
  pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
  return [all((a[m] == b[m]).all() for a, b in pairs) for m in range(2)]


def test_each_member_learns_from_its_own_part_alone(small):
  predictor, inputs, targets = small
  rows = np.arange(40)
  before = fitted(predictor, inputs, targets, rows)
  for left_out in range(2):
    changed = targets.copy()
    changed[rows[rows % 2 == left_out]] = 0.1
    after = fitted(predictor, inputs, changed, rows)
    same = same_members(before, after)
    assert same == [member == left_out for member in range(2)]


def test_rows_that_are_not_named_teach_nothing(small):
  predictor, inputs, targets = small
  rows = np.arange(0, 60, 3)
  before = fitted(predictor, inputs, targets, rows)
  garbage = targets.copy()
  garbage[np.setdiff1d(np.arange(64), rows)] = np.nan
  after = fitted(predictor, inputs, garbage, rows)
  assert same_members(before, after) == [True, True]


def test_blocks_that_nobody_has_need_not_be_computed(small):
  predictor, _, targets = small
  tokens = predictors.cell_tokens(SMALL, cells(SMALL, 64, blocks=2))
  inputs, rows = predictor.inputs(tokens), np.arange(64)
  few, many = (
    fitted(predictor, inputs, targets, rows, blocks=b) for b in (2, 3)
  )
  assert same_members(few, many) == [True, True]
  scores = [surrogate.predict(predictor, few, inputs, blocks=b) for b in (2, 3)]
  np.testing.assert_array_equal(*scores)


def test_any_number_of_children_is_scored_alike(small):
  predictor, inputs, _ = small
  params = random_params(predictor, 5)
  whole = surrogate.predict(predictor, params, inputs, blocks=3)
  assert whole.shape == (2, 64)
  repeated = jax.tree.map(lambda x: np.concatenate([x] * 140), inputs)
  many = surrogate.predict(predictor, params, repeated, blocks=3)
  np.testing.assert_allclose(many, np.tile(whole, 140), rtol=1e-5)
  none = jax.tree.map(lambda x: x[:0], inputs)
  assert surrogate.predict(predictor, params, none, blocks=3).shape == (2, 0)


def test_one_program_serves_all_sizes(small, caplog):
  predictor, inputs, targets = small

  def use(rows, children, **changes):
    params = fitted(predictor, inputs, targets, np.arange(rows), **changes)
    part = jax.tree.map(lambda x: x[:children], inputs)
    surrogate.predict(predictor, params, part, blocks=3)

  use(5, 64)
  caplog.clear()
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    use(40, 64, steps=7)
    use(1, 13, learning_rate=0.002, blocks=1)
  messages = [r.getMessage() for r in caplog.records]
  assert not [m for m in messages if m.startswith("Compiling")]


def test_the_loss_is_l1(small):
  predictor, inputs, targets = small
  alike = jax.tree.map(lambda x: np.repeat(x[:1], 64, 0), inputs)
  targets = np.full(64, 0.8, np.float32)
  # A quarter of each member's; the mean is 0.625, the median 0.8.
  targets[np.arange(64) // 2 % 4 == 0] = 0.1
  params = fitted(predictor, alike, targets, np.arange(64), steps=400)
  found = surrogate.predict(predictor, params, alike, blocks=3)
  np.testing.assert_allclose(found, 0.8, atol=0.03)


@pytest.mark.parametrize("name", predictors.PREDICTORS)
def test_predictors_order_cells_of_a_block_more_than_they_saw(name, quality):
  predictor = predictors.PREDICTORS[name](
    predictors.cell_vocabulary(PNAS), 16, 16
  )
  noise = np.random.default_rng(1).normal(0, 0.003, 400)
  seen = np.concatenate(
    [cells(PNAS, 136, 2, blocks=1), cells(PNAS, 264, 3, blocks=2)]
  )
  params = surrogate.fit(
    predictor,
    surrogate.init_ensemble(predictor, np.random.default_rng(0), 5),
    predictor.inputs(predictors.cell_tokens(PNAS, seen)),
    quality(PNAS, seen) + noise,
    np.arange(400),
    np.random.default_rng(1),
    blocks=2,
    steps=300,
    learning_rate=0.01,
    batch_size=32,
  )
  unseen = cells(PNAS, 400, 4, blocks=3)
  found = surrogate.predict(
    predictor,
    params,
    predictor.inputs(predictors.cell_tokens(PNAS, unseen)),
    blocks=3,
  )
  truth = quality(PNAS, unseen)
  together = stats.spearmanr(found.mean(0), truth).statistic
  each = [stats.spearmanr(member, truth).statistic for member in found]
  assert together > 0.6
  assert together > np.mean(each)
