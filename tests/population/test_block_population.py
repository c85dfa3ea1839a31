"""Children of MnasNet's space: any row of blocks in one program."""

import dataclasses
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from nasnet_jax.costs import counting
from nasnet_jax.data import augment
from nasnet_jax.models import block_network, families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population import networks, population
from nasnet_jax.population.evaluator import PopulationEvaluator
from nasnet_jax.spaces.mnasnet import MnasGenotype, MnasSpace
from nasnet_jax.training import mesh

_spec = importlib.util.spec_from_file_location(
  "twins", pathlib.Path(__file__).with_name("twins.py")
)
twins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twins)

# Channels of 8, 8 and 16, and of 16, 16 and 24; up to two and three layers.
SPACE = MnasSpace(
  "mnasnet",
  ratios=(0.5, 1.0, 1.5),
  kernels=(3,),
  features=(8, 16),
  layers=(1, 2),
  strides=(1, 2),
  stem=8,
  stem_stride=1,
  head=24,
  activation="swish",
)
CONFIG = block_network.BlockConfig(
  num_classes=5, numerics=Numerics(init="fan_in")
)
IMAGE = (7, 6, 3)


def _program(space, config):
  network = networks.make_block_network(config, space, IMAGE)
  return twins.make_program(space, IMAGE, network)


@pytest.fixture(scope="module")
def program():
  return _program(SPACE, CONFIG)


def _genotype(**rows):
  """Of two blocks, from indices; operation, kernel, ... as in MnasGenotype."""
  default = dict.fromkeys(MnasGenotype._fields, (0, 0))
  leaves = (default | rows).values()
  return MnasGenotype(*(np.array(leaf, np.int32) for leaf in leaves))


# Between them: each operation, with and without squeeze-excite; each skip where
# channels agree and where they do not, at both strides; fewest and most layers
# and channels.
GENOTYPES = {
  "small": _genotype(
    operation=(0, 2),
    squeeze=(1, 0),
    skip=(1, 2),
    features=(0, 2),
    layers=(0, 1),
  ),
  "large": _genotype(
    operation=(3, 1),
    squeeze=(1, 1),
    skip=(2, 1),
    features=(2, 0),  # no identity at stride 2
    layers=(2, 2),
  ),
  "pooled at stride 2": _genotype(
    operation=(1, 3), skip=(1, 2), features=(2, 0), layers=(2, 0)
  ),
}


@pytest.mark.parametrize("name", GENOTYPES)
def test_a_row_of_blocks_is_the_static_network(program, name):
  twins.assert_same_network(program, CONFIG, GENOTYPES[name], keep=None)


def test_other_rows_of_blocks_compile_nothing(program, compilations):
  first, *others = SPACE.sample(np.random.default_rng(2), 3)
  twins.run(program, first, None)
  del compilations[:]
  for decisions in others:
    twins.run(program, decisions, None)
  assert not compilations


def test_a_child_of_blocks_starts_as_its_static_network_does(program):
  twins.assert_starts_alike(program, GENOTYPES["small"], "fan_in")


def test_exactly_one_branch_of_a_layer_runs_also_under_vmap_of_vmap():
  space = dataclasses.replace(SPACE, operations=("dconv", "conv"))
  network = networks.make_block_network(CONFIG, space, IMAGE)
  genotype = network.genotype_shapes
  variables = jax.eval_shape(network.init, jax.random.key(0), genotype)
  one = twins.loss(network, IMAGE)
  # Both blocks have a first layer and a scan over the rest; in each of these
  # the operation (four and "left out") and the skip, forward and backward.
  wanted = {5: 8, 3: 8}
  assert twins.switches(one, *variables, genotype) == wanted
  children = twins.stacked_shapes((*variables, genotype), 2, 3)
  twice = jax.vmap(jax.vmap(one))
  assert twins.switches(twice, *children) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["fan_out, wider, deeper", "no head"])
def test_scaled_and_headless_rows_of_blocks_are_static_ones(variant):
  space = dataclasses.replace(SPACE, kernels=(3, 5))
  config = dataclasses.replace(
    CONFIG, width=1.5, depth=1.5, numerics=Numerics(bn_parts=2)
  )
  if variant == "no head":
    space, config = dataclasses.replace(space, head=0), CONFIG
  program = _program(space, config)
  for decisions in space.sample(np.random.default_rng(3), 4):
    genotype = space.decode(decisions)
    twins.assert_same_network(program, config, genotype, keep=None)


# --- in a population ---------------------------------------------------------

RECIPE = population.ChildRecipe(
  epochs=2, batch_size=8, learning_rate=0.1, eval_batch_size=10, width=2
)
AUGMENTATION = augment.Augmentation(mean=(0.4,) * 3, std=(0.25,) * 3)


def _images(n, seed):
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % 5
  images = rng.integers(0, 150, (n, *IMAGE)) + 20 * labels[:, None, None, None]
  return images.astype(np.uint8), labels.astype(np.int32)


@pytest.fixture(scope="module")
def evaluator():
  space = dataclasses.replace(
    SPACE, operations=("dconv", "conv"), squeezes=(0.0,)
  )
  return PopulationEvaluator(
    space,
    CONFIG,
    RECIPE,
    AUGMENTATION,
    _images(32, 0),
    _images(30, 1),
    mesh.make_mesh(1, 1),
  )


def test_outcomes_depend_on_no_neighbour_and_count_as_the_network_does(
  evaluator,
):
  space = evaluator.space
  decisions = space.sample(np.random.default_rng(0), 3)
  seeds, budgets = np.uint32([1, 2, 3]), np.ones(3, np.float32)
  together = evaluator.evaluate(decisions, seeds, budgets)
  alone = evaluator.evaluate(decisions[1:2], seeds[1:2], budgets[1:2])
  assert alone[0].reward == together[1].reward
  for row, outcome in zip(decisions, together):
    network = families.network(space, space.decode(row), CONFIG)
    size = counting.count_module(network, IMAGE)
    assert (outcome.params, outcome.macs) == size


def test_what_a_child_of_blocks_cannot_have_is_one_line(program):
  config = dataclasses.replace(CONFIG, dropout=0.5)
  with pytest.raises(ValueError, match="a child has no dropout"):
    networks.make_block_network(config, SPACE, IMAGE)
  with pytest.raises(ValueError, match=r"set child\.drop_path_keep to 1"):
    program.network.apply({}, {}, GENOTYPES["small"], None, object(), True)
