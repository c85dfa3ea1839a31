"""A child of the population is the static network of its cell."""

import collections
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from nasnet_jax import population as pop
from nasnet_jax import spaces, zoo
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import stacked
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked import NetworkConfig, StackedNetwork
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.training import losses, optimizers, schedules
from nasnet_jax.training.mesh import make_mesh
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step

IMAGE = (8, 8, 3)
BATCH = 6
CONFIG = NetworkConfig(
  num_cells=1,
  num_reductions=1,
  features=4,
  num_classes=5,
  numerics=Numerics(init="fan_in"),
)


# --- two steps of training, the same for both kinds of network ---------------


def _recorder():
  """Keeps the gradient it was given, as its state."""
  zeros = functools.partial(jax.tree.map, jnp.zeros_like)
  return optax.GradientTransformation(zeros, lambda g, _, params=None: (g, g))


# The decay is large and the norm small, so that both matter in every step.
TX = optax.chain(
  _recorder(),
  optimizers.momentum_sgd(weight_decay=0.01, clip_norm=0.5),
)


def _start(params, stats) -> TrainState:
  """In the middle of a training of ten steps."""
  numbers = (jnp.int32(3), jnp.int32(10), jnp.uint32(7))
  return TrainState(params, stats, TX.init(params), *numbers)


class Trace(NamedTuple):
  """What two steps did; leaves of the first five have a leading axis [2]."""

  loss: Any
  logits: Any
  gradients: Any
  params: Any
  batch_stats: Any
  evaluated: Any


def _two_steps(apply, image, state, keep):
  """Trains on the batch twice, then evaluates.

  Args:
    apply: (params, stats, images, drop, train) -> (logits, stats).
    image: (H, W, C).
    keep: f32[], 1 drops nothing; the same program serves all.
  """
  rng = np.random.default_rng(0)
  images = rng.standard_normal((BATCH, *image)).astype(np.float32)
  labels = np.arange(BATCH) % 5

  def loss_fn(params, stats, _, rng, progress):
    del progress
    drop = dp.DropPath(rng, jnp.full(5, keep))  # for up to five cells
    logits, new = apply(params, stats, images, drop, True)
    return losses.cross_entropy(logits, labels), (new, {"logits": logits})

  def step(state, _):
    state, metrics = train_step(
      state, (), loss_fn=loss_fn, tx=TX, schedule=schedules.cosine(0.1)
    )
    made = state.opt_state[0], state.params, state.batch_stats
    return state, (metrics["loss"], metrics["logits"], *made)

  state, rows = lax.scan(step, state, length=2)
  logits, _ = apply(state.params, state.batch_stats, images, None, False)
  return Trace(*rows, logits)


class Program(NamedTuple):
  """One compiled population program and what it is for."""

  space: Any
  image: tuple[int, int, int]
  network: pop.Network
  init: Any
  run: Any


def _program(space, config, concat_inputs=False, image=IMAGE):
  network = pop.make_network(
    config,
    space.operations,
    space.num_blocks,
    image,
    len(space.cells),
    space.combiners,
    concat_inputs,
    space.output == "separate",
  )

  def run(state, genotype, keep):
    def apply(params, stats, images, drop, train):
      return network.apply(params, stats, genotype, images, drop, train)

    return _two_steps(apply, image, state, keep)

  return Program(space, image, network, jax.jit(network.init), jax.jit(run))


def _child(program, genotype, seed=0) -> TrainState:
  """A new child; what batch norm starts with is moved off 0 and 1."""
  genotype = jax.tree.map(jnp.asarray, genotype)
  params, stats = program.init(jax.random.key(seed), genotype)
  rng = np.random.default_rng(seed)

  def move(path, leaf):
    leaf = np.array(leaf)
    if path[-1].key in ("scale", "bias"):
      leaf += rng.normal(0, 0.1, leaf.shape).astype(np.float32)
    return leaf

  moved = jax.tree_util.tree_map_with_path(move, params)
  # Only where it is read: a tail of the bank that is not 0 is another test's.
  used = _used(program, genotype, params, stats)
  params = jax.tree.map(jnp.where, used, moved, params)
  return _start(params, stats)


def _used(program, genotype, params, stats):
  """bool trees like params: what `extract` takes over.

  Numbers in place of weights go through `extract`, which only moves them.
  """
  leaves, treedef = jax.tree.flatten(params)
  numbers, start = [], 0
  for leaf in leaves:
    numbers.append(np.arange(start, start + leaf.size).reshape(leaf.shape))
    start += leaf.size
  state = _start(params, stats)._replace(params=treedef.unflatten(numbers))
  taken = pop.extract(program.network, genotype, state)["params"]
  flat = np.concatenate([x.ravel() for x in jax.tree.leaves(taken)])
  assert len(np.unique(flat)) == len(flat)  # no weight is taken twice
  return treedef.unflatten([np.isin(n, flat) for n in numbers])


@functools.cache
def _static_run(config, cells, image):
  """The two steps of a static network, compiled once per cell."""
  network = StackedNetwork(config, cells)

  def apply(params, stats, images, drop, train):
    found = {"params": params, "batch_stats": stats}
    if not train:
      return network.apply(found, images)[0], stats
    outputs, new = network.apply(
      found, images, True, drop, mutable=["batch_stats"]
    )
    return outputs[0], new["batch_stats"]

  return jax.jit(functools.partial(_two_steps, apply, image))


def _static(program, genotype, config, state, keep) -> Trace:
  cells = stacked.as_cells(program.space, genotype)
  variables = pop.extract(program.network, genotype, state)
  start = _start(variables["params"], variables["batch_stats"])
  return _static_run(config, cells, program.image)(start, keep)


def _assert_close(found, wanted, what):
  """Within 2e-5 of the largest number of each array."""
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(found),
    jax.tree.leaves(wanted),
    strict=True,
  )
  for (path, a), b in pairs:
    a, b = np.asarray(a), np.asarray(b)
    error = np.abs(a - b).max() / (1e-2 + np.abs(b).max())
    assert error < 2e-5, (what, jax.tree_util.keystr(path), error)


def _assert_same_network(program, config, genotype, keep=1.0):
  """Two steps of the child and of the static network, all that they made."""
  state = _child(program, genotype)
  keep = jnp.float32(keep)
  found = jax.device_get(
    program.run(state, jax.tree.map(jnp.asarray, genotype), keep)
  )
  wanted = jax.device_get(_static(program, genotype, config, state, keep))
  for name in ("logits", "loss", "evaluated"):
    _assert_close(getattr(found, name), getattr(wanted, name), name)
  row = lambda tree, i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
  for step in range(2):
    stats = row(found.batch_stats, step)
    for name in ("gradients", "params"):
      made = state._replace(
        params=row(getattr(found, name), step), batch_stats=stats
      )
      ours = pop.extract(program.network, genotype, made)
      theirs = row(getattr(wanted, name), step)
      _assert_close(ours["params"], theirs, f"{name} of step {step}")
    theirs = row(wanted.batch_stats, step)
    _assert_close(ours["batch_stats"], theirs, f"statistics of step {step}")
  _assert_unused_rest(program, genotype, state, found)


def _assert_unused_rest(program, genotype, state, found):
  """Weights that this cell does not use: gradient 0, and never changed."""
  used = _used(program, genotype, state.params, state.batch_stats)
  for mask, old, new, gradient in zip(
    *map(jax.tree.leaves, (used, state.params, found.params, found.gradients)),
    strict=True,
  ):
    assert (gradient[:, ~mask] == 0).all()
    assert (new[:, ~mask] == np.asarray(old)[~mask]).all()


# --- the NASNet space --------------------------------------------------------


@pytest.fixture(scope="module")
def nasnet():
  """All 13 operations and 4 combiners, any output: the largest program."""
  space = spaces.get("nasnet_c", num_blocks=5)
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


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_cells_of_all_operations_and_combiners_are_static_ones(nasnet, number):
  _assert_same_network(nasnet, CONFIG, _covering_cells(nasnet.space)[number])


def test_nasnet_a_is_the_static_one(nasnet):
  _assert_same_network(nasnet, CONFIG, zoo.genotype("nasnet_a"))


def test_scheduled_drop_path_drops_the_same_edges(nasnet):
  _assert_same_network(nasnet, CONFIG, zoo.genotype("nasnet_a"), keep=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_more_random_cells_are_static_ones(nasnet, seed):
  rng = np.random.default_rng(100 + seed)
  genotype = nasnet.space.decode(nasnet.space.sample(rng, 1)[0])
  _assert_same_network(nasnet, CONFIG, genotype, keep=rng.choice([1.0, 0.7]))


def test_what_lies_in_the_rest_of_a_bank_is_never_read(nasnet):
  genotype = jax.tree.map(jnp.asarray, zoo.genotype("nasnet_a"))
  state = _child(nasnet, genotype)
  used = _used(nasnet, genotype, state.params, state.batch_stats)
  assert not all(mask.all() for mask in jax.tree.leaves(used))
  filled = jax.tree.map(lambda u, p: jnp.where(u, p, 7), used, state.params)
  keep = jnp.float32(1)
  wanted = nasnet.run(state, genotype, keep)
  found = nasnet.run(state._replace(params=filled), genotype, keep)
  np.testing.assert_array_equal(found.logits[0], wanted.logits[0])
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[0], b[0]),
    found.gradients,
    wanted.gradients,
  )


def test_other_cells_compile_nothing(nasnet):
  space = nasnet.space
  keep = jnp.float32(1)
  for decisions in space.sample(np.random.default_rng(2), 3):
    genotype = jax.tree.map(jnp.asarray, space.decode(decisions))
    params, stats = nasnet.init(jax.random.key(0), genotype)
    nasnet.run(_start(params, stats), genotype, keep)
  assert nasnet.init._cache_size() == 1
  assert nasnet.run._cache_size() == 1


# --- the PNAS space, and cells with one loose end ----------------------------


@pytest.fixture(scope="module")
def pnas():
  """8 operations, one cell for both strides, room for 3 blocks; images whose
  sides are odd and differ, of two channels."""
  space = spaces.get("pnas", num_blocks=3)
  return _program(space, CONFIG, image=(7, 9, 2))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_cells_of_fewer_blocks_are_static_ones(pnas, blocks):
  space = dataclasses.replace(pnas.space, num_blocks=blocks)
  genotype = space.decode(space.sample(np.random.default_rng(blocks), 1)[0])
  _assert_same_network(pnas, CONFIG, gt.pad_blocks(genotype, 3))


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
  state = _child(deep, genotype)
  names = pop.extract(deep.network, genotype, state)["params"]["cell_2"]
  assert ("fit_previous" in names) == (ends == 2)
  _assert_same_network(deep, DEEP, genotype)


# --- how a child starts ------------------------------------------------------


def _deviation(path, shape, init):
  """Of a kernel's initial values; by He et al. 2015, or slim's fan-out."""
  if len(shape) == 3:  # depthwise: each output sees one channel
    fan = shape[0] * shape[1]
  elif init == "fan_in":
    fan = np.prod(shape[:-1])
  else:
    fan = np.prod(shape[:-2]) * shape[-1]
  # Only the classifier's normal is not scaled up for its cut tails.
  return np.sqrt(2 / fan) * (0.8796 if path[0].key == "classifier" else 1)


@pytest.mark.parametrize("name", ["nasnet", "deep"])
def test_a_child_starts_as_its_static_network_does(name, request):
  """Slots and operations that it has not do not count, and are 0."""
  program = request.getfixturevalue(name)
  if name == "nasnet":
    genotype, init = zoo.genotype("nasnet_a"), "fan_in"
  else:
    decisions = program.space.sample(np.random.default_rng(4), 1)[0]
    genotype, init = program.space.decode(decisions), "fan_out"
  traced = jax.tree.map(jnp.asarray, genotype)
  made, extracted = [], []
  for seed in range(128):
    child = _start(*program.init(jax.random.key(seed), traced))
    made.append(child.params)
    found = pop.extract(program.network, genotype, child)
    extracted.append(found["params"])
  together = jax.tree.map(lambda *leaves: np.stack(leaves), *extracted)
  for path, values in jax.tree_util.tree_leaves_with_path(together):
    leaf, where = path[-1].key, jax.tree_util.keystr(path)
    if leaf == "kernel":
      wanted = _deviation(path, values.shape[1:], init)
      assert np.std(values) == pytest.approx(wanted, rel=0.06), where
      assert abs(values.mean()) < 0.1 * wanted, where
    else:
      assert (values == (leaf == "scale")).all(), where
  used = _used(program, genotype, child.params, child.batch_stats)
  for (path, mask), values in zip(
    jax.tree_util.tree_leaves_with_path(used), jax.tree.leaves(made[0])
  ):
    if path[-1].key == "kernel":  # weight decay would move it, were it not 0
      assert (np.asarray(values)[~mask] == 0).all(), jax.tree_util.keystr(path)


# --- cells that pass on each block by itself ---------------------------------


@pytest.fixture(scope="module")
def separate():
  """Four blocks and so four inputs, as NASNet-B."""
  operations = ("identity", "conv_1x1", "max_pool_3x3")
  return _program(spaces.get("nasnet_b", operations=operations), CONFIG)


def test_cells_of_separate_outputs_are_static_ones(separate):
  genotype = _covering_cells(separate.space)[0]
  _assert_same_network(separate, CONFIG, genotype, keep=0.7)


def test_cells_whose_batch_norm_sees_groups_are_static_ones():
  numerics = dataclasses.replace(CONFIG.numerics, bn_parts=3)
  config = dataclasses.replace(CONFIG, numerics=numerics)
  space = spaces.get(
    "nasnet", num_blocks=1, operations=("identity", "sep_conv_3x3")
  )
  genotype = space.decode(space.sample(np.random.default_rng(0), 1)[0])
  _assert_same_network(_program(space, config), config, genotype, keep=0.7)


@pytest.mark.slow
def test_a_cell_that_reads_three_resolutions_is_the_static_one():
  config = dataclasses.replace(CONFIG, num_reductions=2)
  program = _program(spaces.get("nasnet_b"), config)
  for genotype in _covering_cells(program.space):
    _assert_same_network(program, config, genotype)


# --- one branch runs, never all ----------------------------------------------


def _equations(jaxpr):
  """Every equation, those of inner programs too."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from _equations(inner)


def _switches(function, *args):
  """Sizes of the switches; fails if one has become a select.

  A `cond` with `branches_platforms` chooses a lowering when it is compiled. A
  batched `cond` of two branches becomes a select of three operands: whether
  a child is done is one, and is allowed.
  """
  sizes = collections.Counter()
  for equation in _equations(jax.make_jaxpr(function)(*args).jaxpr):
    if equation.primitive.name == "select_n":
      assert len(equation.invars) <= 3, "a select runs every branch"
    params = equation.params
    if equation.primitive.name == "cond" and not params.get(
      "branches_platforms"
    ):
      sizes[len(params["branches"])] += 1
  return sizes


def _loss(network):
  images = jnp.zeros((2, *IMAGE))

  def loss(params, stats, genotype):
    logits, new = network.apply(params, stats, genotype, images, None, True)
    return logits.sum(), new

  return jax.grad(loss, has_aux=True)


def _stacked_shapes(tree, *sizes):
  return jax.tree.map(
    lambda s: jax.ShapeDtypeStruct((*sizes, *s.shape), s.dtype), tree
  )


@pytest.mark.smoke
@pytest.mark.parametrize("concat", [False, True])
def test_exactly_one_branch_runs_also_under_vmap_of_vmap(concat):
  combiners = ("add", "concat") if concat else ("add",)
  network = pop.make_network(
    CONFIG, SMALL_OPERATIONS, 2, IMAGE, combiners=combiners
  )
  genotype = network.genotype_shapes
  variables = jax.eval_shape(network.init, jax.random.key(0), genotype)
  one = _loss(network)
  alone = _switches(one, *variables, genotype)
  # One switch forward and one backward per cell. The first cell and the
  # reduction read two kinds of states: 2 * 3 operations and "left out".
  combiners = {2: 6} if concat else {}  # one each way in three cells
  assert alone == {7: 4, 4: 2, **combiners}
  children = jax.vmap(one)
  args = _stacked_shapes((*variables, genotype), 5)
  assert _switches(children, *args) == alone
  # Seeds times children: the weights differ, the genotypes are shared.
  seeds = jax.vmap(children, (0, 0, None))
  weights = _stacked_shapes(variables, 2, 5)
  assert _switches(seeds, *weights, _stacked_shapes(genotype, 5)) == alone
  children = jax.vmap(jax.vmap(one))
  assert _switches(children, *weights, _stacked_shapes(genotype, 2, 5)) == alone


def test_one_branch_runs_in_the_program_that_trains_a_population():
  """Two children side by side on each of two devices, all operations."""
  space = spaces.get("nasnet_concat", num_blocks=2)
  network = pop.make_network(
    CONFIG, space.operations, 2, IMAGE, 2, space.combiners, True
  )
  recipe = pop.Recipe(batch_size=8, drop_path_keep=0.9, width=2)
  population = pop.make_population(
    network, recipe, Augmentation(), make_mesh(2), 16, 16
  )
  shape = jax.ShapeDtypeStruct
  data = pop.Data(shape((16, *IMAGE), jnp.uint8), shape((16,), jnp.int32))
  state = jax.eval_shape(population.empty)
  genotypes = _stacked_shapes(network.genotype_shapes, population.slots)
  sizes = _switches(population.train, state, genotypes, data)
  # The combiners' switches have two branches: one each way in three cells.
  assert sizes == {27: 4, 14: 2, 2: 6}
  valid = shape((population.slots,), jnp.bool_)
  sizes = _switches(population.count_correct, state, valid, genotypes, data)
  assert sizes == {27: 2, 14: 1, 2: 3}


@pytest.mark.smoke
def test_the_check_notices_a_switch_that_became_a_select():
  branches = [jnp.sin, jnp.cos, jnp.tan]
  naive = jax.vmap(lambda i, x: lax.switch(i, branches, x))
  with pytest.raises(AssertionError, match="every branch"):
    _switches(naive, jnp.zeros(4, jnp.int32), jnp.zeros(4))


def test_bfloat16_is_for_activations_in_training_alone():
  config = dataclasses.replace(CONFIG, numerics=Numerics(dtype=jnp.bfloat16))
  network = pop.make_network(config, SMALL_OPERATIONS, 2, IMAGE)
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
      for equation in _equations(jaxpr)
      if equation.primitive.name == "conv_general_dilated"
      for v in equation.outvars
    }
    return maps, jaxpr.outvars[0].aval.dtype.name

  assert types(True) == ({"bfloat16"}, "float32")
  assert types(False) == ({"float32"}, "float32")
  kept = jax.tree.leaves(variables)
  assert {leaf.dtype.name for leaf in kept} == {"float32"}
