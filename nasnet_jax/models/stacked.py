"""The stacked network: stem, cells, heads (Zoph et al. 2018, figure 2).

Its heads read all outputs of their cell, those that are passed on separately
(NASNet-B) side by side. The paper's text leaves it open.
"""

from typing import Any

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
from nasnet_jax.models.stacked_plan import (
  CellPlan,
  NetworkConfig,
  aux_position,
  check_separate,
  check_side,
  plan,
  stem_features,
)

Array = jax.Array


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
          auxiliary = head(whole(output), train)
      todo = todo[len(made) :]
    if stop is not None:
      return None, auxiliary, endpoints
    pooled = nn.relu(whole(output)).astype(jnp.float32).mean((1, 2))
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


def whole(output) -> Array:
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
