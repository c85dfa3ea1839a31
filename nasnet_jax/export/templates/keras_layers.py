"""Layers of an exported network in Keras 3: [N, H, W, C], any backend.

`export/keras_module.py` copies what a network needs into its module. Layers are
called as in our own network, with dots, so weights have the same names.
"""

import keras
from keras import layers

# Of the network that is written.
BN_EPSILON = 1e-5
BN_DECAY = 0.9
POOL_PADDING = "same"
EXAMPLE_NORM_EPSILON = 1e-6


def conv(x, features, size, strides, name, padding="same"):
  """A convolution without bias."""
  return layers.Conv2D(
    features, size, strides, padding=padding, use_bias=False, name=name
  )(x)


def pointwise(x, features, name, stride=1):
  """A 1x1 convolution without bias."""
  return conv(x, features, 1, stride, name)


def depthwise(x, size, stride, name, dilation=1):
  """A convolution of each channel by itself, without bias."""
  both = dilation > 1 and stride > 1  # which Keras does not do at once
  x = layers.DepthwiseConv2D(
    size,
    1 if both else stride,
    padding="same",
    dilation_rate=dilation,
    use_bias=False,
    name=name,
  )(x)
  return every_second(x) if both else x


def dilated(x, features, size, stride, name, dilation):
  """A convolution whose weights are `dilation` pixels apart, without bias."""
  x = layers.Conv2D(
    features,
    size,
    padding="same",
    dilation_rate=dilation,
    use_bias=False,
    name=name,
  )(x)
  return every_second(x) if stride > 1 else x


def every_second(x, from_end=True):
  """What stride 2 keeps of stride 1. Windows of odd sides are counted from the
  end, whatever the side of the map: that is what TensorFlow's SAME means."""
  if not from_end:
    return layers.MaxPooling2D(1, 2)(x)
  x = keras.ops.flip(keras.ops.flip(x, 1), 2)
  x = layers.MaxPooling2D(1, 2)(x)
  return keras.ops.flip(keras.ops.flip(x, 1), 2)


def batch_norm(x, name):
  """Batch norm over N, H and W."""
  return layers.BatchNormalization(
    momentum=BN_DECAY, epsilon=BN_EPSILON, name=name
  )(x)


def example_norm(x, groups, name):
  """Normalises each example by itself: over the map and its channels (groups
  1), or over the map only (groups -1)."""
  return layers.GroupNormalization(
    groups, epsilon=EXAMPLE_NORM_EPSILON, name=name
  )(x)


def window(x, kind, size, stride, zeros=False):
  """Pooling, SAME; its padding counts only with `zeros`."""
  pool = {"max": layers.MaxPooling2D, "avg": layers.AveragePooling2D}[kind]
  if not zeros:
    return pool(size, stride, padding="same")(x)
  before, after = (size - 1) // 2, size // 2
  x = layers.ZeroPadding2D(((before, after), (before, after)))(x)
  return every_second(pool(size, 1)(x), from_end=size % 2 == 1)


def identity(x, features, stride, name):
  """The input itself; ReLU, strided 1x1, batch norm where it cannot be."""
  if stride == 1 and x.shape[-1] == features:
    return x
  x = pointwise(layers.ReLU()(x), features, f"{name}.conv", stride)
  return batch_norm(x, f"{name}.norm")


def separable_conv(x, features, stride, name, size, dilation=1):
  """Twice: ReLU, depthwise convolution, 1x1, batch norm."""
  for i, s in enumerate((stride, 1)):
    x = layers.ReLU()(x)
    x = depthwise(x, size, s, f"{name}.depthwise_{i}", dilation)
    x = pointwise(x, features, f"{name}.pointwise_{i}")
    x = batch_norm(x, f"{name}.norm_{i}")
  return x


def dense_conv(x, features, stride, name, shapes, dilation=1):
  """ReLU, convolution, batch norm, for each of `shapes` in turn."""
  for i, shape in enumerate(shapes):
    # A 1x7 convolution strides over columns, the 7x1 after it over rows.
    strides = [stride if k > 1 or max(shape) == 1 else 1 for k in shape]
    x = layers.ReLU()(x)
    if dilation > 1:
      x = dilated(x, features, shape, stride, f"{name}.conv_{i}", dilation)
    else:
      x = conv(x, features, shape, strides, f"{name}.conv_{i}")
    x = batch_norm(x, f"{name}.norm_{i}")
  return x


def bottleneck(x, features, stride, name, shapes, divisor=4):
  """1x1 to a fraction of the channels, convolutions there, 1x1 back."""
  narrow = features // divisor
  x = pointwise(layers.ReLU()(x), narrow, f"{name}.reduce")
  x = batch_norm(x, f"{name}.reduce_norm")
  x = dense_conv(x, narrow, stride, f"{name}.conv", shapes)
  x = pointwise(layers.ReLU()(x), features, f"{name}.expand")
  return batch_norm(x, f"{name}.expand_norm")


def pool(x, features, stride, name, kind, size):
  """Pooling; 1x1 and batch norm after it where the width changes."""
  zeros = {"same": (), "zeros": ("max", "avg"), "zeros_avg": ("avg",)}
  with_zeros = stride > 1 and kind in zeros[POOL_PADDING]
  x = window(x, kind, size, stride, with_zeros)
  if x.shape[-1] == features:
    return x
  x = pointwise(x, features, f"{name}.conv")
  return batch_norm(x, f"{name}.norm")


def project(x, features, name):
  """ReLU, 1x1, batch norm."""
  x = pointwise(layers.ReLU()(x), features, f"{name}.conv")
  return batch_norm(x, f"{name}.norm")


def factorized_reduction(x, features, stride, name):
  """Halves the side: half of the channels come from the even pixels, half from
  the odd ones. At stride 1 a 1x1 convolution. Batch norm after."""
  if stride == 1:
    return batch_norm(pointwise(x, features, f"{name}.conv"), f"{name}.norm")
  first = features // 2
  shifted = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
  shifted = layers.Cropping2D(((1, 0), (1, 0)))(shifted)
  halves = [
    pointwise(x, first, f"{name}.conv_0", 2),
    pointwise(shifted, features - first, f"{name}.conv_1", 2),
  ]
  return batch_norm(layers.concatenate(halves), f"{name}.norm")


def fit_previous(x, features, halvings, name):
  """Gives h_{i-1} the side and width of h_i; halvings: strides of 2 between
  the two."""
  for i in range(halvings):
    part = f"{name}.reduce_{i}" if i else f"{name}.reduce"
    x = factorized_reduction(layers.ReLU()(x), features, 2, part)
  if not halvings and x.shape[-1] != features:
    return project(x, features, f"{name}.project")
  return x


def fit_inputs(states, features, halvings, name):
  """Gives all states that a cell reads the shape of the first."""
  fitted = [project(states[0], features, f"{name}.project")]
  for j in range(1, len(states)):
    part = f"{name}.fit_{j}"
    fitted.append(fit_previous(states[j], features, halvings[j], part))
  return fitted


def make_stem(x, features, stride, name):
  """3x3 convolution and batch norm; at stride 2 without padding."""
  padding = "same" if stride == 1 else "valid"
  x = conv(x, features, 3, stride, f"{name}.conv", padding)
  return batch_norm(x, f"{name}.norm")


def squeeze_excite(x, hidden, activation, name):
  """Channels weighed by what the whole map holds."""
  mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
  weights = layers.Dense(hidden, activation, name=f"{name}.reduce")(mean)
  expand = layers.Dense(x.shape[-1], "sigmoid", name=f"{name}.expand")
  return layers.multiply([x, expand(weights)])


def mbconv(
  x,
  features,
  stride,
  name,
  kernel,
  activation,
  expansion=1,
  squeeze=0,
  skip="",
):
  """1x1 expansion, depthwise, squeeze-excite, 1x1 projection.

  expansion: hidden over input channels; 1: no first convolution.
  squeeze: hidden channels of squeeze-excite; 0: none.
  skip: "" none; "add" what enters; "pool" its 3x3 average.
  """
  inputs = x
  act = layers.Activation(activation)
  if expansion > 1:
    x = pointwise(x, x.shape[-1] * expansion, f"{name}.expand")
    x = act(batch_norm(x, f"{name}.norm_0"))
  x = depthwise(x, kernel, stride, f"{name}.depthwise")
  x = act(batch_norm(x, f"{name}.norm_1"))
  if squeeze:
    x = squeeze_excite(x, squeeze, activation, f"{name}.squeeze_excite")
  x = pointwise(x, features, f"{name}.project")
  return skipped(skip, inputs, batch_norm(x, f"{name}.norm_2"), stride)


def skipped(skip, inputs, x, stride):
  """x, and what entered the block added to it."""
  if skip == "pool":
    inputs = window(inputs, "avg", 3, stride)
  return layers.add([inputs, x]) if skip else x


def plain_conv(
  x, features, stride, name, kernel, activation, squeeze=0, skip=""
):
  """A convolution, activated, then squeeze-excite; see mbconv."""
  inputs = x
  x = conv(x, features, kernel, stride, f"{name}.conv")
  x = layers.Activation(activation)(batch_norm(x, f"{name}.norm_0"))
  if squeeze:
    x = squeeze_excite(x, squeeze, activation, f"{name}.squeeze_excite")
  return skipped(skip, inputs, x, stride)


def separable(x, features, stride, name, kernel, activation):
  """Depthwise and 1x1 convolution, each activated."""
  x = depthwise(x, kernel, stride, f"{name}.depthwise")
  x = layers.Activation(activation)(batch_norm(x, f"{name}.norm_0"))
  x = pointwise(x, features, f"{name}.pointwise")
  return layers.Activation(activation)(batch_norm(x, f"{name}.norm_1"))


def residual(
  x, features, stride, name, widths, kernels, strided, activation, squeeze=0
):
  """Convolutions beside a shortcut, which is a 1x1 convolution where shapes
  differ.

  widths: channels behind each convolution; kernels: their sizes.
  strided: which of them has the stride.
  """
  shortcut, count = x, len(widths)
  needs_conv = stride > 1 or x.shape[-1] != features
  for i in range(count):
    x = layers.Activation(activation)(x) if i else x
    step = stride if i == strided else 1
    x = conv(x, widths[i], kernels[i], step, f"{name}.conv_{i}")
    x = batch_norm(x, f"{name}.norm_{i}")
  if squeeze:
    x = squeeze_excite(x, squeeze, activation, f"{name}.squeeze_excite")
  if needs_conv:
    shortcut = pointwise(shortcut, features, f"{name}.shortcut", stride)
    shortcut = batch_norm(shortcut, f"{name}.norm_{count}")
  return layers.Activation(activation)(layers.add([shortcut, x]))


def node(x, features, size, name):
  """Convolution, batch norm, ReLU."""
  x = conv(x, features, size, 1, f"{name}.conv")
  return layers.ReLU()(batch_norm(x, f"{name}.norm"))


def total(*states):
  """Their sum."""
  return layers.add(list(states)) if len(states) > 1 else states[0]


def side_by_side(*states):
  """Their channels, one after another."""
  return layers.concatenate(list(states)) if len(states) > 1 else states[0]
