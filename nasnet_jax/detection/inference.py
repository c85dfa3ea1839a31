"""From pictures to boxes by a trained detector."""

from collections.abc import Callable

import jax

from nasnet_jax.data import augment
from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import nms, two_stage
from nasnet_jax.detection.detector import Detector


def make_detect(network: Detector, aug: augment.Augmentation) -> Callable:
  """(variables, images uint8[N, H, W, 3], side int32[N, 2] of the pictures in
  them) -> Detections, in pixels of these images.

  Args:
    aug: how images are whitened.
  """
  config = network.config

  def detect(variables, images, side) -> nms.Detections:
    features = network.apply(
      variables,
      augment.normalise(images, aug),
      side if config.padded else None,
      method="features",
    )
    view = two_stage.make_view(network, images.shape[1:3], side)
    offsets, logits = network.apply(variables, features, method="propose")
    proposals, valid = two_stage.propose(config, view, offsets, logits)

    def judge(carry, crops, index):
      del index
      return carry, network.apply(variables, crops, method="judge")

    _, (logits, offsets) = two_stage.judge_boxes(
      network, view, features, proposals, judge, ()
    )
    return jax.vmap(lambda *args: _final(config, *args))(
      logits, offsets, proposals, valid, view.side
    )

  return detect


def _final(config, logits, offsets, proposals, valid, side) -> nms.Detections:
  """The boxes of one image from logits f32[R, K + 1] and offsets f32[R, K,
  4]."""
  scores = jax.nn.softmax(logits)[:, 1:]
  boxes = bx.clip(bx.decode(offsets, proposals[:, None]), side)
  return nms.nms_per_class(
    boxes,
    scores,
    valid,
    per_class=config.per_class,
    total=config.total,
    limit=config.final_iou,
    least_score=config.least_score,
  )
