"""Cells of NASNet-B's and NASNet-C's spaces, as static networks."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.costs import counting
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import layers, stacked, stacked_plan
from nasnet_jax.models.stacked import StackedNetwork
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.spaces.genotype import COMBINERS
from nasnet_jax.training import losses

_spec = importlib.util.spec_from_file_location(
  "numpy_cells", pathlib.Path(__file__).with_name("numpy_cells.py")
)
numpy_cells = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numpy_cells)

NASNET_B = spaces.get("nasnet_b")
# One cell per stack: the last one reads states of all three resolutions.
SMALL = NetworkConfig(num_cells=1, features=4, num_classes=5)
IMAGENET = dataclasses.replace(SMALL, stem="imagenet", stem_features=6)
SIDE = (11, 14)


def _covering_genotype(space, seed):
  """A random genotype: its cells have all combiners, and as many operations
  as they have room for."""
  rng = np.random.default_rng(seed)
  genotype = space.decode(space.sample(rng, 1)[0])
  for kind in range(2):
    order = rng.permutation(len(space.operations))
    genotype.ops[kind] = np.resize(order, (space.num_blocks, 2))
    genotype.combine[kind] = rng.permutation(space.num_blocks)
  return genotype


def _network(config, seed=0, space=NASNET_B):
  genotype = _covering_genotype(space, seed)
  return StackedNetwork(config, stacked.as_cells(space, genotype)), genotype


def _images(side, number=2):
  rng = np.random.default_rng(1)
  return rng.normal(0, 1, (number, *side, 3)).astype(np.float32)


# --- the norms of the combiners ----------------------------------------------


@pytest.mark.parametrize(
  ("combiner", "axes"),
  [("add_layer_norm", (0, 1, 2)), ("add_instance_norm", (0, 1))],
)
def test_an_example_is_normalised_by_itself(combiner, axes):
  rng = np.random.default_rng(0)
  x = rng.normal(3, 2, (4, 5, 3, 6)).astype(np.float32)
  scale, bias = rng.normal(1, 0.5, (2, 6)).astype(np.float32)
  module = layers.ExampleNorm(layers.NORM_AXES[combiner])
  y = module.apply({"params": {"scale": scale, "bias": bias}}, x)
  for example, found in zip(np.float64(x), y):
    mean = example.mean(axes, keepdims=True)
    spread = np.sqrt(example.var(axes, keepdims=True) + 1e-6)
    wanted = (example - mean) / spread * scale + bias
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", layers.NORM_AXES.values())
def test_a_constant_image_leaves_the_offset_and_a_finite_gradient(axes):
  module = layers.ExampleNorm(axes)
  variables = {"params": {"scale": jnp.ones(2), "bias": jnp.float32([1, -2])}}

  def total(x):
    y = module.apply(variables, x)
    return (y**2).sum(), y

  x = jnp.full((1, 3, 3, 2), 1e4)
  gradient, y = jax.grad(total, has_aux=True)(x)
  np.testing.assert_allclose(y, np.broadcast_to([1, -2], y.shape), atol=1e-2)
  assert np.isfinite(gradient).all()


def test_a_new_norm_has_scale_one_and_offset_zero_per_channel():
  for axes in layers.NORM_AXES.values():
    module = layers.ExampleNorm(axes)
    variables = module.init(jax.random.key(0), jnp.zeros((2, 4, 4, 3)))
    assert set(variables) == {"params"}  # no running statistics
    np.testing.assert_array_equal(variables["params"]["scale"], np.ones(3))
    np.testing.assert_array_equal(variables["params"]["bias"], np.zeros(3))


# --- wiring ------------------------------------------------------------------


@pytest.mark.parametrize(
  ("space", "imagenet", "seed"),
  [
    ("nasnet_b", False, 0),
    ("nasnet_b", True, 1),
    ("nasnet_c", False, 2),
    pytest.param("nasnet_b", False, 3, marks=pytest.mark.slow),
    pytest.param("nasnet_b", True, 4, marks=pytest.mark.slow),
    pytest.param("nasnet_c", True, 5, marks=pytest.mark.slow),
  ],
)
def test_logits_of_random_cells_equal_a_numpy_network(
  space, imagenet, seed, random_variables
):
  space = spaces.get(space)
  config = IMAGENET if imagenet else SMALL
  network, genotype = _network(config, seed, space)
  used = [{int(c) for c in genotype.combine[kind]} for kind in range(2)]
  assert used == [set(range(len(COMBINERS)))] * 2
  side = (37, 34) if imagenet else SIDE
  variables = random_variables(network, min(side))
  images = _images(side)
  found = jax.jit(lambda v, x: network.apply(v, x)[0])(variables, images)
  cells = space.to_json(genotype)["cells"]
  args = (
    {kind: numpy_cells.named(cell) for kind, cell in cells.items()},
    variables,
    images,
    config.num_cells,
    config.features,
    imagenet,
  )
  if space.output == "separate":
    wanted = numpy_cells.separate_logits(*args, config.numerics.bn_epsilon)
  else:
    wanted = numpy_cells.logits(*args, False, config.numerics.bn_epsilon)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_output_j_of_a_layer_is_input_j_of_the_layer_j_plus_one_on():
  outputs = ["stem", *(cell.name for cell in stacked_plan.plan(SMALL))]
  read = {
    cell.name: [outputs[i] for i in cell.reads(4)]
    for cell in stacked_plan.plan(SMALL)
  }
  assert read == {
    "cell_0": ["stem"] * 4,
    "reduction_0": ["cell_0", "stem", "stem", "stem"],
    "cell_1": ["reduction_0", "cell_0", "stem", "stem"],
    "reduction_1": ["cell_1", "reduction_0", "cell_0", "stem"],
    "cell_2": ["reduction_1", "cell_1", "reduction_0", "cell_0"],
  }


# --- shapes ------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, IMAGENET], ids=lambda c: c.stem)
@pytest.mark.parametrize("side", [(19, 19), (32, 32), (33, 46)])
def test_images_of_any_side_fit(config, side):
  config = dataclasses.replace(config, aux=True)
  network, _ = _network(config)
  images = jax.ShapeDtypeStruct((2, *side, 3), jnp.float32)
  init = functools.partial(network.init_with_output, train=True)
  outputs, _ = jax.eval_shape(init, jax.random.key(0), images)
  logits, auxiliary, endpoints = outputs
  assert logits.shape == auxiliary.shape == (2, 5)
  assert endpoints["pooled"].shape == (2, 4 * 4 * config.features)
  here = stacked_plan.stem_side(config, side)
  for cell in stacked_plan.plan(config):
    here = tuple(-(-s // cell.stride) for s in here)
    shapes = [state.shape for state in endpoints[cell.name]]
    assert shapes == [(2, *here, cell.features)] * 4


def test_a_state_from_far_back_is_halved_as_often_as_it_takes():
  network, _ = _network(SMALL)
  images = jax.ShapeDtypeStruct((2, *SIDE, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  inputs = variables["params"]["cell_2"]["inputs"]
  assert {name: set(parts) for name, parts in inputs.items()} == {
    "project": {"conv", "norm"},
    "fit_1": {"reduce"},
    "fit_2": {"reduce"},
    "fit_3": {"reduce", "reduce_1"},
  }


def test_a_network_of_identities_has_the_size_counted_by_hand():
  """1x1 convolutions C -> F have CF weights and 2F of batch norm."""
  cell = ([(0, 1, "identity", "identity")] * 4, [4, 5, 6, 7])
  genotype = NASNET_B.from_literal({"normal": cell, "reduction": cell})
  network = StackedNetwork(SMALL, stacked.as_cells(NASNET_B, genotype))
  side = (8, 8)

  def conv(inputs, features, pixels):
    return np.array([(inputs + 2) * features, inputs * features * pixels])

  wanted = [
    conv(27, 12, 64),  # the stem
    4 * conv(12, 4, 64),  # cell_0: the stem four times
    conv(4, 8, 64) + 3 * conv(12, 8, 64) + 8 * conv(8, 8, 16),  # reduction_0
    conv(8, 8, 16) + conv(4, 8, 16) + 2 * conv(12, 8, 16),  # cell_1
    2 * conv(8, 16, 16) + conv(4, 16, 16) + conv(12, 16, 16),  # reduction_1
    8 * conv(16, 16, 4),  # the same, its identities at stride 2
    conv(16, 16, 4) + 2 * conv(8, 16, 4),  # cell_2: h_i to h_{i-2}
    conv(4, 16, 16) + conv(16, 16, 4),  # and h_{i-3}, halved twice
    np.array([64 * 5 + 5, 64 * 5]),  # the classifier
  ]
  params, macs = np.sum(wanted, 0)
  assert (params, macs) == (6_209, 87_104)
  assert counting.count_module(network, (*side, 3)) == (params, macs)


@pytest.mark.parametrize(
  ("operation", "params"),
  [("identity", 1_972_306), ("sep_conv_3x3", 2_999_890)],
)
def test_f_72_is_as_large_as_the_docs_say(operation, params):
  """docs/networks.md: why 16 F is not what NASNet-B's 4 @ 1152 counts."""
  first = (0, 1, operation, "identity")
  blocks = [first] + [(0, 1, "identity", "identity")] * 3
  cell = (blocks, [4, 5, 6, 7])
  genotype = NASNET_B.from_literal({"normal": cell, "reduction": cell})
  config = NetworkConfig(num_cells=4, features=72)
  network = StackedNetwork(config, stacked.as_cells(NASNET_B, genotype))
  assert counting.count_module(network, (32, 32, 3))[0] == params


def test_cells_of_separate_outputs_refuse_the_skip_of_reductions():
  network, _ = _network(dataclasses.replace(SMALL, skip_reduction=True))
  images = jax.ShapeDtypeStruct((2, *SIDE, 3), jnp.float32)
  with pytest.raises(ValueError, match="for cells of two inputs") as error:
    jax.eval_shape(network.init, jax.random.key(0), images)
  assert "\n" not in str(error.value)


# --- training, and parts of the network --------------------------------------


def test_one_step_of_training_has_a_finite_loss_and_gradient():
  """With all that training may add: cells computed again, drop path, aux."""
  space = spaces.get("nasnet_b", operations=("identity", "avg_pool_3x3"))
  config = dataclasses.replace(SMALL, num_reductions=1, aux=True, remat=True)
  network, _ = _network(config, 6, space)
  images = _images((6, 7), 4)
  variables = jax.jit(functools.partial(network.init, train=True))(
    jax.random.key(0), images
  )

  def loss(params):
    (logits, auxiliary, _), new = network.apply(
      {**variables, "params": params},
      images,
      train=True,
      drop=dp.make(jax.random.key(1), 0.7, 0.5, 3),
      mutable=["batch_stats"],
    )
    labels = jnp.arange(4) % 5
    total = losses.cross_entropy(logits, labels)
    return total + losses.cross_entropy(auxiliary, labels), new

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, _), gradient = step(variables["params"])
  assert np.isfinite(value)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
  assert np.abs(gradient["stem"]["conv"]["kernel"]).max() > 0


def test_a_network_of_separate_outputs_runs_in_two_parts(random_variables):
  space = spaces.get("nasnet_b", operations=("identity", "conv_1x1"))
  network, _ = _network(SMALL, 7, space)
  variables, images = random_variables(network, 11), _images(SIDE)

  @jax.jit
  def run(variables, images):
    whole = network.apply(variables, images)[0]
    first = network.apply(variables, images, stop="reduction_1")[2]
    names = ("reduction_1", "cell_1", "reduction_0", "cell_0")
    read = [first[name] for name in names]
    return whole, network.apply(variables, read, start="cell_2")[0]

  whole, rest = run(variables, images)
  np.testing.assert_allclose(rest, whole, rtol=1e-4, atol=1e-5)
