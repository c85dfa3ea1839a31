"""Which network the architectures of a space are built as."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from nasnet_jax.models import (
  block_network,
  chain_network,
  stacked,
  stacked_plan,
  stage_network,
)
from nasnet_jax.spaces import compound_scaling
from nasnet_jax.spaces.blocks import BlockSpace
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.mnasnet import MnasSpace
from nasnet_jax.spaces.module_chain import ChainSpace
from nasnet_jax.spaces.stages import StageSpace


class Family(NamedTuple):
  """A kind of network.

  Attributes:
    config: the dataclass of its sizes, with `num_classes` and `numerics`.
    literals: (space, genotype) -> the architecture as a module can hold it.
    module: (config, literals) -> network that is called with (images, train,
      drop, positions) and gives (logits, auxiliary logits or None, endpoints);
      its `num_layers` is what drop path's ramp counts.
    check_side: (config, (H, W)); ValueError for images too small.
    scaled: (config, factors) -> config of a deeper and wider network.
  """

  config: type
  literals: Callable[[Any, Any], tuple]
  module: Callable[[Any, tuple], nn.Module]
  check_side: Callable[[Any, tuple[int, int]], None]
  scaled: Callable[[Any, compound_scaling.Factors], Any]


_BLOCKS = Family(
  block_network.BlockConfig,
  block_network.as_architecture,
  block_network.BlockNetwork,
  block_network.check_side,
  block_network.scaled,
)
FAMILIES = {
  CellSpace: Family(
    stacked_plan.NetworkConfig,
    stacked.as_cells,
    stacked.StackedNetwork,
    stacked_plan.check_side,
    stacked_plan.scaled,
  ),
  StageSpace: Family(
    stage_network.StageConfig,
    stage_network.as_stages,
    stage_network.StageNetwork,
    stage_network.check_side,
    stage_network.scaled,
  ),
  ChainSpace: Family(
    chain_network.ChainConfig,
    chain_network.as_modules,
    chain_network.ChainNetwork,
    chain_network.check_side,
    chain_network.scaled,
  ),
  BlockSpace: _BLOCKS,
  MnasSpace: _BLOCKS,
}


def of(space) -> Family:
  """The family of a space; ValueError for one that has no networks here."""
  for kind, family in FAMILIES.items():
    if isinstance(space, kind):
      return family
  raise ValueError(
    f"no network is built of space {space.name}: it is searched by its table"
    " only"
  )


def network(space, genotype, config) -> nn.Module:
  """The static network of an architecture."""
  family = of(space)
  return family.module(config, family.literals(space, genotype))
