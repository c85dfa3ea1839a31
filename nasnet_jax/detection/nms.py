"""Non-maximum suppression in static shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasnet_jax.detection import boxes as bx

Array = jax.Array


def nms(
  boxes: Array,
  scores: Array,
  valid: Array,
  count: int,
  limit: float,
) -> tuple[Array, Array]:
  """The best boxes of which no two overlap by more than a limit.

  Greedy: the best box is kept, all that overlap it are dropped, and so on. Of
  boxes with equal scores the first is the best. Boxes without area overlap
  nothing.

  Args:
    boxes: f32[N, 4].
    scores: f32[N].
    valid: bool[N]; false: a row that stands for no box.
    count: boxes that are kept, at most.
    limit: IoU above which the worse of two is dropped.

  Returns:
    (index int32[count], kept bool[count]): the boxes that are kept, the best
    first; where `kept` is false, index is 0.
  """
  floor = -jnp.inf

  def pick(left, _):
    best = jnp.argmax(left)
    is_one = left[best] > floor
    overlap = bx.iou(boxes[best][None], boxes)[0]
    gone = (overlap > limit) | (jnp.arange(len(left)) == best)
    left = jnp.where(gone & is_one, floor, left)
    return left, (jnp.where(is_one, best, 0).astype(jnp.int32), is_one)

  # A NaN would stay the maximum forever.
  usable = valid & (scores > floor)
  left = jnp.where(usable, scores, floor)
  _, (index, kept) = jax.lax.scan(pick, left, None, length=count)
  return index, kept


class Detections(NamedTuple):
  """What is found in images, the best first.

  Attributes:
    boxes: f32[..., D, 4].
    scores: f32[..., D], 0 to 1; 0 where there is none.
    classes: int32[..., D], 0 for the first class.
    valid: bool[..., D]; false: a row that stands for no box.
  """

  boxes: Array
  scores: Array
  classes: Array
  valid: Array


def nms_per_class(
  boxes: Array,
  scores: Array,
  valid: Array,
  *,
  per_class: int,
  total: int,
  limit: float,
  least_score: float,
) -> Detections:
  """Suppression within each class, then the best of all classes.

  Args:
    boxes: f32[R, K, 4], one for each class.
    scores: f32[R, K].
    valid: bool[R].
    per_class, total: boxes that are kept, at most.
    limit: IoU above which the worse of two boxes of a class is dropped.
    least_score: only boxes that score more are kept.
  """
  per_class = min(per_class, len(boxes))
  usable = valid[:, None] & (scores > least_score) & (bx.area(boxes) > 0)
  index, kept = jax.vmap(
    lambda b, s, v: nms(b, s, v, per_class, limit), in_axes=1
  )(boxes, scores, usable)
  classes = jnp.arange(boxes.shape[1])[:, None]
  best = jnp.where(kept, scores[index, classes], -jnp.inf).ravel()
  _, place = jax.lax.top_k(best, min(total, best.size))
  classes = jnp.broadcast_to(classes, index.shape).ravel()[place]
  index, kept = index.ravel()[place], kept.ravel()[place]
  found = Detections(
    boxes[index, classes], scores[index, classes], classes, kept
  )
  empty = total - len(place)  # there may be fewer boxes than `total`
  found = jax.tree.map(
    lambda x: jnp.pad(x, [(0, empty)] + [(0, 0)] * (x.ndim - 1)), found
  )
  return _blank(found)


def _blank(found: Detections) -> Detections:
  """Rows that stand for no box hold zeros."""
  valid = found.valid
  return Detections(
    jnp.where(valid[:, None], found.boxes, 0.0),
    jnp.where(valid, found.scores, 0.0),
    jnp.where(valid, found.classes, 0).astype(jnp.int32),
    valid,
  )
