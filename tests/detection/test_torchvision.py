"""The geometry of detection beside torchvision's, where that has the same."""

import functools

import jax
import numpy as np
import pytest

from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import nms, roi

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")


def _boxes(rng, *shape, side=96, grid=4):
  """Boxes with corners on a grid: many are equal, touch, or are empty; some
  reach out of the image."""
  corners = rng.integers(-2, side // grid + 2, (*shape, 2, 2)) * grid
  boxes = np.concatenate([corners.min(-2), corners.max(-2)], -1)
  return boxes.astype(np.float32)


def _theirs(boxes):
  """(y1, x1, y2, x2) -> a tensor of (x1, y1, x2, y2)."""
  return torch.from_numpy(np.ascontiguousarray(boxes[..., [1, 0, 3, 2]]))


def test_overlaps_are_torchvisions():
  rng = np.random.default_rng(0)
  first, second = _boxes(rng, 3000), _boxes(rng, 500)
  wanted = torchvision.ops.box_iou(_theirs(first), _theirs(second)).numpy()
  # Two boxes without area: theirs is 0 / 0.
  assert np.isnan(wanted).any() and (wanted == 1).any() and (wanted == 0).any()
  found = np.asarray(bx.iou(first, second))
  np.testing.assert_allclose(found, np.nan_to_num(wanted), rtol=1e-6)
  inside = rng.uniform(0, 500, (2000, 2, 2)).astype(np.float32)
  inside = np.concatenate([inside.min(1), inside.max(1)], -1)
  wanted = torchvision.ops.box_iou(_theirs(inside), _theirs(inside)).numpy()
  np.testing.assert_allclose(bx.iou(inside, inside), wanted, atol=1e-6)


def test_no_boxes_overlap_nothing():
  none, some = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
  for first, second in ((none, some), (some, none), (none, none)):
    wanted = torchvision.ops.box_iou(_theirs(first), _theirs(second))
    assert bx.iou(first, second).shape == tuple(wanted.shape)


# Limits that float32 holds: torchvision compares with a float64.
@pytest.mark.parametrize("limit", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_what_suppression_keeps_is_what_torchvision_keeps(limit):
  """2,000 cases of up to 16 boxes; scores and overlaps with many ties."""
  rng = np.random.default_rng(int(limit * 100))
  cases, n = 2000, 16
  boxes = _boxes(rng, cases, n, side=48, grid=8)
  scores = rng.integers(0, 8, (cases, n)).astype(np.float32)
  valid = np.arange(n) < rng.integers(0, n + 1, (cases, 1))
  keep = jax.jit(jax.vmap(lambda b, s, v: nms.nms(b, s, v, n, limit)))
  index, kept = map(np.asarray, keep(boxes, scores, valid))
  sizes = set()
  for case in range(cases):
    some = valid[case]
    wanted = torchvision.ops.nms(
      _theirs(boxes[case][some]), torch.from_numpy(scores[case][some]), limit
    )
    assert index[case][kept[case]].tolist() == wanted.tolist(), case
    sizes.add(len(wanted))
  assert 0 in sizes and max(sizes) > 5


def test_suppression_by_class_is_torchvisions():
  """`batched_nms`, then the best of all classes."""
  rng = np.random.default_rng(7)
  cases, n, classes, total = 300, 12, 3, 10
  boxes = _boxes(rng, cases, n, classes, side=48, grid=8)
  # No equal scores: whose class is first then is each one's own.
  scores = rng.permutation(cases * n * classes).reshape(cases, n, classes)
  scores = (scores / scores.max()).astype(np.float32)
  boxes[..., 2:] += 1  # none is empty: those are no answer of ours
  find = functools.partial(
    nms.nms_per_class, per_class=n, total=total, limit=0.5, least_score=0.1
  )
  found = jax.jit(jax.vmap(find))(boxes, scores, np.ones((cases, n), bool))
  label = np.broadcast_to(np.arange(classes), (n, classes)).ravel()
  for case in range(cases):
    flat, score = boxes[case].reshape(-1, 4), scores[case].ravel()
    some = score > np.float32(0.1)
    wanted = torchvision.ops.batched_nms(
      _theirs(flat[some]),
      torch.from_numpy(score[some]),
      torch.from_numpy(label[some]),
      0.5,
    )[:total].numpy()
    valid = np.asarray(found.valid[case])
    assert valid.sum() == len(wanted)
    np.testing.assert_array_equal(found.boxes[case][valid], flat[some][wanted])
    np.testing.assert_array_equal(
      found.scores[case][valid], score[some][wanted]
    )
    np.testing.assert_array_equal(
      found.classes[case][valid], label[some][wanted]
    )


@pytest.mark.parametrize("size", [1, 2, 4, 7])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_aligned_crops_are_torchvisions(size, samples):
  """1,000 boxes on maps down to one pixel: whole, turned inside out, without
  area, and far outside."""
  rng = np.random.default_rng(size * 10 + samples)
  align = jax.jit(roi.roi_align, static_argnums=(2, 3, 5))
  for h, w in ((1, 1), (1, 7), (6, 9), (12, 5)):
    features = rng.normal(size=(h, w, 5)).astype(np.float32)
    boxes = rng.uniform(-60, 260, (250, 4)).astype(np.float32)
    boxes[:20, 2:] = boxes[:20, :2]
    found = align(features, boxes, 16, size, np.array([h, w]), samples)
    wanted = torchvision.ops.roi_align(
      torch.from_numpy(np.moveaxis(features, -1, 0)[None].copy()),
      [_theirs(boxes)],
      size,
      1 / 16,
      samples,
      aligned=True,
    )
    wanted = np.moveaxis(wanted.numpy(), 1, -1)
    assert (wanted == 0).all((1, 2, 3)).any() and wanted.any()
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_offsets_are_torchvisions():
  from torchvision.models.detection._utils import BoxCoder

  rng = np.random.default_rng(3)
  low = rng.uniform(0, 500, (2, 5000, 2))
  boxes, anchors = np.concatenate(
    [low, low + rng.uniform(20, 400, low.shape)], -1
  ).astype(np.float32)
  coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
  wanted = coder.encode_single(_theirs(boxes), _theirs(anchors)).numpy()
  order = [1, 0, 3, 2]  # theirs: x, y, width, height
  found = np.asarray(bx.encode(boxes, anchors))
  np.testing.assert_allclose(found[:, order], wanted, rtol=1e-4, atol=1e-3)
  back = coder.decode_single(
    torch.from_numpy(found[:, order].copy()), _theirs(anchors)
  ).numpy()
  np.testing.assert_allclose(
    np.asarray(bx.decode(found, anchors))[:, order], back, atol=1e-2
  )
