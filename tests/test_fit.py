"""Training of one static network."""

import itertools

import jax
import numpy as np
import pytest

from nasnet_jax import fit, spaces
from nasnet_jax.data import augment
from nasnet_jax.data.image_data import DataError
from nasnet_jax.models import stacked
from nasnet_jax.training import checkpoint, stop

SPACE = spaces.get("nasnet", 1, ("identity", "avg_pool_3x3"))
AUGMENTATION = augment.Augmentation(pad=1, mean=(0.5,), std=(0.5,))
RECIPE = fit.Recipe(epochs=3, batch_size=8, drop_path_keep=0.8)


def _network(aux=False):
  config = stacked.NetworkConfig(1, 4, 3, num_reductions=1, aux=aux)
  cells = SPACE.decode(np.array([0, 1, 1, 1, 0, 1, 1, 0]))
  return stacked.StackedNetwork(config, stacked.as_cells(SPACE, cells))


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 30).astype(np.int32)
  pixels = (
    rng.integers(0, 100, (30, 6, 6, 1)) + 50 * labels[:, None, None, None]
  )
  return fit.on_device(pixels.astype(np.uint8), labels)


def _train(images, recipe=RECIPE, network=None, **options):
  """[(step, epoch, loss, accuracy)], final state on the host."""
  network = network or _network()
  points = fit.fit(network, recipe, AUGMENTATION, images, 7, **options)
  curve = list(points)
  return [p[:4] for p in curve], jax.tree.map(np.asarray, curve[-1].state)


def _assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def test_a_curve_has_a_point_per_epoch_and_its_start(images):
  curve, state = _train(images)
  assert [p[:2] for p in curve] == [(0, 0.0), (3, 1.0), (6, 2.0), (9, 3.0)]
  assert curve[0][2:] == (None, None)
  assert all(np.isfinite(p[2]) and 0 <= p[3] <= 1 for p in curve[1:])
  assert state.step == state.horizon == 9


def test_training_learns_what_can_be_learnt(images):
  curve, _ = _train(images, fit.Recipe(epochs=20, batch_size=8))
  assert curve[-1][3] > 0.8
  assert curve[-1][2] < curve[1][2]


def test_a_training_stopped_anywhere_goes_on_as_if_it_had_not(images, tmp_path):
  curve, state = _train(images, folder=tmp_path / "whole")
  for stop_at in (2, 4, 8, 9):  # within the first epoch, ..., the last step

    def tick(step, stop_at=stop_at):
      if step == stop_at:
        raise stop.Stopped(2)

    with pytest.raises(stop.Stopped):
      _train(images, folder=tmp_path / "broken", tick=tick)
  rest, resumed = _train(images, folder=tmp_path / "broken")
  assert rest == [(6, 2.0, None, None), curve[-1]]
  _assert_equal(resumed, state)
  again, finished = _train(images, folder=tmp_path / "broken")
  assert again == [(9, 3.0, None, None)]
  _assert_equal(finished, state)


@pytest.mark.parametrize("steps_per_call", [2, 100])
def test_updates_per_call_change_nothing_but_speed(images, steps_per_call):
  one, many = (
    fit.Recipe(epochs=3, batch_size=8, steps_per_call=n)
    for n in (1, steps_per_call)
  )
  curve, state = _train(images, one)
  other_curve, other_state = _train(images, many)
  assert [p[:2] for p in curve] == [p[:2] for p in other_curve]
  # Loops compile to other sums: float rounding differs, nothing else does.
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other_state)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_another_seed_gives_another_network(images):
  first = fit.init_state(_network(), RECIPE, (6, 6, 1), 9, 1)
  second = fit.init_state(_network(), RECIPE, (6, 6, 1), 9, 2)
  kernels = [s.params["stem"]["conv"]["kernel"] for s in (first, second)]
  assert not np.array_equal(*kernels)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_every_image_counts_once_whatever_the_batch_size(images, batch_size):
  network = _network()
  state = fit.init_state(network, RECIPE, (6, 6, 1), 9, 1)
  variables = fit.variables_of(state)
  logits, _, _ = network.apply(
    variables, augment.normalise(images.images, AUGMENTATION)
  )
  answers = np.asarray(logits).argmax(-1)
  # The last batch is filled up with image 0, which is answered right here.
  labels = np.asarray(images.labels).copy()
  labels[0] = answers[0]
  score = fit.make_evaluate(network, AUGMENTATION, batch_size)(
    variables, fit.on_device(images.images, labels)
  )
  assert score == fit.Score(int((answers == labels).sum()), 30)


def test_the_auxiliary_head_adds_its_share_to_the_loss(images):
  network = _network(aux=True)
  losses = []
  for weight in (0.0, 0.4, 0.8):
    recipe = fit.Recipe(batch_size=8, aux_weight=weight)
    state = fit.init_state(network, recipe, (6, 6, 1), 9, 1)
    step = jax.jit(fit.make_step(network, recipe, AUGMENTATION))
    losses.append(float(step(state, images)[1]["loss"]))
  shares = [b - a for a, b in itertools.pairwise(losses)]
  assert shares[0] > 0.1  # near 0.4 ln 3
  assert shares[0] == pytest.approx(shares[1], rel=1e-4)


def test_a_checkpoint_of_another_network_is_refused(images, tmp_path):
  _train(images, folder=tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match="missing: "):
    _train(images, network=_network(aux=True), folder=tmp_path)


def test_fewer_images_than_a_batch_are_refused(images):
  with pytest.raises(DataError, match="fewer than one batch of 64"):
    _train(images, fit.Recipe(batch_size=64))
