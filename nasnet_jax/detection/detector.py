"""The detector: a network in two halves with a region proposal network between
(Ren et al. 2015), as Faster R-CNN on NASNet in the TF Object Detection API.

`Detector` holds the weights. `make_loss` and `make_detect` make pure functions
of it in static shapes, which train it and use it.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.data import augment
from nasnet_jax.detection import backbone as bb
from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import nms, roi, targets
from nasnet_jax.detection.anchors import Anchors
from nasnet_jax.models import drop_path
from nasnet_jax.models.kernels import convolutions
from nasnet_jax.models.layers import Numerics

Array = jax.Array

# What a step's random numbers are for; each use has a key of its own.
_DROP_FIRST, _DROP_SECOND, _ANCHORS, _PROPOSALS = range(4)


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
  """Numbers of a detector. Defaults: faster_rcnn_nas_coco in the TF Object
  Detection API.

  Attributes:
    num_classes: without the background.
    numerics: of the backbone. With `bn_frozen` its batch norm stays as the
      classification checkpoint left it.
    anchors: see there.
    rpn_features: channels of the proposal network's 3x3 convolution.
    rpn_positive, rpn_negative: IoU from which an anchor is positive, and below
      which it is negative; see `targets.assign`.
    rpn_batch, rpn_share: anchors per image that are taught, and the largest
      share of positive ones.
    rpn_box_weight, rpn_class_weight: of their losses.
    proposals: that stay per image.
    proposal_iou: above which the worse of two proposals goes.
    truth_as_proposals: whether training adds the true boxes to them, as
      py-faster-rcnn does (Girshick).
    crop: "resize" (TensorFlow's crop-and-resize, as there) or "align"
      (RoIAlign).
    crop_size: samples or bins along each side of a crop.
    crop_pool: side and stride of the max pool behind it; 1: none.
    box_batch, box_share: proposals per image that are taught, and the largest
      share of positive ones.
    box_positive: IoU with a true box from which a proposal is positive; the
      others are background.
    box_weight, class_weight: of the second stage's losses.
    chunk: crops that go through the second half at once, for the memory of
      so many; 0: all. With batch norm in training all of `box_batch` must.
    final_iou: above which the worse of two boxes of a class goes.
    least_score: boxes that do not score more are not given.
    per_class, total: boxes given per image, at most.
    padded: whether images hold padding, which then is kept out of the
      network; False: they are full.
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
    """The network without weights, to be asked about its plan."""
    return self.build(self.config.numerics, parent=None)


class Conv(nn.Module):
  """Convolution with bias, SAME; weights from a narrow normal distribution, as
  the proposal network's in the original's config."""

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
  """The weights: `backbone`, `rpn` and `box_head`.

  Attributes:
    config: numbers.
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
    """What drop path's ramp over the depth counts."""
    return self.body.alone().num_layers

  def __call__(self, images: Array, train: bool = False, crops: int = 1):
    """Runs through all weights once, for initialisation and for counting.

    Args:
      crops: that go through the second half.
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
      side: int32[N, 2] of the pictures in them; None: all is picture.
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
      images = jnp.where(_inside(images.shape[1:3], side), images, 0)
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


# What of a detector multiplies and adds, its backbone apart.
LAYERS = (Conv, nn.Dense)


def _inside(padded: tuple[int, int], side: Array) -> Array:
  """bool[N, H, W, 1]: pixels of the picture."""
  rows = jnp.arange(padded[0]) < side[:, :1]
  columns = jnp.arange(padded[1]) < side[:, 1:]
  return (rows[:, :, None] & columns[:, None, :])[..., None]


class _View(NamedTuple):
  """A batch's geometry.

  Attributes:
    anchors: f32[A, 4].
    on_picture: bool[N, A]: anchors that belong to features of the picture.
    side: f32[N, 2] of the pictures.
    extent: int32[N, 2], rows and columns of the map that belong to them.
  """

  anchors: Array
  on_picture: Array
  side: Array
  extent: Array


def _view(network: Detector, padded, side: Array) -> _View:
  cut, anchors = network.cut, network.config.anchors
  h, w = bb.sides(cut, padded)[-1]
  rows, columns = bb.sides(cut, tuple(bb.extent(cut, padded, side).T))[-1]
  inside = _inside((h, w), jnp.stack([rows, columns], 1))
  inside = jnp.broadcast_to(inside, (len(side), h, w, anchors.per_cell))
  return _View(
    jnp.asarray(anchors.grid((h, w), cut.stride)),
    inside.reshape(len(side), -1),
    side.astype(jnp.float32),
    jnp.stack([rows, columns], 1),
  )


def _propose(config: DetectorConfig, view: _View, offsets, logits):
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


def _crop(network: Detector, view: _View, features, boxes, image) -> Array:
  """[R, S, S, C]: crops of one image's map [h, w, C], boxes f32[R, 4]."""
  config = network.config
  extent, side = view.extent[image], view.side[image]
  if config.crop == "align":
    crops = roi.roi_align(
      features, boxes, network.cut.stride, config.crop_size, extent
    )
  else:
    crops = roi.crop_and_resize(features, boxes, side, config.crop_size, extent)
  return roi.max_pool(crops, config.crop_pool)


def _judge(network: Detector, view: _View, features, boxes, judge, carry):
  """What the second half says of boxes f32[N, R, 4], `chunk` at a time.

  Args:
    judge: (carry, crops [M, S, S, C], index int32[M] of them among all N * R)
      -> (carry, pytree of [M, ...]).

  Returns:
    (carry, the same of [N, R, ...]).
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


def make_detect(network: Detector, aug: augment.Augmentation) -> Callable:
  """(variables, images uint8[N, H, W, 3], side int32[N, 2]) -> Detections, in
  pixels of these images.

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
    view = _view(network, images.shape[1:3], side)
    offsets, logits = network.apply(variables, features, method="propose")
    proposals, valid = _propose(config, view, offsets, logits)

    def judge(carry, crops, index):
      del index
      return carry, network.apply(variables, crops, method="judge")

    _, (logits, offsets) = _judge(network, view, features, proposals, judge, ())
    return jax.vmap(lambda *args: _final(config, *args))(
      logits, offsets, proposals, valid, view.side
    )

  return detect


def _final(config, logits, offsets, proposals, valid, side) -> nms.Detections:
  """Of one image: logits f32[R, K + 1], offsets f32[R, K, 4]."""
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


def make_loss(network: Detector, recipe, aug: augment.Augmentation) -> Callable:
  """The loss that `training.step` takes: (params, batch_stats, batch, rng,
  progress) -> (loss, (batch_stats, metrics)).

  A batch is (images, `picture_stream.Labels`, positions int[N] in the whole
  batch). `accuracy` among the metrics is the share of sampled proposals whose
  class is right.

  Args:
    recipe: with `drop_path_keep` and `drop_path_version`, see `recipes.Recipe`.
    aug: how images are whitened.
  """
  config = network.config

  def loss_fn(params, batch_stats, batch, rng, progress):
    images, labels, positions = batch
    keys = [jax.random.fold_in(rng, use) for use in range(4)]
    own_keys = jax.vmap(jax.random.fold_in, (None, 0))

    def drop(use, positions):
      return drop_path.make(
        keys[use],
        recipe.drop_path_keep,
        progress,
        network.num_layers,
        recipe.drop_path_version,
        positions,
      )

    def apply(batch_stats, method, *args, **kwargs):
      found, updates = network.apply(
        {"params": params, "batch_stats": batch_stats},
        *args,
        train=True,
        method=method,
        mutable=["batch_stats"],
        **kwargs,
      )
      return updates["batch_stats"], found

    batch_stats, features = apply(
      batch_stats,
      "features",
      augment.normalise(images, aug),
      labels.side if config.padded else None,
      drop=drop(_DROP_FIRST, positions),
    )
    view = _view(network, images.shape[1:3], labels.side)
    offsets, logits = network.apply(
      {"params": params}, features, method="propose"
    )
    first = jax.vmap(lambda *args: _proposal_loss(config, view.anchors, *args))(
      own_keys(keys[_ANCHORS], positions),
      offsets,
      logits,
      view.on_picture,
      view.side,
      labels.truth,
    )
    proposals, valid = _propose(config, view, offsets, logits)
    taught, found, weights = jax.vmap(lambda *args: _choose(config, *args))(
      own_keys(keys[_PROPOSALS], positions), proposals, valid, labels.truth
    )

    def judge(batch_stats, crops, index):
      count = taught.shape[1]
      places = positions[index // count] * count + index % count
      return apply(batch_stats, "judge", crops, drop=drop(_DROP_SECOND, places))

    batch_stats, (logits, offsets) = _judge(
      network, view, features, taught, judge, batch_stats
    )
    second, right = jax.vmap(lambda *args: _box_loss(config, *args))(
      logits, offsets, taught, found, weights, labels.truth
    )
    accuracy = right.sum() / jnp.maximum(weights.sum(), 1.0)
    loss = (first + second).mean()
    return loss, (batch_stats, {"accuracy": accuracy})

  return loss_fn


def _proposal_loss(
  config, anchors, rng, offsets, logits, on_picture, side, truth
) -> Array:
  """Of one image's anchors. Those that reach over the picture are left out
  (Ren et al. 2015, 3.3)."""
  inside = on_picture & (bx.clip(anchors, side) == anchors).all(1)
  found = targets.assign(
    anchors,
    inside,
    truth,
    positive=config.rpn_positive,
    negative=config.rpn_negative,
    force=True,
  )
  chosen = targets.sample(rng, found, config.rpn_batch, config.rpn_share)
  weights = chosen / jnp.maximum(chosen.sum(), 1)
  boxes = targets.box_loss(offsets, anchors, found, truth, weights)
  classes = targets.class_loss(logits, found.positive.astype(int), weights)
  return config.rpn_box_weight * boxes + config.rpn_class_weight * classes


def _choose(config, rng, proposals, valid, truth):
  """The proposals of one image that the second stage is taught on.

  Returns:
    (boxes f32[R, 4], Assignment of R, weights f32[R], 0 where there are fewer
    proposals).
  """
  if config.truth_as_proposals:
    proposals = jnp.concatenate([proposals, truth.boxes])
    valid = jnp.concatenate([valid, truth.valid & ~truth.crowd])
  found = targets.assign(
    proposals,
    valid,
    truth,
    positive=config.box_positive,
    negative=config.box_positive,
    force=False,
  )
  size = min(config.box_batch, len(valid))
  chosen = targets.sample(rng, found, size, config.box_share)
  weights, index = jax.lax.top_k(chosen.astype(jnp.float32), size)
  found = jax.tree.map(lambda x: x[index], found)
  return proposals[index], found, weights


def _box_loss(config, logits, offsets, boxes, found, weights, truth):
  """(loss, how many are right) of one image's sampled proposals."""
  label = truth.classes[found.match]
  # Of each box, the offsets for the class that it belongs to.
  own = jnp.take_along_axis(offsets, label[:, None, None], 1)[:, 0]
  classes = jnp.where(found.positive, label + 1, 0)
  shares = weights / jnp.maximum(weights.sum(), 1.0)
  loss = config.box_weight * targets.box_loss(own, boxes, found, truth, shares)
  loss += config.class_weight * targets.class_loss(logits, classes, shares)
  return loss, ((logits.argmax(1) == classes) * weights).sum()
