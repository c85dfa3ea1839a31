"""A child of the population is the static network of its cell."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasnet_jax import spaces, zoo
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import networks
from nasnet_jax.population import population as pop
from nasnet_jax.population.any_stack import CellChoices, choices_of
from nasnet_jax.population.extract import extract
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.training.mesh import make_mesh

_spec = importlib.util.spec_from_file_location(
  "twins", pathlib.Path(__file__).with_name("twins.py")
)
twins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twins)

IMAGE = (8, 8, 3)
CONFIG = NetworkConfig(
  num_cells=1,
  num_reductions=1,
  features=4,
  num_classes=5,
  numerics=Numerics(init="fan_in"),
)


def _program(space, config, concat_inputs=False, image=IMAGE, fold=1):
  choices = choices_of(space, concat_inputs)
  network = networks.make_network(config, choices, image, fold)
  return twins.make_program(space, image, network)


# --- the NASNet space --------------------------------------------------------


slow = pytest.mark.slow
# The large programs take minutes to compile: by default there are few
# operations, of each kind of them one.
FEW = ("identity", "sep_conv_3x3", "conv_1x1", "avg_pool_3x3")


@pytest.fixture(scope="module")
def nasnet():
  """All 13 operations and 4 combiners, any output: the largest program."""
  space = spaces.get("nasnet_c", num_blocks=5)
  return _program(space, CONFIG, concat_inputs=True)


@pytest.fixture(scope="module")
def few():
  """The same of a few operations, in two blocks."""
  space = spaces.get("nasnet_c", num_blocks=2, operations=FEW)
  return _program(space, CONFIG, concat_inputs=True)


def _covering_cells(space):
  """Two genotypes whose cells hold each operation and combiner, for both
  strides."""
  decisions = space.sample(np.random.default_rng(0), 2)
  genotypes = space.decode(decisions)
  rng = np.random.default_rng(1)
  for kind in range(2):
    order = rng.permutation(len(space.operations))
    genotypes.ops[:, kind] = np.resize(order, (2, space.num_blocks, 2))
    combiners = rng.permutation(len(space.combiners))
    genotypes.combine[:, kind] = np.resize(combiners, (2, space.num_blocks))
    # The first operation of each block reads an input of the cell.
    genotypes.inputs[:, kind, 1:, 0] %= space.num_inputs
  output = space.default_concat(genotypes.inputs, genotypes.active)
  genotypes = genotypes._replace(concat=output)
  rows = [gt.Genotype(*(leaf[i] for leaf in genotypes)) for i in range(2)]
  for kind in range(2):
    found = {op for row in rows for op in row.ops[kind].ravel()}
    assert len(found) >= min(10, len(space.operations))
    found = {code for row in rows for code in row.combine[kind]}
    assert found == set(range(len(space.combiners)))
  return rows


def test_a_cell_of_few_operations_whose_edges_are_dropped_is_static(few):
  genotype = _covering_cells(few.space)[0]
  twins.assert_same_network(few, CONFIG, genotype, keep=0.6)


@slow
@pytest.mark.parametrize("number", [0, 1])
def test_cells_of_all_operations_and_combiners_are_static_ones(nasnet, number):
  twins.assert_same_network(
    nasnet, CONFIG, _covering_cells(nasnet.space)[number]
  )


@slow
def test_nasnet_a_is_the_static_one(nasnet):
  twins.assert_same_network(nasnet, CONFIG, zoo.cells.genotype("nasnet_a"))


@slow
def test_scheduled_drop_path_drops_the_same_edges(nasnet):
  twins.assert_same_network(
    nasnet, CONFIG, zoo.cells.genotype("nasnet_a"), keep=0.6
  )


@slow
@pytest.mark.parametrize("seed", range(5))
def test_more_random_cells_are_static_ones(nasnet, seed):
  rng = np.random.default_rng(100 + seed)
  genotype = nasnet.space.decode(nasnet.space.sample(rng, 1)[0])
  twins.assert_same_network(
    nasnet, CONFIG, genotype, keep=rng.choice([1.0, 0.7])
  )


def test_what_lies_in_the_rest_of_a_bank_is_never_read(few):
  genotype = jax.tree.map(jnp.asarray, _covering_cells(few.space)[0])
  state = twins.child(few, genotype)
  used = twins.used(few, genotype, state.params, state.batch_stats)
  assert not all(mask.all() for mask in jax.tree.leaves(used))
  filled = jax.tree.map(lambda u, p: jnp.where(u, p, 7), used, state.params)
  keep = jnp.float32(1)
  wanted = few.run(state, genotype, keep)
  found = few.run(state._replace(params=filled), genotype, keep)
  np.testing.assert_array_equal(found.logits[0], wanted.logits[0])
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[0], b[0]),
    found.gradients,
    wanted.gradients,
  )


def test_other_cells_compile_nothing(few, compilations):
  first, *others = few.space.sample(np.random.default_rng(2), 3)
  keep = jnp.float32(1)
  twins.run(few, first, keep)
  del compilations[:]
  for decisions in others:
    twins.run(few, decisions, keep)
  assert not compilations


# --- the PNAS space, and cells with one loose end ----------------------------


@pytest.fixture(scope="module")
def pnas():
  """8 operations, one cell for both strides, room for 3 blocks; images whose
  sides are odd and differ, of two channels."""
  space = spaces.get("pnas", num_blocks=3)
  return _program(space, CONFIG, image=(7, 9, 2))


@slow
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_cells_of_fewer_blocks_are_static_ones(pnas, blocks):
  space = dataclasses.replace(pnas.space, num_blocks=blocks)
  genotype = space.decode(space.sample(np.random.default_rng(blocks), 1)[0])
  twins.assert_same_network(pnas, CONFIG, gt.pad_blocks(genotype, 3))


SMALL_OPERATIONS = ("identity", "sep_conv_3x3", "max_pool_3x3")
DEEP = dataclasses.replace(
  CONFIG, num_cells=3, num_reductions=0, numerics=Numerics(init="fan_out")
)


@pytest.fixture(scope="module")
def deep():
  """Three normal cells: the last reads the first one's output as it is."""
  space = spaces.get("nasnet", num_blocks=2, operations=SMALL_OPERATIONS)
  return _program(space, DEEP)


@pytest.mark.parametrize("ends", [pytest.param(1, marks=pytest.mark.smoke), 2])
def test_an_output_of_one_state_is_passed_on_untouched(deep, ends):
  normal = (
    [
      (0, 1, "sep_conv_3x3", "identity"),
      (3 - ends, 0, "max_pool_3x3", "identity"),
    ],
    [2, 3][-ends:],
  )
  literal = {"normal": normal, "reduction": normal}
  genotype = deep.space.from_literal(literal)
  state = twins.child(deep, genotype)
  names = extract(deep.network, genotype, state)["params"]["cell_2"]
  assert ("fit_previous" in names) == (ends == 2)
  twins.assert_same_network(deep, DEEP, genotype)


# --- how a child starts ------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param("nasnet", marks=slow), "deep"])
def test_a_child_starts_as_its_static_network_does(name, request):
  """Slots and operations that it has not do not count, and are 0."""
  program = request.getfixturevalue(name)
  if name == "nasnet":
    genotype, init = zoo.cells.genotype("nasnet_a"), "fan_in"
  else:
    decisions = program.space.sample(np.random.default_rng(4), 1)[0]
    genotype, init = program.space.decode(decisions), "fan_out"
  twins.assert_starts_alike(program, genotype, init)


# --- cells that pass on each block by itself ---------------------------------


@pytest.fixture(scope="module")
def separate():
  """Four blocks and so four inputs, as NASNet-B."""
  operations = ("identity", "conv_1x1", "max_pool_3x3")
  return _program(spaces.get("nasnet_b", operations=operations), CONFIG)


@slow
def test_cells_of_separate_outputs_are_static_ones(separate):
  genotype = _covering_cells(separate.space)[0]
  twins.assert_same_network(separate, CONFIG, genotype, keep=0.7)


@slow  # models/test_folded.py has the layers of it
@pytest.mark.parametrize("fold", [1, 2])
def test_cells_whose_batch_norm_sees_groups_are_static_ones(fold):
  """Also where the two examples of a group stand side by side."""
  numerics = dataclasses.replace(CONFIG.numerics, bn_parts=3)
  config = dataclasses.replace(CONFIG, numerics=numerics)
  space = spaces.get(
    "nasnet", num_blocks=1, operations=("identity", "sep_conv_3x3")
  )
  genotype = space.decode(space.sample(np.random.default_rng(0), 1)[0])
  program = _program(space, config, fold=fold)
  twins.assert_same_network(program, config, genotype, keep=0.7)


@slow
def test_a_cell_that_reads_three_resolutions_is_the_static_one():
  config = dataclasses.replace(CONFIG, num_reductions=2)
  program = _program(spaces.get("nasnet_b"), config)
  for genotype in _covering_cells(program.space):
    twins.assert_same_network(program, config, genotype)


# --- one branch runs, never all ----------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("concat", [pytest.param(False, marks=slow), True])
def test_exactly_one_branch_runs_also_under_vmap_of_vmap(concat):
  combiners = ("add", "concat") if concat else ("add",)
  choices = CellChoices(SMALL_OPERATIONS, 2, combiners=combiners)
  network = networks.make_network(CONFIG, choices, IMAGE)
  genotype = network.genotype_shapes
  variables = jax.eval_shape(network.init, jax.random.key(0), genotype)
  one = twins.loss(network, IMAGE)
  alone = twins.switches(one, *variables, genotype)
  # One switch forward and one backward per cell. The first cell and the
  # reduction read two kinds of states: 2 * 3 operations and "left out", and
  # backward a switch of 3 for each kind.
  combiners = {2: 6} if concat else {}  # one each way in three cells
  assert alone == {7: 2, 3: 4, 4: 2, **combiners}
  children = jax.vmap(one)
  args = twins.stacked_shapes((*variables, genotype), 5)
  assert twins.switches(children, *args) == alone
  # Seeds times children: the weights differ, the genotypes are shared.
  seeds = jax.vmap(children, (0, 0, None))
  weights = twins.stacked_shapes(variables, 2, 5)
  assert (
    twins.switches(seeds, *weights, twins.stacked_shapes(genotype, 5)) == alone
  )
  children = jax.vmap(jax.vmap(one))
  assert (
    twins.switches(children, *weights, twins.stacked_shapes(genotype, 2, 5))
    == alone
  )


@pytest.mark.parametrize(
  "operations",
  [FEW, pytest.param(spaces.NASNET.operations, marks=slow)],
  ids=["few", "all"],
)
def test_one_branch_runs_in_the_program_that_trains_a_population(operations):
  """Two children side by side on each of two devices."""
  space = spaces.get("nasnet_concat", num_blocks=2, operations=operations)
  choices = choices_of(space, concat_inputs=True)
  network = networks.make_network(CONFIG, choices, IMAGE)
  recipe = pop.ChildRecipe(batch_size=8, drop_path_keep=0.9, width=2)
  population = pop.make_population(
    network, recipe, Augmentation(), make_mesh(2), 16, 16
  )
  shape = jax.ShapeDtypeStruct
  data = pop.Data(shape((16, *IMAGE), jnp.uint8), shape((16,), jnp.int32))
  state = jax.eval_shape(population.empty)
  genotypes = twins.stacked_shapes(network.genotype_shapes, population.slots)
  sizes = twins.switches(population.train, state, genotypes, data)
  # The first cell and the reduction read two kinds of states: twice as many
  # operations and "left out", and backward a switch for each kind. The
  # combiners' switches have two branches: one each way in three cells.
  count = len(operations)
  assert sizes == {2 * count + 1: 2, count: 4, count + 1: 2, 2: 6}
  valid = shape((population.slots,), jnp.bool_)
  sizes = twins.switches(
    population.count_correct, state, valid, genotypes, data
  )
  assert sizes == {2 * count + 1: 2, count + 1: 1, 2: 3}


@pytest.mark.smoke
def test_the_check_notices_a_switch_that_became_a_select():
  branches = [jnp.sin, jnp.cos, jnp.tan]
  naive = jax.vmap(lambda i, x: lax.switch(i, branches, x))
  with pytest.raises(AssertionError, match="every branch"):
    twins.switches(naive, jnp.zeros(4, jnp.int32), jnp.zeros(4))


def test_bfloat16_is_for_activations_in_training_alone():
  config = dataclasses.replace(CONFIG, numerics=Numerics(dtype=jnp.bfloat16))
  network = networks.make_network(
    config, CellChoices(SMALL_OPERATIONS, 2), IMAGE
  )
  genotype = network.genotype_shapes
  variables = jax.eval_shape(network.init, jax.random.key(0), genotype)
  images = jnp.zeros((2, *IMAGE))

  def types(train):
    """Of all maps that are computed, and of the logits."""

    def apply(params, stats, genotype):
      return network.apply(params, stats, genotype, images, None, train)[0]

    jaxpr = jax.make_jaxpr(apply)(*variables, genotype).jaxpr
    maps = {
      v.aval.dtype.name
      for equation in twins.equations(jaxpr)
      if equation.primitive.name == "conv_general_dilated"
      for v in equation.outvars
    }
    return maps, jaxpr.outvars[0].aval.dtype.name

  assert types(True) == ({"bfloat16"}, "float32")
  assert types(False) == ({"float32"}, "float32")
  kept = jax.tree.leaves(variables)
  assert {leaf.dtype.name for leaf in kept} == {"float32"}


# --- examples side by side in the channels -----------------------------------


@slow
@pytest.mark.parametrize("name", ["nasnet_c", "nasnet_b"])
def test_folded_children_of_all_operations_are_static_ones(name):
  """3 of the 6 examples side by side, of two groups of batch norm."""
  numerics = dataclasses.replace(CONFIG.numerics, bn_parts=2)
  config = dataclasses.replace(CONFIG, numerics=numerics)
  space = spaces.get(name)
  program = _program(space, config, space.output != "separate", fold=3)
  for genotype in _covering_cells(space):
    twins.assert_same_network(program, config, genotype, keep=0.6)


def test_examples_that_do_not_fold_are_one_line():
  choices = CellChoices(SMALL_OPERATIONS, 1)
  network = networks.make_network(CONFIG, choices, IMAGE, fold=4)
  recipe = pop.ChildRecipe(batch_size=8, eval_batch_size=10, fold=4)
  with pytest.raises(ValueError, match=r"10 examples .* child.fold 4"):
    pop.make_population(network, recipe, Augmentation(), make_mesh(), 16, 16)
