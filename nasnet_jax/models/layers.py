"""Convolution and normalisation layers of the cells, as Linen modules.

Kernels are named `kernel`; by that name they get weight decay. Batch norm has
`scale` and `bias` among the parameters, `mean` and `var` in `batch_stats`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from nasnet_jax.models import folded
from nasnet_jax.models.kernels import convolutions, norms

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Numerics:
  """What all layers of a network share. Defaults: slim's CIFAR NASNet.

  Attributes:
    bn_decay: kept share of the running statistics per step.
    bn_epsilon: added to the variance.
    bn_axis: mesh axis over which batch statistics are shared, or (axis,
      groups of its members), as `jax.lax.pmean` takes them; None for the
      examples of one device only. See `batch_norm_groups`.
    bn_parts: groups into which one device's examples fall.
    bn_frozen: whether training, too, normalises by the running statistics and
      leaves them alone.
    init: "fan_out" (slim's variance scaling for all its NASNet weights) or
      "fan_in" (He et al. 2015).
    dtype: of the activations; parameters and statistics stay float32.
    fold: examples that stand side by side in the channels of every map, see
      `models.folded`; for a population's network only.
    pool_padding: at stride 2, "same" (slim: padding never counts), "zeros"
      (Keras's NASNet: zeros stand there and count) or "zeros_avg" (timm's
      NASNet: only the average counts them), for weights from there.
    kernels: "xla", or "pallas": in training, and on a TPU, separable
      convolutions are kernels of our own where they fit (`models.fused`).
  """

  bn_decay: float = 0.9  # nasnet.py, nasnet_cifar_arg_scope
  bn_epsilon: float = 1e-5  # the same
  bn_axis: Any = None
  bn_parts: int = 1
  bn_frozen: bool = False
  init: str = "fan_out"
  dtype: Any = jnp.float32
  pool_padding: str = "same"
  fold: int = 1
  kernels: str = "xla"

  def __post_init__(self):
    for field, options in (
      ("init", ("fan_out", "fan_in")),
      ("pool_padding", ("same", "zeros", "zeros_avg")),
      ("kernels", ("xla", "pallas")),
    ):
      if getattr(self, field) not in options:
        raise ValueError(
          f"{field} is {getattr(self, field)!r}, not one of:"
          f" {', '.join(options)}"
        )
    if not 0 <= self.bn_decay <= 1 or not self.bn_epsilon > 0:
      raise ValueError(
        f"bn_decay is {self.bn_decay} and bn_epsilon {self.bn_epsilon}: give a"
        " share from 0 to 1 and a number above 0"
      )

  def width(self, x: Array) -> int:
    """Channels of a map, of one example."""
    return x.shape[-1] // self.fold

  def widened(self, times: int) -> "Numerics":
    """For maps of so many times the channels, which fewer examples fill."""
    fold = self.fold // times if self.fold % times == 0 else 1
    return dataclasses.replace(self, fold=fold)


# slim, nasnet.py, nasnet_mobile_arg_scope and nasnet_large_arg_scope.
IMAGENET = Numerics(bn_decay=0.9997, bn_epsilon=1e-3)


def batch_norm_groups(examples: int, batch: int, devices: int, axis: str):
  """Fields of Numerics that normalise groups of so many examples.

  Args:
    examples: per group; 0: the whole batch. A number of examples, so that the
      same config means the same network on any number of devices.
    batch: examples that go through the network at once, on all devices.
    devices: along `axis`, which share the batch.

  Returns:
    {"bn_axis", "bn_parts"}.

  Raises:
    ValueError: if batch, groups and devices do not divide.
  """
  examples = examples or batch
  if batch % devices or batch % examples:
    raise ValueError(
      f"a batch of {batch} does not divide into groups of {examples} for batch"
      f" norm on {devices} device(s)"
    )
  local = batch // devices
  if examples <= local:
    if local % examples:
      raise ValueError(
        f"{local} examples per device do not divide into batch norm groups of"
        f" {examples}"
      )
    return {"bn_axis": None, "bn_parts": local // examples}
  if examples % local:
    raise ValueError(
      f"a batch norm group of {examples} is no multiple of the {local}"
      " examples of a device"
    )
  members = examples // local
  if members == devices:
    return {"bn_axis": axis, "bn_parts": 1}
  groups = tuple(
    tuple(range(first, first + members)) for first in range(0, devices, members)
  )
  return {"bn_axis": (axis, groups), "bn_parts": 1}


def kernel_std(numerics: Numerics, shape: tuple[int, ...], fan_in=None):
  """Standard deviation of a kernel's initial values.

  Args:
    shape: [..., C, F] of a dense kernel, or [kh, kw, C] of a depthwise one.
    fan_in: inputs per output where they are fewer than the shape says (states
      of a masked concatenation that are never used).
  """
  if len(shape) == 3:  # depthwise: one input and one output per position
    fan = shape[0] * shape[1]
  elif numerics.init == "fan_out":
    fan = _size(shape[:-2]) * shape[-1]
  else:
    fan = _size(shape[:-1]) if fan_in is None else fan_in
  return (2.0 / fan) ** 0.5


def _size(shape) -> int:
  size = 1
  for s in shape:
    size *= s
  return size


# Standard deviation of a unit normal cut at two standard deviations.
TRUNCATED_STD = 0.87962566103423978


def scaled_init(numerics: Numerics):
  """Truncated normal of `kernel_std`, as a Linen initialiser."""

  def init(rng, shape, dtype=jnp.float32):
    unit = jax.random.truncated_normal(rng, -2.0, 2.0, shape, dtype)
    return unit * (kernel_std(numerics, shape) / TRUNCATED_STD)

  return init


class BatchNorm(nn.Module):
  """Batch normalisation over [N, H, W] of [N, H, W, C].

  If the collection `moments` is mutable, the batch's own mean and variance
  [bn_parts, C] are left there; if it is given, they are taken from it.
  """

  numerics: Numerics

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    features = (num.width(x),)
    scale = self.param("scale", nn.initializers.ones, features)
    bias = self.param("bias", nn.initializers.zeros, features)
    mean = self.variable("batch_stats", "mean", jnp.zeros, features)
    var = self.variable("batch_stats", "var", jnp.ones, features)
    if not train or num.bn_frozen:
      gain = jax.lax.rsqrt(var.value + num.bn_epsilon) * scale
      shift = folded.each(bias - mean.value * gain, num.fold)
      y = x.astype(jnp.float32) * folded.each(gain, num.fold) + shift
      return y.astype(x.dtype)
    axis = None if self.is_initializing() else num.bn_axis  # not yet bound
    if self.has_variable("moments", "mean"):
      known = [self.get_variable("moments", name) for name in ("mean", "var")]
      return self._in_parts(
        lambda part, mean, var: norms.batch_norm_again(
          part, scale, bias, mean, var, num.bn_epsilon, axis
        ),
        x,
        *known,
      ).reshape(x.shape)
    if self.is_initializing():
      return norms.batch_norm(x, scale, bias, num.bn_epsilon, axis)[0]
    y, means, variances = self._in_parts(
      lambda part: norms.batch_norm(part, scale, bias, num.bn_epsilon, axis),
      x,
    )
    if self.is_mutable_collection("moments"):
      self.put_variable("moments", "mean", means)
      self.put_variable("moments", "var", variances)
    keep = num.bn_decay
    mean.value = keep * mean.value + (1 - keep) * means.mean(0)
    var.value = keep * var.value + (1 - keep) * variances.mean(0)
    return y.reshape(x.shape)

  def _in_parts(self, function, x: Array, *moments):
    """Results of each part of the batch, along a new first axis."""
    parts = self.numerics.bn_parts
    if parts == 1:  # no vmap, which some lowerings do not see through
      found = function(x, *(m[0] for m in moments))
      return jax.tree.map(lambda leaf: leaf[None], found)
    return jax.vmap(function)(x.reshape(parts, -1, *x.shape[1:]), *moments)


# Axes of [N, H, W, C] over which a combiner's sum is normalised.
NORM_AXES = {"add_layer_norm": (1, 2, 3), "add_instance_norm": (1, 2)}
# That of tf.contrib.layers.instance_norm. layer_norm there has 1e-12, whose
# root multiplies rounding errors of a constant map by a million.
EXAMPLE_NORM_EPSILON = 1e-6


class ExampleNorm(nn.Module):
  """Normalises each example of [N, H, W, C] by itself, also in evaluation.

  Zoph et al. 2018 name layer normalisation (Ba et al. 2016: mean and variance
  over H, W and C) and instance normalisation (Ulyanov et al. 2016: over H and
  W, for each channel) and say no more. Here as in tf.contrib.layers, then
  TensorFlow's: biased variance; in both one learned scale and offset per
  channel. A map of one pixel is constant: of it the second leaves the offset.

  Attributes:
    axes: a value of NORM_AXES.
    fold: see `Numerics`.
  """

  axes: tuple[int, ...]
  fold: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    features = (x.shape[-1] // self.fold,)
    scale = self.param("scale", nn.initializers.ones, features)
    bias = self.param("bias", nn.initializers.zeros, features)
    f32 = x.astype(jnp.float32).reshape(*x.shape[:-1], self.fold, -1)
    axes = tuple(a if a < 3 else 4 for a in self.axes)  # 3: the examples
    centred = f32 - f32.mean(axes, keepdims=True)
    variance = (centred * centred).mean(axes, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + EXAMPLE_NORM_EPSILON)
    return (y * scale + bias).astype(x.dtype).reshape(x.shape)


def keep(x: Any, remat: bool) -> Any:
  """x by the name that `training.sharded.KEPT` knows, if the network computes
  again; its values are the same."""
  if not remat:
    return x
  return jax.tree.map(lambda leaf: checkpoint_name(leaf, "kept"), x)


def drop_features(
  rng: Array, x: Array, rate: float, positions: Array | None = None
) -> Array:
  """Dropout whose coins come from each example's place in the whole batch,
  and not from how the batch is divided.

  Args:
    x: [N, C].
    rate: probability of dropping a feature; the others are scaled up.
    positions: int[N]; None: 0..N-1.
  """
  positions = jnp.arange(len(x)) if positions is None else positions
  keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, positions)
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(
    keys
  )
  return jnp.where(kept, x / (1 - rate), 0.0)


class DepthwiseConv(nn.Module):
  """kxk convolution of each channel by itself, no bias."""

  numerics: Numerics
  size: int
  stride: int = 1
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    num = self.numerics
    shape = (self.size, self.size, num.width(x))
    kernel = self.param("kernel", scaled_init(num), shape)
    kernel = folded.each(kernel, num.fold)
    return convolutions.depthwise_conv(
      x, kernel.astype(x.dtype), (self.stride, self.stride), self.dilation
    )


class PointwiseConv(nn.Module):
  """1x1 convolution, no bias; stride 2 takes every second pixel."""

  numerics: Numerics
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.numerics.width(x), self.features)
    kernel = self.param("kernel", scaled_init(self.numerics), shape)
    x = x[:, :: self.stride, :: self.stride]
    return convolutions.pointwise_conv(x, kernel.astype(x.dtype))


class Conv(nn.Module):
  """Dense convolution, SAME or VALID, no bias."""

  numerics: Numerics
  features: int
  shape: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  dilation: int = 1
  padding: str = "SAME"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    num = self.numerics
    shape = (*self.shape, num.width(x), self.features)
    kernel = self.param("kernel", scaled_init(num), shape)
    kernel = folded.dense(kernel, num.fold).astype(x.dtype)
    if self.padding == "VALID":
      return convolutions.valid_conv(x, kernel, self.strides)
    return convolutions.conv(x, kernel, self.strides, self.dilation)


class FactorizedReduction(nn.Module):
  """Fits a state to `features` channels, at stride 2 from two half grids.

  Stride 2: half of the channels come from the even pixels, half from the odd
  ones (shifted by one, zero beyond the border), so none is thrown away; an odd
  width gives the extra channel to the second half. Stride 1: a 1x1
  convolution. Batch norm after; no ReLU before. slim, nasnet_utils.py.
  """

  numerics: Numerics
  features: int
  stride: int = 2

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    if self.stride == 1:
      x = PointwiseConv(num, self.features, name="conv")(x)
      return BatchNorm(num, name="norm")(x, train)
    first = self.features // 2
    shifted = shift_by_one(x)
    halves = [
      PointwiseConv(num, first, self.stride, name="conv_0")(x),
      PointwiseConv(num, self.features - first, self.stride, name="conv_1")(
        shifted
      ),
    ]
    return BatchNorm(num, name="norm")(folded.join(halves, num.fold), train)


def shift_by_one(x: Array) -> Array:
  """[N, H, W, C] moved one pixel up and left; zeros enter below and right."""
  return jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
