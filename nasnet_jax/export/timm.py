"""NASNet-A and PNASNet-5 to and from timm's `nasnetalarge`, `pnasnet5large`.

By names alone, so that neither PyTorch nor timm is needed here: a state dict is
{name: NumPy array}, such as `{k: v.numpy() for k, v in
model.state_dict().items()}`.

timm's networks are those of slim with two differences. Its average pools of
stride 2 in `nasnetalarge` count the zeros that pad them, which `network` here
does too. Its `pnasnet5large` pads convolutions and pools evenly, where slim
pads more at the far side if the side is even: both are the same only where
every stride 2 meets an odd side, such as 323 (and not 331, the usual side).
"""

import dataclasses
from typing import Any

import numpy as np

from nasnet_jax import zoo
from nasnet_jax.export import tables
from nasnet_jax.models import stacked
from nasnet_jax.models.layers import IMAGENET


def network(name: str, **changes) -> stacked.StackedNetwork:
  """Our network for weights of timm's.

  Args:
    name: "nasnet_a_large" (nasnetalarge) or "pnasnet_5_large" (pnasnet5large).
    **changes: fields of NetworkConfig that differ.
  """
  padding = (
    "zeros_avg" if zoo.cells.network(name).cells == "nasnet_a" else "same"
  )
  numerics = dataclasses.replace(IMAGENET, pool_padding=padding)
  return tables.published(name, **{"numerics": numerics, **changes})


def from_timm(
  state: dict[str, Any], network: stacked.StackedNetwork
) -> dict[str, Any]:
  """Our variables with the arrays of a state dict.

  Raises:
    CheckpointError: one line, listing names that do not fit.
  """
  found = {
    name: tables.from_torch(name, np.asarray(array))
    for name, array in state.items()
    if not name.endswith(tables.TORCH_COUNTER)
  }
  return tables.read(table(network), found, "the state dict")


def to_timm(
  variables: dict[str, Any], network: stacked.StackedNetwork
) -> dict[str, np.ndarray]:
  """A state dict of arrays, for `model.load_state_dict(strict=True)`.

  Raises:
    CheckpointError: one line, listing what does not fit.
  """
  arrays = tables.write(table(network), variables, "the network")
  return {name: tables.to_torch(name, array) for name, array in arrays.items()}


def table(network: stacked.StackedNetwork) -> list[tables.Entry]:
  """Every array of a network for ImageNet, with its name in timm.

  Raises:
    ValueError: for another network.
  """
  config = network.config
  if config.stem != "imagenet" or config.aux:
    raise ValueError(
      "timm has NASNet-A and PNASNet-5 for ImageNet only, without an auxiliary"
      " head"
    )
  pnas = config.layout == "pnas"
  return [
    tables.Entry(
      path, shape, _name(path[1:], pnas), tables.four_axes(path, shape)
    )
    for path, shape in tables.shapes_of(network).items()
  ]


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
