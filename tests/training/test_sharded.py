"""Weights and the optimiser's arrays divided over devices."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from nasnet_jax.data import augment
from nasnet_jax.models import stacked, stacked_plan
from nasnet_jax.spaces import get
from nasnet_jax.training import (
  checkpoint,
  datasets,
  fit,
  mesh,
  recipes,
  sharded,
)

SPACE = get("nasnet", 1, ("identity", "sep_conv_3x3"))
AUGMENTATION = augment.Augmentation(pad=1, mean=(0.5,), std=(0.5,))


RECIPE = recipes.Recipe(
  epochs=2,
  batch_size=16,
  drop_path_keep=0.8,
  optimizer="rmsprop",
  ema_decay=0.9,
  clip_norm=0.5,  # so small that every gradient is clipped
)


@pytest.fixture(scope="module", autouse=True)
def _small_arrays_too():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharded, "_LEAST", 16)
    yield


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (40, 6, 6, 1)).astype(np.uint8)
  return datasets.on_device(datasets.Images(pixels, rng.integers(0, 3, 40)))


def _network(num_cells=1, **fields):
  cells = SPACE.decode(np.array([0, 1, 1, 1, 0, 1, 1, 0]))
  config = stacked_plan.NetworkConfig(
    num_cells, 8, 3, num_reductions=0, **fields
  )
  return stacked.StackedNetwork(config, stacked.as_cells(SPACE, cells))


def _train(images, devices, shard_params, recipe=RECIPE, **options):
  """(losses of the curve, final state)."""
  points = fit.fit(
    _network(),
    recipe,
    AUGMENTATION,
    images,
    7,
    mesh=mesh.make_mesh(1, devices),
    shard_params=shard_params,
    **options,
  )
  curve = list(points)
  return [point.loss for point in curve[1:]], curve[-1].state


@pytest.fixture(scope="module")
def divided(images):
  return _train(images, 8, True)


def _assert_close(a, b, tolerance=2e-4):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shard_params", [True, False])
def test_a_state_that_is_divided_is_made_on_the_host(images, shard_params):
  found = {}

  def start(variables):
    leaves = jax.tree.leaves(variables)
    found["places"] = {d for leaf in leaves for d in leaf.devices()}
    return variables

  accelerator = jax.devices()[3]  # stands in for one
  with jax.default_device(accelerator):
    points = fit.fit(
      _network(),
      RECIPE,
      AUGMENTATION,
      images,
      7,
      mesh=mesh.make_mesh(1, 8),
      shard_params=shard_params,
      start_from=start,
    )
    state = next(points).state
  host = jax.devices("cpu")[0]
  assert found["places"] == {host if shard_params else accelerator}
  kernels = [x for x in jax.tree.leaves(state.params) if x.size >= 64]
  for x in kernels:
    assert len(x.devices()) == 8
    whole = x.addressable_shards[0].data.shape == x.shape
    assert whole != shard_params


def test_divided_weights_change_nothing_but_rounding(images, divided):
  losses, state = _train(images, 8, False)
  _assert_close(divided[0], losses)
  _assert_close(divided[1], state)


def test_a_divided_state_takes_its_batch_in_parts(images):
  recipe = dataclasses.replace(RECIPE, epochs=1, micro_batches=2, bn_group=8)
  losses, state = _train(images, 2, False, recipe)
  divided_losses, divided = _train(images, 2, True, recipe)
  _assert_close(divided_losses, losses)
  _assert_close(divided, state)


def test_a_device_holds_its_part_of_weights_and_optimiser(divided):
  state = divided[1]
  kernels = [
    x
    for tree in (state.params, state.opt_state, state.ema[0])
    for x in jax.tree.leaves(tree)
    if x.shape == (8, 8)
  ]
  assert len(kernels) >= 3
  for x in kernels:
    assert x.addressable_shards[0].data.size == x.size // 8
  for x in jax.tree.leaves((state.batch_stats, state.ema[1])):
    assert x.sharding.is_fully_replicated


def test_a_divided_state_is_restored_on_another_mesh(images, divided, tmp_path):
  def tick(step):
    if step == 3:  # in the second epoch
      raise InterruptedError

  with pytest.raises(InterruptedError):
    _train(images, 8, True, folder=tmp_path, tick=tick)
  assert checkpoint.steps(tmp_path) == [2]
  shutil.copytree(tmp_path, tmp_path / "copy")
  for folder, devices, shard_params in (
    (tmp_path / "copy", 4, True),
    (tmp_path, 1, False),
  ):
    losses, state = _train(images, devices, shard_params, folder=folder)
    _assert_close(losses[-1], divided[0][-1])
    _assert_close(state.params, divided[1].params)


@pytest.mark.parametrize(
  ("shape", "devices", "expected"),
  [
    ((3, 3, 64), 8, 2),
    ((64, 128), 8, 1),
    ((128, 64), 8, 0),
    ((9, 9), 8, sharded.WHOLE),
    ((8,), 8, sharded.WHOLE),  # small
    ((64, 64), 1, sharded.WHOLE),
  ],
)
def test_the_largest_dimension_that_divides_is_divided(
  shape, devices, expected
):
  assert sharded.dimension(shape, devices) == expected


def test_the_step_gathers_weights_twice_and_never_their_gradients(
  images, divided
):
  """Forward and backward; a gradient leaves a device as its part alone."""
  state = divided[1]
  step = fit.make_step(
    _network(), RECIPE, AUGMENTATION, mesh.make_mesh(1, 8), shard_params=True
  )
  text = jax.jit(step).lower(state, images).as_text()
  parts = sum(
    sharded.dimension(x.shape, 8) != sharded.WHOLE
    for x in jax.tree.leaves(state.params)
  )
  assert parts > 3
  assert text.count('"stablehlo.reduce_scatter"') == parts
  # Some weights are not read again: their input needs no gradient.
  gathers = text.count('"stablehlo.all_gather"')
  assert parts < gathers <= 2 * parts


@pytest.mark.parametrize("scan_cells", [False, True])
def test_a_network_that_computes_again_does_so_of_divided_weights_too(
  images, scan_cells
):
  """The products of a step, with and without `remat`."""
  devices = mesh.make_mesh(1, 2)

  def products(remat, shard_params):
    network = _network(remat=remat, scan_cells=scan_cells, num_cells=3)
    step = fit.make_step(
      network,
      RECIPE,
      AUGMENTATION,
      devices,
      shard_params=shard_params,
    )
    state = jax.eval_shape(
      lambda: fit.init_state(network, RECIPE, (6, 6, 1), 1, 0)
    )
    text = jax.jit(step).lower(state, images).as_text()
    return text.count("stablehlo.dot_general")

  whole = products(True, False) - products(False, False)
  assert whole > 0
  assert products(True, True) - products(False, True) >= whole
