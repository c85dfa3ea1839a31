"""Boxes: f32[..., 4], (y1, x1, y2, x2) in pixels; areas have no "+ 1"."""

import jax
import jax.numpy as jnp

Array = jax.Array

# Factors of offsets, (ty, tx, th, tw): TF Object Detection API,
# faster_rcnn_box_coder in its configs.
SCALES = (10.0, 10.0, 5.0, 5.0)
# exp of more than this would leave any image: a thousand times the anchor.
_MAX_LOG = 6.9
_LEAST_SIDE = 1e-8  # of boxes that are encoded: there is no log of 0


def area(boxes: Array) -> Array:
  """f32[...]; 0 for boxes whose corners are in the wrong order."""
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
  return sides[..., 0] * sides[..., 1]


def intersection(first: Array, second: Array) -> Array:
  """f32[..., N, M]: shared area of f32[..., N, 4] and f32[..., M, 4]."""
  a, b = first[..., :, None, :], second[..., None, :, :]
  low = jnp.maximum(a[..., :2], b[..., :2])
  high = jnp.minimum(a[..., 2:], b[..., 2:])
  sides = jnp.maximum(high - low, 0.0)
  return sides[..., 0] * sides[..., 1]


def iou(first: Array, second: Array) -> Array:
  """f32[..., N, M]: intersection over union; 0 where both are empty."""
  shared = intersection(first, second)
  union = area(first)[..., :, None] + area(second)[..., None, :] - shared
  return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1.0), 0.0)


def covered(first: Array, second: Array) -> Array:
  """f32[..., N, M]: share of each first box that lies in each second one."""
  own = area(first)[..., :, None]
  shared = intersection(first, second)
  return jnp.where(own > 0, shared / jnp.where(own > 0, own, 1.0), 0.0)


def clip(boxes: Array, side: Array) -> Array:
  """The parts of boxes f32[..., 4] inside an image of side (height, width)."""
  limit = jnp.concatenate([side, side], -1).astype(boxes.dtype)
  return jnp.clip(boxes, 0.0, limit)


def _centres(boxes: Array) -> tuple[Array, Array]:
  sides = boxes[..., 2:] - boxes[..., :2]
  return boxes[..., :2] + 0.5 * sides, sides


def encode(boxes: Array, anchors: Array) -> Array:
  """Offsets (ty, tx, th, tw) that lead from anchors to boxes, f32[..., 4].

  t = (centre - anchor's centre) / anchor's side, and log(side / anchor's
  side), times SCALES (Girshick et al. 2014; Ren et al. 2015).
  """
  centre, sides = _centres(boxes)
  anchor_centre, anchor_sides = _centres(anchors)
  anchor_sides = jnp.maximum(anchor_sides, _LEAST_SIDE)
  moved = (centre - anchor_centre) / anchor_sides
  scaled = jnp.log(jnp.maximum(sides, _LEAST_SIDE) / anchor_sides)
  return jnp.concatenate([moved, scaled], -1) * jnp.asarray(SCALES)


def decode(offsets: Array, anchors: Array) -> Array:
  """The inverse of `encode`."""
  offsets = offsets / jnp.asarray(SCALES)
  anchor_centre, anchor_sides = _centres(anchors)
  centre = offsets[..., :2] * anchor_sides + anchor_centre
  sides = jnp.exp(jnp.minimum(offsets[..., 2:], _MAX_LOG)) * anchor_sides
  return jnp.concatenate([centre - 0.5 * sides, centre + 0.5 * sides], -1)
