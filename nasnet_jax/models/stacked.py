"""The stacked network: stem, cells, heads (Zoph et al. 2018, figure 2).

`plan` says which cell stands where and what it reads; the population of
`nasnet_jax.population` follows the same plan.

Cells that pass on their outputs separately (NASNet-B) read output j of the cell
j + 1 layers back; the stem stands in for all layers before the first cell, each
of its outputs is the whole of it. The heads read all outputs of their cell,
side by side. The paper's text leaves both open.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models.cell import Cell, SeparateCell
from nasnet_jax.models.layers import (
  BatchNorm,
  Conv,
  Numerics,
  PointwiseConv,
  drop_features,
  keep,
  kernel_std,
)
from nasnet_jax.spaces import compound_scaling

Array = jax.Array


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
    slots, width, side = outputs[cell.current]
    previous = None if cell.previous is None else outputs[cell.previous]
    shape = CellShape(
      cell.features, cell.stride, side, (slots, width), previous
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


class Stem(nn.Module):
  """3x3 convolution and batch norm; at stride 2 without padding."""

  numerics: Numerics
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    conv = Conv(
      self.numerics,
      self.features,
      (3, 3),
      (self.stride, self.stride),
      padding="SAME" if self.stride == 1 else "VALID",
      name="conv",
    )
    return BatchNorm(self.numerics, name="norm")(conv(x), train)


def make_stem(config: NetworkConfig, **options) -> Stem:
  """The stem's convolution. options: Linen's, `name`."""
  stride = 2 if config.stem == "imagenet" else 1
  return Stem(config.numerics, stem_features(config), stride, **options)


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

  @property
  def num_layers(self) -> int:
    """What drop path's ramp over the depth counts: cells."""
    return len(plan(self.config))

  @property
  def num_separate(self) -> int:
    """Outputs of a cell that are passed on separately; 0: one is, whole."""
    _, output, *separate = self.cells[0]
    return len(output) if separate else 0

  @nn.compact
  def __call__(
    self,
    images: Any,
    train: bool = False,
    drop=None,
    start: str | None = None,
    stop: str | None = None,
    positions: Array | None = None,
  ) -> tuple[Array | None, Array | None, dict[str, Any]]:
    """From images to logits, or from any cell to any cell.

    Args:
      images: [N, H, W, C], whitened; with `start` the pair (h_i, h_{i-1})
        that this cell reads, [N, h, w, C] each: endpoints, the latest first,
        in networks of separate outputs as many as a cell has inputs.
      drop: `DropPath` of this step, or None.
      start: name of the first cell to run; None: the stem comes first.
      stop: name of the last cell to run; None: the classifier comes last.
      positions: int[N], place of each example in the whole batch, for dropout
        on a part of it; None: 0..N-1.

    Returns:
      logits f32[N, classes], None with `stop`; auxiliary logits or None (only
      when training); endpoints, the output of everything that ran, by name: of
      a cell with separate outputs the tuple of them.

    Raises:
      ValueError: for a name that is no cell, or images too small to be
        halved so often.
    """
    config, num = self.config, self.config.numerics
    if self.num_separate:
      check_separate(config)
    cells = plan(config)
    first, last = _part(cells, start, stop)
    outputs: dict[int, Any] = {}  # by position
    endpoints = {}
    if start is None:
      check_side(config, images.shape[1:3])
      stem = make_stem(config, name="stem")
      outputs[0] = stem(images.astype(num.dtype), train)
      endpoints["stem"] = outputs[0]
    else:
      reads = cells[first].reads(self.num_separate)
      outputs.update(zip(reads, images, strict=True))
    auxiliary = None
    todo = cells[first : last + 1]
    while todo:
      alike = self._alike(todo, outputs)
      if len(alike) > 1:
        made = self._scan(alike, outputs, train, drop)
      else:
        made = [self._cell(todo[0], outputs, train, drop)]
      for cell, output in zip(todo, made):
        outputs[cell.index + 1] = endpoints[cell.name] = output
        if config.aux and train and cell.index == aux_position(config):
          head = AuxiliaryHead(num, config.num_classes, name="aux_head")
          auxiliary = head(_whole(output), train)
      todo = todo[len(made) :]
    if stop is not None:
      return None, auxiliary, endpoints
    pooled = nn.relu(_whole(output)).astype(jnp.float32).mean((1, 2))
    endpoints["pooled"] = pooled
    if config.dropout and train:
      rng = self.make_rng("dropout")
      pooled = drop_features(rng, pooled, config.dropout, positions)
    classifier = Classifier(num, config.num_classes, name="classifier")
    return classifier(pooled), auxiliary, endpoints

  def _alike(self, cells, outputs) -> tuple[CellPlan, ...]:
    """The next cells that one loop can run: of the same kind and width, each
    reading the two before it, of its own output's shape."""
    first = cells[0]
    if not self.config.scan_cells or self.num_separate or first.stride > 1:
      return ()
    if self.is_initializing() or first.previous is None:
      return ()
    # A loop carries one shape. So a stack's first cells stay out of it: one, or
    # two where the output of the stem or reduction has another shape.
    width = len(self.cells[first.kind % len(self.cells)][1]) * first.features
    shapes = {outputs[i].shape for i in first.reads()}
    if len(shapes) > 1 or shapes.pop()[-1] != width:
      return ()
    alike = [first]
    for cell in cells[1:]:
      same = (cell.kind, cell.features) == (first.kind, first.features)
      if not same or cell.previous != cell.current - 1:
        break
      alike.append(cell)
    return tuple(alike)

  def _scan(self, cells, outputs, train, drop) -> list[Array]:
    """The outputs of cells that are alike."""
    first, config = cells[0], self.config
    names = [cell.name for cell in cells]
    weights = [
      {kind: tree[name] for kind, tree in self.variables.items()}
      for name in names
    ]

    def one(carry, inputs):
      current, previous = carry
      variables, index = inputs
      module = Cell(
        config.numerics,
        self.cells[first.kind % len(self.cells)],
        first.features,
        index=index,
        parent=None,
      )
      output, changed = module.apply(
        variables, current, previous, train, drop, mutable=["batch_stats"]
      )
      output = keep(output, config.remat)
      return (output, current), (output, changed.get("batch_stats"))

    if config.remat:
      one = jax.checkpoint(one, prevent_cse=False)  # a loop has none
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
    indices = jnp.array([cell.index for cell in cells])
    start = outputs[first.current], outputs[first.previous]
    _, (made, stats) = jax.lax.scan(one, start, (stacked, indices))
    if train and self.is_mutable_collection("batch_stats"):
      for i, name in enumerate(names):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], stats)
        self.put_variable("batch_stats", name, mine)
    return list(made)

  def _cell(self, plan: CellPlan, outputs, train, drop) -> Any:
    reads = plan.reads(self.num_separate)
    if self.num_separate:
      # The stem is a single state, whichever of its outputs is asked for.
      inputs = [outputs[i][j] if i else outputs[i] for j, i in enumerate(reads)]
      args = (tuple(inputs), train, drop)
    else:
      args = (*(None if i is None else outputs[i] for i in reads), train, drop)
    make = SeparateCell if self.num_separate else Cell
    if self.config.remat:
      # `train` is a Python bool: it decides what is traced. (0 is the module.)
      make = nn.remat(make, static_argnums=(len(args) - 1,))
    module = make(
      self.config.numerics,
      self.cells[plan.kind % len(self.cells)],
      plan.features,
      plan.stride,
      plan.index,
      name=plan.name,
    )
    return keep(module(*args), self.config.remat)


def _whole(output) -> Array:
  """A cell's output; separate ones side by side."""
  return jnp.concatenate(output, -1) if isinstance(output, tuple) else output


def _part(cells, start: str | None, stop: str | None) -> tuple[int, int]:
  """(index of the first cell to run, index of the last)."""
  names = [cell.name for cell in cells]
  for name in (start, stop):
    if name is not None and name not in names:
      raise ValueError(f"{name!r} is no cell of: {', '.join(names)}")
  first = 0 if start is None else names.index(start)
  last = len(names) - 1 if stop is None else names.index(stop)
  if start is not None and not first:
    raise ValueError(f"{start!r} reads the stem: leave out `start`")
  if last < first:
    raise ValueError(f"{stop!r} comes before {start!r}")
  return first, last


def as_cells(space, genotype) -> tuple:
  """A genotype as the literals that a module can hold."""
  data = space.to_json(genotype)["cells"]
  return tuple(_literal(data[name]) for name in space.cells)


def _literal(cell: dict[str, Any]) -> tuple:
  blocks = tuple(
    (*b["inputs"], *b["operations"], b["combine"]) for b in cell["blocks"]
  )
  if "outputs" in cell:
    return blocks, tuple(cell["outputs"]), "separate"
  return blocks, tuple(cell["concat"])
