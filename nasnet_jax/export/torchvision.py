"""EfficientNet, MobileNet V2, MnasNet-B1 and ResNet to and from torchvision.

By names alone, as in `export.timm`: neither PyTorch nor torchvision is needed.
All pad evenly, see `torch_blocks`.
"""

import functools
import logging
from typing import Any

import numpy as np

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.export import tables, torch_blocks
from nasnet_jax.jobs.published import Preparation
from nasnet_jax.models import block_network

_log = logging.getLogger(__name__)

_EPSILON = 1e-5  # of PyTorch's batch norm
_TENSORFLOWS = {f"efficientnet_b{i}" for i in (5, 6, 7)}  # those with 1e-3
_NETWORKS = {
  **{f"efficientnet_b{i}": f"efficientnet_b{i}" for i in range(8)},
  "mobilenet_v2": "mobilenet_v2",
  "mnasnet1_0": "mnasnet_b1",
  **{f"resnet{n}": f"resnet_{n}" for n in (18, 34, 50, 101, 152)},
}
_NAMED = (
  zoo.blocks.EFFICIENTNET,
  zoo.blocks.MOBILENET_V2,
  zoo.blocks.MNASNET_B1,
)
_RESNETS = [zoo.blocks.architecture(f"resnet_{n}") for n in (18, 34, 50)]
_RESNETS += [zoo.blocks.architecture(f"resnet_{n}") for n in (101, 152)]


def network(name: str, **changes) -> block_network.BlockNetwork:
  """Our network for weights of torchvision's, with its epsilon.

  A warning says at which sides the padding is the same.

  Args:
    name: torchvision's: "efficientnet_b0" to "efficientnet_b7",
      "mobilenet_v2", "mnasnet1_0", "resnet18" to "resnet152".
    **changes: fields of BlockConfig that differ.

  Raises:
    ValueError: for a network that is not read here.
  """
  if name not in _NETWORKS:
    raise ValueError(
      f"{name!r} is not read from torchvision: give one of"
      f" {', '.join(_NETWORKS)}"
    )
  epsilon = 1e-3 if name in _TENSORFLOWS else _EPSILON
  return torch_blocks.even(
    f"torchvision's {name}", _NETWORKS[name], epsilon, **changes
  )


def name_of(name: str) -> str:
  """What torchvision calls a network.

  Raises:
    ValueError: if it has none.
  """
  known = {ours: theirs for theirs, ours in _NETWORKS.items()}
  if name not in known:
    raise ValueError(f"torchvision has no {name}, only {', '.join(known)}")
  return known[name]


def preparation(transforms: Any) -> Preparation:
  """How torchvision prepares pictures, for `results.save(...,
  **found._asdict())`.

  Args:
    transforms: of weights, such as `ResNet50_Weights.DEFAULT.transforms()`.
  """
  scaling = str(getattr(transforms.interpolation, "value", "bicubic"))
  if scaling != "bicubic":
    _log.warning(
      "torchvision scales pictures by interpolation %r, here it is 'bicubic':"
      " answers may differ",
      scaling,
    )
  (side,), (whole,) = transforms.crop_size, transforms.resize_size
  aug = augment.Augmentation(
    mean=tuple(transforms.mean), std=tuple(transforms.std)
  )
  return Preparation(aug, torch_blocks.odd(side), side / whole)


def from_torchvision(
  state: dict[str, Any],
  network: block_network.BlockNetwork,
  source: str = "the state dict",
) -> dict[str, Any]:
  """Our variables with the arrays of a state dict.

  Args:
    source: where it comes from, for messages.

  Raises:
    ValueError: for a network that torchvision has not.
    CheckpointError: one line, listing names that do not fit.
  """
  rows = table(network)
  found = tables.state_dict(state, _depthwise(rows))
  return tables.read(rows, found, source)


def to_torchvision(
  variables: dict[str, Any], network: block_network.BlockNetwork
) -> dict[str, np.ndarray]:
  """A state dict of arrays, to be put into that of a model:

      state = model.state_dict()
      state.update((name, torch.from_numpy(a)) for name, a in arrays.items())
      model.load_state_dict(state)

  Raises:
    ValueError: for a network that torchvision has not.
    CheckpointError: one line, listing what does not fit.
  """
  rows = table(network)
  arrays, depthwise = (
    tables.write(rows, variables, "the network"),
    _depthwise(rows),
  )
  return {
    name: tables.to_torch(name, array, name in depthwise)
    for name, array in arrays.items()
  }


def _depthwise(rows: list[tables.Entry]) -> set[str]:
  """Names of depthwise kernels, which do not say so."""
  return {row.name for row in rows if "depthwise" in row.path}


def table(network: block_network.BlockNetwork) -> list[tables.Entry]:
  """Every array of a network, with its name in torchvision.

  Raises:
    ValueError: for a network that torchvision has not.
  """
  architecture = getattr(network, "architecture", None)
  if architecture in _NAMED:
    name_of = functools.partial(torch_blocks.torchvision_name, network=network)
  elif architecture in _RESNETS:
    name_of = functools.partial(
      torch_blocks.resnet_name, groups=network.architecture.groups
    )
  else:
    raise ValueError(
      "of torchvision's networks EfficientNet, MobileNet V2, MnasNet-B1 and"
      " ResNet are read: make the network with export.torchvision.network"
    )
  return torch_blocks.table(network, name_of)
