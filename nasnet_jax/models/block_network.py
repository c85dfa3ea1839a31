"""Networks that are a row of blocks: ResNets, MobileNets, EfficientNets.

One skeleton for all (`spaces.blocks.Architecture` says what stands in it):
stem, groups of blocks, a last 1x1 convolution if there is one, mean over the
map, classifier. All padding is TensorFlow's SAME.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models.blocks import ACTIVATIONS, BLOCKS
from nasnet_jax.models.layers import (
  BatchNorm,
  Conv,
  Numerics,
  PointwiseConv,
  drop_features,
  keep,
)
from nasnet_jax.models.ops import Window
from nasnet_jax.models.stacked import Classifier
from nasnet_jax.spaces import compound_scaling
from nasnet_jax.spaces.blocks import Architecture, Group

Array = jax.Array

# tensorflow/tpu, models/official/efficientnet and mnasnet.
EFFICIENTNET = Numerics(bn_decay=0.99, bn_epsilon=1e-3)


@dataclasses.dataclass(frozen=True)
class BlockConfig:
  """How an architecture is scaled and ended. Defaults: as it was written.

  Attributes:
    width, depth: factors of channels and of blocks per group, see `scaling`.
    num_classes: outputs.
    dropout: probability of dropping a feature before the classifier.
    remat: whether the backward pass computes each block again, from its
      input, in place of keeping its activations: equal results, less memory.
  """

  width: float = 1.0
  depth: float = 1.0
  num_classes: int = 1000
  dropout: float = 0.0
  remat: bool = False
  numerics: Numerics = dataclasses.field(default_factory=lambda: EFFICIENTNET)

  def __post_init__(self):
    for field in ("width", "depth"):
      if not getattr(self, field) > 0:
        raise ValueError(
          f"network.{field} is {getattr(self, field)}: give a number above 0"
        )
    if self.num_classes < 1:
      raise ValueError(
        f"network.num_classes is {self.num_classes}: give 1 or more"
      )
    if not 0 <= self.dropout < 1:
      raise ValueError(
        f"network.dropout is {self.dropout}: give 0 or more, below 1"
      )

  @property
  def summary(self) -> str:
    """The sizes in a few words."""
    return f"width {self.width:g}, depth {self.depth:g}"


def scaled(
  config: BlockConfig, factors: compound_scaling.Factors
) -> BlockConfig:
  """The sizes of a network that grows by these factors."""
  return dataclasses.replace(
    config,
    width=config.width * factors.width,
    depth=config.depth * factors.depth,
  )


class BlockPlan(NamedTuple):
  """One block of the scaled network.

  Attributes:
    name: of its module and endpoint.
    group: whose block it is.
    features: channels that come out.
    stride: 1 or the group's.
    index: of the block in the network, for stochastic depth.
  """

  name: str
  group: Group
  features: int
  stride: int
  index: int


def plan(
  architecture: Architecture, width: float = 1.0, depth: float = 1.0
) -> tuple[BlockPlan, ...]:
  """The blocks from stem to head."""
  depths = [depth] * len(architecture.groups)
  for name, g in (("first", 0), ("last", -1)):
    if name in architecture.fixed:
      depths[g] = 1.0
  blocks: list[BlockPlan] = []
  for g, group in enumerate(architecture.groups):
    repeats = compound_scaling.round_repeats(group.repeats, depths[g])
    features = compound_scaling.round_features(group.features, width)
    for i in range(repeats):
      stride = 1 if i else group.stride
      name = f"group_{g}_block_{i}"
      blocks.append(BlockPlan(name, group, features, stride, len(blocks)))
  return tuple(blocks)


def stem_features(architecture: Architecture, width: float) -> int:
  """Channels of the stem's convolution at this width."""
  fixed = "stem" in architecture.fixed
  return compound_scaling.round_features(
    architecture.stem, 1.0 if fixed else width
  )


def head_features(architecture: Architecture, width: float) -> int:
  """Channels of the last 1x1 convolution at this width; 0: there is none."""
  fixed = "head" in architecture.fixed or not architecture.head
  return compound_scaling.round_features(
    architecture.head, 1.0 if fixed else width
  )


def check_side(config: BlockConfig, side: tuple[int, int]):
  """Images of any side are large enough: a map of one pixel stays one."""


_LAST = "last"  # the endpoint that the mean is taken of


class BlockNetwork(nn.Module):
  """A scaled architecture.

  Endpoints: "stem", "group_<g>_block_<i>", "head" if there is one, "last" (what
  the mean is taken of), "pooled".
  """

  config: BlockConfig
  architecture: Architecture

  @property
  def num_layers(self) -> int:
    """What stochastic depth's ramp counts: blocks."""
    return len(plan(self.architecture, self.config.width, self.config.depth))

  @nn.compact
  def __call__(
    self,
    images: Array,
    train: bool = False,
    drop=None,
    positions: Array | None = None,
    start: str | None = None,
    stop: str | None = None,
  ) -> tuple[Array | None, None, dict[str, Any]]:
    """From images to logits, or from any block to any block.

    Args:
      images: [N, H, W, C], whitened, of any side; with `start` what this block
        reads.
      drop: `DropPath` of this step, or None.
      positions: int[N], for dropout, as in `layers.drop_features`.
      start: name of the first block to run; None: the stem comes first.
      stop: name of the last block to run, or "last" for all that stands before
        the mean; None: the classifier comes last.

    Returns:
      logits f32[N, classes], None with `stop`; None, there is no auxiliary
      head; endpoints, the output of everything that ran, by name.

    Raises:
      ValueError: for a name that is no block, or blocks in the wrong order.
    """
    config, num = self.config, self.config.numerics
    blocks = plan(self.architecture, config.width, config.depth)
    first, last = _part(blocks, start, stop)
    endpoints = {}
    x = images.astype(num.dtype)
    if start is None:
      x = endpoints["stem"] = self._stem(x, train)
    for block in blocks[first : last + 1]:
      x = endpoints[block.name] = self._block(block, x, train, drop)
    if stop not in (None, _LAST):
      return None, None, endpoints
    endpoints |= self._head(x, train)
    if stop is not None:
      return None, None, endpoints
    pooled = endpoints["pooled"] = pool(endpoints[_LAST])
    if config.dropout and train:
      rng = self.make_rng("dropout")
      pooled = drop_features(rng, pooled, config.dropout, positions)
    return self._classifier(pooled), None, endpoints

  def _act(self, x: Array) -> Array:
    return ACTIVATIONS[self.architecture.activation](x)

  def _stem(self, x: Array, train: bool) -> Array:
    arch, num = self.architecture, self.config.numerics
    features = stem_features(arch, self.config.width)
    kernel, strides = (arch.stem_kernel,) * 2, (arch.stem_stride,) * 2
    x = Conv(num, features, kernel, strides, name="stem_conv")(x)
    x = self._act(BatchNorm(num, name="stem_norm")(x, train))
    if not arch.stem_pool:
      return x
    return Window("max", 3, 2, False, name="stem_pool")(x)

  def _head(self, x: Array, train: bool) -> dict[str, Array]:
    """The endpoints between the last block and the mean."""
    num = self.config.numerics
    head = head_features(self.architecture, self.config.width)
    if not head:
      return {_LAST: x}
    x = PointwiseConv(num, head, name="head_conv")(x)
    x = self._act(BatchNorm(num, name="head_norm")(x, train))
    return {"head": x, _LAST: x}

  def _classifier(self, pooled: Array) -> Array:
    config = self.config
    classifier = Classifier(
      config.numerics, config.num_classes, name="classifier"
    )
    return classifier(pooled)

  def _block(self, block: BlockPlan, x: Array, train: bool, drop) -> Array:
    make = BLOCKS[block.group.kind]
    if self.config.remat:
      # `train` is a Python bool: it decides what is traced. (0 is the module.)
      make = nn.remat(make, static_argnums=(2,))
    module = make(
      self.config.numerics,
      block.group,
      block.features,
      block.stride,
      self.architecture.activation,
      block.index,
      name=block.name,
    )
    return keep(module(x, train, drop), self.config.remat)


class Ends(BlockNetwork):
  """Stem, head and classifier, around blocks that are made elsewhere."""

  @nn.compact
  def __call__(
    self, images: Array, train: bool, between: Callable[[Array], Array]
  ) -> Array:
    """Logits f32[N, classes]. between: the blocks, from the stem's output."""
    x = self._stem(images.astype(self.config.numerics.dtype), train)
    x = self._head(between(x), train)[_LAST]
    return self._classifier(pool(x))


def pool(x: Array) -> Array:
  """f32[N, C], the mean over the map of [N, H, W, C]."""
  return x.astype(jnp.float32).mean((1, 2))


def _part(blocks, start: str | None, stop: str | None) -> tuple[int, int]:
  """(index of the first block to run, index of the last)."""
  names = [block.name for block in blocks]
  for name, known in ((start, names), (stop, [*names, _LAST])):
    if name is not None and name not in known:
      raise ValueError(f"{name!r} is no block of: {', '.join(names)}")
  first = 0 if start is None else names.index(start)
  last = len(names) - 1 if stop in (None, _LAST) else names.index(stop)
  if last < first:
    raise ValueError(f"{stop!r} comes before {start!r}")
  return first, last


def as_architecture(space, genotype) -> Architecture:
  """An architecture is its own literal; what is searched decodes to one."""
  if isinstance(genotype, Architecture):
    return genotype
  return space.architecture(genotype)
