"""NASNet-A, PNASNet-5, EfficientNet, EfficientNet-Lite, MnasNet, MobileNet V1
and V2, ResNet and SE-ResNet to and from timm.

By names alone, so that neither PyTorch nor timm is needed here: a state dict is
{name: NumPy array}, such as `{k: v.numpy() for k, v in
model.state_dict().items()}`, or what `torch_file` reads of a file.

timm's `nasnetalarge` and `pnasnet5large` are slim's with two differences. The
average pools of stride 2 in `nasnetalarge` count the zeros that pad them, which
`network` here does too. `pnasnet5large` pads convolutions and pools evenly,
where slim pads more at the far side if the side is even: both are the same only
where every stride 2 meets an odd side, such as 323 (and not 331, the usual
side).

`tf_efficientnet_*` pads as ours does, and has TensorFlow's epsilon. Networks of
blocks without `tf_` have PyTorch's epsilon, which `network` takes over, and pad
evenly, see `torch_blocks`.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.export import tables, torch_blocks
from nasnet_jax.jobs.published import Preparation
from nasnet_jax.models import stacked
from nasnet_jax.models.layers import IMAGENET
from nasnet_jax.spaces.blocks import Architecture

_log = logging.getLogger(__name__)

_CELLS = {"nasnetalarge": "nasnet_a_large", "pnasnet5large": "pnasnet_5_large"}
_TF = "tf_"
_EPSILON = 1e-5  # of PyTorch's batch norm
# What `preparation` reads.
PREPARED = ("input_size", "mean", "std", "crop_pct")
# Networks of blocks whose names there are not ours.
_BLOCKS = {
  "mobilenetv1_100": "mobilenet_v1",
  "mobilenetv2_100": "mobilenet_v2",
  "mnasnet_100": "mnasnet_b1",
  "semnasnet_100": "mnasnet_a1",
  **{f"resnet{n}": f"resnet_{n}" for n in (18, 34, 50, 101, 152, 200)},
  **{f"seresnet{n}": f"se_resnet_{n}" for n in (50, 101, 152)},
}


def network(name: str, **changes) -> nn.Module:
  """Our network for weights of timm's, with its padding and epsilon.

  A warning says where ours cannot pad as timm's.

  Args:
    name: timm's, with or without a tag such as ".in1k": "nasnetalarge",
      "pnasnet5large", "tf_efficientnet_b0", "tf_efficientnet_lite0",
      "efficientnet_b0", "mobilenetv2_100", "resnet50" and so on; the first two
      by our names, too.
    **changes: fields of NetworkConfig, or of BlockConfig, that differ.

  Raises:
    ValueError: for a network that is not read here.
  """
  name = name.partition(".")[0]
  if (blocks := _of_blocks(name)) is not None:
    if name.startswith(_TF):
      return tables.published_blocks(blocks, **changes)
    return torch_blocks.even(f"timm's {name}", blocks, _EPSILON, **changes)
  ours = _CELLS.get(name, name)
  if ours not in _CELLS.values():
    raise ValueError(
      f"{name!r} is not read from timm: give {', '.join(_CELLS)},"
      " tf_efficientnet_b0 to b8, tf_efficientnet_lite0 to lite4, an"
      " efficientnet_ without the tf_, mnasnet_small, or one of"
      f" {', '.join(_BLOCKS)}"
    )
  padding = "same"
  if zoo.cells.network(ours).cells == "nasnet_a":
    padding = "zeros_avg"
  numerics = dataclasses.replace(IMAGENET, pool_padding=padding)
  return tables.published(ours, **{"numerics": numerics, **changes})


def pads_evenly(name: str) -> bool:
  """Whether it is one of timm's networks of blocks that pad otherwise than
  TensorFlow."""
  return _of_blocks(name) is not None and not name.startswith(_TF)


def _of_blocks(name: str) -> str | None:
  """Our name of a network of blocks that timm has, too."""
  same = name.removeprefix(_TF).startswith("efficientnet_")
  if same or name == "mnasnet_small":
    name = name.removeprefix(_TF)
    return name if name in zoo.blocks.NETWORKS else None
  return _BLOCKS.get(name)


def name_of(name: str, file: str = "") -> str:
  """timm's name of one of our networks: of EfficientNets that with `tf_`,
  unless a file's name is that of the other.

  Raises:
    ValueError: for a network that is not read here.
  """
  for theirs, ours in {**_CELLS, **_BLOCKS}.items():
    if name == ours:
      return theirs
  if name == "mnasnet_small":  # the same there
    return name
  if not name.startswith("efficientnet_"):
    known = ", ".join(
      (*_CELLS.values(), *_BLOCKS.values(), "efficientnet_b0 and its like")
    )
    raise ValueError(f"timm's weights of {name} are not read, only {known}")
  if name in file and _TF + name not in file:
    return name
  if file and name not in file:
    _log.warning(
      "%s does not say whether its weights are of timm's %s or %s: they are"
      " read as the former's, which pads as TensorFlow",
      file,
      _TF + name,
      name,
    )
  return _TF + name


def preparation(config: Mapping[str, Any]) -> Preparation:
  """How timm prepares pictures, for `results.save(..., **found._asdict())`.

  Args:
    config: a model's `pretrained_cfg`; weights of one network differ in it,
      such as those of AdvProp.
  """
  for field, known in (("interpolation", "bicubic"), ("crop_mode", "center")):
    if config.get(field, known) != known:
      _log.warning(
        "timm prepares pictures with %s %r, here it is %r: answers may differ",
        field,
        config[field],
        known,
      )
  side = config["input_size"][-1]
  name = config.get("architecture", "")
  if pads_evenly(name):
    side = torch_blocks.odd(side)
  aug = augment.Augmentation(
    mean=tuple(config["mean"]), std=tuple(config["std"])
  )
  return Preparation(aug, side, config["crop_pct"])


def from_timm(
  state: dict[str, Any], network: nn.Module, source: str = "the state dict"
) -> dict[str, Any]:
  """Our variables with the arrays of a state dict.

  Args:
    source: where it comes from, for messages.

  Raises:
    ValueError: for a network that timm has not.
    CheckpointError: one line, listing names that do not fit.
  """
  found = tables.state_dict(state)
  return tables.read(table(network), found, source)


def to_timm(
  variables: dict[str, Any], network: nn.Module
) -> dict[str, np.ndarray]:
  """A state dict of arrays, for `model.load_state_dict(strict=True)`.

  Raises:
    ValueError: for a network that timm has not.
    CheckpointError: one line, listing what does not fit.
  """
  arrays = tables.write(table(network), variables, "the network")
  return {name: tables.to_torch(name, array) for name, array in arrays.items()}


def table(network: nn.Module) -> list[tables.Entry]:
  """Every array of a network for ImageNet, with its name in timm.

  Raises:
    ValueError: for another network.
  """
  architecture = getattr(network, "architecture", None)
  if architecture in _architectures():
    resnet = architecture.stem_pool
    name_of = torch_blocks.resnet_name if resnet else torch_blocks.timm_name
    return torch_blocks.table(
      network, functools.partial(name_of, groups=architecture.groups)
    )
  config = network.config
  if (
    not isinstance(network, stacked.StackedNetwork)
    or config.stem != "imagenet"
    or config.aux
  ):
    raise ValueError(
      "of timm's networks NASNet-A and PNASNet-5 for ImageNet, without an"
      " auxiliary head, EfficientNet, MnasNet, MobileNet V1 and V2, ResNet and"
      " SE-ResNet are read: make the network with export.timm.network"
    )
  pnas = config.layout == "pnas"
  return torch_blocks.table(network, functools.partial(_name, pnas=pnas))


def _architectures() -> list[Architecture]:
  """Of all published networks of blocks, each of which timm has."""
  names = {entry.architecture for entry in zoo.blocks.NETWORKS.values()}
  return [zoo.blocks.architecture(name) for name in names]


def _name(path: tuple[str, ...], pnas: bool) -> str:
  """timm's name of one of our arrays (timm/models/nasnet.py, pnasnet.py)."""
  module, *inner, leaf = path
  weight = tables.TORCH_LEAVES[leaf]
  if module == "classifier":
    return f"last_linear.{weight}"
  if module == "stem":
    part = {"conv": "conv", "norm": "bn"}[inner[0]]
    return f"{'conv_0' if pnas else 'conv0'}.{part}.{weight}"
  cell = module.replace("stem_cell", "cell_stem").replace(
    "reduction", "reduction_cell"
  )
  return f"{cell}.{_layer(inner, pnas)}.{weight}"


def _layer(inner: list[str], pnas: bool) -> str:
  """A layer of a cell."""
  plain = {"conv": "conv", "norm": "bn"}
  if inner[0] == "project":
    return f"conv_1x1.{plain[inner[1]]}"
  if inner[:2] == ["fit_previous", "project"]:
    return f"conv_prev_1x1.{plain[inner[2]]}"
  if inner[0] == "fit_previous":
    part = {
      "conv_0": "path_1.conv",
      "conv_1": "path_2.conv",
      "norm": "final_path_bn",
    }[inner[2]]
    return f"conv_prev_1x1.{part}" if pnas else part
  _, block, side = inner[0].split("_")
  branch = f"comb_iter_{block}_{('left', 'right')[int(side)]}"
  if inner[1] in plain:
    return f"{branch}.{plain[inner[1]]}"
  what, _, number = inner[1].rpartition("_")
  number = int(number) + 1
  if what == "norm":
    return f"{branch}.bn_sep_{number}"
  return f"{branch}.separable_{number}.{what}_conv2d"
