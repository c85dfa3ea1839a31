"""Spaces of cells: decisions, samples, equal cells, neighbours, JSON."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.spaces import base, cell_literals
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.spaces.cells import CellSpace

# Of cells whose decisions are the cell's own numbers, one by one.
ALL = pytest.mark.parametrize(
  "space", spaces.CELL_SPACES.values(), ids=lambda space: space.name
)
SMALL = (
  CellSpace("small", ("a", "b"), cells=("cell",), num_blocks=2),
  CellSpace(
    "small_concat",
    ("a", "b"),
    cells=("cell",),
    num_blocks=2,
    combiners=("add", "concat"),
  ),
  CellSpace("small_3", ("a",), cells=("cell",), num_blocks=3, output="all"),
  CellSpace(
    "small_separate",
    ("a", "b"),
    cells=("cell",),
    num_blocks=2,
    combiners=gt.COMBINERS,
    output="separate",
  ),
)
OPEN = CellSpace(
  "open", ("a", "b"), cells=("x", "y"), num_blocks=3, min_blocks=1, output="all"
)


def _everything(space):
  """int[n, D]: all decision vectors of a small space."""
  assert np.prod([float(n) for n in space.num_choices]) < 1e5
  return np.array(list(itertools.product(*map(range, space.num_choices))))


# A slow check of its own: tuples, one cell at a time, no arrays.


def _blocks(space, row):
  """One tuple of blocks per cell; a block is (i1, i2, o1, o2[, c])."""
  width = space.decisions_per_block
  flat = [
    tuple(map(int, row[i : i + width])) for i in range(0, len(row), width)
  ]
  size = space.num_blocks
  return [tuple(flat[i : i + size]) for i in range(0, len(flat), size)]


def _equals(space, blocks):
  """The set of all tables that describe the same cell."""
  found = set()
  first = space.num_inputs
  orders = itertools.permutations(range(len(blocks)))
  if space.output == "separate":  # the place of a block says where it goes
    orders = [range(len(blocks))]
  for order in orders:
    renamed = {s: s for s in range(first)}
    renamed |= {old + first: k + first for k, old in enumerate(order)}
    moved = [
      (renamed[blocks[old][0]], renamed[blocks[old][1]], *blocks[old][2:])
      for old in order
    ]
    if any(max(b[:2]) >= k + first for k, b in enumerate(moved)):
      continue
    sides = [[b, (b[1], b[0], b[3], b[2], *b[4:])] for b in moved]
    found.update(itertools.product(*sides))
  return found


def _scrambled(space, row, rng):
  """An equal row at random: other sides, another legal order."""
  cells_of_row = []
  for blocks in _blocks(space, row):
    options = sorted(_equals(space, blocks))
    cells_of_row.append(options[rng.integers(len(options))])
  return np.array(cells_of_row).ravel()


@ALL
def test_each_space_is_a_search_space(space):
  assert isinstance(space, base.SearchSpace)
  assert len(space.decision_names) == len(space.num_choices)
  assert len(set(space.decision_names)) == len(space.num_choices)


def test_the_nasnet_space_has_the_papers_decisions():
  # Zoph et al. 2018, section 3.1: 2 cells x 5 blocks x 5 softmaxes.
  space = spaces.SPACES["nasnet_concat"]
  one_cell = [n for b in range(5) for n in (b + 2, b + 2, 13, 13, 2)]
  assert list(space.num_choices) == one_cell * 2
  assert space.decision_names[4] == "normal block 0 combiner"
  assert space.decision_names[25] == "reduction block 0 input 1"
  raw = np.prod([float(n) for n in one_cell])
  assert raw == pytest.approx(2.29e18, rel=2e-3)


def test_the_pnas_space_has_the_papers_decisions():
  space = spaces.SPACES["pnas"]
  assert space.num_choices == tuple(
    n for b in range(5) for n in (b + 2, b + 2, 8, 8)
  )
  assert np.prod([float(n) for n in space.num_choices]) == pytest.approx(
    5.57e14, rel=1e-3
  )


def test_nasnet_c_has_four_combiners_and_nasnet_b_four_inputs_too():
  # Zoph et al. 2018, appendix; B = 4.
  cell = [n for b in range(4) for n in (b + 2, b + 2, 13, 13, 4)]
  assert list(spaces.SPACES["nasnet_c"].num_choices) == cell * 2
  cell = [n for b in range(4) for n in (b + 4, b + 4, 13, 13, 4)]
  assert list(spaces.SPACES["nasnet_b"].num_choices) == cell * 2


def test_nasnet_b_passes_on_every_block_even_one_that_is_read():
  space = spaces.SPACES["nasnet_b"]
  chain = [(b and b + 3, 0, 0, 0, 0) for b in range(4)] * 2
  genotype = space.decode(np.array(chain).ravel())
  assert genotype.inputs[0, :, 0].tolist() == [0, 4, 5, 6]
  assert (genotype.concat == [False] * 4 + [True] * 4).all()
  cell = space.to_json(genotype)["cells"]["normal"]
  assert cell["outputs"] == [4, 5, 6, 7]
  assert "concat" not in cell


def test_the_order_of_separate_outputs_is_part_of_the_cell():
  space = CellSpace(
    "two", ("a", "b"), cells=("cell",), num_blocks=2, output="separate"
  )
  # The same two blocks, which feed layers one and two on the other way round.
  rows = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0]])
  assert space.key(rows[0]) != space.key(rows[1])
  concatenated = dataclasses.replace(space, output="loose_ends")
  assert concatenated.key(rows[0]) == concatenated.key(rows[1])


@pytest.mark.smoke
@ALL
def test_decisions_and_genotypes_translate_both_ways(space):
  decisions = space.sample(np.random.default_rng(0), 500)
  genotypes = space.decode(decisions)
  gt.validate(genotypes, len(space.operations), space.num_inputs)
  assert genotypes.inputs.shape == (
    500,
    len(space.cells),
    space.num_blocks,
    2,
  )
  back = space.encode(genotypes)
  assert back.dtype == np.int32
  np.testing.assert_array_equal(back, decisions)


@ALL
def test_one_vector_decodes_like_its_row_of_many(space):
  decisions = space.sample(np.random.default_rng(1), 4)
  many = space.decode(decisions)
  one = space.decode(decisions[2])
  for row, leaf in zip(many, one):
    np.testing.assert_array_equal(row[2], leaf)
  np.testing.assert_array_equal(space.encode(one), decisions[2])


def test_decisions_mean_what_their_names_say():
  space = spaces.SPACES["nasnet_concat"]
  decisions = np.zeros(50, int)
  named = dict(zip(space.decision_names, range(50)))
  decisions[named["reduction block 3 input 2"]] = 4
  decisions[named["reduction block 3 operation 1"]] = 7
  decisions[named["normal block 2 combiner"]] = 1
  genotype = space.decode(decisions)
  assert np.argwhere(genotype.inputs).tolist() == [[1, 3, 1]]
  assert genotype.inputs[1, 3, 1] == 4
  assert np.argwhere(genotype.ops).tolist() == [[1, 3, 0]]
  assert genotype.ops[1, 3, 0] == 7
  assert np.argwhere(genotype.combine).tolist() == [[0, 2]]


def test_combiners_translate_by_name_whatever_their_order():
  space = CellSpace("turned", ("a",), combiners=("concat", "add"))
  decisions = space.sample(np.random.default_rng(2), 50)
  genotypes = space.decode(decisions)
  assert genotypes.combine[0, 0, 0] == 1 - decisions[0, 4]
  np.testing.assert_array_equal(space.encode(genotypes), decisions)


def test_a_single_concatenating_combiner_is_no_decision():
  space = CellSpace("concat_only", ("a", "b"), combiners=("concat",))
  decisions = space.sample(np.random.default_rng(3), 5)
  assert decisions.shape == (5, 40)
  assert (space.decode(decisions).combine == gt.CONCAT).all()


def test_pnas_concatenates_all_blocks_and_nasnet_the_unread_ones():
  rng = np.random.default_rng(4)
  pnas = spaces.SPACES["pnas"]
  concat = pnas.decode(pnas.sample(rng, 20)).concat
  assert (concat == [False] * 2 + [True] * 5).all()
  nasnet = spaces.SPACES["nasnet"]
  chain = nasnet.decode(
    np.array([[b and b + 1, 0, 0, 0] for b in range(5)] * 2).ravel()
  )
  assert (chain.concat == [False] * 6 + [True]).all()


@pytest.mark.parametrize(
  ("change", "line"),
  [
    (lambda d: d[:-1], "expected 40 decisions, got shape (39,)"),
    (lambda d: np.where(np.arange(40) == 7, 13, d), "decision 7 is 13"),
    (lambda d: np.where(np.arange(40) == 0, -1, d), "decision 0 is -1"),
    (lambda d: d + 0.5, "decisions are whole numbers, not float64"),
  ],
)
def test_wrong_decisions_are_named_in_one_line(change, line):
  space = spaces.SPACES["nasnet"]
  with pytest.raises(ValueError) as error:
    space.decode(change(np.zeros(40, int)))
  assert line in str(error.value)
  assert "\n" not in str(error.value)


def test_encode_refuses_cells_outside_the_space():
  space = spaces.SPACES["nasnet"]
  inside = space.decode(space.sample(np.random.default_rng(5), 1)[0])
  space.encode(inside)
  cases = {
    "combiners of space": inside._replace(combine=inside.combine + 1),
    "5 active blocks": gt.pad_blocks(inside, 6),
    "loose ends": inside._replace(concat=np.ones((2, 7), bool)),
    "2 cells": gt.Genotype(*(leaf[:1] for leaf in inside)),
  }
  for line, genotype in cases.items():
    with pytest.raises(ValueError, match=line):
      space.encode(genotype)


def test_encode_refuses_a_published_output_of_other_states():
  # NASNet-A concatenates h_{i-1} and a state that is read: no sample is so.
  with pytest.raises(ValueError, match="loose ends"):
    spaces.SPACES["nasnet"].encode(zoo.cells.genotype("nasnet_a"))


@pytest.mark.smoke
@ALL
def test_samples_are_uniform_in_every_decision(space):
  n = 20_000
  samples = space.sample(np.random.default_rng(6), n)
  assert samples.shape == (n, len(space.num_choices))
  assert samples.dtype == np.int32
  for column, choices in zip(samples.T, space.num_choices):
    counts = np.bincount(column, minlength=choices)
    assert len(counts) == choices
    freedom = choices - 1
    chi_square = ((counts - n / choices) ** 2).sum() / (n / choices)
    # Mean and variance are freedom and 2 freedom; 6 sigma of 120 columns.
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom)


@ALL
def test_samples_of_two_decisions_are_independent(space):
  samples = space.sample(np.random.default_rng(7), 20_000)
  correlation = np.corrcoef(samples.T)
  np.fill_diagonal(correlation, 0)
  # 780 pairs at most, each of standard deviation 1 / sqrt(20,000).
  assert np.abs(correlation).max() < 6 / np.sqrt(20_000)


def test_the_same_seed_gives_the_same_samples():
  space = spaces.SPACES["nasnet"]
  one, two, other = (
    space.sample(np.random.default_rng(seed), 10) for seed in (8, 8, 9)
  )
  np.testing.assert_array_equal(one, two)
  assert (one != other).any()


@pytest.mark.smoke
@ALL
def test_equivalent_cells_share_canonical_row_and_key(space):
  rng = np.random.default_rng(10)
  small = dataclasses.replace(space, num_blocks=4)
  rows = small.sample(rng, 30)
  scrambled = np.array([_scrambled(small, row, rng) for row in rows])
  assert (scrambled != rows).any()
  np.testing.assert_array_equal(
    small.canonical(rows), small.canonical(scrambled)
  )
  keys = [small.key(row) for row in rows]
  assert keys == [small.key(row) for row in scrambled]
  assert len(set(keys)) == len(rows)


@pytest.mark.parametrize("space", SMALL, ids=lambda space: space.name)
def test_canonical_agrees_with_a_slow_search_on_whole_small_spaces(space):
  rows = _everything(space)
  fast = [tuple(row) for row in space.canonical(rows).tolist()]
  slow = [min(_equals(space, _blocks(space, row)[0])) for row in rows]
  # Each of the two partitions the space: same cells together, others apart.
  assert len(set(zip(fast, slow))) == len(set(fast)) == len(set(slow))


@ALL
def test_canonical_agrees_with_a_slow_search_on_random_pairs(space):
  small = dataclasses.replace(
    space, num_blocks=3, operations=space.operations[:2]
  )
  rows = small.sample(np.random.default_rng(11), 300)
  fast = small.canonical(rows)
  for row, got in zip(rows, fast):
    for cell, canonical in zip(_blocks(small, row), _blocks(small, got)):
      assert canonical in _equals(small, cell)
  slow = [
    tuple(min(_equals(small, cell)) for cell in _blocks(small, row))
    for row in rows
  ]
  fast = [tuple(row) for row in fast.tolist()]
  assert len(set(zip(fast, slow))) == len(set(fast)) == len(set(slow))


@ALL
def test_the_canonical_row_is_canonical(space):
  rows = space.canonical(space.sample(np.random.default_rng(12), 200))
  assert rows.dtype == np.int32
  np.testing.assert_array_equal(space.canonical(rows), rows)


def _shuffled(row, rng):
  """An equal row of a cell of any size: blocks follow in a random order."""
  blocks, place, result = row.reshape(-1, 4), {0: 0, 1: 1}, []
  while len(result) < len(blocks):
    k = int(rng.integers(len(blocks)))
    if k + 2 in place or not {*blocks[k, :2].tolist()} <= {*place}:
      continue
    place[k + 2] = len(result) + 2
    a, b, op_a, op_b = blocks[k].tolist()
    result += [[place[b], place[a], op_b, op_a]]
  return np.array(result).ravel()


def test_cells_of_many_blocks_have_a_canonical_row():
  rng = np.random.default_rng(13)
  large = spaces.get("pnas", num_blocks=40)  # 40! orders
  rows = large.sample(rng, 20)
  shuffled = np.array([_shuffled(row, rng) for row in rows])
  assert (shuffled != rows).any()
  canonical = large.canonical(rows)
  np.testing.assert_array_equal(canonical, large.canonical(shuffled))
  assert len(np.unique(canonical, axis=0)) == 20


@ALL
def test_no_cells_have_no_canonical_rows(space):
  none = np.zeros((0, len(space.num_choices)), np.int32)
  assert space.canonical(none).shape == none.shape


def _expression(space, row):
  """What a row computes, as text: sides and outputs are sorted."""
  genotype = space.decode(row)
  outputs = []
  for c in range(genotype.num_cells):
    states = [f"h_i-{j}" for j in range(space.num_inputs)]
    for b in range(genotype.num_blocks):
      pair = zip(genotype.ops[c, b].tolist(), genotype.inputs[c, b].tolist())
      terms = sorted((op, states[i]) for op, i in pair)
      states.append(repr((int(genotype.combine[c, b]), *terms)))
    kept = np.flatnonzero(genotype.concat[c])
    output = [states[k] for k in kept]
    outputs.append(output if space.output == "separate" else sorted(output))
  return outputs


@ALL
def test_the_canonical_row_computes_the_same_function(space):
  rows = space.sample(np.random.default_rng(13), 100)
  for row, canonical in zip(rows, space.canonical(rows)):
    assert _expression(space, row) == _expression(space, canonical)


def test_cells_that_differ_keep_different_keys():
  space = spaces.SPACES["nasnet_concat"]
  rng = np.random.default_rng(14)
  row = space.sample(rng, 1)[0]
  keys = {tuple(r): space.key(r) for r in space.neighbours(row)[::7]}
  for a, b in itertools.combinations(keys, 2):
    same = all(
      x in _equals(space, y)
      for x, y in zip(_blocks(space, a), _blocks(space, b))
    )
    assert (keys[a] == keys[b]) == same


def test_the_key_depends_on_the_space():
  row = np.zeros(40, int)
  space = spaces.SPACES["nasnet"]
  assert space.key(row) != dataclasses.replace(space, name="other").key(row)


def test_one_block_pnas_cells_are_136_of_256():
  space = spaces.get("pnas", num_blocks=1)
  rows = _everything(space)
  assert len(rows) == 256
  assert len(np.unique(space.canonical(rows), axis=0)) == 136


@pytest.mark.parametrize(
  ("level", "unique"), [(1, 136), (2, 300), (3, 528), (4, 820), (5, 1176)]
)
def test_unordered_pnas_blocks_per_level_match_the_paper(level, unique):
  # Liu et al. 2018: the last block of a chain, where only sides can swap.
  space = spaces.get("pnas", num_blocks=level)
  chain = [
    n for b in range(level - 1) for n in (b and b + 1, b and b + 1, 0, 0)
  ]
  last = itertools.product(*map(range, space.num_choices[-4:]))
  rows = np.array([[*chain, *block] for block in last])
  assert len(rows) == (level + 1) ** 2 * 64
  keys = {
    (tuple(row[:-4]), frozenset([(row[-4], row[-2]), (row[-3], row[-1])]))
    for row in rows.tolist()
  }
  assert len(keys) == unique
  assert len(np.unique(space.canonical(rows), axis=0)) == unique


@ALL
def test_neighbours_are_all_rows_one_decision_away(space):
  row = space.sample(np.random.default_rng(15), 1)[0]
  rows = space.neighbours(row)
  assert rows.shape == (sum(n - 1 for n in space.num_choices), len(row))
  assert ((rows != row).sum(1) == 1).all()
  assert len(np.unique(rows, axis=0)) == len(rows)
  gt.validate(space.decode(rows), len(space.operations), space.num_inputs)


def test_a_space_with_one_operation_has_neighbours_by_inputs_only():
  space = spaces.get("pnas", num_blocks=2, operations=("identity",))
  rows = space.neighbours(np.zeros(8, int))
  assert rows.shape == (1 + 1 + 2 + 2, 8)
  assert not rows[:, [2, 3, 6, 7]].any()


def test_a_space_without_a_choice_has_no_neighbours():
  assert base.neighbours((1, 1), [0, 0]).shape == (0, 2)
  assert base.neighbours((), []).shape == (0, 0)


@pytest.mark.smoke
@ALL
def test_json_gives_the_same_genotype_back(space):
  for row in space.sample(np.random.default_rng(16), 20):
    genotype = space.decode(row)
    text = json.dumps(space.to_json(genotype))
    back = space.from_json(json.loads(text))
    for got, want in zip(back, genotype):
      np.testing.assert_array_equal(got, want)


def test_json_leaves_inactive_blocks_out():
  space = spaces.SPACES["nasnet"]
  genotype = zoo.cells.genotype("nasnet_a")
  padded = gt.pad_blocks(genotype, 7)
  assert space.to_json(padded) == space.to_json(genotype)


def test_json_says_names_not_numbers():
  data = spaces.SPACES["nasnet"].to_json(zoo.cells.genotype("nasnet_a"))
  assert data["space"] == "nasnet"
  assert data["cells"]["reduction"]["concat"] == [3, 4, 5, 6]
  assert data["cells"]["normal"]["blocks"][2] == {
    "inputs": [0, 1],
    "operations": ["avg_pool_3x3", "identity"],
    "combine": "add",
  }


def _broken_json(change):
  data = spaces.SPACES["nasnet"].to_json(zoo.cells.genotype("nasnet_a"))
  change(data)
  return data


@pytest.mark.parametrize(
  ("change", "line"),
  [
    (lambda d: d["cells"].pop("reduction"), "lacks the cell 'reduction'"),
    (lambda d: d.pop("cells"), "lacks the cell 'normal'"),
    (
      lambda d: d["cells"]["normal"]["blocks"][0].update(
        operations=["sep_conv_9x9", "identity"]
      ),
      "operation 'sep_conv_9x9' is not in space nasnet",
    ),
    (
      lambda d: d["cells"]["normal"]["blocks"][0].update(combine="mul"),
      "combiner 'mul' is not",
    ),
    (
      lambda d: d["cells"]["normal"]["blocks"][0].update(inputs=[0, 2]),
      "a block reads a state that is not computed before it",
    ),
    (
      lambda d: d["cells"]["normal"]["blocks"][0].pop("inputs"),
      "block 0 of the cell 'normal' lacks two inputs",
    ),
    (
      lambda d: d["cells"]["normal"].pop("concat"),
      "the cell 'normal' lacks 'concat'",
    ),
    (
      lambda d: d["cells"]["normal"].update(concat=[7]),
      "output state 7 of the cell 'normal' is outside 0..6",
    ),
    (
      lambda d: d["cells"]["normal"].update(concat=[-1]),
      "output state -1 of the cell 'normal' is outside 0..6",
    ),
  ],
)
def test_broken_json_is_named_in_one_line(change, line):
  with pytest.raises(ValueError) as error:
    spaces.SPACES["nasnet"].from_json(_broken_json(change))
  assert line in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("outputs", "line"),
  [
    ([4, 5, 6], "passes on each of its 4 blocks: its outputs are [4, 5, 6, 7]"),
    ([5, 4, 6, 7], "its outputs are [4, 5, 6, 7]"),
    ([4, 5, 6, 8], "output state 8 of the cell 'normal' is outside 0..7"),
    (None, "the cell 'normal' lacks 'outputs'"),
  ],
)
def test_other_outputs_of_nasnet_b_are_named_in_one_line(outputs, line):
  space = spaces.SPACES["nasnet_b"]
  data = space.to_json(space.decode(np.zeros(len(space.num_choices), int)))
  cell = data["cells"]["normal"]
  if outputs is None:
    del cell["outputs"]
  else:
    cell["outputs"] = outputs
  with pytest.raises(ValueError) as error:
    space.from_json(data)
  assert line in str(error.value)
  assert "\n" not in str(error.value)


def test_get_narrows_a_space_to_some_operations_and_blocks():
  space = spaces.get("nasnet", 3, ("identity", "sep_conv_3x3"))
  assert space.num_blocks == 3
  assert space.num_choices == (2, 2, 2, 2, 3, 3, 2, 2, 4, 4, 2, 2) * 2
  assert spaces.get("nasnet") is spaces.SPACES["nasnet"]


def test_get_names_what_it_does_not_know():
  with pytest.raises(ValueError, match="'nasnett' is not one of: nasnet, "):
    spaces.get("nasnett")
  with pytest.raises(ValueError, match="'conv_9x9' is not in space 'pnas'"):
    spaces.get("pnas", operations=("identity", "conv_9x9"))


def test_darts_literals_swap_the_two_cell_inputs():
  # DARTS and PNASNet.pytorch: 0 is h_{i-1}, 1 is h_i, 2+k is block k.
  theirs = {"normal": ([(0, 1, "a", "b"), (2, 0, "b", "a")], [0, 3])}
  ours = {"normal": ([(1, 0, "a", "b"), (2, 1, "b", "a")], [1, 3])}
  assert cell_literals.from_darts(theirs) == ours
  assert cell_literals.to_darts(ours) == theirs


def test_darts_conversion_twice_changes_nothing():
  there = cell_literals.to_darts(zoo.cells.NASNET_A)
  assert there != zoo.cells.NASNET_A
  assert cell_literals.from_darts(there) == zoo.cells.NASNET_A


def test_slim_operations_without_a_counterpart_are_named():
  with pytest.raises(ValueError, match="'separable_3x3_4' of slim"):
    cell_literals.from_slim(["separable_3x3_4", "none"], [0, 1], [1, 1, 0])


# Cells whose number of blocks is a decision.


def test_the_number_of_blocks_comes_first_in_each_cell():
  assert OPEN.num_choices[0] == OPEN.num_choices[OPEN.decisions_per_cell] == 3
  assert OPEN.kinds[0] == "number of blocks"
  assert OPEN.groups == (0,) * 13 + (1,) * 13
  decisions = np.zeros((1, 26), int)
  decisions[0, 13] = 2
  genotype = OPEN.decode(decisions)
  np.testing.assert_array_equal(
    genotype.active[0], [[True, False, False], [True, True, True]]
  )
  np.testing.assert_array_equal(
    genotype.concat[0, 0], [False, False, True, False, False]
  )


def test_cells_of_open_size_translate_both_ways():
  decisions = OPEN.canonical(OPEN.sample(np.random.default_rng(0), 200))
  np.testing.assert_array_equal(OPEN.encode(OPEN.decode(decisions)), decisions)
  one = OPEN.decode(decisions[0])
  again = OPEN.from_json(json.loads(json.dumps(OPEN.to_json(one))))
  np.testing.assert_array_equal(OPEN.encode(again), decisions[0])


def test_decisions_of_blocks_that_are_left_out_mean_nothing():
  rng = np.random.default_rng(1)
  decisions = OPEN.sample(rng, 100)
  decisions[:, [0, 13]] = 0
  changed = decisions.copy()
  beyond = [*range(5, 13), *range(18, 26)]
  changed[:, beyond] = OPEN.sample(rng, 100)[:, beyond]
  assert (changed != decisions).any()
  for a, b in zip(OPEN.decode(changed), OPEN.decode(decisions)):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(
    OPEN.canonical(changed), OPEN.canonical(decisions)
  )


def test_a_cell_of_open_size_is_equal_to_the_one_of_that_size():
  rng = np.random.default_rng(2)
  fixed = dataclasses.replace(OPEN, min_blocks=0, num_blocks=2)
  table = fixed.sample(rng, 50).reshape(50, 2, 8)
  opened = np.zeros((50, 2, 13), int)
  opened[..., 0], opened[..., 1:9] = 1, table
  canonical = OPEN.canonical(opened.reshape(50, 26)).reshape(50, 2, 13)
  expected = fixed.canonical(table.reshape(50, 16)).reshape(50, 2, 8)
  np.testing.assert_array_equal(canonical[..., 1:9], expected)
  assert (canonical[..., 9:] == 0).all() and (canonical[..., 0] == 1).all()


def test_a_minimum_beyond_the_number_of_blocks_is_refused():
  with pytest.raises(ValueError, match="min_blocks is 4, outside"):
    dataclasses.replace(OPEN, min_blocks=4)


def test_separate_outputs_of_an_open_number_are_refused():
  with pytest.raises(ValueError, match="set min_blocks to 0"):
    spaces.get("nasnet_b", min_blocks=2)


def test_a_kind_and_a_group_stand_beside_each_decision():
  for space in spaces.SPACES.values():
    assert len(space.kinds) == len(space.groups) == len(space.num_choices)
  for name, kind in zip(
    spaces.get("nasnet").decision_names, spaces.get("nasnet").kinds
  ):
    assert kind in name
