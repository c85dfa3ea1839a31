"""The maps of a network by their stride, for what stands on a backbone."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from nasnet_jax.models import (
  block_network,
  chain_network,
  stacked,
  stacked_plan,
)

COUNT = 4  # strides 4, 8, 16 and 32 of a network for ImageNet


class FeatureMap(NamedTuple):
  """An endpoint of a network.

  Attributes:
    name: of the endpoint.
    stride: pixels of the image between its features.
    channels: of the map.
  """

  name: str
  stride: int
  channels: int


def of(network: nn.Module) -> tuple[FeatureMap, ...]:
  """The last map of each of a network's last four strides, fine to coarse.

  Strides 4, 8, 16 and 32 of all networks for ImageNet; those for small images
  have fewer, or smaller ones.
  """
  last = {one.stride: one for one in every(network)}
  return tuple(last.values())[-COUNT:]


def read(
  found: tuple[FeatureMap, ...], endpoints: dict[str, Any]
) -> list[jax.Array]:
  """Their arrays [N, h, w, C]; of a cell with separate outputs side by side."""
  return [stacked.whole(endpoints[one.name]) for one in found]


def every(network: nn.Module) -> tuple[FeatureMap, ...]:
  """The stem and all cells, blocks or stages, in the order of the network.

  Raises:
    ValueError: one line, for a chain of users' modules, which are not asked.
  """
  if isinstance(network, stacked.StackedNetwork):
    return _of_cells(network)
  if isinstance(network, block_network.BlockNetwork):
    return _of_blocks(network)
  if isinstance(network, chain_network.ChainNetwork):
    raise ValueError(
      "a chain of modules does not tell its strides: its maps are the endpoints"
      " of network.apply(variables, images)[2]"
    )
  return tuple(
    FeatureMap(f"stage_{s}", 2**s, features)
    for s, features in enumerate(network.config.features)
  )


def _of_cells(network: stacked.StackedNetwork) -> tuple[FeatureMap, ...]:
  config = network.config
  stride = 2 if config.stem == "imagenet" else 1
  found = [FeatureMap("stem", stride, stacked_plan.stem_features(config))]
  for cell in stacked_plan.plan(config):
    stride *= cell.stride
    _, outputs, *_ = network.cells[cell.kind % len(network.cells)]
    channels = len(outputs) * cell.features
    found.append(FeatureMap(cell.name, stride, channels))
  return tuple(found)


def _of_blocks(network: block_network.BlockNetwork) -> tuple[FeatureMap, ...]:
  arch, config = network.architecture, network.config
  stride = arch.stem_stride * (2 if arch.stem_pool else 1)
  features = block_network.stem_features(arch, config.width)
  found = [FeatureMap("stem", stride, features)]
  for block in block_network.plan(arch, config.width, config.depth):
    stride *= block.stride
    found.append(FeatureMap(block.name, stride, block.features))
  return tuple(found)
