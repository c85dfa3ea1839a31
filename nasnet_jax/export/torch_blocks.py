"""Networks of blocks as timm and torchvision have them: names of arrays, and
padding.

Both pad evenly, where TensorFlow and ours pad more at the far side if the side
is even: the logits are the same where every stride 2 meets an odd side, such as
225, one more than a multiple of 32.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from nasnet_jax import zoo
from nasnet_jax.export import tables
from nasnet_jax.models import block_network
from nasnet_jax.spaces.blocks import Group

_log = logging.getLogger(__name__)

Path = tuple[str, ...]
_STRIDES = 32  # of all these networks, from the image to the last map


def even(
  theirs: str, ours: str, epsilon: float, **changes: Any
) -> block_network.BlockNetwork:
  """Our network for weights of one that pads evenly, which a warning says.

  Args:
    theirs: its name with its library's, for the warning.
    ours: key of `zoo.blocks.NETWORKS`.
    epsilon: of its batch norms.
    **changes: fields of BlockConfig that differ.
  """
  side = zoo.blocks.network(ours).side
  _log.warning(
    "%s pads evenly and ours as TensorFlow: the logits are the same where every"
    " stride 2 meets an odd side, such as %d in place of %d, which is the"
    " side= for results.save; create_model takes it by itself",
    theirs,
    odd(side),
    side,
  )
  numerics = dataclasses.replace(block_network.EFFICIENTNET, bn_epsilon=epsilon)
  return tables.published_blocks(ours, **{"numerics": numerics, **changes})


def odd(side: int) -> int:
  """The nearest side, not below, that stays odd when it is halved and
  halved."""
  return -(-(side - 1) // _STRIDES) * _STRIDES + 1


def table(
  network: block_network.BlockNetwork, name_of: Callable[[Path], str]
) -> list[tables.Entry]:
  """Every array. name_of: its name in PyTorch, from its path behind the
  collection."""
  return [
    tables.Entry(path, shape, name_of(path[1:]), tables.four_axes(path, shape))
    for path, shape in tables.shapes_of(network).items()
  ]


def _place(module: str) -> tuple[int, int]:
  """(group, number within it) of a block's module."""
  _, group, _, number = module.split("_")
  return int(group), int(number)


def _layer(
  inner: list[str], layers: dict[str, str], squeeze: dict[str, str]
) -> str:
  """A layer of a block. layers, squeeze: their names by ours."""
  if inner[0] == "squeeze_excite":
    return squeeze[inner[1]]
  return layers[inner[0]]


# --- timm: models/efficientnet.py, _efficientnet_blocks.py ------------------

_TIMM_ENDS = {
  "stem_conv": "conv_stem",
  "stem_norm": "bn1",
  "head_conv": "conv_head",
  "head_norm": "bn2",
  "classifier": "classifier",
}
_TIMM_EXPANDING = {  # InvertedResidual
  "expand": "conv_pw",
  "norm_0": "bn1",
  "depthwise": "conv_dw",
  "norm_1": "bn2",
  "project": "conv_pwl",
  "norm_2": "bn3",
}
_TIMM_PLAIN = {  # DepthwiseSeparableConv, where nothing expands
  "depthwise": "conv_dw",
  "norm_1": "bn1",
  "project": "conv_pw",
  "norm_2": "bn2",
}
_TIMM_SEPARABLE = {  # the same of MobileNet V1
  "depthwise": "conv_dw",
  "norm_0": "bn1",
  "pointwise": "conv_pw",
  "norm_1": "bn2",
}
_TIMM_SQUEEZE = {"reduce": "se.conv_reduce", "expand": "se.conv_expand"}


def timm_name(path: Path, groups: tuple[Group, ...]) -> str:
  """timm's name of an array of a network of mbconv or separable blocks."""
  module, *inner, leaf = path
  weight = tables.TORCH_LEAVES[leaf]
  if module in _TIMM_ENDS:
    return f"{_TIMM_ENDS[module]}.{weight}"
  group, number = _place(module)
  layers = _TIMM_SEPARABLE
  if groups[group].kind == "mbconv":
    expands = groups[group].expansion > 1
    layers = _TIMM_EXPANDING if expands else _TIMM_PLAIN
  layer = _layer(inner, layers, _TIMM_SQUEEZE)
  return f"blocks.{group}.{number}.{layer}.{weight}"


# --- both: torchvision/models/resnet.py, timm/models/resnet.py --------------

_RESNET_ENDS = {"stem_conv": "conv1", "stem_norm": "bn1", "classifier": "fc"}
_RESNET_SQUEEZE = {"reduce": "se.fc1", "expand": "se.fc2"}  # timm's


def resnet_name(path: Path, groups: tuple[Group, ...]) -> str:
  """The name of an array of a ResNet, with timm's of squeeze-excite."""
  module, *inner, leaf = path
  weight = tables.TORCH_LEAVES[leaf]
  if module in _RESNET_ENDS:
    return f"{_RESNET_ENDS[module]}.{weight}"
  group, number = _place(module)
  convolutions = 3 if groups[group].kind == "bottleneck" else 2
  layers = {"shortcut": "downsample.0", f"norm_{convolutions}": "downsample.1"}
  for i in range(convolutions):
    layers |= {f"conv_{i}": f"conv{i + 1}", f"norm_{i}": f"bn{i + 1}"}
  layer = _layer(inner, layers, _RESNET_SQUEEZE)
  return f"layer{group + 1}.{number}.{layer}.{weight}"


# --- torchvision: models/mobilenetv2.py, mnasnet.py, efficientnet.py --------

_ORDER = ("expand", "depthwise", "squeeze_excite", "project")
_NORMS = {"norm_0": "expand", "norm_1": "depthwise", "norm_2": "project"}
_VISION_SQUEEZE = {"reduce": "fc1", "expand": "fc2"}


def torchvision_name(path: Path, network: block_network.BlockNetwork) -> str:
  """torchvision's name of an array of MobileNet V2, MnasNet-B1 or an
  EfficientNet."""
  module, *inner, leaf = path
  weight = tables.TORCH_LEAVES[leaf]
  if module == "classifier":
    return f"classifier.1.{weight}"
  mnasnet = network.architecture == zoo.blocks.MNASNET_B1
  find = _mnasnet if mnasnet else _features
  return f"{find(module, inner, network)}.{weight}"


def _step(inner: list[str], group: Group) -> tuple[int, bool]:
  """(which of a block's steps, whether it is the step's norm)."""
  steps = [
    step
    for step in _ORDER
    if (step != "expand" or group.expansion > 1)
    and (step != "squeeze_excite" or group.squeeze)
  ]
  return steps.index(_NORMS.get(inner[0], inner[0])), inner[0] in _NORMS


def _features(module: str, inner: list[str], network) -> str:
  """Where the convolutions and norms are pairs in a row of `features`."""
  config, groups = network.config, network.architecture.groups
  planned = block_network.plan(network.architecture, config.width, config.depth)
  grouped = network.architecture == zoo.blocks.EFFICIENTNET
  part, _, what = module.partition("_")
  if part in ("stem", "head"):
    last = 1 + len(groups if grouped else planned)
    number = 0 if part == "stem" else last
    return f"features.{number}.{int(what == 'norm')}"
  group, number = _place(module)
  step, norm = _step(inner, groups[group])
  if not grouped:
    index = {block.name: block.index for block in planned}[module]
    prefix = f"features.{index + 1}.conv"
    if inner[0] in ("project", "norm_2"):  # no pair there
      return f"{prefix}.{step + norm}"
  else:
    prefix = f"features.{group + 1}.{number}.block"
  if inner[0] == "squeeze_excite":
    return f"{prefix}.{step}.{_VISION_SQUEEZE[inner[1]]}"
  return f"{prefix}.{step}.{int(norm)}"


_MNASNET_FLAT = {  # what stands before and behind the groups that expand
  ("stem_conv",): 0,
  ("stem_norm",): 1,
  ("group_0_block_0", "depthwise"): 3,
  ("group_0_block_0", "norm_1"): 4,
  ("group_0_block_0", "project"): 6,
  ("group_0_block_0", "norm_2"): 7,
  ("head_conv",): 14,
  ("head_norm",): 15,
}


def _mnasnet(module: str, inner: list[str], network) -> str:
  """Where all layers are in one row, activations too."""
  flat = _MNASNET_FLAT.get((module, *inner))
  if flat is not None:
    return f"layers.{flat}"
  group, number = _place(module)
  step, norm = _step(inner, network.architecture.groups[group])
  return f"layers.{7 + group}.{number}.layers.{3 * step + norm}"
