"""The blocks of ResNets, MobileNets, MnasNets and EfficientNets."""

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
  scaled_init,
)
from nasnet_jax.models.ops import Window
from nasnet_jax.spaces.blocks import Group

Array = jax.Array

ACTIVATIONS = {"relu": nn.relu, "relu6": nn.relu6, "swish": nn.swish}


def squeezed_features(entering: int, squeeze: float) -> int:
  """Hidden channels of squeeze-excite."""
  return max(1, int(entering * squeeze))


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


BLOCKS = {
  "mbconv": MBConv,
  "separable": Separable,
  "basic": Basic,
  "bottleneck": Bottleneck,
  "conv": PlainConv,
}
