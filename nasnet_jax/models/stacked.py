"""The stacked network: stem, cells, heads (Zoph et al. 2018, figure 2).

`plan` says which cell stands where and what it reads; the population of
`nasnet_jax.population` follows the same plan.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models.cell import Cell
from nasnet_jax.models.layers import (
  BatchNorm,
  Conv,
  Numerics,
  PointwiseConv,
  kernel_std,
)

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Sizes of a stacked network. Defaults: the CIFAR-10 search child.

  Attributes:
    num_cells: normal cells per stack, N (2 in the search, 6 in NASNet-A).
    features: F, channels of the states of the first stack's cells.
    num_classes: outputs.
    num_reductions: 2 on CIFAR; a reduction cell stands before each further
      stack and doubles F.
    stem_multiplier: the stem has this times F channels (3: slim, CIFAR).
    aux: whether there is an auxiliary head at two thirds of the depth.
    dropout: probability of dropping a feature before the classifier.
  """

  num_cells: int = 2
  features: int = 32
  num_classes: int = 10
  num_reductions: int = 2
  stem_multiplier: int = 3
  aux: bool = False
  dropout: float = 0.0
  numerics: Numerics = dataclasses.field(default_factory=Numerics)


class CellPlan(NamedTuple):
  """One cell of the network.

  Attributes:
    name: endpoint and module name.
    kind: 0 normal, 1 reduction.
    features: F of its states.
    stride: 1 or 2.
    current, previous: positions in the list of outputs [stem, cell 0, ...]
      that are h_i and h_{i-1}; previous is None in the first cell.
    index: of the cell in the network, for drop path.
  """

  name: str
  kind: int
  features: int
  stride: int
  current: int
  previous: int | None
  index: int


def plan(config: NetworkConfig) -> tuple[CellPlan, ...]:
  """The cells from stem to head: N normal, then (reduction, N normal)s.

  A normal cell after a reduction reads what the reduction read (slim's
  skip_reduction_layer_input = 0).
  """
  cells: list[CellPlan] = []
  features = config.features
  for stack in range(config.num_reductions + 1):
    kinds = [0] * config.num_cells
    if stack:
      features *= 2
      kinds = [1, *kinds]
    for kind in kinds:
      index = len(cells)
      name = f"reduction_{stack - 1}" if kind else f"cell_{index - stack}"
      previous = index - 1 if index else None
      cells.append(
        CellPlan(name, kind, features, 1 + kind, index, previous, index)
      )
  return tuple(cells)


class CellShape(NamedTuple):
  """What is static about a cell.

  Attributes:
    features: F.
    stride: 1, 2.
    side: (h, w) of its inputs.
    current: (slots, F) of h_i.
    previous: (slots, F, side) of h_{i-1}; None in the first cell.
  """

  features: int
  stride: int
  side: tuple[int, int]
  current: tuple[int, int]
  previous: tuple[int, int, tuple[int, int]] | None

  @property
  def out_side(self) -> tuple[int, int]:
    return tuple(-(-s // self.stride) for s in self.side)


def cell_shapes(
  config: NetworkConfig, num_blocks: int, side: tuple[int, int]
) -> tuple[CellShape, ...]:
  """The shape of each cell of `plan`, if outputs hold all B + 2 states.

  Raises:
    ValueError: for images too small to be halved so often.
  """
  cells = plan(config)
  outputs = [(1, config.stem_multiplier * config.features, tuple(side))]
  shapes = []
  for cell in cells:
    slots, width, side = outputs[cell.current]
    if cell.stride > 1 and min(side) < 2:
      raise ValueError(
        f"images are too small for {config.num_reductions} reductions: lower"
        " network.num_reductions or take larger images"
      )
    previous = None if cell.previous is None else outputs[cell.previous]
    shape = CellShape(
      cell.features, cell.stride, side, (slots, width), previous
    )
    shapes.append(shape)
    outputs.append((num_blocks + 2, cell.features, shape.out_side))
  return tuple(shapes)


def aux_position(config: NetworkConfig) -> int | None:
  """Index in `plan` of the cell that feeds the auxiliary head: the last one
  before the last reduction."""
  cells = plan(config)
  reductions = [c.index for c in cells if c.kind]
  if not reductions or not reductions[-1]:
    return None
  return reductions[-1] - 1


class Stem(nn.Module):
  """3x3 convolution and batch norm."""

  numerics: Numerics
  features: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = Conv(self.numerics, self.features, (3, 3), name="conv")(x)
    return BatchNorm(self.numerics, name="norm")(x, train)


class Classifier(nn.Module):
  """Dense layer with bias, in float32."""

  numerics: Numerics
  num_classes: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1], self.num_classes)
    std = kernel_std(self.numerics, shape)
    kernel = self.param("kernel", nn.initializers.truncated_normal(std), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
    return x.astype(jnp.float32) @ kernel + bias


class AuxiliaryHead(nn.Module):
  """A second classifier from the middle of the network, for training only.

  slim, nasnet.py, _build_aux_head: ReLU, 5x5 average pool of stride 3, 1x1 to
  128, full-window convolution to 768, classifier. The pool's window shrinks
  with maps under 5 pixels.
  """

  numerics: Numerics
  num_classes: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    window = tuple(min(5, side) for side in x.shape[1:3])
    x = nn.avg_pool(nn.relu(x), window_shape=window, strides=(3, 3))
    x = PointwiseConv(num, 128, name="conv_0")(x)
    x = nn.relu(BatchNorm(num, name="norm_0")(x, train))
    # A convolution over the whole map is a product with the flat map.
    x = x.reshape(x.shape[0], 1, 1, -1)
    x = PointwiseConv(num, 768, name="conv_1")(x)
    x = nn.relu(BatchNorm(num, name="norm_1")(x, train))
    return Classifier(num, self.num_classes, name="classifier")(x[:, 0, 0])


class StackedNetwork(nn.Module):
  """The network of a genotype.

  Attributes:
    config: sizes.
    cells: literals, (normal, reduction), or one that serves both strides.
  """

  config: NetworkConfig
  cells: tuple

  @nn.compact
  def __call__(
    self, images: Array, train: bool = False, drop=None
  ) -> tuple[Array, Array | None, dict[str, Any]]:
    """images: [N, H, W, C], whitened.

    Args:
      drop: `DropPath` of this step, or None.

    Returns:
      logits f32[N, classes]; auxiliary logits or None (only when training);
      endpoints, every cell's output by name.
    """
    config, num = self.config, self.config.numerics
    x = images.astype(num.dtype)
    stem = Stem(num, config.stem_multiplier * config.features, name="stem")
    outputs = [stem(x, train)]
    endpoints = {"stem": outputs[0]}
    auxiliary = None
    for cell in plan(config):
      module = Cell(
        num,
        self.cells[cell.kind % len(self.cells)],
        cell.features,
        cell.stride,
        cell.index,
        name=cell.name,
      )
      previous = None if cell.previous is None else outputs[cell.previous]
      outputs.append(module(outputs[cell.current], previous, train, drop))
      endpoints[cell.name] = outputs[-1]
      if config.aux and train and cell.index == aux_position(config):
        head = AuxiliaryHead(num, config.num_classes, name="aux_head")
        auxiliary = head(outputs[-1], train)
    pooled = nn.relu(outputs[-1]).astype(jnp.float32).mean((1, 2))
    endpoints["pooled"] = pooled
    if config.dropout:
      pooled = nn.Dropout(config.dropout, deterministic=not train)(pooled)
    classifier = Classifier(num, config.num_classes, name="classifier")
    return classifier(pooled), auxiliary, endpoints


def as_cells(space, genotype) -> tuple:
  """A genotype as the literals that a module can hold."""
  data = space.to_json(genotype)["cells"]
  return tuple(
    (
      tuple(
        (*b["inputs"], *b["operations"], b["combine"]) for b in cell["blocks"]
      ),
      tuple(cell["concat"]),
    )
    for cell in (data[name] for name in space.cells)
  )
