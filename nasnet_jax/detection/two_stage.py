"""What training and inference share: the proposals of the first stage, and what
the second half of the network says of their crops."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasnet_jax.detection import backbone as bb
from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import nms, roi
from nasnet_jax.detection.detector import Detector, DetectorConfig, inside

Array = jax.Array


class View(NamedTuple):
  """A batch's geometry.

  Attributes:
    anchors: f32[A, 4].
    on_picture: bool[N, A]: anchors whose place on the map belongs to the
      picture and not to the padding.
    side: f32[N, 2] of the pictures.
    extent: int32[N, 2], rows and columns of the map that belong to the picture.
  """

  anchors: Array
  on_picture: Array
  side: Array
  extent: Array


def make_view(network: Detector, padded, side: Array) -> View:
  """The geometry of images [N, *padded, 3], whose pictures have int32[N, 2]
  `side`."""
  cut, anchors = network.cut, network.config.anchors
  h, w = bb.sides(cut, padded)[-1]
  rows, columns = bb.sides(cut, tuple(bb.extent(cut, padded, side).T))[-1]
  on_map = inside((h, w), jnp.stack([rows, columns], 1))
  on_map = jnp.broadcast_to(on_map, (len(side), h, w, anchors.per_cell))
  return View(
    jnp.asarray(anchors.grid((h, w), cut.stride)),
    on_map.reshape(len(side), -1),
    side.astype(jnp.float32),
    jnp.stack([rows, columns], 1),
  )


def propose(config: DetectorConfig, view: View, offsets, logits):
  """(boxes f32[N, P, 4], valid bool[N, P]): the proposals, the best first."""

  def one(offsets, logits, on_picture, side):
    boxes = bx.clip(bx.decode(offsets, view.anchors), side)
    scores = logits[:, 1] - logits[:, 0]  # rises with the probability
    valid = on_picture & (bx.area(boxes) > 0)
    count = min(config.proposals, len(boxes))
    index, kept = nms.nms(boxes, scores, valid, count, config.proposal_iou)
    return boxes[index] * kept[:, None], kept

  found = jax.vmap(one)(offsets, logits, view.on_picture, view.side)
  return jax.lax.stop_gradient(found)


def _crop(network: Detector, view: View, features, boxes, image) -> Array:
  """[R, S, S, C]: crops of boxes f32[R, 4] from one image's map [h, w, C]."""
  config = network.config
  extent, side = view.extent[image], view.side[image]
  if config.crop == "align":
    crops = roi.roi_align(
      features, boxes, network.cut.stride, config.crop_size, extent
    )
  else:
    crops = roi.crop_and_resize(features, boxes, side, config.crop_size, extent)
  return roi.max_pool(crops, config.crop_pool)


def judge_boxes(network: Detector, view: View, features, boxes, judge, carry):
  """What the second half says of boxes f32[N, R, 4], `chunk` crops at a time.

  Args:
    judge: (carry, crops [M, S, S, C], their numbers int32[M] among all N * R)
      -> (carry, pytree of [M, ...]).

  Returns:
    (carry, the pytree with leaves [N, R, ...]).
  """
  n, r, _ = boxes.shape
  size = network.config.chunk
  if not size or n * r <= size:
    crops = jax.vmap(lambda *args: _crop(network, view, *args))(
      features, boxes, jnp.arange(n)
    )
    crops = crops.reshape(n * r, *crops.shape[2:])
    carry, found = judge(carry, crops, jnp.arange(n * r))
    return carry, _rows(found, n, r, 1)
  size = min(size, r)
  parts = -(-r // size)
  spare = ((0, 0), (0, parts * size - r), (0, 0))
  pieces = jnp.pad(boxes, spare).reshape(n * parts, size, 4)

  def step(carry, item):
    boxes, image, first = item
    crops = _crop(network, view, features[image], boxes, image)
    return judge(carry, crops, first + jnp.arange(size))

  image = jnp.repeat(jnp.arange(n), parts)
  first = image * r + jnp.tile(jnp.arange(parts) * size, n)
  carry, found = jax.lax.scan(
    jax.checkpoint(step), carry, (pieces, image, first)
  )
  found = _rows(found, n, parts * size, 2)
  return carry, jax.tree.map(lambda x: x[:, :r], found)


def _rows(tree, n: int, r: int, lead: int):
  """[N, R, ...] of arrays whose first `lead` axes are these N * R."""
  return jax.tree.map(lambda x: x.reshape(n, r, *x.shape[lead:]), tree)
