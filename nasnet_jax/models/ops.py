"""The operations of the cell spaces, by name.

Each is a Linen module `(numerics, features, stride)` called with
`(x, train)`: [N, H, W, C] -> [N, ceil(H/stride), ceil(W/stride), features].
Every convolution is ReLU, convolution, batch norm (Zoph et al. 2018, A.4);
separable ones are applied twice, the first carrying stride and width. To add an
operation, write its module and put its name into OPERATIONS.
"""

import functools

import flax.linen as nn
import jax

from nasnet_jax.models.kernels import pools
from nasnet_jax.models.layers import (
  BatchNorm,
  Conv,
  DepthwiseConv,
  Numerics,
  PointwiseConv,
)

Array = jax.Array


class Identity(nn.Module):
  """The input itself; ReLU, strided 1x1, batch norm where it cannot be."""

  numerics: Numerics
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    if self.stride == 1 and num.width(x) == self.features:
      return x
    x = PointwiseConv(num, self.features, self.stride, name="conv")(nn.relu(x))
    return BatchNorm(num, name="norm")(x, train)


class SeparableConv(nn.Module):
  """Twice: ReLU, depthwise kxk, 1x1, batch norm."""

  numerics: Numerics
  features: int
  stride: int = 1
  size: int = 3
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    if train and num.kernels == "pallas" and not self.is_initializing():
      # Here, since Pallas takes half a second to import.
      from nasnet_jax.models.fused import module

      if module.fits(self, x):
        return module.separable(self, x)
    for layer, stride in enumerate((self.stride, 1)):
      x = nn.relu(x)
      x = DepthwiseConv(
        num, self.size, stride, self.dilation, name=f"depthwise_{layer}"
      )(x)
      x = PointwiseConv(num, self.features, name=f"pointwise_{layer}")(x)
      x = BatchNorm(num, name=f"norm_{layer}")(x, train)
    return x


class DenseConv(nn.Module):
  """ReLU, convolution, batch norm, for each of `shapes` in turn."""

  numerics: Numerics
  features: int
  stride: int = 1
  shapes: tuple[tuple[int, int], ...] = ((3, 3),)
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    for layer, shape in enumerate(self.shapes):
      # A 1x7 convolution strides over columns, the 7x1 after it over rows.
      strides = tuple(
        self.stride if k > 1 or max(shape) == 1 else 1 for k in shape
      )
      x = nn.relu(x)
      if shape == (1, 1):
        conv = PointwiseConv(num, self.features, self.stride, name="conv_0")
      else:
        conv = Conv(
          num,
          self.features,
          shape,
          strides,
          self.dilation,
          name=f"conv_{layer}",
        )
      x = BatchNorm(num, name=f"norm_{layer}")(conv(x), train)
    return x


class Bottleneck(nn.Module):
  """1x1 to a fraction of F, convolutions there, 1x1 to F; ReLU before and batch
  norm after each. AmoebaNet's form of dense convolutions (tensorflow/tpu,
  models/official/amoeba_net/network_utils.py)."""

  numerics: Numerics
  features: int
  stride: int = 1
  shapes: tuple[tuple[int, int], ...] = ((3, 3),)
  divisor: int = 4

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num, narrow = self.numerics, self.features // self.divisor
    if not narrow:
      raise ValueError(
        f"a cell of {self.features} channels is too narrow for a bottleneck:"
        " raise network.features"
      )
    x = PointwiseConv(num, narrow, name="reduce")(nn.relu(x))
    x = BatchNorm(num, name="reduce_norm")(x, train)
    x = DenseConv(num, narrow, self.stride, self.shapes, name="conv")(x, train)
    x = PointwiseConv(num, self.features, name="expand")(nn.relu(x))
    return BatchNorm(num, name="expand_norm")(x, train)


class Window(nn.Module):
  """What pooling is without its 1x1: no weights, a name to be met by."""

  kind: str
  size: int
  stride: int
  with_zeros: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.with_zeros:
      return pools.zero_padded_pool(x, self.kind, self.size, self.stride)
    pool = pools.max_pool if self.kind == "max" else pools.avg_pool
    return pool(x, self.size, self.stride)


class Pool(nn.Module):
  """Pooling; 1x1 and batch norm after it where the width changes."""

  numerics: Numerics
  features: int
  stride: int = 1
  kind: str = "max"
  size: int = 3

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    with_zeros = {"same": (), "zeros": ("max", "avg"), "zeros_avg": ("avg",)}
    zeros = self.stride > 1 and self.kind in with_zeros[num.pool_padding]
    x = Window(self.kind, self.size, self.stride, zeros, name="window")(x)
    if num.width(x) == self.features:
      return x
    x = PointwiseConv(num, self.features, name="conv")(x)
    return BatchNorm(num, name="norm")(x, train)


def _conv(*shapes, dilation=1):
  return functools.partial(DenseConv, shapes=shapes, dilation=dilation)


def _bottleneck(*shapes):
  return functools.partial(Bottleneck, shapes=shapes)


def _sep(size, dilation=1):
  return functools.partial(SeparableConv, size=size, dilation=dilation)


def _pool(kind, size):
  return functools.partial(Pool, kind=kind, size=size)


class _Operations(dict):
  """By name; those of a user's own file are there once it is imported."""

  def __missing__(self, name: str):
    raise ValueError(
      f"no operation is called {name!r}: import the file that registers it with"
      " nas.operation before (a command: --import=FILE)"
    )


OPERATIONS = _Operations(
  {
    "identity": Identity,
    "conv_1x1": _conv((1, 1)),
    "conv_3x3": _conv((3, 3)),
    "conv_1x3_3x1": _conv((1, 3), (3, 1)),
    "conv_1x7_7x1": _conv((1, 7), (7, 1)),
    "dil_conv_3x3": _conv(
      (3, 3), dilation=2
    ),  # rate 2: from memory of the paper
    "sep_conv_3x3": _sep(3),
    "sep_conv_5x5": _sep(5),
    "sep_conv_7x7": _sep(7),
    "dil_sep_conv_3x3": _sep(3, dilation=2),
    "bottleneck_3x3": _bottleneck((3, 3)),
    "bottleneck_1x7_7x1": _bottleneck((1, 7), (7, 1)),
    "avg_pool_3x3": _pool("avg", 3),
    "max_pool_2x2": _pool("max", 2),
    "max_pool_3x3": _pool("max", 3),
    "max_pool_5x5": _pool("max", 5),
    "max_pool_7x7": _pool("max", 7),
  }
)
