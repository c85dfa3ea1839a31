"""The stacked network: exact sizes, shapes, and the rules of its parts."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.costs import counting
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import layers, stacked, stacked_plan
from nasnet_jax.models.cell import Cell
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked import StackedNetwork
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.spaces.cells import CellSpace

NASNET = spaces.get("nasnet")
NASNET_A = stacked.as_cells(NASNET, zoo.cells.genotype("nasnet_a"))
SMALL = NetworkConfig(num_cells=1, features=4)


def _shapes(config, image_shape, cells=NASNET_A):
  """(variables, endpoints, auxiliary logits) in training, as shapes."""
  network = StackedNetwork(config, cells)
  images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

  init = functools.partial(network.init_with_output, train=True)
  outputs, variables = jax.eval_shape(init, jax.random.key(0), images)
  _, auxiliary, endpoints = outputs
  return variables, endpoints, auxiliary


def _size(tree) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def cifar():
  """NASNet-A 6@768 with its auxiliary head, as shapes."""
  return _shapes(NetworkConfig(num_cells=6, features=32, aux=True), (32, 32, 3))


# Zoph et al. 2018 publish 3.3M for 6@768; the other numbers follow from the
# released graph (slim, nasnet.py) layer by layer.
CELL_SIZES = {
  "stem": 2_784,
  "cell_0": 40_384,
  "cell_1": 25_152,
  **{f"cell_{i}": 28_224 for i in range(2, 6)},
  "reduction_0": 87_168,
  "cell_6": 81_024,
  "cell_7": 93_312,
  **{f"cell_{i}": 101_504 for i in range(8, 12)},
  "reduction_1": 305_408,
  "cell_12": 301_312,
  "cell_13": 350_464,
  **{f"cell_{i}": 383_232 for i in range(14, 18)},
  "classifier": 7_690,
  "aux_head": 1_631_498,
}

# slim, nasnet_test.py, testAllEndPointsShapesCifarModel.
ENDPOINTS = {
  "stem": (32, 32, 96),
  **{f"cell_{i}": (32, 32, 192) for i in range(6)},
  "reduction_0": (16, 16, 256),
  **{f"cell_{i}": (16, 16, 384) for i in range(6, 12)},
  "reduction_1": (8, 8, 512),
  **{f"cell_{i}": (8, 8, 768) for i in range(12, 18)},
  "pooled": (768,),
}


@pytest.mark.smoke
def test_nasnet_a_has_exactly_the_published_parameters(cifar):
  variables, _, _ = cifar
  found = {name: _size(p) for name, p in variables["params"].items()}
  assert found == CELL_SIZES
  del found["aux_head"]
  assert sum(found.values()) == 3_346_538


def test_nasnet_a_has_exactly_slims_moving_statistics(cifar):
  statistics = dict(cifar[0]["batch_stats"])
  del statistics["aux_head"]
  assert 3_346_538 + _size(statistics) == 3_383_786


def test_every_endpoint_of_nasnet_a_has_slims_shape(cifar):
  _, endpoints, auxiliary = cifar
  assert {name: e.shape[1:] for name, e in endpoints.items()} == ENDPOINTS
  assert auxiliary.shape == (2, 10)


@pytest.mark.parametrize(
  ("num_cells", "params", "macs"),
  [(6, 3_346_538, 544.3e6), (2, 1_294_698, 232.2e6)],
  ids=["6@768", "the search's child"],
)
def test_parameters_and_macs_of_nasnet_a_are_exact(num_cells, params, macs):
  config = NetworkConfig(num_cells=num_cells, features=32)
  image_shape = (32, 32, 3)
  counted = counting.count_module(StackedNetwork(config, NASNET_A), image_shape)
  count = counting.make_counter(config, NASNET.operations, 5, image_shape)
  assert counted == count(zoo.cells.genotype("nasnet_a"))
  assert counted[0] == params
  assert round(counted[1] / 1e6, 1) == macs / 1e6


@pytest.mark.parametrize(
  "space",
  [s for s in spaces.SPACES.values() if isinstance(s, CellSpace)],
  ids=lambda space: space.name,
)
def test_the_counter_agrees_with_the_network_for_random_cells(space):
  count = counting.make_counter(
    SMALL,
    space.operations,
    space.num_blocks,
    (14, 11, 2),
    space.output == "separate",
  )
  decisions = space.sample(np.random.default_rng(3), 3)
  for genotype in map(space.decode, decisions):
    network = StackedNetwork(SMALL, stacked.as_cells(space, genotype))
    assert count(genotype) == counting.count_module(network, (14, 11, 2))


@pytest.mark.parametrize("kind", [0, 1])
def test_another_operation_on_an_edge_costs_what_the_table_says(kind):
  config = SMALL
  image_shape = (14, 11, 2)
  count = counting.make_counter(config, NASNET.operations, 5, image_shape)
  costs = counting.edge_costs(config, NASNET.operations, 5, image_shape)[kind]
  before = zoo.cells.genotype("nasnet_a")
  pool = NASNET.operations.index("avg_pool_3x3")
  for block, side in ((0, 1), (3, 0), (4, 1)):
    state = before.inputs[kind, block, side]
    for op in range(len(NASNET.operations)):
      found = {}
      for choice in (op, pool):
        ops = before.ops.copy()
        ops[kind, block, side] = choice
        found[choice] = np.array(count(before._replace(ops=ops)))
      extra = costs[state, op] - costs[state, pool]
      np.testing.assert_array_equal(found[op] - found[pool], extra)
  unread = costs[2:, NASNET.operations.index("identity")]
  assert not unread.any()  # of blocks, at stride 1, it is free


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_counter_leaves_out_blocks_that_are_left_out(blocks):
  space = spaces.get("pnas", num_blocks=blocks)
  genotype = space.decode(space.sample(np.random.default_rng(blocks), 1)[0])
  count = counting.make_counter(SMALL, space.operations, 5, (8, 8, 1))
  network = StackedNetwork(SMALL, stacked.as_cells(space, genotype))
  padded = gt.pad_blocks(genotype, 5)
  assert count(padded) == counting.count_module(network, (8, 8, 1))


@pytest.mark.parametrize(
  ("side", "channels"), [(8, 1), (28, 1), (31, 5), (32, 3), (64, 3)]
)
def test_images_of_any_side_and_channels_fit(side, channels):
  config = dataclasses.replace(SMALL, aux=True)
  shapes = _shapes(config, (side, side, channels))
  _, endpoints, auxiliary = shapes
  sides = [side, -(-side // 2), -(-side // 4)]
  assert endpoints["cell_0"].shape == (2, sides[0], sides[0], 24)
  assert endpoints["cell_1"].shape == (2, sides[1], sides[1], 48)
  assert endpoints["cell_2"].shape == (2, sides[2], sides[2], 96)
  assert auxiliary.shape == (2, 10)


def test_images_that_are_not_square_fit():
  _, endpoints, _ = _shapes(SMALL, (9, 14, 3))
  assert endpoints["cell_2"].shape == (2, 3, 4, 96)


@pytest.mark.parametrize("side", [(2, 2), (1, 8), (8, 2)])
def test_images_too_small_to_be_halved_get_one_clear_line(side):
  with pytest.raises(ValueError, match="too small for 2 reductions") as error:
    stacked_plan.cell_shapes(SMALL, 5, side)
  assert "\n" not in str(error.value)


def test_images_just_large_enough_are_taken():
  shapes = stacked_plan.cell_shapes(SMALL, 5, (3, 3))
  assert [shape.out_side for shape in shapes][-1] == (1, 1)


# --- factorised reduction and batch norm ------------------------------------


def _numpy_reduction(x, first, second):
  """Pixel by pixel: even pixels, then odd ones or 0 beyond the border."""
  _, height, width, _ = x.shape
  rows = []
  for i in range(0, height, 2):
    row = []
    for j in range(0, width, 2):
      inside = i + 1 < height and j + 1 < width
      odd = x[:, i + 1, j + 1] if inside else np.zeros_like(x[:, 0, 0])
      row.append(np.concatenate([x[:, i, j] @ first, odd @ second], -1))
    rows.append(np.stack(row, 1))
  y = np.stack(rows, 1)
  return (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)


@pytest.mark.parametrize("features", [4, 5])
@pytest.mark.parametrize("side", [(6, 8), (7, 9), (5, 4)])
def test_a_factorised_reduction_sees_even_and_odd_pixels(side, features):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, *side, 3)).astype(np.float32)
  module = layers.FactorizedReduction(Numerics(), features)
  variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), x, True)

  @jax.jit
  def run(variables):
    return module.apply(variables, x, True, mutable=["batch_stats"])[0]

  y = run(variables)
  first, second = (
    variables["params"][name]["kernel"] for name in ("conv_0", "conv_1")
  )
  # An odd width gives the extra channel to the second half.
  assert (first.shape[-1], second.shape[-1]) == (
    features // 2,
    -(-features // 2),
  )
  wanted = _numpy_reduction(x, np.float64(first), np.float64(second))
  np.testing.assert_allclose(y, wanted, atol=2e-5)


def test_running_statistics_move_by_a_tenth_towards_the_batch():
  rng = np.random.default_rng(0)
  x = rng.normal(3, 2, (4, 3, 5, 2)).astype(np.float32)
  module = layers.BatchNorm(Numerics(bn_decay=0.9))
  variables = module.init(jax.random.key(0), x, True)
  old = variables["batch_stats"]
  np.testing.assert_array_equal(old["mean"], [0, 0])
  np.testing.assert_array_equal(old["var"], [1, 1])
  _, new = module.apply(variables, x, True, mutable=["batch_stats"])
  new = new["batch_stats"]
  mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(new["mean"], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(new["var"], 0.9 + 0.1 * variance, rtol=1e-5)


def test_evaluation_normalises_by_the_running_statistics():
  x = np.linspace(-1, 5, 24, dtype=np.float32).reshape(2, 2, 3, 2)
  module = layers.BatchNorm(Numerics(bn_epsilon=1e-3))
  params = {"scale": np.float32([2, 1]), "bias": np.float32([0, -1])}
  statistics = {"mean": np.float32([1, 0]), "var": np.float32([4, 0.25])}
  y = module.apply({"params": params, "batch_stats": statistics}, x, False)
  wanted = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-3)
  wanted = wanted * params["scale"] + params["bias"]
  np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


# --- ScheduledDropPath -------------------------------------------------------


def test_frozen_statistics_are_used_and_kept_in_training():
  numerics = Numerics(bn_epsilon=1e-3, bn_frozen=True)
  norm = layers.BatchNorm(numerics)
  x = jnp.linspace(-1, 3, 24).reshape(2, 2, 2, 3)
  variables = norm.init(jax.random.key(0), x, False)
  stats = {"mean": jnp.full(3, 0.5), "var": jnp.full(3, 2.0)}
  variables = {**variables, "batch_stats": stats}
  y, updates = norm.apply(variables, x, True, mutable=["batch_stats"])
  np.testing.assert_array_equal(y, norm.apply(variables, x, False))
  assert updates["batch_stats"]["mean"].tolist() == [0.5] * 3


def test_keep_probabilities_follow_slims_formulae():
  """slim, nasnet_utils.py: keep_l = 1 - (i + 1) / n * (1 - end), then
  1 - min(1, t) * (1 - keep_l); n counts reduction cells too."""
  num_cells = len(stacked_plan.plan(NetworkConfig(num_cells=6)))
  assert num_cells == 20
  probs = functools.partial(dp.keep_probs, 0.6, num_cells=num_cells)
  layer = probs(progress=0.25, version="layer")
  np.testing.assert_allclose(layer, 1 - 0.02 * np.arange(1, 21), rtol=1e-6)
  time = probs(progress=0.25, version="time")
  np.testing.assert_allclose(time, np.full(20, 0.9), rtol=1e-6)
  constant = probs(progress=0.25, version="constant")
  np.testing.assert_allclose(constant, np.full(20, 0.6), rtol=1e-6)
  both = probs(progress=0.25, version="both")
  np.testing.assert_allclose(both, 1 - 0.005 * np.arange(1, 21), rtol=1e-6)


def test_stochastic_depth_keeps_the_first_block_and_follows_no_clock():
  for progress in (0.0, 0.5, 1.0):
    depth = dp.keep_probs(0.6, progress, 20, "depth")
    np.testing.assert_allclose(depth, 1 - 0.02 * np.arange(20), rtol=1e-6)


@pytest.mark.parametrize("version", ["time", "layer", "both", "constant"])
def test_the_last_cell_ends_at_the_keep_probability_and_stays(version):
  for progress in (1.0, 1.5):
    probs = dp.keep_probs(0.6, progress, 20, version)
    assert probs[-1] == pytest.approx(0.6)
    assert probs.min() == pytest.approx(0.6)


def test_a_mask_is_zero_or_the_inverse_and_its_mean_is_one():
  drop = dp.DropPath(jax.random.key(0), jnp.array([1.0, 0.7]))
  mask = np.asarray(dp.edge_mask(drop, 1, 3, 4096))
  assert mask.shape == (4096, 1, 1, 1)
  dropped = mask == 0
  np.testing.assert_allclose(mask[~dropped], 1 / 0.7, rtol=1e-6)
  assert dropped.mean() == pytest.approx(0.3, abs=0.03)
  assert mask.mean() == pytest.approx(1.0, abs=0.04)


def test_every_edge_cell_and_step_throws_coins_of_its_own():
  keep = jnp.array([0.5, 0.5])
  steps = [dp.DropPath(jax.random.key(seed), keep) for seed in (0, 1)]
  masks = [
    tuple(np.asarray(dp.edge_mask(drop, cell, edge, 64)).ravel())
    for drop in steps
    for cell in (0, 1)
    for edge in (0, 1, 2)
  ]
  assert len(set(masks)) == len(masks)


def test_a_part_of_the_batch_throws_the_same_coins():
  keep = jnp.array([0.5])
  whole = dp.edge_mask(dp.DropPath(jax.random.key(0), keep), 0, 1, 8)
  part = dp.DropPath(jax.random.key(0), keep, jnp.arange(4, 8))
  np.testing.assert_array_equal(dp.edge_mask(part, 0, 1, 4), whole[4:])


def _one_cell(block, drop, train=True):
  """A cell of one block on fixed random images, [8, 4, 4, 4]."""
  cell = Cell(Numerics(), ((block,), (2,)), features=4)
  x = np.random.default_rng(0).standard_normal((8, 4, 4, 4)).astype(np.float32)

  @jax.jit
  def run(drop):
    variables = cell.init(jax.random.key(0), x, x, True)
    return cell.apply(variables, x, x, train, drop, mutable=["batch_stats"])[0]

  return np.asarray(run(drop))


def _drop(keep):
  return dp.DropPath(jax.random.key(0), jnp.array([keep]))


def test_a_keep_probability_of_one_changes_nothing():
  assert dp.make(jax.random.key(0), 1.0, 0.5, 20) is None
  block = (0, 1, "sep_conv_3x3", "max_pool_3x3")
  np.testing.assert_array_equal(
    _one_cell(block, _drop(1.0)), _one_cell(block, None)
  )


def test_the_identity_is_never_dropped():
  block = (0, 1, "identity", "identity")
  np.testing.assert_array_equal(
    _one_cell(block, _drop(0.01)), _one_cell(block, None)
  )
  # Of a block with another operation only the identity is left.
  half = _one_cell((0, 1, "identity", "avg_pool_3x3"), _drop(0.01))
  both = _one_cell(block, None)
  pooled = _one_cell((0, 1, "identity", "avg_pool_3x3"), None)
  assert np.abs(half - pooled).max() > 0.1
  twice = _one_cell((0, 0, "identity", "identity"), None)
  np.testing.assert_array_equal(2 * half, twice)
  assert np.abs(2 * half - both).max() > 0.1


def test_dropping_follows_the_mask_of_each_edge():
  block = (0, 1, "avg_pool_3x3", "max_pool_3x3")
  left = _one_cell((0, 1, "avg_pool_3x3", "identity"), None)
  right = _one_cell((0, 1, "identity", "max_pool_3x3"), None)
  identities = _one_cell((0, 1, "identity", "identity"), None)
  twice = _one_cell((0, 0, "identity", "identity"), None)
  left = left - identities + twice / 2
  right = right - twice / 2
  masks = [dp.edge_mask(_drop(0.5), 0, edge, 8) for edge in (0, 1)]
  wanted = left * masks[0] + right * masks[1]
  np.testing.assert_allclose(
    _one_cell(block, _drop(0.5)), wanted, rtol=1e-4, atol=1e-5
  )


def test_evaluation_drops_nothing():
  block = (0, 1, "sep_conv_3x3", "max_pool_3x3")
  np.testing.assert_array_equal(
    _one_cell(block, _drop(0.1), train=False),
    _one_cell(block, None, train=False),
  )


# --- the auxiliary head ------------------------------------------------------


def test_the_auxiliary_head_is_for_training_only():
  config = dataclasses.replace(SMALL, num_reductions=1, aux=True)
  network = StackedNetwork(config, NASNET_A)
  images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
  init = functools.partial(network.init, train=True)
  variables = jax.eval_shape(init, jax.random.key(0), images)
  logits, auxiliary, _ = jax.eval_shape(network.apply, variables, images)
  assert logits.shape == (2, 10)
  assert auxiliary is None


def test_the_auxiliary_head_stands_before_the_last_reduction():
  for num_cells in (1, 2, 6):
    config = NetworkConfig(num_cells=num_cells)
    cell = stacked_plan.plan(config)[stacked_plan.aux_position(config)]
    assert cell.name == f"cell_{2 * num_cells - 1}"  # slim: at two thirds


def test_a_normal_cell_after_a_reduction_reads_what_the_reduction_read():
  cells = {cell.name: cell for cell in stacked_plan.plan(SMALL)}
  outputs = ["stem", *cells]
  read = {
    name: [
      None if place is None else outputs[place]
      for place in (cell.current, cell.previous)
    ]
    for name, cell in cells.items()
  }
  assert read == {
    "cell_0": ["stem", None],
    "reduction_0": ["cell_0", "stem"],
    "cell_1": ["reduction_0", "cell_0"],
    "reduction_1": ["cell_1", "reduction_0"],
    "cell_2": ["reduction_1", "cell_1"],
  }
