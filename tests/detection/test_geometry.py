"""Boxes, anchors, suppression and crops beside plain float64 versions."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import nms, roi
from nasnet_jax.detection.anchors import Anchors

_PATH = pathlib.Path(__file__).with_name("numpy_detection.py")
_SPEC = importlib.util.spec_from_file_location("numpy_detection", _PATH)
plain = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plain)


def _boxes(rng, n, side=64):
  """Random boxes on a coarse grid, so that many are equal, touch or are empty;
  some lie outside."""
  corners = rng.integers(-4, side // 4 + 2, (n, 2, 2)) * 4
  boxes = np.concatenate([corners.min(1), corners.max(1)], -1)
  return boxes.astype(np.float32)


def test_iou_is_that_of_plain_loops():
  rng = np.random.default_rng(0)
  first, second = _boxes(rng, 200), _boxes(rng, 100)
  found = np.asarray(bx.iou(first, second))
  wanted = [[plain.iou(a, b) for b in second] for a in first]
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  assert (np.diagonal(bx.iou(first, first)) == (plain_areas(first) > 0)).all()


def plain_areas(boxes):
  return np.array([plain.area(box) for box in boxes])


def test_coded_boxes_come_back():
  rng = np.random.default_rng(1)
  corners = rng.uniform(0, 600, (5000, 2))
  boxes = np.concatenate([corners, corners + rng.uniform(1, 400, (5000, 2))], 1)
  anchors = np.concatenate(
    [corners + 20, corners + 20 + rng.uniform(8, 500, (5000, 2))], 1
  )
  offsets = bx.encode(boxes, anchors)
  wanted = [plain.encode(b, a) for b, a in zip(boxes, anchors)]
  np.testing.assert_allclose(offsets, wanted, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(bx.decode(offsets, anchors), boxes, atol=2e-2)


def test_wild_offsets_stay_finite():
  anchors = jnp.array([[0.0, 0.0, 512.0, 512.0]])
  boxes = bx.decode(jnp.full((1, 4), 1e6), anchors)
  assert np.isfinite(boxes).all()
  empty = jnp.zeros((1, 4))
  assert np.isfinite(bx.encode(empty, empty)).all()


def test_clipped_boxes_lie_in_the_image():
  boxes = jnp.array([[-5.0, 10.0, 30.0, 99.0], [50.0, 60.0, 70.0, 80.0]])
  found = bx.clip(boxes, jnp.array([40, 50]))
  assert found.tolist() == [[0, 10, 30, 50], [40, 50, 40, 50]]


def test_anchors_are_the_hand_worked_ones():
  grid = Anchors().grid((3, 2), 16)
  assert grid.shape == (3 * 2 * 12, 4)
  root = 2**0.5
  # Ratio 1/2 comes first: twice as high as wide; its scales are neighbours.
  np.testing.assert_allclose(
    grid[0], [-32 * root, -16 * root, 32 * root, 16 * root], rtol=1e-6
  )
  np.testing.assert_allclose(grid[1], 2 * grid[0], rtol=1e-6)
  np.testing.assert_allclose(grid[4 + 2], [-128, -128, 128, 128])
  np.testing.assert_allclose(
    grid[8 + 3], [-128 * root, -256 * root, 128 * root, 256 * root], rtol=1e-6
  )
  # The next cell is one to the right, the third one the first of row two.
  np.testing.assert_allclose(grid[12] - grid[0], [0, 16, 0, 16], atol=1e-4)
  np.testing.assert_allclose(grid[24] - grid[0], [16, 0, 16, 0], atol=1e-4)
  assert len(Anchors().grid((75, 75), 16)) == 67_500  # at 1200 pixels


def test_suppression_is_that_of_plain_loops():
  rng = np.random.default_rng(2)
  cases, n, count = 2000, 12, 8
  boxes = np.stack([_boxes(rng, n) for _ in range(cases)])
  scores = rng.integers(0, 6, (cases, n)).astype(np.float32)  # many are equal
  valid = rng.random((cases, n)) < 0.8
  limits = rng.choice([0.0, 0.25, 0.5, 0.7, 1.0], cases).astype(np.float32)
  index, kept = jax.jit(
    jax.vmap(lambda b, s, v, t: nms.nms(b, s, v, count, t))
  )(boxes, scores, valid, limits)
  for case in range(cases):
    wanted = plain.nms(
      boxes[case], scores[case], valid[case], count, limits[case]
    )
    found = np.asarray(index[case])[np.asarray(kept[case])]
    assert found.tolist() == wanted, case


def test_a_score_that_is_no_number_is_never_kept():
  boxes = jnp.array([[0.0, 0, 9, 9], [20, 20, 29, 29]])
  scores = jnp.array([jnp.nan, 0.5])
  index, kept = nms.nms(boxes, scores, jnp.ones(2, bool), 2, 0.5)
  assert index.tolist() == [1, 0] and kept.tolist() == [True, False]


def test_classes_do_not_suppress_each_other():
  box, apart = [0.0, 0, 10, 10], [0.0, 1, 10, 11]
  boxes = jnp.array([[box, box], [apart, apart], [[0.0] * 4] * 2])
  scores = jnp.array([[0.9, 0.2], [0.8, 0.3], [0.99, 0.99]])
  found = nms.nms_per_class(
    boxes,
    scores,
    jnp.ones(3, bool),
    per_class=3,
    total=4,
    limit=0.6,
    least_score=0.0,
  )
  assert found.classes.tolist() == [0, 1, 0, 0]
  np.testing.assert_allclose(found.scores, [0.9, 0.3, 0, 0])
  assert found.valid.tolist() == [True, True, False, False]
  assert found.boxes[0].tolist() == box and found.boxes[1].tolist() == apart


def test_there_are_as_many_rows_as_asked_for():
  found = nms.nms_per_class(
    jnp.ones((2, 1, 4)),
    jnp.ones((2, 1)),
    jnp.ones(2, bool),
    per_class=100,
    total=100,
    limit=0.6,
    least_score=0.0,
  )
  assert found.boxes.shape == (100, 4) and not found.valid.any()


def test_roi_align_is_that_of_plain_loops():
  rng = np.random.default_rng(3)
  align = jax.jit(roi.roi_align, static_argnums=(2, 3, 5))
  for case in range(20):
    h, w = rng.integers(1, 9, 2)
    size, samples = [(1, 1), (2, 2), (3, 1), (2, 3)][case % 4]
    features = rng.normal(size=(h, w, 3)).astype(np.float32)
    boxes = rng.uniform(-40, 140, (100, 4)).astype(np.float32)
    if size != 3:  # thirds are inexact, and samples jump to 0 at the border
      boxes[:40] = _boxes(rng, 40)
    padded = np.full((10, 11, 3), 7.0, np.float32)
    padded[:h, :w] = features
    extent = jnp.array([h, w])
    found = align(padded, boxes, 16, size, extent, samples)
    wanted = plain.roi_align(features.astype(float), boxes, 16, size, samples)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_crop_and_resize_is_that_of_plain_loops():
  rng = np.random.default_rng(4)
  crop = jax.jit(roi.crop_and_resize, static_argnums=3)
  for case in range(20):
    h, w = rng.integers(1, 9, 2)
    size = [1, 2, 5][case % 3]
    features = rng.normal(size=(h, w, 3)).astype(np.float32)
    padded = np.full((10, 11, 3), 7.0, np.float32)
    padded[:h, :w] = features
    side = np.array([h * 16.0, w * 16.0], np.float32)
    boxes = rng.uniform(-20, 150, (100, 4)).astype(np.float32)
    found = crop(padded, boxes, side, size, jnp.array([h, w]))
    wanted = plain.crop_and_resize(features.astype(float), boxes, side, size)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("kind", ["align", "crop"])
def test_gradients_of_crops_are_finite_differences(kind):
  rng = np.random.default_rng(5)
  features = rng.normal(size=(5, 6, 2))
  boxes = np.array([[3.0, 5.0, 61.0, 70.0], [-9.0, 20.0, 30.0, 110.0]])
  weights = rng.normal(size=(2, 3, 3, 2))

  def value(features):
    extent, side = jnp.array([5, 6]), jnp.array([80.0, 96.0])
    if kind == "align":
      crops = roi.roi_align(features, boxes, 16, 3, extent)
    else:
      crops = roi.crop_and_resize(features, boxes, side, 3, extent)
    return (crops * weights).sum()

  with jax.enable_x64(True):
    gradient = np.asarray(jax.grad(value)(jnp.asarray(features)))
    assert gradient.dtype == np.float64
    step = 1e-3  # the value is linear in the features: any step will do
    for place in np.ndindex(features.shape):
      moved = features.copy()
      moved[place] += step
      back = features.copy()
      back[place] -= step
      slope = (value(jnp.asarray(moved)) - value(jnp.asarray(back))) / step / 2
      np.testing.assert_allclose(gradient[place], slope, atol=1e-8)


def test_pooled_crops_hold_the_largest_values():
  crops = jnp.arange(25.0).reshape(1, 5, 5, 1)
  assert roi.max_pool(crops, 2)[0, ..., 0].tolist() == [[6, 8], [16, 18]]
  assert roi.max_pool(crops, 1) is crops


def test_boxes_on_a_grid_hold_the_hard_cases():
  boxes = _boxes(np.random.default_rng(2), 2000)
  areas = plain_areas(boxes)
  assert (areas == 0).any() and (areas > 0).any()
  assert len(np.unique(boxes, axis=0)) < len(boxes)
