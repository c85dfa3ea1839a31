"""The page `examples/one_file_search.py` computes what the library computes."""

import ast
import collections
import importlib.util
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasnet_jax.data import batches
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.data.digits import load_digits
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import networks
from nasnet_jax.population import population as pop
from nasnet_jax.population.any_stack import CellChoices
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.training.mesh import make_mesh

PATH = pathlib.Path(__file__).parents[2] / "examples" / "one_file_search.py"
_spec = importlib.util.spec_from_file_location("one_file_search", PATH)
page = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(page)

CONV, POOL = range(2)
# [cell, block, side] = (state, operation).
CELLS = np.array(
  [
    # Convolutions; the first block is read from the right only.
    [[(0, CONV), (1, CONV)], [(0, CONV), (2, CONV)]],
    # No block reads the other: both are the output.
    [[(0, POOL), (1, CONV)], [(1, POOL), (1, POOL)]],
    # The first block twice in the second.
    [[(1, CONV), (1, POOL)], [(2, POOL), (2, CONV)]],
  ]
)
UPDATES = 3
RATE = 0.3


def _population(num_train):
  """The library's population of the page's networks, one slot per cell."""
  config = NetworkConfig(
    num_cells=2,
    features=page.FEATURES,
    num_reductions=0,
    stem_multiplier=1,
    numerics=Numerics(init="fan_in"),
  )
  operations = tuple(operation.__name__ for operation in page.OPS)
  choices = CellChoices(operations, page.BLOCKS, num_kinds=1)
  network = networks.make_network(config, choices, (8, 8, 1))
  recipe = pop.ChildRecipe(
    batch_size=page.BATCH,
    learning_rate=RATE,
    schedule="constant",
    momentum=0.0,
    weight_decay=0.0,
    clip_norm=0.0,
    width=len(CELLS),
  )
  mesh = make_mesh(1, devices=jax.devices()[:1])
  return pop.make_population(
    network, recipe, Augmentation(), mesh, num_train, num_train
  ), mesh


def _weights(rng):
  """The page's weights; what batch norm starts with is moved off 0 and 1."""
  params = jax.tree.map(lambda x: x[: len(CELLS)], page.init(rng))

  def move(leaf):
    return leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32)

  return jax.tree.map(move, params)


def _genotypes():
  cells = CELLS[:, None]  # one kind of cell for the whole network
  inputs, ops = (np.int32(part) for part in np.moveaxis(cells, -1, 0))
  active = np.ones(inputs.shape[:-1], bool)
  concat = gt.loose_ends(inputs, active)
  return gt.Genotype(inputs, ops, np.int32(0 * active), active, concat)


def _library_params(params):
  """The page's weights of one child in the library's arrangement."""
  stem, cells, head = params
  features = page.FEATURES

  def named(layer, kernel):
    return {
      "conv": {"kernel": kernel},
      "norm": {"scale": layer[1], "bias": layer[2]},
    }

  def cell(fit, blocks):
    edges = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    # [blocks, sides, all numbers of an array]
    edges = [leaf.reshape(page.BLOCKS, 2, -1) for leaf in edges]
    kernel = fit[0].reshape(-1, features, features)
    if len(kernel) > 1:  # the cell's own inputs come first; none is read
      kernel = jnp.pad(kernel, ((2, 0), (0, 0), (0, 0)))
    return {
      "project": named(fit, kernel),
      "edges": dict(zip(("kernel", "scale", "bias"), edges)),
    }

  made = [cell(fit, blocks) for fit, blocks in cells]
  # The stem's output has the shape that the second cell needs of it.
  zeros = jnp.zeros((1, features, features))
  untouched = jnp.ones(features), jnp.zeros(features)
  made[1]["fit_previous"] = named((None, *untouched), zeros)
  return {
    "stem": named(stem, stem[0].reshape(3, 3, 1, features)),
    "cell_0": made[0],
    "cell_1": made[1],
    "classifier": {
      "kernel": jnp.pad(head[0], ((2 * features, 0), (0, 0))),
      "bias": head[2],
    },
  }


def test_first_losses_are_those_of_the_library():
  data = load_digits()
  images, labels = data.train_images, data.train_labels
  population, mesh = _population(len(labels))
  children = len(CELLS)
  arranged = jax.jit(jax.vmap(_library_params))
  params = _weights(np.random.default_rng(0))
  seed = 5

  state = population.empty()
  start = jax.device_get(arranged(params))
  assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, state.params)
  changed = state._replace(
    params=start,
    horizon=np.full(children, UPDATES, np.int32),
    seed=np.full(children, seed, np.uint32),
  )
  # Where the library's own states lie: elsewhere it would compile twice.
  state = jax.tree.map(
    lambda x, old: jax.device_put(x, old.sharding), changed, state
  )
  genotypes = _genotypes()
  on_device = pop.put_data(images, labels, mesh)
  wanted = []
  for _ in range(UPDATES):
    state, metrics = population.train(state, genotypes, on_device)
    wanted.append(np.asarray(metrics["loss"]))

  @jax.jit
  def step(params, number):
    rows = batches.batch_indices(seed, number, len(labels), page.BATCH)
    batch = jnp.asarray(images)[rows] / 255, jnp.asarray(labels)[rows]
    mapped = jax.vmap(page.train_step, (0, 0, None, None))
    return mapped(params, CELLS, batch, RATE)

  found = []
  for number in range(UPDATES):
    params, loss = step(params, number)
    found.append(np.asarray(loss))

  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  # Each child has its own loss, and each update its own.
  assert len(np.unique(np.round(wanted, 3))) == UPDATES * children
  # Weights that a child does not use stay what they were in both.
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(arranged(params)),
    jax.tree.leaves(state.params),
    strict=True,
  ):
    where = jax.tree_util.keystr(path)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=where)


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from _equations(inner)


def _switches(function, *args):
  """(sizes of the switches, how many switches have become a select)."""
  sizes, selects = collections.Counter(), 0
  for equation in _equations(jax.make_jaxpr(function)(*args).jaxpr):
    if equation.primitive.name == "cond":
      sizes[len(equation.params["branches"])] += 1
    # The index of a switch is an integer; `where` and ReLU choose by a bool.
    if equation.primitive.name == "select_n":
      selects += equation.invars[0].aval.dtype != bool
  return sizes, selects


def test_the_program_has_switches_and_no_select():
  params = _weights(np.random.default_rng(0))
  split = np.zeros((9, 8, 8, 1), np.float32), np.zeros(9, int)
  rows = np.zeros((page.STEPS, page.BATCH), int)
  sizes, selects = _switches(page.accuracies, params, CELLS, rows, split, split)
  # One for both sides of a block, in each of two cells; forward, backward, and
  # once more for validation.
  assert sizes == {len(page.OPS): 3 * 2 * page.BLOCKS}
  assert selects == 0


def test_a_plain_switch_would_become_a_select():
  _, [(_, blocks), _], _ = _weights(np.random.default_rng(0))
  plain = jax.vmap(lambda op, x, w: lax.switch(op, page.OPS, x, w))
  x = jnp.zeros((len(CELLS), 2, 8, 8, page.FEATURES))
  layer = jax.tree.map(lambda leaf: leaf[:, 0], blocks[0])
  sizes, selects = _switches(plain, CELLS[:, 0, 0, 1], x, layer)
  assert (sizes, selects) == ({}, 1)


def test_each_child_runs_one_branch_however_deep_the_vmap():
  runs = []

  def branch(number):
    def run(x, y):
      jax.debug.callback(lambda: runs.append(number))
      return (number + 1) * x + y

    return run

  switch = page.run_one([branch(0), branch(1)])
  index = np.array([[0, 1, 1], [1, 1, 0]])
  x = np.arange(6.0).reshape(2, 3)
  # y has no axis of children: the rule has to spread it.
  once = jax.vmap(switch, (0, 0, None))
  found = jax.jit(jax.vmap(once, (0, 0, None)))(index, x, 0.5)
  np.testing.assert_allclose(found, (index + 1) * x + 0.5)
  jax.effects_barrier()
  assert collections.Counter(runs) == {0: 2, 1: 4}


def test_it_is_one_page_that_stands_alone():
  text = PATH.read_text()
  assert len(text.splitlines()) <= 150
  imported = set()
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import):
      imported.update(alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      imported.add(node.module.split(".")[0])
  assert imported == {"jax", "numpy", "sklearn"}


@pytest.mark.slow
def test_the_search_finds_better_cells():
  done = subprocess.run(
    [sys.executable, PATH], capture_output=True, text=True, check=True
  )
  lines = done.stdout.splitlines()
  rounds = [line for line in lines if line.startswith("round")]
  means = [float(line.split()[3].rstrip(",")) for line in rounds]
  assert len(rounds) == page.ROUNDS
  assert np.mean(means[-3:]) > np.mean(means[:3]) + 0.05
  assert len(lines) == page.ROUNDS + 1 + page.BLOCKS  # then the best cell
