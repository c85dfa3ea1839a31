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

from nasnet_jax.models import drop_path as dp
from nasnet_jax.models.kernels import memory
from nasnet_jax.models.layers import (
  BatchNorm,
  Conv,
  DepthwiseConv,
  Numerics,
  PointwiseConv,
  drop_features,
  keep,
  scaled_init,
)
from nasnet_jax.models.ops import Window
from nasnet_jax.models.stacked import Classifier
from nasnet_jax.spaces import compound_scaling
from nasnet_jax.spaces.blocks import Architecture, Group

Array = jax.Array

ACTIVATIONS = {"relu": nn.relu, "relu6": nn.relu6, "swish": nn.swish}

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


def squeezed_features(entering: int, squeeze: float) -> int:
  """Hidden channels of squeeze-excite."""
  return max(1, int(entering * squeeze))


def check_side(config: BlockConfig, side: tuple[int, int]):
  """Images of any side are large enough: a map of one pixel stays one."""


class Dense(nn.Module):
  """[N, C] -> [N, F], with bias."""

  numerics: Numerics
  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", scaled_init(self.numerics), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


class SqueezeExcite(nn.Module):
  """Channels weighed by what the whole map holds (Hu et al. 2018).

  Attributes:
    hidden: channels between the two dense layers.
    activation: between them; a sigmoid follows the second.
  """

  numerics: Numerics
  hidden: int
  activation: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = memory.materialise(x)  # the mean and the product both read it
    mean = x.astype(jnp.float32).mean((1, 2)).astype(x.dtype)
    hidden = Dense(self.numerics, self.hidden, name="reduce")(mean)
    hidden = ACTIVATIONS[self.activation](hidden)
    weights = Dense(self.numerics, x.shape[-1], name="expand")(hidden)
    return x * nn.sigmoid(weights)[:, None, None]


class Block(nn.Module):
  """What all kinds of blocks are made with.

  Attributes:
    group: the kind and its numbers.
    features: channels that come out.
    stride: of the spatial convolution.
    activation: key of ACTIVATIONS.
    index: of the block in the network, for stochastic depth.
  """

  numerics: Numerics
  group: Group
  features: int
  stride: int
  activation: str
  index: int

  def _act(self, x: Array) -> Array:
    return ACTIVATIONS[self.activation](x)

  def _normed(self, layer: nn.Module, number: int, x: Array, train) -> Array:
    return BatchNorm(self.numerics, name=f"norm_{number}")(layer(x), train)

  def _squeezed(self, x: Array, entering: int) -> Array:
    """Behind squeeze-excite, if there is one. entering: channels that its
    hidden ones are a share of."""
    if not self.group.squeeze:
      return x
    hidden = squeezed_features(entering, self.group.squeeze)
    name = "squeeze_excite"
    return SqueezeExcite(self.numerics, hidden, self.activation, name=name)(x)

  def _skipped(self, inputs: Array, x: Array, train: bool, drop) -> Array:
    """x, and what entered added to it where the group and the shapes allow."""
    group = self.group
    if not group.skip or inputs.shape[-1] != self.features:
      return x
    if group.skip_pool:
      window = Window("avg", 3, self.stride, False, name="skip_pool")
      inputs = window(inputs)
    elif self.stride > 1:
      return x
    return self._add(inputs, x, train, drop)

  def _add(self, shortcut: Array, x: Array, train: bool, drop) -> Array:
    """The sum, with x left out at random while training: stochastic depth
    (Huang et al. 2016)."""
    if drop is not None and train:
      mask = dp.edge_mask(drop, self.index, 0, x.shape[0])
      x = x * mask.astype(x.dtype)
    return memory.materialise(shortcut + x)


class MBConv(Block):
  """1x1 expansion, depthwise, squeeze-excite, 1x1 projection (Sandler et al.
  2018; Tan et al. 2019). No expansion where it is 1, no activation at the
  end."""

  @nn.compact
  def __call__(self, inputs: Array, train: bool, drop=None) -> Array:
    num, group = self.numerics, self.group
    width = inputs.shape[-1]
    x = inputs
    if group.expansion > 1:
      layer = PointwiseConv(num, width * group.expansion, name="expand")
      x = self._act(self._normed(layer, 0, x, train))
    layer = DepthwiseConv(num, group.kernel, self.stride, name="depthwise")
    x = self._act(self._normed(layer, 1, x, train))
    x = self._squeezed(x, width)
    layer = PointwiseConv(num, self.features, name="project")
    x = self._normed(layer, 2, x, train)
    return self._skipped(inputs, x, train, drop)


class PlainConv(Block):
  """A convolution, activated, then squeeze-excite: MnasNet's regular one (Tan
  et al. 2019, section 4.1, which says no more of it)."""

  @nn.compact
  def __call__(self, inputs: Array, train: bool, drop=None) -> Array:
    kernel = (self.group.kernel, self.group.kernel)
    strides = (self.stride, self.stride)
    layer = Conv(self.numerics, self.features, kernel, strides, name="conv")
    x = self._act(self._normed(layer, 0, inputs, train))
    x = self._squeezed(x, inputs.shape[-1])
    return self._skipped(inputs, x, train, drop)


class Separable(Block):
  """Depthwise and 1x1 convolution, each activated (Howard et al. 2017)."""

  @nn.compact
  def __call__(self, x: Array, train: bool, drop=None) -> Array:
    num, group = self.numerics, self.group
    layer = DepthwiseConv(num, group.kernel, self.stride, name="depthwise")
    x = self._act(self._normed(layer, 0, x, train))
    layer = PointwiseConv(num, self.features, name="pointwise")
    return self._act(self._normed(layer, 1, x, train))


class Basic(Block):
  """Two convolutions beside a shortcut (He et al. 2016)."""

  @nn.compact
  def __call__(self, inputs: Array, train: bool, drop=None) -> Array:
    kernel = (self.group.kernel, self.group.kernel)
    strides = (self.stride, self.stride)
    layers = [
      Conv(self.numerics, self.features, kernel, strides, name="conv_0"),
      Conv(self.numerics, self.features, kernel, name="conv_1"),
    ]
    return self._residual(layers, inputs, train, drop)

  def _residual(self, layers, inputs: Array, train: bool, drop) -> Array:
    x = inputs
    for number, layer in enumerate(layers):
      x = self._normed(layer, number, self._act(x) if number else x, train)
    x = self._squeezed(x, self.features)
    shortcut = inputs
    if self.stride > 1 or inputs.shape[-1] != self.features:
      layer = PointwiseConv(
        self.numerics, self.features, self.stride, name="shortcut"
      )
      shortcut = self._normed(layer, len(layers), inputs, train)
    return memory.materialise(self._act(self._add(shortcut, x, train, drop)))


class Bottleneck(Basic):
  """1x1 to fewer channels, the convolution, 1x1 back, beside a shortcut (He
  et al. 2016). The stride is the middle one's, as in Facebook's and
  torchvision's networks; in the paper it is the first one's."""

  @nn.compact
  def __call__(self, inputs: Array, train: bool, drop=None) -> Array:
    num = self.numerics
    kernel = (self.group.kernel, self.group.kernel)
    strides = (self.stride, self.stride)
    hidden = self.features // self.group.expansion
    layers = [
      PointwiseConv(num, hidden, name="conv_0"),
      Conv(num, hidden, kernel, strides, name="conv_1"),
      PointwiseConv(num, self.features, name="conv_2"),
    ]
    return self._residual(layers, inputs, train, drop)


_LAST = "last"  # the endpoint that the mean is taken of
BLOCKS = {
  "mbconv": MBConv,
  "separable": Separable,
  "basic": Basic,
  "bottleneck": Bottleneck,
  "conv": PlainConv,
}


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
