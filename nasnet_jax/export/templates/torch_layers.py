"""Layers of an exported network in PyTorch: [N, C, H, W].

`export/torch_module.py` copies what a network needs into its module. Attributes
are called as in our own network, so weights have the same names. Everything
keeps to what `torch.jit.script` compiles and to what `torch.export` can follow
at a free side: types where they are no tensors, no `getattr`, no branch on a
side.
"""

import pathlib

import torch
import torch.nn.functional as F
from torch import nn

# Of the network that is written.
MEAN = STD = (0.5,)
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1
POOL_PADDING = "same"
EXAMPLE_NORM_EPSILON = 1e-6


def pad_same(
  x,
  size: tuple[int, int],
  stride: tuple[int, int],
  dilation: tuple[int, int] = (1, 1),
  value: float = 0.0,
):
  """x padded as TensorFlow's SAME, for any side: the odd pixel of padding goes
  to the bottom and right, where PyTorch's own padding puts it on both sides.
  All that a side decides is where the padding stands; a last row that no window
  reads may be among it."""
  pads: list[int] = []
  for axis in (1, 0):  # F.pad takes the last axis first
    reach = (size[axis] - 1) * dilation[axis] + 1
    rest = -x.shape[2 + axis] % stride[axis]
    before = max(reach - stride[axis] + rest, 0) // 2
    pads += [before, reach - 1 - before]
  return F.pad(x, pads, value=value)


class Conv(nn.Conv2d):
  """A convolution without bias; SAME padding unless `padding` is VALID."""

  def __init__(
    self, inputs, features, size, stride=1, dilation=1, groups=1, same=True
  ):
    super().__init__(
      inputs, features, size, stride, 0, dilation, groups, bias=False
    )
    self.same = same and self.kernel_size != (1, 1)

  def forward(self, x):
    if self.same:
      x = pad_same(x, self.kernel_size, self.stride, self.dilation)
    return F.conv2d(
      x, self.weight, None, self.stride, 0, self.dilation, self.groups
    )


def pointwise(inputs, features, stride=1):
  """A 1x1 convolution."""
  return Conv(inputs, features, 1, stride)


def depthwise(inputs, size, stride=1, dilation=1):
  """A convolution of each channel by itself."""
  return Conv(inputs, inputs, size, stride, dilation, groups=inputs)


def batch_norm(features):
  """Batch norm. In training PyTorch's running variance is the unbiased one,
  ours the biased one: n / (n - 1) apart, for n pixels of a batch."""
  return nn.BatchNorm2d(features, BN_EPSILON, BN_MOMENTUM)


class ExampleNorm(nn.Module):
  """Normalises each example by itself.

  axes: (1, 2, 3) over the map and its channels, (2, 3) over the map only.
  """

  def __init__(self, features, axes):
    super().__init__()
    self.axes, self.epsilon = axes, EXAMPLE_NORM_EPSILON
    self.weight = nn.Parameter(torch.ones(features))
    self.bias = nn.Parameter(torch.zeros(features))

  def forward(self, x):
    x = x - x.mean(self.axes, keepdim=True)
    variance = (x * x).mean(self.axes, keepdim=True)
    x = x * torch.rsqrt(variance + self.epsilon)
    return x * self.weight[:, None, None] + self.bias[:, None, None]


def max_pool(x, size: int, stride: int, zeros: bool = False):
  """Max pool, SAME. zeros: whether the padding may be the maximum."""
  value = 0.0 if zeros else float("-inf")
  x = pad_same(x, (size, size), (stride, stride), value=value)
  return F.max_pool2d(x, size, stride)


def avg_pool(x, size: int, stride: int, zeros: bool = False):
  """Average pool, SAME. zeros: whether the padding counts."""
  window, step = (size, size), (stride, stride)
  y = F.avg_pool2d(pad_same(x, window, step), window, step)
  if zeros:
    return y
  ones = torch.ones_like(x[:1, :1])
  return y / F.avg_pool2d(pad_same(ones, window, step), window, step)


class Identity(nn.Module):
  """The input itself; ReLU, strided 1x1, batch norm where it cannot be."""

  def __init__(self, inputs, features, stride):
    super().__init__()
    self.conv = None
    if stride > 1 or inputs != features:
      self.conv = pointwise(inputs, features, stride)
      self.norm = batch_norm(features)

  def forward(self, x):
    return x if self.conv is None else self.norm(self.conv(F.relu(x)))


class SeparableConv(nn.Module):
  """Twice: ReLU, depthwise convolution, 1x1, batch norm."""

  def __init__(self, inputs, features, stride, size, dilation=1):
    super().__init__()
    self.depthwise_0 = depthwise(inputs, size, stride, dilation)
    self.pointwise_0 = pointwise(inputs, features)
    self.norm_0 = batch_norm(features)
    self.depthwise_1 = depthwise(features, size, 1, dilation)
    self.pointwise_1 = pointwise(features, features)
    self.norm_1 = batch_norm(features)

  def forward(self, x):
    x = self.norm_0(self.pointwise_0(self.depthwise_0(F.relu(x))))
    return self.norm_1(self.pointwise_1(self.depthwise_1(F.relu(x))))


class DenseConv(nn.Sequential):
  """ReLU, convolution, batch norm, for each of `shapes` in turn."""

  def __init__(self, inputs, features, stride, shapes, dilation=1):
    super().__init__()
    for i, shape in enumerate(shapes):
      # A 1x7 convolution strides over columns, the 7x1 after it over rows.
      strides = [stride if k > 1 or max(shape) == 1 else 1 for k in shape]
      conv = Conv(inputs, features, shape, strides, dilation)
      self.add_module(f"relu_{i}", nn.ReLU())
      self.add_module(f"conv_{i}", conv)
      self.add_module(f"norm_{i}", batch_norm(features))
      inputs = features


class Bottleneck(nn.Module):
  """1x1 to a fraction of the channels, convolutions there, 1x1 back."""

  def __init__(self, inputs, features, stride, shapes, divisor=4):
    super().__init__()
    narrow = features // divisor
    self.reduce = pointwise(inputs, narrow)
    self.reduce_norm = batch_norm(narrow)
    self.conv = DenseConv(narrow, narrow, stride, shapes)
    self.expand = pointwise(narrow, features)
    self.expand_norm = batch_norm(features)

  def forward(self, x):
    x = self.conv(self.reduce_norm(self.reduce(F.relu(x))))
    return self.expand_norm(self.expand(F.relu(x)))


class Pool(nn.Module):
  """Pooling; 1x1 and batch norm after it where the width changes."""

  def __init__(self, inputs, features, stride, kind, size):
    super().__init__()
    self.size, self.stride = size, stride
    self.pool = {"max": max_pool, "avg": avg_pool}[kind]
    zeros = {"same": (), "zeros": ("max", "avg"), "zeros_avg": ("avg",)}
    self.zeros = stride > 1 and kind in zeros[POOL_PADDING]
    self.conv = None
    if inputs != features:
      self.conv = pointwise(inputs, features)
      self.norm = batch_norm(features)

  def forward(self, x):
    x = self.pool(x, self.size, self.stride, self.zeros)
    return x if self.conv is None else self.norm(self.conv(x))


class Project(nn.Module):
  """ReLU, 1x1, batch norm."""

  def __init__(self, inputs, features):
    super().__init__()
    self.conv = pointwise(inputs, features)
    self.norm = batch_norm(features)

  def forward(self, x):
    return self.norm(self.conv(F.relu(x)))


class FactorizedReduction(nn.Module):
  """Halves the side: half of the channels come from the even pixels, half from
  the odd ones. At stride 1 a 1x1 convolution. Batch norm after."""

  def __init__(self, inputs, features, stride=2):
    super().__init__()
    self.conv = None
    if stride == 1:
      self.conv = pointwise(inputs, features)
    else:
      first = features // 2
      self.conv_0 = pointwise(inputs, first, 2)
      self.conv_1 = pointwise(inputs, features - first, 2)
    self.norm = batch_norm(features)

  def forward(self, x):
    if self.conv is not None:
      return self.norm(self.conv(x))
    shifted = F.pad(x, (-1, 1, -1, 1))  # one pixel up and left
    return self.norm(torch.cat([self.conv_0(x), self.conv_1(shifted)], 1))


class FitPrevious(nn.Sequential):
  """Gives h_{i-1} the side and width of h_i; nothing to do: no layer.

  halvings: strides of 2 between the two.
  """

  def __init__(self, inputs, features, halvings):
    super().__init__()
    for i in range(halvings):
      fit = FactorizedReduction(inputs, features)
      self.add_module(f"relu_{i}", nn.ReLU())
      self.add_module(f"reduce_{i}" if i else "reduce", fit)
      inputs = features
    if not halvings and inputs != features:
      self.project = Project(inputs, features)


class FitInputs(nn.ModuleDict):
  """Gives all states that a cell reads the shape of the first.

  inputs: channels of each; halvings: of each, to the side of the first.
  """

  def __init__(self, inputs, features, halvings):
    super().__init__()
    self.project = Project(inputs[0], features)
    for j in range(1, len(inputs)):
      fit = FitPrevious(inputs[j], features, halvings[j])
      self.add_module(f"fit_{j}", fit)

  def forward(self, states: list[torch.Tensor]):
    fitted: list[torch.Tensor] = []
    for j, fit in enumerate(self.values()):  # project, fit_1, fit_2, ...
      fitted.append(fit(states[j]))
    return fitted


class Stem(nn.Module):
  """3x3 convolution and batch norm; at stride 2 without padding."""

  def __init__(self, inputs, features, stride):
    super().__init__()
    self.conv = Conv(inputs, features, 3, stride, same=stride == 1)
    self.norm = batch_norm(features)

  def forward(self, x):
    return self.norm(self.conv(x))


class AuxiliaryHead(nn.Module):
  """A second classifier from the middle of the network, for training only.

  pixels: of its map after pooling, which depends on the side of images.
  """

  def __init__(self, inputs, num_classes, pixels):
    super().__init__()
    self.conv_0 = pointwise(inputs, 128)
    self.norm_0 = batch_norm(128)
    self.conv_1 = nn.Linear(128 * pixels, 768, bias=False)
    self.norm_1 = nn.BatchNorm1d(768, BN_EPSILON, BN_MOMENTUM)
    self.classifier = nn.Linear(768, num_classes)

  def forward(self, x):
    window = (min(5, x.shape[2]), min(5, x.shape[3]))
    x = F.avg_pool2d(F.relu(x), window, 3)
    x = F.relu(self.norm_0(self.conv_0(x)))
    x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as it was trained
    return self.classifier(F.relu(self.norm_1(self.conv_1(x))))


class SqueezeExcite(nn.Module):
  """Channels weighed by what the whole map holds."""

  def __init__(self, features, hidden, activation):
    super().__init__()
    self.reduce = nn.Linear(features, hidden)
    self.expand = nn.Linear(hidden, features)
    self.activation = activation

  def forward(self, x):
    hidden = self.activation(self.reduce(x.mean((2, 3))))
    return x * torch.sigmoid(self.expand(hidden))[:, :, None, None]


class MBConv(nn.Module):
  """1x1 expansion, depthwise, squeeze-excite, 1x1 projection.

  expansion: hidden over input channels; 1: no first convolution.
  squeeze: hidden channels of squeeze-excite; 0: none.
  skip: "" none; "add" what enters; "pool" its 3x3 average.
  """

  def __init__(
    self,
    inputs,
    features,
    stride,
    kernel,
    activation,
    expansion=1,
    squeeze=0,
    skip="",
  ):
    super().__init__()
    width = inputs * expansion
    self.expand = None
    if expansion > 1:
      self.expand = pointwise(inputs, width)
      self.norm_0 = batch_norm(width)
    self.depthwise = depthwise(width, kernel, stride)
    self.norm_1 = batch_norm(width)
    self.squeeze_excite = None
    if squeeze:
      self.squeeze_excite = SqueezeExcite(width, squeeze, activation)
    self.project = pointwise(width, features)
    self.norm_2 = batch_norm(features)
    self.activation, self.skip, self.stride = activation, skip, stride

  def forward(self, inputs):
    x = inputs
    if self.expand is not None:
      x = self.activation(self.norm_0(self.expand(x)))
    x = self.activation(self.norm_1(self.depthwise(x)))
    if self.squeeze_excite is not None:
      x = self.squeeze_excite(x)
    x = self.norm_2(self.project(x))
    return skipped(self.skip, inputs, x, self.stride)


def skipped(skip: str, inputs, x, stride: int):
  """x, and what entered the block added to it."""
  if skip == "pool":
    inputs = avg_pool(inputs, 3, stride)
  return inputs + x if skip != "" else x


class PlainConv(nn.Module):
  """A convolution, activated, then squeeze-excite; see MBConv."""

  def __init__(
    self, inputs, features, stride, kernel, activation, squeeze=0, skip=""
  ):
    super().__init__()
    self.conv = Conv(inputs, features, kernel, stride)
    self.norm_0 = batch_norm(features)
    self.squeeze_excite = None
    if squeeze:
      self.squeeze_excite = SqueezeExcite(features, squeeze, activation)
    self.activation, self.skip, self.stride = activation, skip, stride

  def forward(self, inputs):
    x = self.activation(self.norm_0(self.conv(inputs)))
    if self.squeeze_excite is not None:
      x = self.squeeze_excite(x)
    return skipped(self.skip, inputs, x, self.stride)


class Separable(nn.Module):
  """Depthwise and 1x1 convolution, each activated."""

  def __init__(self, inputs, features, stride, kernel, activation):
    super().__init__()
    self.depthwise = depthwise(inputs, kernel, stride)
    self.norm_0 = batch_norm(inputs)
    self.pointwise = pointwise(inputs, features)
    self.norm_1 = batch_norm(features)
    self.activation = activation

  def forward(self, x):
    x = self.activation(self.norm_0(self.depthwise(x)))
    return self.activation(self.norm_1(self.pointwise(x)))


class Residual(nn.Module):
  """Convolutions beside a shortcut, which is a 1x1 convolution where shapes
  differ.

  widths: channels behind each of two or three convolutions; kernels: their
    sizes.
  strided: which of them has the stride.
  """

  def __init__(
    self,
    inputs,
    widths,
    kernels,
    strided,
    stride,
    activation,
    squeeze=0,
  ):
    super().__init__()
    width, last = inputs, len(widths)
    self.conv_2 = None
    for i, (features, kernel) in enumerate(zip(widths, kernels)):
      conv = Conv(width, features, kernel, stride if i == strided else 1)
      setattr(self, f"conv_{i}", conv)
      setattr(self, f"norm_{i}", batch_norm(features))
      width = features
    self.squeeze_excite = None
    if squeeze:
      self.squeeze_excite = SqueezeExcite(width, squeeze, activation)
    self.shortcut = None
    if stride > 1 or inputs != width:
      self.shortcut = pointwise(inputs, width, stride)
      setattr(self, f"norm_{last}", batch_norm(width))
    self.activation = activation

  def forward(self, inputs):
    x, shortcut = inputs, inputs
    x = self.norm_0(self.conv_0(x))
    x = self.norm_1(self.conv_1(self.activation(x)))
    if self.conv_2 is not None:
      x = self.norm_2(self.conv_2(self.activation(x)))
    if self.squeeze_excite is not None:
      x = self.squeeze_excite(x)
    if self.shortcut is not None:
      shortcut = self.shortcut(inputs)
      if self.conv_2 is None:
        shortcut = self.norm_2(shortcut)
      else:
        shortcut = self.norm_3(shortcut)
    return self.activation(shortcut + x)


class Node(nn.Module):
  """Convolution, batch norm, ReLU."""

  def __init__(self, inputs, features, size):
    super().__init__()
    self.conv = Conv(inputs, features, size)
    self.norm = batch_norm(features)

  def forward(self, x):
    return F.relu(self.norm(self.conv(x)))


class Whiten(nn.Module):
  """uint8[N, C, H, W] -> what the network takes, in its weights' dtype."""

  def __init__(self):
    super().__init__()
    for name, values in (("mean", MEAN), ("std", STD)):
      array = torch.tensor(values)[:, None, None]
      self.register_buffer(name, array, persistent=False)

  def forward(self, pixels):
    return (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std


def load(path=None, **options):
  """The trained network. path: of its weights; None: those beside this file.
  options: of `Network`."""
  from safetensors.torch import load_file

  path = path or pathlib.Path(__file__).with_name("weights.safetensors")
  network = Network(**options)  # noqa: F821, of the generated module
  wanted, found = network.state_dict(), load_file(path)
  missing = [n for n in wanted if not n.endswith("num_batches_tracked")]
  missing = sorted(set(missing) - set(found))
  if missing or set(found) - set(wanted):
    raise ValueError(f"{path} is of another network; missing: {missing[:8]}")
  network.load_state_dict(found, strict=False)
  return network.eval()
