"""Equal cells in one loop give what they give one after another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import stacked, stacked_plan

# Cheap operations in a cell that reads both inputs and a block, three states
# side by side.
CELL = (
  (
    (0, 1, "conv_1x1", "identity", "add"),
    (2, 1, "max_pool_3x3", "conv_1x1", "add"),
    (0, 0, "identity", "conv_1x1", "add"),
  ),
  (2, 3, 4),
)
SIZES = stacked_plan.NetworkConfig(
  num_cells=5, features=4, num_reductions=1, aux=True, num_classes=3
)


def _network(**fields):
  config = dataclasses.replace(SIZES, **fields)
  return stacked.StackedNetwork(config, (CELL, CELL))


IMAGES = jnp.asarray(
  np.random.default_rng(0).normal(0, 1, (4, 8, 8, 3)), jnp.float32
)


@pytest.fixture(scope="module")
def variables():
  """As random as they come: statistics and scales too."""
  init = jax.jit(lambda rng: _network().init(rng, IMAGES, train=True))
  leaves, tree = jax.tree.flatten(init(jax.random.key(0)))
  rng = np.random.default_rng(1)
  leaves = [
    leaf + rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32)
    for leaf in leaves
  ]
  return jax.tree.unflatten(tree, leaves)


def _step(variables, **fields):
  """(logits, auxiliary, endpoints, statistics, gradients) of a training step
  with drop path."""
  network = _network(**fields)
  drop = dp.make(jax.random.key(3), 0.6, 0.5, network.num_layers)

  def loss(params):
    (logits, auxiliary, endpoints), new = network.apply(
      {**variables, "params": params},
      IMAGES,
      train=True,
      drop=drop,
      mutable=["batch_stats"],
    )
    total = (logits**2).sum() + (auxiliary**2).sum()
    return total, (logits, auxiliary, endpoints, new)

  gradients, found = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
  return {"found": found, "gradients": gradients}


@pytest.mark.parametrize("remat", [False, True])
def test_a_training_step_is_that_of_cells_one_after_another(variables, remat):
  wanted = _step(variables, remat=remat)
  given = _step(variables, remat=remat, scan_cells=True)
  assert jax.tree.structure(given) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_logits_and_endpoints_of_evaluation_are_the_same(variables):
  def answer(scan_cells):
    network = _network(scan_cells=scan_cells)
    return jax.jit(lambda v: network.apply(v, IMAGES, train=False))(variables)

  given, wanted = answer(True), answer(False)
  assert given[2].keys() == wanted[2].keys()
  for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_part_of_the_network_runs_in_a_loop_too(variables):
  @jax.jit
  def run(variables):
    whole = _network().apply(variables, IMAGES, train=False)[2]
    inputs = whole["cell_1"], whole["cell_0"]
    part = _network(scan_cells=True).apply(
      variables, inputs, train=False, start="cell_2", stop="cell_4"
    )
    return whole, part[2]

  whole, part = run(variables)
  np.testing.assert_allclose(
    part["cell_4"], whole["cell_4"], rtol=1e-3, atol=1e-2
  )


def _equations(network, variables) -> str:
  return str(
    jax.make_jaxpr(lambda v: network.apply(v, IMAGES, train=False))(variables)
  )


def test_a_loop_stands_for_all_but_the_first_cell_of_a_stack(variables):
  """Of 5 cells; stem and reduction have the shape of the others here."""
  text = _equations(_network(scan_cells=True), variables)
  lengths = [int(t.split()[0]) for t in text.split("length=")[1:]]
  assert lengths == [4, 4]
  assert "length=" not in _equations(_network(), variables)


def test_initial_variables_do_not_depend_on_it():
  def shapes(**fields):
    network = _network(**fields)
    return jax.eval_shape(
      lambda: network.init(jax.random.key(0), IMAGES, train=False)
    )

  assert shapes(scan_cells=True) == shapes()


def test_published_networks_have_cells_that_are_alike():
  """NASNet-A large: of 6 cells in each stack, 4 in a loop."""
  entry = zoo.cells.network("nasnet_a_large")
  config = stacked_plan.NetworkConfig(
    num_classes=1000, scan_cells=True, **{**entry.config, "aux": False}
  )
  cells = stacked.as_cells(
    zoo.cells.CELLS[entry.cells][0], zoo.cells.genotype(entry.cells)
  )
  network = stacked.StackedNetwork(config, cells)
  image = jax.ShapeDtypeStruct((1, 331, 331, 3), jnp.float32)
  shapes = jax.eval_shape(
    lambda x: network.init(jax.random.key(0), x, train=False), image
  )
  text = str(
    jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False)[0])(
      shapes, image
    )
  )
  lengths = [int(t.split()[0]) for t in text.split("length=")[1:]]
  assert lengths == [4, 4, 4]
