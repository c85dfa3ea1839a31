"""The PyTorch module of a network: readable Python that imports torch only.

A class per kind of cell, whose forward pass has a line per block; classes of
the operations that it needs; `Network`. Weights are called as ours, with
PyTorch's leaves: `cell_0.block_0_1.norm_0.weight`.
"""

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
from nasnet_jax.models.layers import EXAMPLE_NORM_EPSILON, NORM_AXES

_ACTIVATIONS = {"relu": "F.relu", "relu6": "F.relu6", "swish": "F.silu"}
_AXES = {"add_layer_norm": (1, 2, 3), "add_instance_norm": (2, 3)}
assert _AXES.keys() == NORM_AXES.keys()


def source(
  network: nn.Module,
  image_shape: tuple[int, int, int],
  mean,
  std,
  *,
  about: str,
  whitened: bool = True,
  cut=None,
) -> str:
  """The text of the module.

  Args:
    image_shape: (H, W, C) that it was trained with.
    mean, std: f[C], of pixels scaled to 0..1.
    about: docstring.
    whitened: whether images come whitened; else as uint8, and the network
      does it.
    cut: `detection.backbone.Halves`, whose first half is written; None: all.

  Raises:
    GraphError: for a network that there is no writer for.
  """
  body = "\n\n\n".join(_body(network, image_shape, whitened, cut))
  numerics = network.config.numerics
  constants = {
    "MEAN": tuple(float(x) for x in mean),
    "STD": tuple(float(x) for x in std),
    "BN_EPSILON": numerics.bn_epsilon,
    "BN_MOMENTUM": round(1 - numerics.bn_decay, 12),
    "POOL_PADDING": numerics.pool_padding,
    "EXAMPLE_NORM_EPSILON": EXAMPLE_NORM_EPSILON,
  }
  helpers = outline.pick("torch_layers.py", body + "\n\nload\n")
  imports = (
    "import pathlib",
    "",
    "import torch",
    "import torch.nn.functional as F",
    "from torch import nn",
  )
  parts = [*helpers[:-1], body, helpers[-1]]
  return outline.module(about, imports, constants, parts)


def weights(variables: dict[str, Any]) -> dict[str, np.ndarray]:
  """{name in the module's state dict: array}."""
  found = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
    path = tuple(key.key for key in path)
    found[name_of(path)] = to_torch(path[1:], np.asarray(leaf, np.float32))
  return found


def name_of(path: tuple[str, ...]) -> str:
  """In the state dict. path: in our variables, from the collection on."""
  return ".".join((*path[1:-1], tables.TORCH_LEAVES[path[-1]]))


def to_torch(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
  """A variable of ours in PyTorch's order of axes.

  Args:
    path: in our variables, without the collection.
  """
  return np.ascontiguousarray(
    array.transpose(_order(path, array.ndim))
  ).reshape(shape_of(path, array.shape))


def from_torch(path, shape, array: np.ndarray) -> np.ndarray:
  """The inverse of `to_torch`. shape: of our variable."""
  order = _order(path, len(shape))
  array = array.reshape([shape[axis] for axis in order])
  return np.ascontiguousarray(array.transpose(np.argsort(order)))


def _order(path, ndim: int) -> tuple[int, ...]:
  """Our axes in the order in which PyTorch has them."""
  if path[-1] != "kernel":
    return tuple(range(ndim))
  return {2: (1, 0), 3: (2, 0, 1), 4: (3, 2, 0, 1)}[ndim]


def shape_of(path, shape) -> tuple[int, ...]:
  """PyTorch's shape: depthwise [C, 1, k, k], 1x1 [F, C, 1, 1]."""
  shape = tuple(shape[axis] for axis in _order(path, len(shape)))
  if path[-1] != "kernel" or len(shape) == 4 or tables.is_dense(path):
    return shape
  return (*shape, 1, 1) if len(shape) == 2 else (shape[0], 1, *shape[1:])


def _body(network, image_shape, whitened, cut) -> list[str]:
  """Classes that are this network's own."""
  if isinstance(network, stacked.StackedNetwork):
    uses = outline.until(network, cut)
    kinds = outline.cell_kinds(network).items()
    found = [
      _cell(kind, literal, [use for use in uses if use.kind == kind])
      for kind, literal in kinds
      if any(use.kind == kind for use in uses)
    ]
    return [*found, _stacked(network, image_shape, whitened, uses, cut)]
  if isinstance(network, block_network.BlockNetwork):
    return [_blocks(network, image_shape[2], whitened, cut)]
  if isinstance(network, stage_network.StageNetwork):
    return [_stages(network, image_shape[2], whitened)]
  raise GraphError(
    f"{type(network).__name__} is not written as a module: export to onnx,"
    " stablehlo or safetensors"
  )


# --- cells -------------------------------------------------------------------


def _cell(kind: str, literal: tuple, uses) -> str:
  separate = len(literal) > 2
  make = _separate_cell if separate else _plain_cell
  made, forward = make(literal, uses)
  signature = (
    "self, inputs, features, stride, halvings"
    if separate
    else "self, current, previous, features, stride, halvings=0"
  )
  lines = [
    f"class {kind}(nn.Module):",
    f'  """{outline.CELL_DOC[separate]}"""',
    "",
    f"  def __init__({signature}):",
    "    super().__init__()",
    *(f"    {line}" for line in made),
    "",
    f"  def forward(self, {_states(separate, uses)}):",
    *(f"    {line}" for line in forward),
  ]
  return "\n".join(lines)


def _states(separate: bool, uses) -> str:
  """What a cell's forward pass takes, with the types that are no tensors."""
  if separate:
    return "states: list[torch.Tensor]"
  may_be_none = any(use.is_first for use in uses)
  return f"current, previous{': torch.Tensor | None' if may_be_none else ''}"


def _plain_cell(literal, uses) -> tuple[list[str], list[str]]:
  firsts = {use.is_first for use in uses}
  made = ["self.project = Project(current, features)"]
  fit = "self.fit_previous = FitPrevious(previous, features, halvings)"
  width = "features"
  forward = ["h0 = self.project(current)"]
  if firsts == {False}:
    made.append(fit)
    forward.append("h1 = self.fit_previous(previous)")
  elif firsts == {True}:
    width = "current"
    forward.append("h1 = current  # there is no cell before")
  else:
    made += [
      "self.fit_previous = None  # in the first cell",
      "if previous is not None:",
      f"  {fit}",
      "width = current if previous is None else features",
    ]
    width = "width"
    forward += [
      "h1 = current",
      "if self.fit_previous is not None:",
      "  assert previous is not None",
      "  h1 = self.fit_previous(previous)",
    ]
  more, lines = _block_lines(literal, {1: width}, 2)
  made, forward = made + more, forward + lines
  parts = []
  for s in literal[1]:
    own = {use.stride > 1 or (s == 1 and use.is_first) for use in uses}
    if s > 1 or own == {False}:
      parts.append(f"h{s}")
      continue
    inputs = width if s else "features"
    needed = (
      f"self.fit_state_{s} = FactorizedReduction({inputs}, features, stride)"
    )
    if own == {True}:
      made.append(needed)
    else:
      made += [
        f"self.fit_state_{s} = nn.Identity()",
        f"if stride > 1{' or previous is None' if s else ''}:",
        f"  {needed}",
      ]
    parts.append(f"self.fit_state_{s}(h{s})")
  forward.append(f"return torch.cat([{', '.join(parts)}], 1)")
  return made, forward


def _separate_cell(literal, uses) -> tuple[list[str], list[str]]:
  count = len(uses[0].reads)
  states = ", ".join(f"h{i}" for i in range(count))
  made = ["self.inputs = FitInputs(inputs, features, halvings)"]
  more, lines = _block_lines(literal, {}, count)
  outputs = ", ".join(f"h{s}" for s in literal[1])
  forward = [f"{states} = self.inputs(states)", *lines, f"return [{outputs}]"]
  return made + more, forward


def _block_lines(literal, widths, num_inputs):
  """(lines of __init__, lines of forward) of the blocks."""
  made, forward = [], []
  for b, block in enumerate(literal[0]):
    states, operations = block[:2], block[2:4]
    combine = block[4] if len(block) > 4 else "add"
    sides = []
    for side, (state, op) in enumerate(zip(states, operations)):
      kind, fields = outline.operation(op)
      stride = "stride" if state < num_inputs else "1"
      made.append(
        f"self.block_{b}_{side} = {kind}({widths.get(state, 'features')},"
        f" features, {stride}{outline.arguments(fields)})"
      )
      sides.append(f"self.block_{b}_{side}(h{state})")
    value = " + ".join(sides)
    if combine == "concat":
      made.append(f"self.block_{b}_combine = Project(2 * features, features)")
      value = f"self.block_{b}_combine(torch.cat([{', '.join(sides)}], 1))"
    elif combine != "add":
      axes = _AXES[combine]
      made.append(f"self.block_{b}_combine = ExampleNorm(features, {axes})")
      value = f"self.block_{b}_combine({value})"
    forward.append(f"h{b + num_inputs} = {value}")
  return made, forward


def _stacked(network, image_shape, whitened, uses, cut) -> str:
  config = network.config
  separate = bool(network.num_separate)
  stride = 2 if config.stem == "imagenet" else 1
  width = stacked_plan.stem_features(config)
  made = [f"self.stem = Stem({image_shape[2]}, {width}, stride={stride})"]
  forward = ["stem = self.stem(x)"]
  has_aux = config.aux and cut is None
  aux = stacked_plan.aux_position(config) if has_aux else None
  middle = ""
  for index, use in enumerate(uses):
    if separate:
      shape = f"{list(use.widths)}, {use.features}, stride={use.stride}"
      made.append(
        f"self.{use.name} = {use.kind}({shape}, halvings={list(use.halvings)})"
      )
      forward.append(f"{use.name} = self.{use.name}([{', '.join(use.reads)}])")
    else:
      shape = f"{use.widths[0]}, {use.widths[1]}, {use.features}"
      shape += f", stride={use.stride}"
      if use.halvings[1]:
        shape += f", halvings={use.halvings[1]}"
      made.append(f"self.{use.name} = {use.kind}({shape})")
      reads = ", ".join(str(read) for read in use.reads)
      forward.append(f"{use.name} = self.{use.name}({reads})")
    if index == aux:
      inputs = outline.head_width(network, uses[: index + 1])
      pixels = _aux_pixels(config, image_shape[:2], index)
      made.append(
        f"self.aux_head = AuxiliaryHead({inputs}, num_classes, {pixels})"
      )
      middle = _whole(use.name, separate)
  if cut is not None:
    maps = f"torch.cat([{', '.join(cut.maps)}], 1)"
    return _features(made, forward, maps, whitened)
  width = outline.head_width(network, uses)
  last = _whole(uses[-1].name, separate)
  forward.append(f"x = F.relu({last}).mean((2, 3))")
  return _network(config, made, forward, width, whitened, middle)


def _whole(name: str, separate: bool) -> str:
  return f"torch.cat({name}, 1)" if separate else name


def _aux_pixels(config, side, index: int) -> int:
  """Pixels of the auxiliary head's map after its pool."""
  h, w = stacked_plan.stem_side(config, side)
  for cell in stacked_plan.plan(config)[: index + 1]:
    h, w = -(-h // cell.stride), -(-w // cell.stride)
  pooled = [(s - min(5, s)) // 3 + 1 for s in (h, w)]
  return pooled[0] * pooled[1]


def _network(config, made, forward, width, whitened, middle="") -> str:
  """The class `Network`."""
  takes = "whitened images" if whitened else "pixels, uint8"
  made = [*made, f"self.dropout = nn.Dropout({config.dropout})"]
  made.append(f"self.classifier = nn.Linear({width}, num_classes)")
  made, forward = _whitening(made, forward, whitened)
  forward = [*forward, "logits = self.classifier(self.dropout(x))"]
  if middle:
    forward += [
      "if torch.jit.is_scripting():",
      '  assert not with_aux, "a script answers with the logits alone"',
      "elif with_aux:",
      f"  return logits, self.aux_head({middle})",
    ]
  option = ", with_aux: bool = False" if middle else ""
  more = (
    " With `with_aux` the\n    auxiliary head's logits too, for training."
    if middle
    else ""
  )
  return "\n".join(
    [
      "class Network(nn.Module):",
      '  """The whole network."""',
      "",
      f"  def __init__(self, num_classes={config.num_classes}):",
      "    super().__init__()",
      *(f"    {line}" for line in made),
      "",
      f"  def forward(self, x{option}):",
      f'    """{takes} [N, C, H, W] -> logits [N, classes].{more}"""',
      *(f"    {line}" for line in forward),
      "    return logits",
    ]
  )


def _whitening(made, forward, whitened: bool) -> tuple[list[str], list[str]]:
  """Lines of __init__ and forward, of a network that whitens if it has to."""
  if whitened:
    return made, forward
  return ["self.whiten = Whiten()", *made], ["x = self.whiten(x)", *forward]


def _features(made, forward, maps: str, whitened: bool) -> str:
  """The class `Network` of a first half."""
  takes = "whitened images" if whitened else "pixels, uint8"
  made, forward = _whitening(made, forward, whitened)
  return "\n".join(
    [
      "class Network(nn.Module):",
      '  """The network up to the map that a detector proposes regions on."""',
      "",
      "  def __init__(self):",
      "    super().__init__()",
      *(f"    {line}" for line in made),
      "",
      "  def forward(self, x):",
      f'    """{takes} [N, C, H, W] -> features [N, F, h, w]."""',
      *(f"    {line}" for line in forward),
      f"    return {maps}",
    ]
  )


# --- blocks and stages -------------------------------------------------------


def _blocks(network, channels: int, whitened: bool, cut) -> str:
  arch, config = network.architecture, network.config
  width = block_network.stem_features(arch, config.width)
  act = _ACTIVATIONS[arch.activation]
  made = [
    f"self.stem_conv = Conv({channels}, {width}, {arch.stem_kernel},"
    f" {arch.stem_stride})",
    f"self.stem_norm = batch_norm({width})",
  ]
  forward = [f"x = {act}(self.stem_norm(self.stem_conv(x)))"]
  if arch.stem_pool:
    forward.append("x = max_pool(x, 3, 2)")
  for use in outline.until(network, cut):
    fields = dict(use.fields)
    if use.kind == "Residual":
      shape = f"{use.inputs}, stride={use.stride}"
    else:
      shape = f"{use.inputs}, {use.features}, stride={use.stride}"
      shape += f", kernel={fields.pop('kernel')}"
    fields = outline.arguments(fields)
    made.append(
      f"self.{use.name} = {use.kind}({shape}, activation={act}{fields})"
    )
    forward.append(f"x = self.{use.name}(x)")
    width = use.features
  if cut is not None:
    return _features(made, forward, "x", whitened)
  head = block_network.head_features(arch, config.width)
  if head:
    made.append(f"self.head_conv = pointwise({width}, {head})")
    made.append(f"self.head_norm = batch_norm({head})")
    forward.append(f"x = {act}(self.head_norm(self.head_conv(x)))")
    width = head
  forward.append("x = x.mean((2, 3))")
  return _network(config, made, forward, width, whitened)


def _stages(network, channels: int, whitened: bool) -> str:
  config = network.config
  made, forward = [], []
  for line in outline.stage_lines(network, channels):
    value = " + ".join(line.reads)
    if not line.features:
      forward.append(f"{line.name} = max_pool({value}, 2, 2)")
      continue
    made.append(
      f"self.{line.name} = Node({line.inputs}, {line.features},"
      f" {config.kernel_size})"
    )
    forward.append(f"{line.name} = self.{line.name}({value})")
  last = forward[-1].partition(" ")[0]
  forward.append(f"x = {last}.mean((2, 3))")
  return _network(config, made, forward, config.features[-1], whitened)
