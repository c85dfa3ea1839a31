"""The stacked network whose cells are data: the traced twin of `stacked`.

`stacked_plan` says which cell stands where and what it reads. An auxiliary head
and dropout are for static networks only, and children have the CIFAR stem.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import folded, stacked, stacked_plan
from nasnet_jax.models.kernels import memory
from nasnet_jax.models.layers import Numerics, kernel_std
from nasnet_jax.population.any_cell import AnyCell, AnySeparateCell, Output
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.genotype import Genes, Genotype, genes_of

Array = jax.Array


class CellChoices(NamedTuple):
  """Between which cells a child's may be.

  Attributes:
    operations: names; genotypes index them.
    num_blocks: B.
    num_kinds: cells of a genotype: 2, or 1 that serves both strides.
    combiners: names of those that genotypes may have.
    concat_inputs: whether they may concatenate states 0 and 1.
    separate: whether cells pass on each block by itself and read as many
      states (`CellSpace.output`).
  """

  operations: tuple[str, ...]
  num_blocks: int
  num_kinds: int = 2
  combiners: tuple[str, ...] = ("add",)
  concat_inputs: bool = False
  separate: bool = False

  def genotype_shapes(self, num_inputs: int) -> Genotype:
    """Shapes and types of one child's; num_inputs: states that a cell reads."""
    shape = jax.ShapeDtypeStruct
    blocks = (self.num_kinds, self.num_blocks)
    states = self.num_blocks + num_inputs
    return Genotype(
      inputs=shape((*blocks, 2), jnp.int32),
      ops=shape((*blocks, 2), jnp.int32),
      combine=shape(blocks, jnp.int32),
      active=shape(blocks, jnp.bool_),
      concat=shape((self.num_kinds, states), jnp.bool_),
    )


def choices_of(space: CellSpace, concat_inputs: bool = False) -> CellChoices:
  """What a space leaves open."""
  return CellChoices(
    space.operations,
    space.num_blocks,
    len(space.cells),
    space.combiners,
    concat_inputs,
    space.output == "separate",
  )


class AnyStack:
  """A `StackedNetwork`, for any genotype.

  Attributes:
    choices: between which cells a child's may be.
    cells: `stacked_plan.plan`.
    shapes: of each cell, numbers only.
    parts: each cell, for any genes.
  """

  def __init__(
    self,
    config: stacked_plan.NetworkConfig,
    choices: CellChoices,
    image_shape: tuple[int, int, int],
    fold: int = 1,
  ):
    """image_shape: (H, W, C). fold: examples side by side in the channels, see
    `models.folded`; a device's examples must divide by it."""
    if config.aux or config.dropout:
      raise ValueError("a child has no auxiliary head and no dropout")
    if config.stem != "cifar":
      raise ValueError("children have the CIFAR stem: set network.stem to it")
    num = dataclasses.replace(config.numerics, fold=fold)
    self._config = dataclasses.replace(config, numerics=num)
    self.choices, self._image_shape = choices, image_shape
    self._num_separate = choices.num_blocks if choices.separate else 0
    self.cells = stacked_plan.plan(config)
    self.shapes = self._make_shapes()
    self.parts = tuple(map(self._make_part, self.shapes))
    self._stem = stacked.make_stem(self._config)

  def _make_shapes(self):
    make = stacked_plan.cell_shapes
    if self._num_separate:
      make = stacked_plan.separate_shapes
    return make(self._config, self.choices.num_blocks, self._image_shape[:2])

  def _make_part(self, shape) -> AnyCell:
    choices, config = self.choices, self._config
    make = AnySeparateCell if self._num_separate else AnyCell
    return make(
      shape,
      choices.operations,
      choices.num_blocks,
      config.numerics.widened(shape.features // config.features),
      choices.combiners,
      choices.concat_inputs,
    )

  @property
  def genotype_shapes(self) -> Genotype:
    """Shapes and types of one child's genotype."""
    return self.choices.genotype_shapes(self.shapes[0].num_inputs)

  def init(self, rng: Array, genotype: Genotype) -> tuple[dict, dict]:
    """(params, batch_stats) of a child."""
    stem_key, head_key, *keys = jax.random.split(rng, len(self.cells) + 2)
    fold = self._config.numerics.fold
    image = folded.fold(jnp.zeros((fold, *self._image_shape)), fold)
    stem = self._stem.init(stem_key, image, False)
    params, stats = {"stem": stem["params"]}, {"stem": stem["batch_stats"]}
    used = functools.partial(used_states, genotype, self.cells)
    for cell, part, key in zip(self.cells, self.parts, keys, strict=True):
      genes = genes_of(genotype, cell.kind)
      params[cell.name], stats[cell.name] = part.init(
        key, genes, self.read_by(cell, used)
      )
    params["classifier"] = _init_classifier(
      head_key,
      self._config.numerics,
      used(len(self.cells)),
      self.shapes[-1].features,
      self._config.num_classes,
    )
    return params, stats

  def read_by(
    self, cell: stacked_plan.CellPlan, of_output: Callable[[int], Any]
  ) -> tuple:
    """of_output(position) of all outputs that a cell reads; None: no cell."""
    reads = cell.reads(self._num_separate)
    return tuple(None if i is None else of_output(i) for i in reads)

  def apply(
    self,
    params: dict,
    stats: dict,
    genotype: Genotype,
    images: Array,
    drop: dp.DropPath | None,
    train: bool,
  ) -> tuple[Array, dict]:
    """(logits f32[N, classes], batch_stats) of images f32[N, H, W, C]."""
    last, new = self.features(params, stats, genotype, images, drop, train)
    fold = self.parts[-1].numerics.fold
    return _classify(params["classifier"], last, fold), new

  def features(
    self, params, stats, genotype: Genotype, images: Array, drop, train: bool
  ) -> tuple[Output, dict]:
    """(what the classifier reads, batch_stats). Args: as of `apply`."""
    new: dict[str, Any] = {}
    x, update = self._apply_stem(params["stem"], stats["stem"], images, train)
    if train:
      new["stem"] = update
    outputs = [Output(x[None], jnp.ones(1, bool))]
    for cell, part in zip(self.cells, self.parts, strict=True):
      genes = genes_of(genotype, cell.kind)
      masks = _masks(
        drop, genes, self.choices.operations, cell.index, images.shape[0]
      )
      read = self.read_by(cell, outputs.__getitem__)
      output, new[cell.name] = part.apply(
        params[cell.name], stats[cell.name], genes, read, masks, train
      )
      outputs.append(output)
    return outputs[-1], new

  def _apply_stem(self, params, stats, images, train: bool):
    """(the stem's map, its statistics; None in evaluation)."""
    num = self._config.numerics
    found = {"params": params, "batch_stats": stats}
    images = folded.fold(images, num.fold)
    if not train:
      return memory.materialise(self._stem.apply(found, images, False)), None
    images = images.astype(num.dtype)
    x, update = self._stem.apply(found, images, True, mutable="batch_stats")
    return memory.materialise(x), update["batch_stats"]


def used_states(
  genotype: Genotype, cells: tuple[stacked_plan.CellPlan, ...], position: int
):
  """bool[k] of an output: the stem's at 0, then that of each cell."""
  if not position:
    return jnp.ones(1, bool)
  return genes_of(genotype, cells[position - 1].kind).concat


def _init_classifier(
  rng: Array, numerics: Numerics, used: Array, width: int, num_classes: int
) -> dict[str, Array]:
  """{"kernel": [k * width, classes], "bias"}: fan-in counts used states only,
  and the rows of others are 0 and stay so."""
  shape = (used.shape[0] * width, num_classes)
  fan_in = jnp.maximum(used.sum(), 1) * width
  std = kernel_std(numerics, shape, fan_in)
  unit = jax.random.truncated_normal(rng, -2.0, 2.0, shape)
  mask = jnp.repeat(used, width)[:, None]
  return {"kernel": unit * std * mask, "bias": jnp.zeros(num_classes)}


def _classify(head, output: Output, fold: int) -> Array:
  """f32[N, classes]: ReLU, mean over the map, dense layer."""
  states, used = output
  pooled = jax.nn.relu(states).astype(jnp.float32).mean((2, 3))
  pooled = jnp.where(used[:, None, None], pooled, 0.0)
  pooled = folded.unfold(pooled, fold)
  flat = pooled.transpose(1, 0, 2).reshape(pooled.shape[1], -1)
  return flat @ head["kernel"] + head["bias"]


def _masks(
  drop: dp.DropPath | None,
  genes: Genes,
  operations: tuple[str, ...],
  cell: int,
  batch: int,
) -> Array | None:
  """f32[B, 2, N], what each edge's output is multiplied with; None: nothing."""
  if drop is None:
    return None
  shape = genes.ops.shape
  edges = jnp.arange(shape[0] * 2).reshape(shape)
  mask = functools.partial(dp.edge_mask, drop, cell, batch=batch)
  coins = jax.vmap(jax.vmap(mask))(edges)[..., 0, 0, 0]
  identity = jnp.asarray([op == "identity" for op in operations])
  return jnp.where(identity[genes.ops][..., None], 1.0, coins)
