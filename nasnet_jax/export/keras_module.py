"""The Keras 3 module of a network: readable Python that imports Keras only.

Functions of layers, one of which is `make_network`; a functional model of
Keras's own layers, so a saved one loads without the module.
"""

import re
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from nasnet_jax.export import outline, tables
from nasnet_jax.export.graph import GraphError
from nasnet_jax.models import (
  block_network,
  stacked,
  stacked_plan,
  stage_network,
)
from nasnet_jax.models.layers import EXAMPLE_NORM_EPSILON

_ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "swish": "silu"}
_GROUPS = {"add_layer_norm": 1, "add_instance_norm": -1}
# Keras's names of our arrays.
LEAVES = {
  "kernel": "kernel",
  "bias": "bias",
  "scale": "gamma",
  "mean": "moving_mean",
  "var": "moving_variance",
}


def source(
  network: nn.Module,
  channels: int,
  *,
  about: str,
  whiten: tuple[np.ndarray, np.ndarray] | None = None,
  cut=None,
) -> str:
  """The text of the module.

  Args:
    channels: of images.
    about: docstring.
    whiten: (factor, offset) f32[C] if the network takes pixels.
    cut: `detection.backbone.Halves`, whose first half is written; None: all.

  Raises:
    GraphError: for a network that there is no writer for.
  """
  body = "\n\n\n".join(_body(network, channels, whiten, cut))
  numerics = network.config.numerics
  constants = {
    "BN_EPSILON": numerics.bn_epsilon,
    "BN_DECAY": numerics.bn_decay,
    "POOL_PADDING": numerics.pool_padding,
    "EXAMPLE_NORM_EPSILON": EXAMPLE_NORM_EPSILON,
  }
  imports = ("import keras", "from keras import layers")
  parts = [*outline.pick("keras_layers.py", body), body]
  return outline.module(about, imports, constants, parts)


def weights(
  variables: dict[str, Any], layers: set[str]
) -> dict[str, np.ndarray]:
  """{"layer/weight": array}, in Keras's shapes.

  Args:
    layers: that the output depends on, "cell_0/block_0_0/conv"; Keras leaves
      out the others (the auxiliary head, outputs of a cell that nobody reads).
  """
  found = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
    path = tuple(key.key for key in path)[1:]
    if "/".join(path[:-1]) not in layers:
      continue
    found[f"{'.'.join(path[:-1])}/{_leaf(path)}"] = to_keras(path, leaf)
  return found


def _leaf(path) -> str:
  normed = path[-1] == "bias" and not tables.is_dense(path)
  return "beta" if normed else LEAVES[path[-1]]


def to_keras(path: tuple[str, ...], array) -> np.ndarray:
  """A variable of ours in Keras's shape: 1x1 [1, 1, C, F], depthwise
  [k, k, C, 1].

  Args:
    path: in our variables, without the collection.
  """
  array = np.asarray(array, np.float32)
  if path[-1] != "kernel" or tables.is_dense(path):
    return array
  return array.reshape(tables.four_axes(path, array.shape))


def _body(network, channels, whiten, cut) -> list[str]:
  """Functions that are this network's own."""
  if isinstance(network, stacked.StackedNetwork):
    uses = outline.until(network, cut)
    found = [
      _cell(kind, literal, [use for use in uses if use.kind == kind])
      for kind, literal in outline.cell_kinds(network).items()
      if any(use.kind == kind for use in uses)
    ]
    return [*found, _stacked(network, channels, whiten, uses, cut)]
  if isinstance(network, block_network.BlockNetwork):
    return [_blocks(network, channels, whiten, cut)]
  if isinstance(network, stage_network.StageNetwork):
    return [_stages(network, channels, whiten)]
  raise GraphError(
    f"{type(network).__name__} is not written as a module: export to onnx,"
    " stablehlo or safetensors"
  )


def _function(kind: str) -> str:
  """The name of a class as that of a function: NormalCell, normal_cell."""
  if kind == "MBConv":
    return "mbconv"
  return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def _cell(kind: str, literal: tuple, uses) -> str:
  separate = len(literal) > 2
  inputs = "states" if separate else "current, previous"
  last = "halvings" if separate else "halvings=0"
  lines = [
    f"def {_function(kind)}({inputs}, features, stride, name, {last}):",
    f'  """{outline.CELL_DOC[separate]}"""',
  ]
  count = len(uses[0].reads)
  if separate:
    states = ", ".join(f"h{i}" for i in range(count))
    lines.append(
      f'  {states} = fit_inputs(states, features, halvings, f"{{name}}.inputs")'
    )
  else:
    lines.append('  h0 = project(current, features, f"{name}.project")')
    lines += _previous({use.is_first for use in uses})
  for b, block in enumerate(literal[0]):
    lines += _block(b, block, count)
  if separate:
    lines.append(f"  return [{', '.join(f'h{s}' for s in literal[1])}]")
    return "\n".join(lines)
  parts = []
  for s in literal[1]:
    own = {use.stride > 1 or (s == 1 and use.is_first) for use in uses}
    if s < 2 and own != {False}:
      fit = (
        f"h{s} = factorized_reduction(h{s}, features, stride,"
        f' f"{{name}}.fit_state_{s}")'
      )
      if own == {True}:
        lines.append(f"  {fit}")
      else:
        first = " or previous is None" if s else ""
        lines += [f"  if stride > 1{first}:", f"    {fit}"]
    parts.append(f"h{s}")
  lines.append(f"  return side_by_side({', '.join(parts)})")
  return "\n".join(lines)


def _previous(firsts: set[bool]) -> list[str]:
  """Lines that make h1."""
  fit = 'fit_previous(previous, features, halvings, f"{name}.fit_previous")'
  if firsts == {True}:
    return ["  h1 = current  # there is no cell before"]
  if firsts == {False}:
    return [f"  h1 = {fit}"]
  return [
    "  h1 = current  # in the first cell",
    "  if previous is not None:",
    f"    h1 = {fit}",
  ]


def _block(b: int, block: tuple, num_inputs: int) -> list[str]:
  """The lines of a block."""
  sides = []
  for side, (state, op) in enumerate(zip(block[:2], block[2:4])):
    kind, fields = outline.operation(op)
    stride = "stride" if state < num_inputs else "1"
    sides.append(
      f'    {_function(kind)}(h{state}, features, {stride}, f"{{name}}.block_'
      f'{b}_{side}"{outline.arguments(fields)}),'
    )
  combine = block[4] if len(block) > 4 else "add"
  state, name = f"h{b + num_inputs}", f'f"{{name}}.block_{b}_combine"'
  join = "side_by_side" if combine == "concat" else "total"
  lines = [f"  {state} = {join}(", *sides, "  )"]
  if combine == "concat":
    lines.append(f"  {state} = project({state}, features, {name})")
  elif combine != "add":
    groups = _GROUPS[combine]
    lines.append(f"  {state} = example_norm({state}, {groups}, {name})")
  return lines


def _stacked(network, channels, whiten, uses, cut) -> str:
  config, separate = network.config, bool(network.num_separate)
  stride = 2 if config.stem == "imagenet" else 1
  width = stacked_plan.stem_features(config)
  lines = [f'stem = make_stem(x, {width}, {stride}, "stem")']
  for use in uses:
    reads = ", ".join(str(read) for read in use.reads)
    call = f"[{reads}]" if separate else reads
    more = ""
    if separate:
      more = f", halvings={list(use.halvings)}"
    elif use.halvings[1]:
      more = f", halvings={use.halvings[1]}"
    lines.append(
      f"{use.name} = {_function(use.kind)}({call}, {use.features},"
      f' {use.stride}, "{use.name}"{more})'
    )
  if cut is not None:
    lines.append(f"features = side_by_side({', '.join(cut.maps)})")
    return _network(config, channels, whiten, lines, "features")
  last = f"*{uses[-1].name}" if separate else uses[-1].name
  lines.append(f"x = layers.ReLU()(side_by_side({last}))")
  return _network(config, channels, whiten, lines)


def _network(config, channels, whiten, lines, features="") -> str:
  """The function `make_network`. features: what it returns, if not logits."""
  kind = '"uint8"' if whiten else '"float32"'
  takes = "pixels, uint8" if whiten else "whitened images"
  start = [
    f"images = keras.Input((None, None, {channels}), dtype={kind},"
    ' name="images")',
    "x = images",
  ]
  if whiten:
    factor, offset = ([float(v) for v in array] for array in whiten)
    start[1] = f"x = layers.Rescaling({factor}, {offset})(images)"
  gives, option = "logits [N, classes]", f"num_classes={config.num_classes}"
  end = [
    "x = layers.GlobalAveragePooling2D()(x)",
    f"x = layers.Dropout({config.dropout})(x)",
    'logits = layers.Dense(num_classes, name="classifier")(x)',
    'return keras.Model(images, logits, name="network")',
  ]
  if features:
    gives, option = "features [N, h, w, F]", ""
    end = [f'return keras.Model(images, {features}, name="network")']
  return "\n".join(
    [
      f"def make_network({option}):",
      f'  """{takes} [N, H, W, C] -> {gives}."""',
      *(f"  {line}" for line in [*start, *lines, *end]),
    ]
  )


def _blocks(network, channels: int, whiten, cut) -> str:
  arch, config = network.architecture, network.config
  act = _ACTIVATIONS[arch.activation]
  width = block_network.stem_features(arch, config.width)
  lines = [
    f"x = conv(x, {width}, {arch.stem_kernel}, {arch.stem_stride},"
    ' "stem_conv")',
    f'x = layers.Activation("{act}")(batch_norm(x, "stem_norm"))',
  ]
  if arch.stem_pool:
    lines.append('x = window(x, "max", 3, 2)')
  for use in outline.until(network, cut):
    fields = {**use.fields, "activation": act}
    lines.append(
      f'x = {_function(use.kind)}(x, {use.features}, {use.stride}, "{use.name}"'
      f"{outline.arguments(fields)})"
    )
  if cut is not None:
    return _network(config, channels, whiten, lines, "x")
  head = block_network.head_features(arch, config.width)
  if head:
    lines += [
      f'x = pointwise(x, {head}, "head_conv")',
      f'x = layers.Activation("{act}")(batch_norm(x, "head_norm"))',
    ]
  return _network(config, channels, whiten, lines)


def _stages(network, channels: int, whiten) -> str:
  config, lines = network.config, []
  for line in outline.stage_lines(network, channels):
    value = f"total({', '.join(line.reads)})"
    if not line.features:
      lines.append(f'{line.name} = window({value}, "max", 2, 2)')
      continue
    lines.append(
      f"{line.name} = node({value}, {line.features}, {config.kernel_size},"
      f' "{line.name}")'
    )
  last = lines[-1].partition(" ")[0]
  return _network(config, channels, whiten, [*lines, f"x = {last}"])
