"""What the two stages are taught: assignment, sampling, losses.

Every function is for one image; `jax.vmap` makes it one for batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasnet_jax.detection import boxes as bx

Array = jax.Array

_CROWDED = 0.5  # a box of which this share lies in a crowd is not negative


class Truth(NamedTuple):
  """The boxes of an image.

  Attributes:
    boxes: f32[..., G, 4].
    classes: int32[..., G], 0 for the first class.
    valid: bool[..., G]; false: a row that stands for no box.
    crowd: bool[..., G]: the box holds many objects and marks none of them
      (COCO's iscrowd). No box is matched with it, and none inside it is
      negative.
  """

  boxes: Array
  classes: Array
  valid: Array
  crowd: Array


class Assignment(NamedTuple):
  """What each of N boxes should find.

  Attributes:
    positive, negative: bool[N]; a box that is neither is left out.
    match: int32[N], the row of `Truth` to which a positive box belongs.
  """

  positive: Array
  negative: Array
  match: Array


def assign(
  boxes: Array,
  valid: Array,
  truth: Truth,
  *,
  positive: float,
  negative: float,
  force: bool,
) -> Assignment:
  """Which true box each box belongs to, by IoU (Ren et al. 2015, 3.1.2).

  Args:
    boxes: f32[N, 4].
    valid: bool[N]; false: a row that is left out.
    positive: IoU with a true box from which a box is positive.
    negative: a box is negative if its highest IoU is below this.
    force: whether each true box's best box is positive, however small its IoU,
      if they touch at all. If two true boxes have the same best box, the later
      row gets it.
  """
  real = truth.valid & ~truth.crowd
  overlap = bx.iou(boxes, truth.boxes)
  overlap = jnp.where(real & valid[:, None], overlap, 0.0)
  best, match = overlap.max(1), overlap.argmax(1)
  is_positive = best >= positive
  if force:
    rows = jnp.arange(len(real), dtype=match.dtype)
    owner = jnp.where(overlap.max(0) > 0, rows, -1)
    forced = jnp.full(len(boxes), -1, match.dtype)
    forced = forced.at[overlap.argmax(0)].max(owner)
    match = jnp.where(forced >= 0, forced, match)
    is_positive |= forced >= 0
  inside = jnp.where(
    truth.valid & truth.crowd, bx.covered(boxes, truth.boxes), 0.0
  )
  is_negative = (best < negative) & (inside.max(1) < _CROWDED)
  return Assignment(
    is_positive & valid, is_negative & ~is_positive & valid, match
  )


def sample(
  rng: Array, found: Assignment, size: int, positive_share: float
) -> Array:
  """bool[N]: a random `size` of the boxes, positive ones up to a share.

  Negative boxes take all places that positive ones leave; if there are not
  enough, fewer are drawn. As in the TF Object Detection API.
  """
  uniform = jax.random.uniform(rng, found.positive.shape)
  n = uniform.shape[0]
  positives = _some(uniform, found.positive, min(n, int(size * positive_share)))
  places = jnp.arange(min(n, size)) < size - positives.sum()
  return positives | _some(uniform, found.negative, min(n, size), places)


def _some(uniform: Array, among: Array, most: int, places=True) -> Array:
  """bool[N]: those among them with the `most` largest numbers, the first of
  which takes the first place."""
  if not most:
    return jnp.zeros_like(among)
  value, index = jax.lax.top_k(jnp.where(among, uniform, -1.0), most)
  return jnp.zeros_like(among).at[index].set((value >= 0) & places)


def smooth_l1(difference: Array) -> Array:
  """f32[...]: x^2 / 2 within 1, |x| - 1/2 beyond (Girshick 2015)."""
  size = jnp.abs(difference)
  return jnp.where(size < 1.0, 0.5 * size * size, size - 0.5)


def box_loss(
  offsets: Array, boxes: Array, found: Assignment, truth: Truth, weights: Array
) -> Array:
  """Smooth L1 between offsets and those that lead to the true boxes.

  Args:
    offsets: f32[N, 4].
    boxes: f32[N, 4], where the offsets start.
    weights: f32[N]; only positive boxes count.
  """
  wanted = bx.encode(truth.boxes[found.match], boxes)
  counts = found.positive & (weights > 0)
  # The true offsets of other boxes may be infinite, and 0 * inf is NaN.
  wanted = jnp.where(counts[:, None], wanted, 0.0)
  offsets = jnp.where(counts[:, None], offsets, 0.0)
  return (smooth_l1(offsets - wanted).sum(1) * weights).sum()


def class_loss(logits: Array, classes: Array, weights: Array) -> Array:
  """Softmax cross-entropy of f32[N, K] with int32[N], summed by weights."""
  logs = jax.nn.log_softmax(logits.astype(jnp.float32))
  own = jnp.take_along_axis(logs, classes[:, None], 1)[:, 0]
  return -(own * weights).sum()
