"""COCO's numbers and VOC's AP50."""

import builtins

import numpy as np
import pytest

from nasnet_jax.detection import metrics, pictures


def _annotation(boxes, classes=None, crowd=None):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  n = len(boxes)
  areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
  return pictures.Annotation(
    "x",
    1,
    (200, 200),
    boxes,
    np.zeros(n, np.int32) if classes is None else np.array(classes, np.int32),
    np.zeros(n, bool) if crowd is None else np.array(crowd),
    areas,
  )


def _found(boxes, scores, classes=None):
  n = len(scores)
  return metrics.Found(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(scores, np.float32),
    np.zeros(n, np.int32) if classes is None else np.array(classes, np.int32),
  )


def _fed_back(split):
  """The truth as if it had been found, crowds apart."""
  return [
    metrics.Found(
      one.boxes[~one.crowd],
      np.ones((~one.crowd).sum(), np.float32),
      one.classes[~one.crowd],
    )
    for one in split.annotations
  ]


@pytest.fixture
def cocotools():
  pytest.importorskip("pycocotools", reason="needs the extra `detection`")


def test_truth_fed_back_scores_one_on_real_coco(coco, cocotools):
  opened = pictures.load("coco", data_dir=coco)
  for split in (opened.train, opened.test):
    numbers = metrics.coco(split.annotations, _fed_back(split), 80)
    assert list(numbers) == list(metrics.COCO_NUMBERS)
    for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"):
      assert numbers[name] == pytest.approx(1.0, abs=1e-9), name
    assert numbers["ar_100"] == pytest.approx(1.0)
    assert numbers["ar_1"] < 0.9
    by_class = metrics.voc_ap50(split.annotations, _fed_back(split), 80)
    assert metrics.mean_ap(by_class) == pytest.approx(1.0)


def test_moved_boxes_score_less_on_real_coco(coco, cocotools):
  split = pictures.load("coco", data_dir=coco).test
  moved = [
    one._replace(boxes=one.boxes + 0.2 * (one.boxes[:, 2:3] - one.boxes[:, :1]))
    for one in _fed_back(split)
  ]
  numbers = metrics.coco(split.annotations, moved, 80)
  assert 0 < numbers["ap"] < numbers["ap50"] < 1


def test_nothing_found_scores_zero(cocotools):
  truth = [_annotation([[0, 0, 10, 10]])]
  numbers = metrics.coco(truth, [_found([], [])], 1)
  assert numbers["ap"] == 0 and numbers["ap_large"] is None
  assert metrics.voc_ap50(truth, [_found([], [])], 1) == [0.0]


def test_pycocotools_is_asked_for_by_name(monkeypatch):
  real = builtins.__import__

  def absent(name, *args, **kwargs):
    if name.startswith("pycocotools"):
      raise ImportError("No module named 'pycocotools'")
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", absent)
  with pytest.raises(metrics.MetricError, match=r"nasnet_jax\[detection\]"):
    metrics.coco([_annotation([])], [_found([], [])], 1)


def test_voc_ap50_is_the_hand_worked_one():
  box, other, far = [0, 0, 10, 10], [50, 50, 60, 60], [90, 90, 99, 99]
  truth = [_annotation([box, other]), _annotation([box])]
  found = [
    _found([box, box, far], [0.9, 0.8, 0.3]),  # right, a second time, nowhere
    _found([[0, 0, 10, 6]], [0.7]),  # IoU 0.6
  ]
  # Right, wrong, right, wrong: precision 1 at recall 1/3, 2/3 at 2/3.
  wanted = 1 / 3 * 1 + 1 / 3 * 2 / 3
  assert metrics.voc_ap50(truth, found, 1) == [pytest.approx(wanted)]


def test_difficult_boxes_count_neither_way():
  box, other = [0, 0, 10, 10], [50, 50, 60, 60]
  truth = [_annotation([box, other], crowd=[False, True])]
  found = [_found([other, other, box], [0.9, 0.8, 0.5])]
  assert metrics.voc_ap50(truth, found, 1) == [1.0]


def test_classes_without_boxes_do_not_count():
  truth = [_annotation([[0, 0, 10, 10]], classes=[1])]
  found = [_found([[0, 0, 10, 10]] * 2, [0.9, 0.9], classes=[0, 1])]
  by_class = metrics.voc_ap50(truth, found, 3)
  assert by_class == [None, 1.0, None]
  assert metrics.mean_ap(by_class) == 1.0
  assert metrics.mean_ap([None]) == 0.0


def test_counts_at_a_score_are_those_of_precision_and_recall():
  """Two cats of which one is found twice; a dog where none is."""
  boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
  one = pictures.Annotation(
    "x",
    0,
    (50, 50),
    boxes,
    np.zeros(2, np.int32),
    np.zeros(2, bool),
    np.array([100.0, 400.0], np.float32),
  )
  found = metrics.Found(
    boxes[[0, 0, 1, 1]],
    np.array([0.9, 0.8, 0.4, 0.7], np.float32),
    np.array([0, 0, 0, 1], np.int32),
  )
  assert metrics.counts_at([one], [found], 2, 0.5) == [(2, 1, 2), (1, 0, 0)]
  assert metrics.counts_at([one], [found], 2, 0.3) == [(3, 2, 2), (1, 0, 0)]
