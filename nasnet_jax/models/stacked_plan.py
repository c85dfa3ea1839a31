"""What stands where in a stacked network, and how large: numbers only.

`plan` says which cell stands where and what it reads, `cell_shapes` and
`separate_shapes` which maps it sees. The static network (`models.stacked`), the
one whose cells are data (`population.any_stack`) and the counts of costs all
follow them.

Cells that pass on their outputs separately (NASNet-B) read output j of the cell
j + 1 layers back; the stem stands in for all layers before the first cell, each
of its outputs is the whole of it. The paper's text leaves it open.
"""

import dataclasses
from typing import NamedTuple

from nasnet_jax.models.layers import Numerics
from nasnet_jax.spaces import compound_scaling


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Sizes of a stacked network. Defaults: the CIFAR-10 search child.

  Attributes:
    num_cells: cells per stack, N (2 in the search, 6 in NASNet-A): the normal
      ones in layout "nasnet", all of them in layout "pnas".
    features: F, channels of the states of the first stack's cells.
    num_classes: outputs.
    num_reductions: 2 in all published networks; a cell of stride 2 stands
      before each further stack and doubles F.
    stem_multiplier: the CIFAR stem has this times F channels (3: slim).
    aux: whether there is an auxiliary head at two thirds of the depth.
    dropout: probability of dropping a feature before the classifier.
    layout: "nasnet": a reduction cell before each further stack, in addition
      to its N normal ones; "pnas": the first of a further stack's N cells has
      stride 2 (slim, pnasnet.py).
    stem: "cifar": 3x3 at stride 1; "imagenet": 3x3 at stride 2 without
      padding, then two cells of stride 2 at F/4 and F/2.
    stem_features: channels of the ImageNet stem's convolution: 32 mobile, 96
      large.
    skip_reduction: whether the cell after a reduction takes as h_{i-1} the
      output before the one that the reduction read (slim's
      skip_reduction_layer_input, 1 in NASNet-A large); layout "nasnet" only.
    remat: whether the backward pass computes each cell again, from its
      inputs, in place of keeping its activations: equal results, less memory.
    scan_cells: whether cells of equal shapes run in one loop over their
      weights, in place of one after another in the program: equal results, a
      program that is smaller by the length of a stack, and compiles faster.
      For TPU; cells of separate outputs are never in a loop.
  """

  num_cells: int = 2
  features: int = 32
  num_classes: int = 10
  num_reductions: int = 2
  stem_multiplier: int = 3
  aux: bool = False
  dropout: float = 0.0
  numerics: Numerics = dataclasses.field(default_factory=Numerics)
  layout: str = "nasnet"
  stem: str = "cifar"
  stem_features: int = 32
  skip_reduction: bool = False
  remat: bool = False
  scan_cells: bool = False

  def __post_init__(self):
    for field, options in (
      ("layout", ("nasnet", "pnas")),
      ("stem", ("cifar", "imagenet")),
    ):
      if getattr(self, field) not in options:
        raise ValueError(
          f"network.{field} is {getattr(self, field)!r}, not one of:"
          f" {', '.join(options)}"
        )
    for field, least in (
      ("num_cells", 1),
      ("features", 1),
      ("num_classes", 1),
      ("num_reductions", 0),
      ("stem_multiplier", 1),
      ("stem_features", 1),
    ):
      if getattr(self, field) < least:
        raise ValueError(
          f"network.{field} is {getattr(self, field)}: give {least} or more"
        )
    if not 0 <= self.dropout < 1:
      raise ValueError(
        f"network.dropout is {self.dropout}: give 0 or more, below 1"
      )
    if self.stem == "imagenet" and self.features < 4:
      raise ValueError(
        f"network.features is {self.features}: the ImageNet stem's cells have"
        " a quarter of it, so give 4 or more"
      )

  @property
  def summary(self) -> str:
    """The sizes in a few words."""
    return f"N={self.num_cells}, F={self.features}"


def scaled(
  config: NetworkConfig, factors: compound_scaling.Factors
) -> NetworkConfig:
  """The sizes of a network that grows by these factors: N is its depth, F its
  width. Widths are even, for factorised reductions."""
  return dataclasses.replace(
    config,
    num_cells=compound_scaling.round_repeats(config.num_cells, factors.depth),
    features=compound_scaling.round_features(config.features, factors.width, 2),
    stem_features=compound_scaling.round_features(
      config.stem_features, factors.width, 2
    ),
  )


class CellPlan(NamedTuple):
  """One cell of the network.

  Attributes:
    name: endpoint and module name.
    kind: 0 normal, 1 reduction.
    features: F of its states.
    stride: 1 or 2.
    current, previous: positions in the list of outputs [stem, first cell,
      ...] that are h_i and h_{i-1}; previous is None in the first cell.
    index: of the cell in the network, for drop path; its output has the
      position index + 1.
  """

  name: str
  kind: int
  features: int
  stride: int
  current: int
  previous: int | None
  index: int

  def reads(self, num_separate: int = 0) -> tuple[int | None, ...]:
    """Positions of the outputs that the cell reads: (current, previous).

    Args:
      num_separate: inputs of a cell whose outputs are passed on separately;
        then output j of the j-th position is read.
    """
    if not num_separate:
      return self.current, self.previous
    return tuple(max(self.current - j, 0) for j in range(num_separate))


STEM_CELLS = 2  # slim, nasnet.py, _imagenet_stem


def plan(config: NetworkConfig) -> tuple[CellPlan, ...]:
  """The cells from stem to head.

  ImageNet: two stem cells of stride 2 come first. Then each stack has its
  cells, those after the first with one of stride 2 in front (see `layout`).
  """
  cells: list[CellPlan] = []

  def add(name: str, kind: int, features: int, skip: int = 0):
    index = len(cells)
    previous = index - 1 - skip if index else None
    cells.append(
      CellPlan(name, kind, features, 1 + kind, index, previous, index)
    )

  if config.stem == "imagenet":
    for i in range(STEM_CELLS):
      add(f"stem_cell_{i}", 1, config.features // 2 ** (STEM_CELLS - i))
  features, number = config.features, 0
  for stack in range(config.num_reductions + 1):
    kinds = [0] * config.num_cells
    if stack:
      features *= 2
      if config.layout == "pnas":
        kinds[0] = 1
      else:
        add(f"reduction_{stack - 1}", 1, features)
    for i, kind in enumerate(kinds):
      after = stack and not i and config.layout == "nasnet"
      skip = int(bool(after and config.skip_reduction))
      add(f"cell_{number}", kind, features, skip)
      number += 1
  return tuple(cells)


def stem_features(config: NetworkConfig) -> int:
  """Channels of the stem's convolution."""
  if config.stem == "imagenet":
    return config.stem_features
  return config.stem_multiplier * config.features


def stem_side(config: NetworkConfig, side: tuple[int, int]) -> tuple[int, int]:
  """(h, w) of the stem's convolution for images of (H, W)."""
  if config.stem == "cifar":
    return tuple(side)
  return tuple((s - 3) // 2 + 1 for s in side)


def check_side(config: NetworkConfig, side: tuple[int, int]):
  """Raises ValueError for images too small to be halved so often."""
  strides = [cell.stride for cell in plan(config)]
  given, side = side, stem_side(config, side)
  for stride in strides:
    if stride > 1 and min(side) < 2:
      raise ValueError(
        f"images of {given[0]}x{given[1]} are too small for"
        f" {sum(s > 1 for s in strides)} reductions: lower"
        " network.num_reductions or take larger images"
      )
    side = tuple(-(-s // stride) for s in side)


class CellShape(NamedTuple):
  """What is static about a cell.

  Attributes:
    features: F.
    stride: 1, 2.
    side: (h, w) of its inputs.
    current: (states, F) of h_i.
    previous: (states, F, side) of h_{i-1}; None in the first cell.
  """

  features: int
  stride: int
  side: tuple[int, int]
  current: tuple[int, int]
  previous: tuple[int, int, tuple[int, int]] | None

  @property
  def out_side(self) -> tuple[int, int]:
    return tuple(-(-s // self.stride) for s in self.side)

  @property
  def num_inputs(self) -> int:
    return 2


class SeparateShape(NamedTuple):
  """What is static about a cell whose outputs are passed on separately.

  Attributes:
    features, stride, side: as in `CellShape`.
    inputs: (F, side) of each state that it reads.
  """

  features: int
  stride: int
  side: tuple[int, int]
  inputs: tuple[tuple[int, tuple[int, int]], ...]

  out_side = CellShape.out_side

  @property
  def num_inputs(self) -> int:
    return len(self.inputs)


def check_separate(config: NetworkConfig):
  """Raises ValueError where cells cannot have separate outputs."""
  if config.skip_reduction:
    raise ValueError(
      "network.skip_reduction is for cells of two inputs: set it to False for"
      " cells whose outputs are passed on separately"
    )


def separate_shapes(
  config: NetworkConfig, num_blocks: int, side: tuple[int, int]
) -> tuple[SeparateShape, ...]:
  """The shape of each cell of `plan`, if outputs are passed on separately.

  Raises:
    ValueError: for images too small to be halved so often.
  """
  check_separate(config)
  check_side(config, side)
  outputs = [(stem_features(config), stem_side(config, side))]
  shapes = []
  for cell in plan(config):
    inputs = tuple(outputs[i] for i in cell.reads(num_blocks))
    shape = SeparateShape(cell.features, cell.stride, inputs[0][1], inputs)
    shapes.append(shape)
    outputs.append((cell.features, shape.out_side))
  return tuple(shapes)


def cell_shapes(
  config: NetworkConfig, num_blocks: int, side: tuple[int, int]
) -> tuple[CellShape, ...]:
  """The shape of each cell of `plan`, if outputs hold all B + 2 states.

  Raises:
    ValueError: for images too small to be halved so often.
  """
  check_side(config, side)
  outputs = [(1, stem_features(config), stem_side(config, side))]
  shapes = []
  for cell in plan(config):
    states, width, side = outputs[cell.current]
    previous = None if cell.previous is None else outputs[cell.previous]
    shape = CellShape(
      cell.features, cell.stride, side, (states, width), previous
    )
    shapes.append(shape)
    outputs.append((num_blocks + 2, cell.features, shape.out_side))
  return tuple(shapes)


def groups_of(shape: CellShape | SeparateShape, num_blocks: int):
  """(place of each state in the raw stack or -1, groups for `mixed.make`)."""
  count = shape.num_inputs
  places = [-1] * (num_blocks + count)
  own = ((*shape.out_side, shape.features), 1)
  if shape.stride > 1:
    places[:count] = range(count)
    return tuple(places), (own, ((*shape.side, shape.features), shape.stride))
  if isinstance(shape, SeparateShape):
    return tuple(places), (own,)
  raw_width = shape.current[0] * shape.current[1]
  if shape.previous is None and raw_width != shape.features:
    places[1] = 0
    return tuple(places), (own, ((*shape.side, raw_width), 1))
  return tuple(places), (own,)


def aux_position(config: NetworkConfig) -> int | None:
  """Index in `plan` of the cell that feeds the auxiliary head: the last one
  before the last reduction."""
  first = STEM_CELLS if config.stem == "imagenet" else 0
  reductions = [c.index for c in plan(config)[first:] if c.kind]
  if not reductions or not reductions[-1]:
    return None
  return reductions[-1] - 1
