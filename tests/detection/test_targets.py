"""Assignment, sampling and losses of the two stages."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import targets

_PATH = pathlib.Path(__file__).with_name("numpy_detection.py")
_SPEC = importlib.util.spec_from_file_location("numpy_detection", _PATH)
plain = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plain)


def _truth(boxes, valid=None, crowd=None):
  n = len(boxes)
  return targets.Truth(
    jnp.asarray(boxes, jnp.float32).reshape(n, 4),
    jnp.zeros(n, jnp.int32),
    jnp.ones(n, bool) if valid is None else jnp.asarray(valid),
    jnp.zeros(n, bool) if crowd is None else jnp.asarray(crowd),
  )


def _boxes(rng, shape):
  corners = rng.integers(0, 9, (*shape, 2, 2)) * 8
  boxes = np.concatenate([corners.min(-2), corners.max(-2)], -1)
  return boxes.astype(np.float32)


@pytest.mark.parametrize("force", [True, False])
def test_assignment_is_that_of_plain_loops(force):
  rng = np.random.default_rng(0)
  cases, n, g = 1000, 10, 4
  boxes, true = _boxes(rng, (cases, n)), _boxes(rng, (cases, g))
  count = rng.integers(0, g + 1, cases)
  valid = np.arange(g) < count[:, None]

  def one(boxes, true, valid):
    truth = targets.Truth(
      true, jnp.zeros(g, jnp.int32), valid, jnp.zeros(g, bool)
    )
    return targets.assign(
      boxes, jnp.ones(n, bool), truth, positive=0.7, negative=0.3, force=force
    )

  found = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(boxes, true, valid))
  for case in range(cases):
    wanted = plain.assign(
      boxes[case], true[case][: count[case]], 0.7, 0.3, force
    )
    for i, (positive, negative, match) in enumerate(wanted):
      assert found.positive[case, i] == positive, (case, i)
      assert found.negative[case, i] == negative, (case, i)
      if positive:
        assert found.match[case, i] == match, (case, i)


def test_a_crowd_is_neither_found_nor_missed():
  boxes = jnp.array([[0.0, 0, 10, 10], [0.0, 0, 10, 40], [50.0, 50, 60, 60]])
  truth = _truth([[0, 0, 10, 20]], crowd=[True])
  found = targets.assign(
    boxes, jnp.ones(3, bool), truth, positive=0.5, negative=0.5, force=True
  )
  assert not found.positive.any()
  # The first lies inside, half of the second does, the third is elsewhere.
  assert found.negative.tolist() == [False, False, True]


def test_rows_left_out_are_assigned_nothing():
  boxes = jnp.array([[0.0, 0, 10, 10], [0.0, 0, 10, 9]])
  found = targets.assign(
    boxes,
    jnp.array([False, True]),
    _truth([[0, 0, 10, 10]]),
    positive=0.95,
    negative=0.3,
    force=True,
  )
  assert found.positive.tolist() == [False, True]


def test_an_image_without_boxes_has_negatives_only():
  truth = _truth(np.zeros((3, 4)), valid=[False] * 3)
  boxes = jnp.array([[0.0, 0, 10, 10], [5.0, 5, 9, 9]])
  found = targets.assign(
    boxes, jnp.ones(2, bool), truth, positive=0.7, negative=0.3, force=True
  )
  assert not found.positive.any() and found.negative.all()


@pytest.mark.parametrize(
  ("positives", "negatives", "chosen"),
  [(100, 100, (8, 24)), (3, 100, (3, 29)), (100, 5, (8, 5)), (0, 0, (0, 0))],
)
def test_samples_are_balanced(positives, negatives, chosen):
  rest = 300 - positives - negatives
  kinds = np.repeat([0, 1, 2], [positives, negatives, rest])
  found = targets.Assignment(
    jnp.asarray(kinds == 0), jnp.asarray(kinds == 1), jnp.zeros(300, jnp.int32)
  )
  for seed in range(5):
    taken = targets.sample(jax.random.key(seed), found, 32, 0.25)
    taken = np.asarray(taken)
    counts = (taken & (kinds == 0)).sum(), (taken & (kinds == 1)).sum()
    assert counts == chosen and not (taken & (kinds == 2)).any()


def test_every_box_is_sampled_as_often():
  found = targets.Assignment(
    jnp.arange(40) < 20, jnp.arange(40) >= 20, jnp.zeros(40, jnp.int32)
  )
  keys = jax.random.split(jax.random.key(0), 2000)
  taken = jax.vmap(lambda k: targets.sample(k, found, 16, 0.5))(keys)
  np.testing.assert_allclose(taken.mean(0), 0.4, atol=0.05)


def test_more_may_be_asked_for_than_there_is():
  found = targets.Assignment(
    jnp.ones(3, bool), jnp.zeros(3, bool), jnp.zeros(3, jnp.int32)
  )
  assert targets.sample(jax.random.key(0), found, 256, 0.5).all()


def test_smooth_l1_is_square_then_straight():
  found = targets.smooth_l1(jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]))
  np.testing.assert_allclose(found, [2.5, 0.5, 0.125, 0, 0.125, 0.5, 2.5])


def test_only_positive_boxes_have_a_box_loss():
  boxes = jnp.array([[0.0, 0, 10, 10], [0.0, 0, 20, 20], [0.0, 0, 0, 0]])
  truth = _truth([[0, 0, 10, 20]])
  found = targets.Assignment(
    jnp.array([True, False, False]),
    jnp.array([False, True, True]),
    jnp.zeros(3, jnp.int32),
  )

  def loss(offsets):
    return targets.box_loss(offsets, boxes, found, truth, jnp.ones(3))

  right = bx.encode(truth.boxes, boxes[:1])
  offsets = jnp.concatenate([right + 2, jnp.ones((2, 4))])
  value, gradient = jax.value_and_grad(loss)(offsets)
  np.testing.assert_allclose(value, 4 * 1.5, rtol=1e-6)
  np.testing.assert_allclose(gradient, [[1] * 4, [0] * 4, [0] * 4])


def test_class_loss_is_the_weighted_cross_entropy():
  logits = jnp.array([[2.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
  found = targets.class_loss(
    logits, jnp.array([1, 0, 1]), jnp.array([1.0, 2.0, 0.0])
  )
  wanted = np.log(1 + np.exp(2)) + 2 * np.log(2)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
