"""Networks of children, with their architecture left open.

Each family of networks has a traced twin: `any_stack` for cells, `any_blocks`
for rows of blocks, `models.stage_network.AnyStages` for graphs of stages. Here
they become one kind of thing, `Network`, which is all that a population knows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from nasnet_jax.costs import counting
from nasnet_jax.models import (
  block_network,
  chain_network,
  stacked_plan,
  stage_network,
)
from nasnet_jax.population import any_blocks, any_chain, any_stack
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.mnasnet import MnasSpace
from nasnet_jax.spaces.module_chain import ChainSpace
from nasnet_jax.spaces.stages import StageGenotype, StageSpace


class Network(NamedTuple):
  """Functions of a child of any genotype.

  Attributes:
    init: (rng, genotype) -> (params, batch_stats).
    apply: (params, batch_stats, genotype, images f32[N, H, W, C], drop or
      None, train) -> (logits f32[N, classes], batch_stats).
    cells: `stacked_plan.plan`.
    shapes, mixes: `stacked_plan.CellShape` and mixed operation of each cell.
    genotype_shapes: shapes and types of one child's genotype.
    extract: (params, batch_stats, genotype) -> variables of the static network,
      of a network that has no cells; None: see `extract.extract`.
    switches: genotype -> {branches of a switch: int32[n], those taken}, of a
      network that has switches and no cells.
    stack: the `any_stack.AnyStack` of a network of cells.
  """

  init: Callable
  apply: Callable
  cells: tuple
  shapes: tuple
  mixes: tuple
  genotype_shapes: Any
  extract: Callable | None = None
  switches: Callable | None = None
  stack: any_stack.AnyStack | None = None


def make_network(
  config: stacked_plan.NetworkConfig,
  choices: any_stack.CellChoices,
  image_shape: tuple[int, int, int],
  fold: int = 1,
) -> Network:
  """The child network with its cells left open. Args: as `AnyStack`."""
  stack = any_stack.AnyStack(config, choices, image_shape, fold)
  return Network(
    stack.init,
    stack.apply,
    stack.cells,
    stack.shapes,
    tuple(part.mix for part in stack.parts),
    stack.genotype_shapes,
    stack=stack,
  )


def make_stage_network(
  config: stage_network.StageConfig,
  nodes: tuple[int, ...],
  image_shape: tuple[int, int, int],
) -> Network:
  """The child network with the graphs of its stages left open.

  Args:
    config: sizes.
    nodes: of each stage, see `spaces.stages.StageSpace`.
    image_shape: (H, W, C).
  """
  parts = stage_network.AnyStages(config, nodes)
  stage_network.check_side(config, image_shape[:2])

  def init(rng, genotype):
    return parts.init(rng, genotype.edges, image_shape[-1])

  def apply(params, stats, genotype, images, drop, train):
    if drop is not None:
      raise ValueError(stage_network.NO_PATHS)
    return parts.apply(params, stats, genotype.edges, images, train)

  shape = (len(nodes), max(nodes), max(nodes))
  edges = jax.ShapeDtypeStruct(shape, jnp.bool_)

  def extract(params, stats, genotype):
    return parts.extract(params, stats, genotype.edges)

  return Network(init, apply, (), (), (), StageGenotype(edges), extract)


def make_block_network(
  config: block_network.BlockConfig, space, image_shape: tuple[int, int, int]
) -> Network:
  """The child network with the design of its blocks left open.

  Args:
    config: sizes.
    space: a `spaces.mnasnet.MnasSpace`.
    image_shape: (H, W, C).
  """
  parts = any_blocks.AnyBlocks(config, space, image_shape)
  return _in_a_row(parts, any_blocks.NO_PATHS)


def make_chain_network(
  config: chain_network.ChainConfig, space, image_shape: tuple[int, int, int]
) -> Network:
  """The child network with the modules of its layers left open.

  Args:
    config: sizes.
    space: a `spaces.module_chain.ChainSpace`.
    image_shape: (H, W, C).
  """
  parts = any_chain.AnyChain(config, space, image_shape)
  return _in_a_row(parts, chain_network.NO_PATHS)


def _in_a_row(parts, no_paths: str) -> Network:
  """Layers one after another; no_paths: what a dropped path is told."""

  def apply(params, stats, genotype, images, drop, train):
    if drop is not None:
      raise ValueError(no_paths)
    return parts.apply(params, stats, genotype, images, train)

  shapes = parts.genotype_shapes
  return Network(
    parts.init, apply, (), (), (), shapes, parts.extract, parts.switches
  )


def tell_unused_kernels(space, network, mesh):
  """Warns where child.kernels has no use, see `models.layers.Numerics`."""
  if network.numerics.kernels == "xla":
    return
  found = space.operations if isinstance(space, CellSpace) else ()
  platform, why = mesh.devices.flat[0].platform, ""
  if platform != "tpu":
    why = f"a {platform} has XLA's form of all operations"
  elif not any("sep_conv" in name for name in found):
    why = f"space {space.name} has no separable convolutions"
  if why:
    logging.warning(
      "child.kernels=%s is not used: %s", network.numerics.kernels, why
    )


def open_network(
  space, network, image_shape, fold: int = 1
) -> tuple[Network, Callable]:
  """(the network with its architecture left open, (H, W, C) -> counter).

  Args:
    fold: see `population.ChildRecipe`.

  Raises:
    ValueError: for a space whose children are no population, or do not fold.
  """
  if fold > 1 and not isinstance(space, CellSpace):
    raise ValueError(
      f"child.fold is {fold}, but children of space {space.name} have no cells:"
      " set it to 1"
    )
  if isinstance(space, StageSpace):
    build = make_stage_network(network, space.nodes, image_shape)
    return build, functools.partial(counting.make_stage_counter, network, space)
  if isinstance(space, MnasSpace):
    build = make_block_network(network, space, image_shape)
    return build, functools.partial(counting.make_block_counter, network, space)
  if isinstance(space, ChainSpace):
    build = make_chain_network(network, space, image_shape)
    shapes = functools.partial(any_chain.layer_shapes, space)
    return build, functools.partial(
      counting.make_chain_counter, network, space, shapes
    )
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"no population trains children of space {space.name}: take a space of"
      " cells, of stages, a chain, or MnasNet's"
    )
  choices = any_stack.choices_of(space)
  build = make_network(network, choices, image_shape, fold)
  return build, functools.partial(
    counting.make_counter,
    network,
    space.operations,
    space.num_blocks,
    separate=choices.separate,
  )
