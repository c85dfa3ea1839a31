"""Trainable parameters and multiply-accumulates, of modules and genotypes.

MACs are those of convolutions and dense layers only, per image; batch norm,
pooling, additions and activations count 0.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.models import (
  block_network,
  blocks,
  layers,
  stacked,
  stacked_plan,
  stage_network,
)
from nasnet_jax.models.cell import halvings
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.ops import OPERATIONS
from nasnet_jax.spaces.genotype import ADD, CONCAT, Genotype, genes_of

_LAYERS = (
  layers.DepthwiseConv,
  layers.PointwiseConv,
  layers.Conv,
  stacked.Classifier,
  blocks.Dense,
  nn.Conv,  # of users' modules
  nn.Dense,
)


def count_params(variables: Any) -> int:
  """Trainable parameters of {"params": ...} (arrays or shapes)."""
  return sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"]))


def count_module(
  module: nn.Module, shape: tuple[int, ...], also=(), **options
) -> tuple[int, int]:
  """(params, MACs per image) of a module called with `([1, *shape], train)`.

  Args:
    also: classes of convolutions and dense layers that only it has.
    **options: further arguments of its call.
  """
  macs = 0

  def intercept(call, args, kwargs, context):
    nonlocal macs
    y = call(*args, **kwargs)
    known = isinstance(context.module, (*_LAYERS, *also))
    if known and context.method_name == "__call__":
      kernel = context.module.variables["params"]["kernel"]
      macs += math.prod(kernel.shape) * math.prod(y.shape[:-1])
    return y

  image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  init = functools.partial(module.init, train=False, **options)
  with nn.intercept_methods(intercept):
    variables = jax.eval_shape(init, jax.random.key(0), image)
  return count_params({"params": variables.get("params", {})}), macs


@functools.cache
def _count_operation(name, features, stride, shape) -> tuple[int, int]:
  return count_module(OPERATIONS[name](Numerics(), features, stride), shape)


def forget_operations():
  """Of operations whose names mean something else now."""
  _count_operation.cache_clear()


def make_counter(
  config: stacked_plan.NetworkConfig,
  operations: tuple[str, ...],
  num_blocks: int,
  image_shape: tuple[int, int, int],
  separate: bool = False,
) -> Callable[[Genotype], tuple[int, int]]:
  """(genotype) -> (params, MACs) of its child, by tables: microseconds each.

  Args: as `any_stack.CellChoices` and `AnyStack`.
  """
  cells, shapes, tables = _tables(
    config, operations, num_blocks, image_shape, separate
  )
  stem = count_module(stacked.make_stem(config), image_shape)

  def count(genotype: Genotype) -> tuple[int, int]:
    genotype = Genotype(*(np.asarray(leaf) for leaf in genotype))
    genes = [genes_of(genotype, kind) for kind in range(2)]
    used = [1] + [int(genes[c.kind].concat.sum()) for c in cells]
    total = np.array(stem)
    for cell, shape, table in zip(cells, shapes, tables, strict=True):
      reads = [None if i is None else used[i] for i in cell.reads()]
      total += _count_inputs(shape, reads)
      total += _count_cell(genes[cell.kind], shape, table)
    width = used[-1] * shapes[-1].features
    head = width * config.num_classes
    return int(total[0] + head + config.num_classes), int(total[1] + head)

  return count


def edge_costs(
  config: stacked_plan.NetworkConfig,
  operations: tuple[str, ...],
  num_blocks: int,
  image_shape: tuple[int, int, int],
  separate: bool = False,
) -> dict[int, np.ndarray]:
  """What an edge costs in all cells of a kind together.

  Args: as `any_stack.CellChoices` and `AnyStack`.

  Returns:
    {kind: int64[states, operations, 2]}: trainable parameters and MACs of an
    operation that reads a state.
  """
  cells, _, tables = _tables(
    config, operations, num_blocks, image_shape, separate
  )
  total: dict[int, np.ndarray] = {}
  for cell, (raw_places, costs) in zip(cells, tables, strict=True):
    of_cell = costs[(raw_places >= 0).astype(int)]
    total[cell.kind] = total.get(cell.kind, 0) + of_cell
  return total


def _tables(config, operations, num_blocks, image_shape, separate: bool):
  """(cells, their shapes, `_branch_table` of each)."""
  make_shapes = (
    stacked_plan.separate_shapes if separate else stacked_plan.cell_shapes
  )
  shapes = make_shapes(config, num_blocks, image_shape[:2])
  tables = [_branch_table(shape, operations, num_blocks) for shape in shapes]
  return stacked_plan.plan(config), shapes, tables


def make_stage_counter(
  config: stage_network.StageConfig, space, image_shape: tuple[int, int, int]
) -> Callable[[Any], tuple[int, int]]:
  """The same for networks of stages (`spaces.stages.StageSpace`)."""
  parts = stage_network.AnyStages(config, space.nodes)
  side, width = image_shape[:2], image_shape[2]
  costs = {}
  for s, features in enumerate(config.features):
    for name in parts.names(s):
      channels = width if name.endswith("input") else features
      node = stage_network.Node(config.numerics, features, config.kernel_size)
      costs[name] = np.array(count_module(node, (*side, channels)))
    side, width = tuple(-(-length // 2) for length in side), features
  head = np.array(
    [(width + 1) * config.num_classes, width * config.num_classes]
  )

  def count(genotype) -> tuple[int, int]:
    used = parts.used(np.asarray(genotype.edges))
    total = head + sum(costs[name] for name, is_used in used.items() if is_used)
    return int(total[0]), int(total[1])

  return count


def make_block_counter(
  config: block_network.BlockConfig, space, image_shape: tuple[int, int, int]
) -> Callable[[Any], tuple[int, int]]:
  """The same for rows of blocks (`spaces.mnasnet.MnasSpace`): each block is
  counted once per shape."""

  def count(genotype) -> tuple[int, int]:
    arch = block_network.as_architecture(space, genotype)
    stem = block_network.stem_features(arch, config.width)
    side = tuple(-(-length // arch.stem_stride) for length in image_shape[:2])
    window = arch.stem_kernel**2 * image_shape[2]
    total = _conv(window, stem, side)
    if arch.stem_pool:
      side = tuple(-(-length // 2) for length in side)
    width = stem
    for block in block_network.plan(arch, config.width, config.depth):
      layer = block.group.layer
      module = blocks.BLOCKS[layer.kind](
        config.numerics, layer, block.features, block.stride, arch.activation, 0
      )
      total += _count_block(module, (*side, width))
      side = tuple(-(-length // block.stride) for length in side)
      width = block.features
    head = block_network.head_features(arch, config.width)
    if head:
      total += _conv(width, head, side)
      width = head
    classifier = width * config.num_classes
    total += np.array([classifier + config.num_classes, classifier])
    return int(total[0]), int(total[1])

  return count


def make_chain_counter(
  config, space, layer_shapes, image_shape: tuple[int, int, int]
) -> Callable[[Any], tuple[int, int]]:
  """The same for chains of modules (`spaces.module_chain`).

  Args:
    layer_shapes: (image shape) -> (H, W, C) of what enters each layer, and of
      what leaves the last.
  """
  shapes = layer_shapes(image_shape)
  width = shapes[-1][-1] * config.num_classes
  head = np.array([width + config.num_classes, width])

  def count(genotype) -> tuple[int, int]:
    row = space.encode(genotype).tolist()
    total = head + sum(
      _count_block(modules[i], tuple(shape))
      for modules, i, shape in zip(space.modules, row, shapes)
    )
    return int(total[0]), int(total[1])

  return count


@functools.lru_cache(maxsize=4096)
def _count_block(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
  return np.array(count_module(module, shape))


def _branch_table(shape, operations, num_blocks):
  """(raw places, int64[groups * operations, 2] of (params, MACs))."""
  raw_places, groups = stacked_plan.groups_of(shape, num_blocks)
  rows = [
    _count_operation(op, shape.features, stride, state)
    for state, stride in groups
    for op in operations
  ]
  return np.asarray(raw_places), np.asarray(rows).reshape(len(groups), -1, 2)


def _conv(inputs: int, features: int, side) -> np.ndarray:
  """(params, MACs) of a 1x1 convolution with batch norm."""
  kernel = inputs * features
  return np.array([kernel + 2 * features, kernel * math.prod(side)])


def _count_inputs(shape, reads) -> np.ndarray:
  """What prepares a cell's inputs.

  Args:
    reads: concatenated states of h_i and h_{i-1}; None: there is none.
  """
  features = shape.features
  if isinstance(shape, stacked_plan.SeparateShape):
    return _count_separate_inputs(shape)
  current, previous = reads
  total = _conv(current * shape.current[1], features, shape.side)
  if previous is not None:
    _, width, side = shape.previous
    if side != shape.side or previous * width != features:
      total += _conv(previous * width, features, shape.side)
  return total


def _count_separate_inputs(shape: stacked_plan.SeparateShape) -> np.ndarray:
  features = shape.features
  (width, side), *others = shape.inputs
  total = _conv(width, features, side)
  for width, side in others:
    count = halvings(side, shape.side)
    for _ in range(count):
      side = tuple(-(-s // 2) for s in side)
      total += _conv(width, features, side)
      width = features
    if not count and width != features:
      total += _conv(width, features, side)
  return total


def _count_cell(genes, shape, table) -> np.ndarray:
  raw_places, costs = table
  features = shape.features
  total = np.zeros(2, int)
  raw = raw_places[genes.inputs]
  edges = costs[(raw >= 0).astype(int), genes.ops][genes.active]
  total += edges.sum((0, 1))
  combine = genes.combine[genes.active]
  concats = int((combine == CONCAT).sum())
  total += concats * _conv(2 * features, features, shape.out_side)
  norms = int(((combine != ADD) & (combine != CONCAT)).sum())
  total += norms * np.array([2 * features, 0])
  for s in (0, 1):
    if genes.concat[s] and raw_places[s] >= 0:
      width = features if shape.stride > 1 else shape.current[1]
      total += _conv(width, features, shape.out_side)
  return total
