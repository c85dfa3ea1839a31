"""How good detections are: COCO's twelve numbers, and VOC's AP50."""

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nasnet_jax.detection.pictures import Annotation

# What pycocotools' stats are, in its order. AP: over IoUs from 0.5 to 0.95, of
# all sizes, with 100 detections per image, where its name does not say else.
COCO_NUMBERS = (
  "ap",
  "ap50",
  "ap75",
  "ap_small",
  "ap_medium",
  "ap_large",
  "ar_1",
  "ar_10",
  "ar_100",
  "ar_small",
  "ar_medium",
  "ar_large",
)


class MetricError(ImportError, ValueError):
  """pycocotools is not installed; the message is one line."""


class Found(NamedTuple):
  """What was found in one image, in any order.

  Attributes:
    boxes: f32[D, 4], (y1, x1, y2, x2) in pixels of the picture.
    scores: f32[D].
    classes: int32[D].
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray


def coco(
  annotations: Sequence[Annotation], found: Sequence[Found], num_classes: int
) -> dict[str, float | None]:
  """The numbers of COCO_NUMBERS by pycocotools.

  Args:
    annotations: the true boxes.
    found: what was found in each of these images.

  Returns:
    {name: number from 0 to 1; None where no object is of that size}.

  Raises:
    MetricError: if pycocotools is not installed.
  """
  try:
    from pycocotools import coco as cocotools
    from pycocotools import cocoeval
  except ImportError as error:
    raise MetricError(
      f"COCO's numbers need pycocotools ({error}): pip install"
      " 'nasnet_jax[detection]'"
    ) from None
  images = [
    {"id": i, "height": one.side[0], "width": one.side[1]}
    for i, one in enumerate(annotations, 1)
  ]
  categories = [{"id": c, "name": str(c)} for c in range(1, num_classes + 1)]

  def table(rows):
    result = cocotools.COCO()
    rows = [{"id": i, **row} for i, row in enumerate(rows, 1)]
    result.dataset = {
      "images": images,
      "categories": categories,
      "annotations": rows,
    }
    result.createIndex()
    return result

  with contextlib.redirect_stdout(io.StringIO()):  # it prints a table
    judge = cocoeval.COCOeval(
      table(_true_rows(annotations)), table(_found_rows(found)), "bbox"
    )
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  stats = judge.stats.tolist()
  return {k: v if v >= 0 else None for k, v in zip(COCO_NUMBERS, stats)}


def has_coco() -> bool:
  """Whether pycocotools is installed."""
  from importlib import util

  return util.find_spec("pycocotools") is not None


def _row(image: int, box, label) -> dict:
  y1, x1, y2, x2 = map(float, box)
  return {
    "image_id": image,
    "category_id": int(label) + 1,
    "bbox": [x1, y1, x2 - x1, y2 - y1],
    "area": (y2 - y1) * (x2 - x1),
    "iscrowd": 0,
  }


def _true_rows(annotations: Sequence[Annotation]):
  for image, one in enumerate(annotations, 1):
    for box, label, crowd, area in zip(
      one.boxes, one.classes, one.crowd, one.areas
    ):
      more = {"iscrowd": int(crowd), "area": float(area)}
      yield _row(image, box, label) | more


def _found_rows(found: Sequence[Found]):
  for image, one in enumerate(found, 1):
    for box, score, label in zip(one.boxes, one.scores, one.classes):
      yield _row(image, box, label) | {"score": float(score)}


def voc_ap50(
  annotations: Sequence[Annotation], found: Sequence[Found], num_classes: int
) -> list[float | None]:
  """VOC's average precision at an IoU of 0.5, of each class.

  The area under the curve of precision over recall, made falling (VOC from
  2010 on; Everingham et al. 2015). A detection belongs to the true box that it
  overlaps most; a second one for the same box is wrong, and one for a difficult
  box does not count. Of equal scores the earlier image comes first.

  Returns:
    a number from 0 to 1 for each class; None for one without true boxes.
  """
  return [_ap50(annotations, found, label) for label in range(num_classes)]


def mean_ap(by_class: Sequence[float | None]) -> float:
  """The mean over the classes that occur; 0 if none does."""
  known = [ap for ap in by_class if ap is not None]
  return float(np.mean(known)) if known else 0.0


class Counts(NamedTuple):
  """Of a class, the detections that score enough.

  Attributes:
    found: detections that count.
    right: of these, how many are right.
    true: boxes to be found.
  """

  found: int
  right: int
  true: int


def counts_at(
  annotations: Sequence[Annotation],
  found: Sequence[Found],
  num_classes: int,
  score: float,
) -> list[Counts]:
  """What each class's detections of at least this score are worth, by the rules
  of `voc_ap50`: precision is right / found, recall right / true."""
  result = []
  for label in range(num_classes):
    scores, right, true = _judged(annotations, found, label)
    good = scores >= score
    result.append(Counts(int(good.sum()), int(right[good].sum()), true))
  return result


def _ap50(annotations, found, label: int) -> float | None:
  scores, right, total = _judged(annotations, found, label)
  if not total:
    return None
  order = np.argsort(-scores, kind="stable")
  right = right[order]
  recall = np.cumsum(right) / total
  precision = np.cumsum(right) / np.arange(1, len(right) + 1)
  falling = np.maximum.accumulate(precision[::-1])[::-1]
  return float((falling * np.diff(recall, prepend=0.0)).sum())


def _judged(annotations, found, label: int):
  """(scores, 1.0 for right and 0.0 for wrong) of a class's detections that
  count, and the number of boxes to be found."""
  scores, right = [], []
  total = 0
  for one, here in zip(annotations, found):
    own = one.classes == label
    total += int((own & ~one.crowd).sum())
    mine = here.classes == label
    for score, hit in _hits(
      one.boxes[own], one.crowd[own], here.boxes[mine], here.scores[mine]
    ):
      scores.append(score)
      right.append(hit)
  return np.array(scores), np.array(right, float), total


def _hits(true, difficult, boxes, scores):
  """Yields (score, whether it is right) of detections that count."""
  taken = np.zeros(len(true), bool)
  for i in np.argsort(-scores, kind="stable"):
    overlaps = _iou(boxes[i], true)
    best = int(overlaps.argmax()) if len(true) else -1
    if best < 0 or overlaps[best] < 0.5:
      yield scores[i], False
    elif not difficult[best]:
      yield scores[i], not taken[best]
      taken[best] = True


def _iou(box, others) -> np.ndarray:
  low = np.maximum(box[:2], others[:, :2])
  high = np.minimum(box[2:], others[:, 2:])
  shared = np.maximum(high - low, 0).prod(1)
  areas = (others[:, 2:] - others[:, :2]).prod(1)
  union = (box[2:] - box[:2]).prod() + areas - shared
  return shared / np.maximum(union, np.finfo(np.float32).tiny)
