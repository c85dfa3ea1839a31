"""The detector: a network in two halves with a region proposal network between
(Ren et al. 2015), as Faster R-CNN on NASNet in the TF Object Detection API.

`Detector` holds the weights. `loss.make_loss` and `inference.make_detect` make
pure functions of it in static shapes, which train it and use it.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.detection import backbone as bb
from nasnet_jax.detection.anchors import Anchors
from nasnet_jax.models.kernels import convolutions
from nasnet_jax.models.layers import Numerics

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
  """A detector's hyperparameters. Defaults: faster_rcnn_nas_coco in the TF
  Object Detection API.

  Attributes:
    num_classes: without the background.
    numerics: of the backbone. With `bn_frozen` its batch norm stays as the
      classification checkpoint left it.
    anchors: see `Anchors`.
    rpn_features: channels of the proposal network's 3x3 convolution.
    rpn_positive, rpn_negative: IoU from which an anchor is positive, and below
      which it is negative; see `targets.assign`.
    rpn_batch, rpn_share: anchors per image in the loss, and the largest share
      of positive ones among them.
    rpn_box_weight, rpn_class_weight: of the proposal network's losses.
    proposals: kept per image.
    proposal_iou: IoU above which the worse of two proposals is dropped.
    truth_as_proposals: whether training adds the true boxes to the proposals,
      as py-faster-rcnn does (Girshick).
    crop: "resize" (TensorFlow's crop-and-resize, as there) or "align"
      (RoIAlign).
    crop_size: samples or bins along each side of a crop.
    crop_pool: side and stride of the max pool after the crop; 1: none.
    box_batch, box_share: proposals per image in the loss, and the largest
      share of positive ones among them.
    box_positive: IoU with a true box from which a proposal is positive; the
      others are background.
    box_weight, class_weight: of the second stage's losses.
    chunk: crops that go through the second half at once, to save memory; 0:
      all. Batch norm in training needs all of `box_batch` at once.
    final_iou: IoU above which the worse of two boxes of a class is dropped.
    least_score: only boxes that score more are given.
    per_class, total: boxes given per image, at most.
    padded: whether images hold padding, whose effect is then kept out of the
      network; False: every image is full.
  """

  num_classes: int = 90
  numerics: Numerics = dataclasses.field(
    default_factory=lambda: Numerics(bn_frozen=True)
  )
  anchors: Anchors = dataclasses.field(default_factory=Anchors)
  rpn_features: int = 512
  rpn_positive: float = 0.7
  rpn_negative: float = 0.3
  rpn_batch: int = 256
  rpn_share: float = 0.5
  rpn_box_weight: float = 2.0
  rpn_class_weight: float = 1.0
  proposals: int = 300
  proposal_iou: float = 0.7
  truth_as_proposals: bool = False
  crop: str = "resize"
  crop_size: int = 17
  crop_pool: int = 1
  box_batch: int = 64
  box_share: float = 0.25
  box_positive: float = 0.5
  box_weight: float = 2.0
  class_weight: float = 1.0
  chunk: int = 0
  final_iou: float = 0.6
  least_score: float = 0.0
  per_class: int = 100
  total: int = 100
  padded: bool = True

  def __post_init__(self):
    for name in (
      "num_classes",
      "rpn_features",
      "rpn_batch",
      "proposals",
      "crop_size",
      "crop_pool",
      "box_batch",
      "per_class",
      "total",
    ):
      if getattr(self, name) < 1:
        raise ValueError(
          f"detector.{name} is {getattr(self, name)}: give 1 or more"
        )
    for name in (
      "rpn_positive",
      "rpn_negative",
      "rpn_share",
      "proposal_iou",
      "box_share",
      "box_positive",
      "final_iou",
      "least_score",
    ):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f"detector.{name} is {getattr(self, name)}: give 0 to 1"
        )
    if self.crop not in ("resize", "align"):
      raise ValueError(
        f"detector.crop is {self.crop!r}, neither resize nor align"
      )
    if self.crop_pool > self.crop_size:
      raise ValueError(
        f"detector.crop_pool is {self.crop_pool}, larger than crop_size"
        f" {self.crop_size}"
      )
    if 0 < self.chunk < self.box_batch and not self.numerics.bn_frozen:
      raise ValueError(
        f"detector.chunk is {self.chunk}: batch norm in training must see all"
        f" {self.box_batch} crops, so set it to 0 or freeze batch norm"
      )


class Body(NamedTuple):
  """The backbone, as a module can hold it.

  Attributes:
    make: (config, literals) -> network, see `models.families`.
    config: its sizes; its numerics are the detector's.
    literals: its architecture.
  """

  make: Callable
  config: Any
  literals: Any

  def build(self, numerics: Numerics, **options) -> nn.Module:
    """The network. options: Linen's."""
    config = dataclasses.replace(self.config, numerics=numerics)
    return self.make(config, self.literals, **options)

  def alone(self) -> nn.Module:
    """The network without weights, for questions about its structure."""
    return self.build(self.config.numerics, parent=None)


class Conv(nn.Module):
  """SAME convolution with bias; weights from a narrow normal distribution, as
  in the proposal network of the original's config."""

  features: int
  size: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    init = nn.initializers.truncated_normal(0.01)
    kernel = self.param("kernel", init, shape).astype(x.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    if self.size == 1:
      y = convolutions.pointwise_conv(x, kernel[0, 0])
    else:
      y = convolutions.conv(x, kernel)
    return y + bias.astype(y.dtype)


class ProposalNetwork(nn.Module):
  """3x3 convolution, ReLU6, offsets and objectness of each anchor."""

  features: int
  per_cell: int

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """[N, h, w, C] -> offsets f32[N, A, 4]; logits f32[N, A, 2], background
    first."""
    x = nn.relu6(Conv(self.features, 3, name="conv")(x))
    offsets = Conv(4 * self.per_cell, name="boxes")(x)
    logits = Conv(2 * self.per_cell, name="objectness")(x)
    n = len(x)
    return (
      offsets.astype(jnp.float32).reshape(n, -1, 4),
      logits.astype(jnp.float32).reshape(n, -1, 2),
    )


class BoxHead(nn.Module):
  """Mean over the crop, then classes and boxes, in float32."""

  num_classes: int

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """[M, s, s, F] -> logits f32[M, K + 1], background first; offsets
    f32[M, K, 4]."""
    pooled = x.astype(jnp.float32).mean((1, 2))
    init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    logits = nn.Dense(self.num_classes + 1, kernel_init=init, name="classes")
    offsets = nn.Dense(4 * self.num_classes, kernel_init=init, name="boxes")
    return logits(pooled), offsets(pooled).reshape(len(x), -1, 4)


class Detector(nn.Module):
  """The modules that hold weights: `backbone`, `rpn` and `box_head`.

  Attributes:
    config: hyperparameters.
    body: what the backbone is made of.
  """

  config: DetectorConfig
  body: Body

  def setup(self):
    config = self.config
    self.backbone = self.body.build(config.numerics)
    self.rpn = ProposalNetwork(config.rpn_features, config.anchors.per_cell)
    self.box_head = BoxHead(config.num_classes)

  @property
  def cut(self) -> bb.Halves:
    return bb.halves(self.body.alone())

  @property
  def num_layers(self) -> int:
    """Layers of the backbone, over which drop path's probability rises."""
    return self.body.alone().num_layers

  def __call__(self, images: Array, train: bool = False, crops: int = 1):
    """Runs all modules once, for initialisation and for counting.

    Args:
      crops: how many go through the second half.
    """
    features = self.features(images, None, train)
    size = self.config.crop_size // self.config.crop_pool
    crops = jnp.zeros((crops, size, size, features.shape[-1]), features.dtype)
    return self.propose(features), self.judge(crops, train)

  def features(
    self, images: Array, side: Array | None, train: bool = False, drop=None
  ) -> Array:
    """The map [N, h, w, C] of whitened images [N, H, W, 3].

    Args:
      side: int32[N, 2] of the pictures in the images; None: there is no
        padding.
    """
    cut, images = self.cut, images.astype(self.config.numerics.dtype)
    padded = images.shape[1:3]
    if min(min(pair) for pair in bb.sides(cut, padded)) < 1:
      raise ValueError(
        f"images of {padded[0]}x{padded[1]} are too small for a map at stride"
        f" {cut.stride}: take larger ones"
      )
    context = contextlib.nullcontext()
    if side is not None:
      images = jnp.where(inside(images.shape[1:3], side), images, 0)
      extents = bb.extent(cut, padded, side)
      context = nn.intercept_methods(bb.keep_out_padding(cut, padded, extents))
    with context:
      return bb.first_half(self.backbone, cut, images, train, drop)

  def propose(self, features: Array) -> tuple[Array, Array]:
    """See `ProposalNetwork`."""
    return self.rpn(features)

  def judge(
    self, crops: Array, train: bool = False, drop=None
  ) -> tuple[Array, Array]:
    """Crops of the map [M, S, S, C] -> see `BoxHead`."""
    last = bb.second_half(self.backbone, self.cut, crops, train, drop)
    return self.box_head(last)


# The modules outside the backbone that multiply and add, for counting.
LAYERS = (Conv, nn.Dense)


def inside(padded: tuple[int, int], side: Array) -> Array:
  """bool[N, H, W, 1]: which pixels belong to the picture."""
  rows = jnp.arange(padded[0]) < side[:, :1]
  columns = jnp.arange(padded[1]) < side[:, 1:]
  return (rows[:, :, None] & columns[:, None, :])[..., None]
