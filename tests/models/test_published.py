"""The published networks: exact sizes, and wiring equal to a second one.

Counts of parameters and MACs were taken layer by layer from the released
graphs: tensorflow/models, research/slim/nets/nasnet; tensorflow/tpu,
models/official/amoeba_net.
"""

import dataclasses
import functools
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.costs import counting
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import layers, ops, stacked, stacked_plan
from nasnet_jax.models.stacked import StackedNetwork
from nasnet_jax.models.stacked_plan import NetworkConfig

_spec = importlib.util.spec_from_file_location(
  "numpy_cells", pathlib.Path(__file__).with_name("numpy_cells.py")
)
numpy_cells = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numpy_cells)


def network_of(cells: str, **fields) -> StackedNetwork:
  space, _ = zoo.cells.CELLS[cells]
  literal = stacked.as_cells(space, zoo.cells.genotype(cells))
  return StackedNetwork(NetworkConfig(**fields), literal)


def published(name: str, **more) -> StackedNetwork:
  entry = zoo.cells.network(name)
  fields = {**entry.config, "num_classes": entry.num_classes, **more}
  return network_of(entry.cells, **fields)


@functools.cache
def shapes_of(name: str, **more):
  """(sizes of the modules, endpoints, auxiliary logits) of a training."""
  network, side = (
    published(name, aux=True, **more),
    zoo.cells.network(name).side,
  )
  images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
  init = functools.partial(network.init_with_output, train=True)
  outputs, variables = jax.eval_shape(init, jax.random.key(0), images)
  sizes = {
    module: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    for module, tree in variables["params"].items()
  }
  return sizes, outputs[2], outputs[1], variables


# MACs in millions, of convolutions and dense layers.
MACS = {
  "nasnet_a_cifar": 544.3,
  "nasnet_a_mobile": 563.6,
  "nasnet_a_large": 23_783.4,
  "pnasnet_5_cifar": 574.9,
  "pnasnet_5_mobile": 587.3,
  "pnasnet_5_large": 24_937.4,
  "amoebanet_a_mobile": 554.7,
  "amoebanet_b_mobile": 555.1,
  "amoebanet_c_mobile": 676.9,
  "amoebanet_a_large": 23_133.7,
  "amoebanet_b_large": 20_934.5,
  "amoebanet_c_large": 41_129.5,
  "amoebanet_b_gpipe": 298_794.0,
}


# Of these nobody gives MACs.
WITHOUT_MACS = {"amoebanet_a_cifar", "amoebanet_b_cifar", "amoebanet_d"}


@functools.cache
def counted(name: str) -> tuple[int, int]:
  side = zoo.cells.network(name).side
  return counting.count_module(published(name), (side, side, 3))


@pytest.mark.parametrize("name", zoo.cells.NETWORKS)
def test_every_network_of_the_zoo_has_exactly_its_size(name):
  entry = zoo.cells.network(name)
  params, macs = counted(name)
  assert params == entry.params
  if name not in WITHOUT_MACS:
    assert round(macs / 1e6, 1) == MACS[name]
  if name not in zoo.cells.DISAGREEMENTS:
    for ours, printed in (
      (params, entry.paper_params),
      (macs, entry.paper_macs),
    ):
      assert printed is None or abs(ours / 1e6 / printed - 1) < 0.02


# (N, F) of NASNet-A for which docs/networks.md has sizes other than those
# printed, in millions: (images, states concatenated, params, MACs). `docs`.
NASNETS = [
  (4, 44, 224, "drawn", 4.77, None),  # by the figure; printed 5.3
  (7, 96, 32, "released", 32.59, None),  # 7 @ 2304, printed 27.6
  (5, 64, 299, "released", 12.25, 2_550),  # 5 @ 1538, printed 10.9 and 2,350
  (7, 80, 299, "released", 24.60, 5_230),  # 7 @ 1920, printed 22.6 and 4,930
]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("n", "f", "side", "concat", "params", "macs"), NASNETS
)
def test_nasnets_that_disagree_have_the_sizes_of_the_docs(
  n, f, side, concat, params, macs
):
  fields = {"num_cells": n, "features": f}
  if side > 32:
    fields |= {"stem": "imagenet", "stem_features": 32, "num_classes": 1000}
  network = network_of("nasnet_a", **fields)
  if concat == "drawn":
    unread = ((2, 3, 4, 5, 6), (4, 5, 6))
    cells = tuple(
      (blocks, states) for (blocks, _), states in zip(network.cells, unread)
    )
    network = network.clone(cells=cells)
  found = counting.count_module(network, (side, side, 3))
  assert round(found[0] / 1e6, 2) == params
  assert macs is None or round(found[1] / 1e7) * 10 == macs
  text = (pathlib.Path(__file__).parents[2] / "docs/networks.md").read_text()
  assert f"{params:.2f}M" in text


def test_an_odd_width_keeps_all_its_channels():
  """Nobody's released AmoebaNet takes odd widths, which F = 50 and 62 have in
  the second stem cell; a count with an even split there (554.6, 555.0 and 676.8
  million MACs) lacks 32 inputs of one channel at 56x56."""
  for name, even in (
    ("amoebanet_a_mobile", 554.6),
    ("amoebanet_b_mobile", 555.0),
    ("amoebanet_c_mobile", 676.8),
  ):
    assert round((counted(name)[1] - 32 * 56**2) / 1e6, 1) == even


def test_sizes_that_disagree_with_the_printed_ones_are_said_to():
  for name in zoo.cells.DISAGREEMENTS:
    entry = zoo.cells.network(name)
    printed = np.array([entry.paper_params, entry.paper_macs])
    assert np.abs(np.array(counted(name)) / 1e6 / printed - 1).max() > 0.02


def test_every_cell_of_the_zoo_is_in_a_network_of_the_table():
  used = {entry.cells for entry in zoo.cells.NETWORKS.values()}
  assert used == set(zoo.cells.CELLS)


# Real et al. 2019 and Huang et al. 2019; millions to the precision of the
# count made from the released cells: (cells, side, N, F, params, MACs).
AMOEBANETS = [
  ("amoebanet_a", 32, 6, 32, 2.57, None),
  ("amoebanet_b", 32, 6, 80, 13.72, None),
  ("amoebanet_b", 32, 6, 128, 34.87, None),
  ("amoebanet_a", 299, 6, 448, 468.15, 103_900),
  ("amoebanet_a", 331, 6, 448, 468.15, 126_500),
  ("amoebanet_b", 331, 6, 196, 83.96, 22_270),
]


@pytest.mark.parametrize(
  ("cells", "side", "n", "features", "params", "macs"),
  AMOEBANETS,
  ids=lambda x: str(x),
)
def test_amoebanets_have_the_sizes_of_the_released_cells(
  cells, side, n, features, params, macs
):
  fields = {"num_cells": n, "features": features, "num_classes": 10}
  if side > 32:
    fields |= {"stem": "imagenet", "stem_features": 32, "num_classes": 1000}
  found = counting.count_module(network_of(cells, **fields), (side, side, 3))
  assert round(found[0] / 1e6, 2) == params
  if macs:
    assert found[1] / 1e6 == pytest.approx(macs, rel=5e-4)


CELL_SIZES = {
  "nasnet_a_mobile": {
    "stem": 928,
    "stem_cell_0": 8_534,
    "stem_cell_1": 13_948,
    "cell_0": 33_000,
    "cell_1": 42_680,
    "cell_2": 50_424,
    "cell_3": 50_424,
    "reduction_0": 153_648,
    "cell_4": 147_312,
    "cell_5": 170_544,
    "cell_6": 186_032,
    "cell_7": 186_032,
    "reduction_1": 555_104,
    "cell_8": 557_920,
    "cell_9": 650_848,
    "cell_10": 712_800,
    "cell_11": 712_800,
    "classifier": 1_057_000,
    "aux_head": 2_411_240,
  },
  "nasnet_a_large": {
    "stem": 2_784,
    "stem_cell_0": 49_230,
    "stem_cell_1": 121_128,
    "cell_0": 396_816,
    "cell_1": 537_936,
    **{f"cell_{i}": 650_832 for i in range(2, 6)},
    "reduction_0": 1_919_904,
    "cell_6": 1_979_040,
    "cell_7": 2_317_728,
    **{f"cell_{i}": 2_543_520 for i in range(8, 12)},
    "reduction_1": 7_452_480,
    "cell_12": 7_796_544,
    "cell_13": 9_151_296,
    **{f"cell_{i}": 10_054_464 for i in range(14, 18)},
    "classifier": 4_033_000,
    "aux_head": 4_567_784,
  },
  "pnasnet_5_large": dict(
    zip(
      ["stem", "stem_cell_0", "stem_cell_1"]
      + [f"cell_{i}" for i in range(12)]
      + ["classifier"],
      [
        2784,
        69468,
        221616,
        795312,
        970272,
        1086912,
        1086912,
        3481056,
        3760128,
        4226688,
        4226688,
        13680576,
        14798592,
        16664832,
        16664832,
        4321000,
      ],
    )
  ),
  "pnasnet_5_mobile": dict(
    zip(
      ["stem", "stem_cell_0", "stem_cell_1"]
      + [f"cell_{i}" for i in range(9)]
      + ["classifier"],
      [
        928,
        7835,
        19710,
        60912,
        71982,
        79272,
        240408,
        257688,
        286848,
        900720,
        970272,
        1086912,
        1081000,
      ],
    )
  ),
  "pnasnet_5_cifar": dict(
    zip(
      ["stem"] + [f"cell_{i}" for i in range(9)] + ["classifier"],
      [
        4176,
        67392,
        59520,
        64128,
        192960,
        206592,
        229632,
        717696,
        772608,
        864768,
        9610,
      ],
    )
  ),
}


@pytest.mark.parametrize("name", CELL_SIZES)
def test_every_cell_has_exactly_the_parameters_of_the_released_graph(name):
  sizes = dict(shapes_of(name)[0])
  if "aux_head" not in CELL_SIZES[name]:
    del sizes["aux_head"]
  assert sizes == CELL_SIZES[name]


# slim, nasnet_test.py and pnasnet_test.py: (channels, side) by endpoint.
ENDPOINTS = {
  "nasnet_a_mobile": {
    "stem": (32, 111),
    "stem_cell_0": (44, 56),
    "stem_cell_1": (88, 28),
    **{f"cell_{i}": (264, 28) for i in range(4)},
    "reduction_0": (352, 14),
    **{f"cell_{i}": (528, 14) for i in range(4, 8)},
    "reduction_1": (704, 7),
    **{f"cell_{i}": (1056, 7) for i in range(8, 12)},
    "pooled": (1056, None),
  },
  "nasnet_a_large": {
    "stem": (96, 165),
    "stem_cell_0": (168, 83),
    "stem_cell_1": (336, 42),
    **{f"cell_{i}": (1008, 42) for i in range(6)},
    "reduction_0": (1344, 21),
    **{f"cell_{i}": (2016, 21) for i in range(6, 12)},
    "reduction_1": (2688, 11),
    **{f"cell_{i}": (4032, 11) for i in range(12, 18)},
    "pooled": (4032, None),
  },
  "pnasnet_5_large": {
    "stem": (96, 165),
    "stem_cell_0": (270, 83),
    "stem_cell_1": (540, 42),
    **{f"cell_{i}": (1080, 42) for i in range(4)},
    **{f"cell_{i}": (2160, 21) for i in range(4, 8)},
    **{f"cell_{i}": (4320, 11) for i in range(8, 12)},
    "pooled": (4320, None),
  },
  "pnasnet_5_mobile": {
    "stem": (32, 111),
    "stem_cell_0": (65, 56),  # 5 * int(54 / 4)
    "stem_cell_1": (135, 28),
    **{f"cell_{i}": (270, 28) for i in range(3)},
    **{f"cell_{i}": (540, 14) for i in range(3, 6)},
    **{f"cell_{i}": (1080, 7) for i in range(6, 9)},
    "pooled": (1080, None),
  },
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_endpoint_has_slims_shape(name):
  _, endpoints, auxiliary, _ = shapes_of(name)
  wanted = {
    key: (2, side, side, channels) if side else (2, channels)
    for key, (channels, side) in ENDPOINTS[name].items()
  }
  assert {key: x.shape for key, x in endpoints.items()} == wanted
  assert auxiliary.shape == (2, 1000)


@pytest.mark.parametrize(
  ("name", "params", "with_statistics"),
  [
    ("nasnet_a_mobile", 5291035, 5326716),
    ("nasnet_a_large", 88757183, 88949818),
    ("pnasnet_5_large", 86061989, None),
  ],
)
def test_sizes_with_the_background_class_and_with_statistics(
  name, params, with_statistics
):
  side = (zoo.cells.network(name).side,) * 2
  background = published(name, num_classes=1001)
  assert counting.count_module(background, (*side, 3))[0] == params
  if with_statistics:
    statistics = dict(shapes_of(name)[3]["batch_stats"])
    del statistics["aux_head"]
    moving = sum(math.prod(x.shape) for x in jax.tree.leaves(statistics))
    assert zoo.cells.network(name).params + moving == with_statistics


@pytest.mark.parametrize(
  ("name", "cells"),
  [
    ("nasnet_a_mobile", 16),
    ("nasnet_a_large", 22),
    ("nasnet_a_cifar", 20),
    ("pnasnet_5_large", 14),
    ("pnasnet_5_mobile", 11),
  ],
)
def test_drop_path_counts_the_cells_as_slim_does(name, cells):
  assert len(stacked_plan.plan(published(name).config)) == cells
  keep = dp.keep_probs(0.7, 1.0, cells, "layer")
  assert keep[-1] == pytest.approx(0.7)


# Stacks of N = 2 tell the second-to-last output from the one before.
@pytest.mark.parametrize(
  ("cells", "imagenet"),
  [
    *((cells, False) for cells in zoo.cells.CELLS),
    *((cells, True) for cells in ("nasnet_a", "pnasnet_5", "amoebanet_d")),
    *(
      pytest.param(f"amoebanet_{letter}", True, marks=pytest.mark.slow)
      for letter in "abc"
    ),
  ],
)
def test_logits_equal_a_numpy_network(cells, imagenet, random_variables):
  skip = imagenet and cells == "nasnet_a"
  fields = {
    "num_cells": 2,
    "features": 16 if imagenet else 8,
    "num_classes": 5,
    "layout": "pnas" if cells == "pnasnet_5" else "nasnet",
    "stem": "imagenet" if imagenet else "cifar",
    "stem_features": 6,
    "skip_reduction": skip,
    "numerics": layers.IMAGENET if imagenet else layers.Numerics(),
  }
  network = network_of(cells, **fields)
  side = 37 if imagenet else 7
  variables = random_variables(network, side)
  images = np.random.default_rng(1).normal(0, 1, (2, side, side, 3))
  found = jax.jit(lambda v, x: network.apply(v, x)[0])(
    variables, np.float32(images)
  )
  table = numpy_cells.CELLS[cells]
  wanted = numpy_cells.logits(
    {kind: numpy_cells.parsed(cell) for kind, cell in table.items()},
    variables,
    np.float32(images),
    2,
    fields["features"],
    imagenet,
    skip,
    fields["numerics"].bn_epsilon,
  )
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
  ("name", "cell"),
  [
    ("nasnet_a_mobile", "cell_7"),
    ("nasnet_a_large", "cell_11"),
    ("pnasnet_5_mobile", "cell_5"),
    ("pnasnet_5_large", "cell_7"),
    ("pnasnet_5_cifar", "cell_5"),
  ],
)
def test_the_auxiliary_head_reads_slims_cell(name, cell):
  config = published(name).config
  assert (
    stacked_plan.plan(config)[stacked_plan.aux_position(config)].name == cell
  )


def test_the_skip_of_reductions_changes_what_is_read():
  cells = {
    flag: {
      cell.name: (cell.current, cell.previous)
      for cell in stacked_plan.plan(
        NetworkConfig(num_cells=6, skip_reduction=flag)
      )
    }
    for flag in (False, True)
  }
  differs = [
    name for name in cells[True] if cells[True][name] != cells[False][name]
  ]
  assert differs == ["cell_6", "cell_12"]
  outputs = ["stem", *cells[True]]
  # timm, nasnet.py: cell_6 takes (reduction_0, cell_4) in NASNet-A large.
  assert [outputs[i] for i in cells[True]["cell_6"]] == [
    "reduction_0",
    "cell_4",
  ]


def test_no_side_from_32_to_600_is_refused():
  for entry in zoo.cells.NETWORKS.values():
    config = NetworkConfig(**entry.config)
    for side in range(32, 601):
      stacked_plan.check_side(config, (side, side))
  imagenet = NetworkConfig(stem="imagenet")
  for side, convolved in ((224, 111), (299, 149), (331, 165)):
    assert stacked_plan.stem_side(imagenet, (side, 32)) == (convolved, 15)


@pytest.mark.parametrize(
  ("name", "sides"),
  [
    ("nasnet_a_mobile", (32, 33, 331, 600)),
    ("nasnet_a_cifar", (33, 600)),
    ("pnasnet_5_mobile", (32, 599)),
    ("amoebanet_b_mobile", (32, 599)),
    ("amoebanet_c_mobile", (34, 600)),
    ("amoebanet_d", (35, 600)),
  ],
)
def test_images_of_any_side_fit_the_same_weights(name, sides):
  network = published(name, num_cells=1)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  for side in sides:
    others = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    found = jax.eval_shape(network.apply, variables, others)[2]
    stem = found["stem"].shape[1]
    halvings = 4 if network.config.stem == "imagenet" else 2
    assert found["cell_2"].shape[1] == math.ceil(stem / 2**halvings)


def test_images_too_small_for_the_stem_get_one_clear_line():
  network = published("nasnet_a_mobile")
  images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  with pytest.raises(ValueError, match="too small for 4 reductions"):
    jax.eval_shape(network.init, jax.random.key(0), images)


@pytest.fixture(scope="module")
def small(random_variables):
  """(network, variables, images) of a small network of five cells."""
  network = network_of(
    "nasnet_a", num_cells=2, features=4, num_classes=5, num_reductions=1
  )
  images = np.random.default_rng(0).normal(0, 1, (2, 8, 8, 3))
  return network, random_variables(network, 8), np.float32(images)


def test_a_network_run_in_two_parts_is_the_network_run_at_once(small):
  network, variables, images = small

  @jax.jit
  def run(variables, images):
    whole = network.apply(variables, images)
    first = network.apply(variables, images, stop="cell_1")
    pair = first[2]["cell_1"], first[2]["cell_0"]
    return whole, first, network.apply(variables, pair, start="reduction_0")

  whole, first, rest = run(variables, images)
  assert first[0] is None
  assert set(first[2]) == {"stem", "cell_0", "cell_1"}
  assert set(rest[2]) == {"reduction_0", "cell_2", "cell_3", "pooled"}
  np.testing.assert_allclose(rest[0], whole[0], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    rest[2]["cell_2"], whole[2]["cell_2"], rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("layout", ["nasnet", "pnas"])
def test_a_network_can_start_at_any_cell_and_stop_at_any(
  layout, random_variables
):
  """Each start, with three cells to run: no cell reads further back."""
  space = spaces.get("nasnet", 1, ("identity", "avg_pool_3x3"))
  decisions = np.array([0, 1, 1, 1, 0, 1, 1, 0])
  config = NetworkConfig(
    num_cells=1 if layout == "nasnet" else 2,
    features=4,
    stem="imagenet",
    stem_features=5,
    layout=layout,
    skip_reduction=layout == "nasnet",
  )
  cells = stacked.as_cells(space, space.decode(decisions))
  network = StackedNetwork(config, cells)
  variables = random_variables(network, 40)
  images = np.random.default_rng(0).normal(0, 1, (2, 40, 40, 3))
  plan = stacked_plan.plan(config)

  @jax.jit
  def run(variables, images):
    whole = network.apply(variables, images)[2]
    outputs = [whole["stem"], *(whole[cell.name] for cell in plan)]
    parts = {
      cell.name: network.apply(
        variables,
        (outputs[cell.current], outputs[cell.previous]),
        start=cell.name,
        stop=plan[min(i + 2, len(plan) - 1)].name,
      )[2]
      for i, cell in enumerate(plan)
      if i
    }
    return whole, parts

  whole, parts = run(variables, np.float32(images))
  names = [cell.name for cell in plan]
  for i, name in enumerate(names[1:], 1):
    assert set(parts[name]) == set(names[i : i + 3])
    for key, found in parts[name].items():
      np.testing.assert_allclose(found, whole[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("part", "words"),
  [
    ({"stop": "cell_9"}, "'cell_9' is no cell of: cell_0"),
    ({"start": "cell_0"}, "leave out `start`"),
    ({"start": "cell_2", "stop": "cell_1"}, "'cell_1' comes before 'cell_2'"),
  ],
)
def test_a_part_that_is_none_gets_one_clear_line(small, part, words):
  network, variables, images = small
  with pytest.raises(ValueError, match=words):
    network.apply(variables, images, **part)


def test_computing_cells_again_changes_no_gradient(random_variables):
  fields = {"num_cells": 1, "features": 4, "num_reductions": 0}
  network = network_of("nasnet_a", **fields)
  variables = random_variables(network, 6)
  images = np.random.default_rng(0).normal(0, 1, (2, 6, 6, 3))
  images = np.float32(images)

  def gradients(remat):
    config = dataclasses.replace(network.config, remat=remat)
    again = StackedNetwork(config, network.cells)

    def loss(params):
      (logits, _, _), new = again.apply(
        {**variables, "params": params},
        images,
        train=True,
        drop=dp.make(jax.random.key(0), 0.7, 0.5, 1),
        mutable=["batch_stats"],
      )
      return (logits**2).sum(), new

    gradient = jax.grad(loss, has_aux=True)
    text = str(jax.make_jaxpr(gradient)(variables["params"]))
    assert text.count("prevent_cse=") == remat  # once for the only cell
    return jax.jit(gradient)(variables["params"])

  for one, other in zip(*(jax.tree.leaves(gradients(r)) for r in (0, 1))):
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_keras_padding_differs_at_stride_two_only(kind):
  x = np.random.default_rng(0).normal(1, 1, (1, 5, 6, 2)).astype(np.float32)

  def pool(padding, stride):
    numerics = layers.Numerics(pool_padding=padding)
    return ops.Pool(numerics, 2, stride, kind, 3).apply({}, -x, True)

  np.testing.assert_array_equal(pool("zeros", 1), pool("same", 1))
  windows = numpy_cells.windows(-x, (3, 3), (2, 2), 0.0)
  wanted = windows.mean((3, 4)) if kind == "avg" else windows.max((3, 4))
  np.testing.assert_allclose(pool("zeros", 2), wanted, rtol=1e-5, atol=1e-6)
  assert np.abs(pool("zeros", 2) - pool("same", 2)).max() > 0.1
