"""A row of blocks whose design is data: the traced twin of `BlockNetwork`.

A layer is one switch over operations, kernels and squeeze-excite, and one over
skips. It runs at the most channels that its block can have. Channels beyond
the chosen ones are exactly 0 all the way: their weights are 0, batch norm makes
0 of 0, and so their gradients are 0. A layer that a child has not got is the
switch's `inactive` branch beside an identity: it costs nothing.

The layers of a block behind its first one have the same shapes, so they are a
scan over one instance of the switch.
"""

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasnet_jax.models import block_network, blocks
from nasnet_jax.models.kernels import memory, pools
from nasnet_jax.models.layers import TRUNCATED_STD, Numerics, kernel_std
from nasnet_jax.population import mixed
from nasnet_jax.spaces.blocks import Group
from nasnet_jax.spaces.mnasnet import SKIPS, MnasGenotype, MnasSpace

Array = jax.Array

NO_PATHS = "a child of blocks drops no paths: set child.drop_path_keep to 1"

# What the last axes of a module's weights count, by kind of block and module.
_AXES = {
  "mbconv": {
    "expand": ("entering", "hidden"),
    "norm_0": ("hidden",),
    "depthwise": ("hidden",),
    "norm_1": ("hidden",),
    "squeeze_excite/reduce": ("hidden", "squeezed"),
    "squeeze_excite/expand": ("squeezed", "hidden"),
    "project": ("hidden", "leaving"),
    "norm_2": ("leaving",),
  },
  "conv": {
    "conv": ("entering", "leaving"),
    "norm_0": ("leaving",),
    "squeeze_excite/reduce": ("leaving", "squeezed"),
    "squeeze_excite/expand": ("squeezed", "leaving"),
  },
}


def _lengths(group: Group, entering: int, leaving: int) -> dict[str, int]:
  """Of the axes above."""
  return {
    "entering": entering,
    "leaving": leaving,
    "hidden": entering * group.expansion,
    "squeezed": blocks.squeezed_features(entering, group.squeeze),
  }


def _used_shape(group: Group, slot: mixed.Slot, entering: int, leaving: int):
  """The part of a module's array, from its front, that these widths use."""
  axes = _AXES[group.kind]["/".join(slot.path[:-1])]
  axes = axes[-len(slot.shape) :]
  lengths = _lengths(group, entering, leaving)
  lead = slot.shape[: len(slot.shape) - len(axes)]
  return (*lead, *(lengths[axis] for axis in axes))


class AnyLayer:
  """One layer, for any operation and any of the widths around it.

  Attributes:
    mix: its mixed operation.
  """

  def __init__(
    self,
    groups: tuple[Group, ...],
    activation: str,
    numerics: Numerics,
    shape: tuple[int, int, int],
    stride: int,
    widths: tuple[tuple[int, int], ...],
  ):
    """groups: of the switch's branches; shape: (H, W, most channels) of what
    enters; widths: (entering, leaving) that can be chosen."""
    self._groups, self._numerics, self._widths = groups, numerics, widths
    self._features = max(leaving for _, leaving in widths)
    self._stride = stride
    modules = tuple(
      blocks.BLOCKS[group.kind](
        numerics, group, self._features, stride, activation, 0
      )
      for group in groups
    )
    self.mix = mixed.of_modules(
      modules, ((shape, stride),), self._features, numerics
    )
    self._shortcut = mixed.switch_one(
      [functools.partial(_first_state, way) for way in self._ways()]
    )
    self._shortcut_backward = mixed.switch_one(
      [functools.partial(_pullback, way) for way in self._ways()]
    )
    self._tables = {name: self._table(name) for name in self.mix.params}

    @jax.custom_vjp
    def train(*args):
      return self._run(*args)[:2]

    train.defvjp(self._forward, self._backward)
    self.train = train

  def _ways(self):
    """What is added to the operation's output, by the index into SKIPS."""

    def none(x):
      side = [-(-length // self._stride) for length in x.shape[1:3]]
      return jnp.zeros((x.shape[0], *side, self._features), x.dtype)

    def fit(x):
      # Only called where as many channels enter as leave: no more than both.
      x = x[..., : self._features]
      missing = self._features - x.shape[-1]
      return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))

    def pool(x):
      return pools.avg_pool(fit(x), 3, self._stride)

    ways = {"none": none, "identity": fit, "pool": pool}
    if self._stride > 1:
      ways["identity"] = none
    return [ways[skip] for skip in SKIPS]

  # --- initial values --------------------------------------------------------

  def _table(self, bank: str) -> "_Table":
    """What `init` must know of a bank's arrays."""
    rows = [branch.params.get(bank, ()) for branch in self.mix.branches]
    # The branch behind the last is that of layers left out: nothing is used.
    size = (len(rows) + 1, max(map(len, rows)))
    of_widths = (size[0], len(self._widths), size[1])
    table = _Table(
      np.zeros(size, np.int32),
      np.ones((*size, 4), np.int32),
      np.zeros((*of_widths, 4), np.int32),
      np.zeros(of_widths, np.float32),
    )
    for b, (group, row) in enumerate(zip(self._groups, rows, strict=True)):
      for s, slot in enumerate(row):
        lead = 4 - len(slot.shape)
        table.start[b, s] = slot.start
        table.shape[b, s, lead:] = slot.shape
        for w, width in enumerate(self._widths):
          used = _used_shape(group, slot, *width)
          table.used[b, w, s] = [1] * lead + list(used)
          std = kernel_std(self._numerics, used) if bank == "kernel" else 1.0
          table.value[b, w, s] = 0.0 if bank == "bias" else std
    return table

  def init(self, rng: Array, branch: Array, width: Array) -> tuple[dict, dict]:
    """(params, batch_stats): banks of one layer.

    One draw of unit normals, scaled piece by piece: no switch is needed.
    """
    params = {
      name: _fill(table, self.mix.params[name], branch, width)
      for name, table in self._tables.items()
    }
    shape = params["kernel"].shape
    unit = jax.random.truncated_normal(rng, -2.0, 2.0, shape) / TRUNCATED_STD
    params["kernel"] *= unit
    return params, mixed.init_stats(self.mix)

  # --- (branch, skip), params, stats, x -> y, stats --------------------------

  def _run(self, index, params, stats, x):
    branch, skip = index
    states = _as_states(x)
    y, new, moments = self.mix.forward(branch, states, params, stats)
    y = memory.materialise(y + self._shortcut(skip, states))
    return y, new, moments

  def _forward(self, index, params, stats, x):
    y, new, moments = self._run(index, params, stats, x)
    return (y, new), (index, params, x, moments)

  def _backward(self, saved, cotangents):
    (branch, skip), params, x, moments = saved
    states = (*_as_states(x), *_as_states(memory.materialise(cotangents[0])))
    (dx,), dparams = self.mix.backward(branch, states, params, moments, None)
    return None, dparams, None, dx + self._shortcut_backward(skip, states)

  def evaluate(self, index, params, stats, x):
    """y, with the running statistics."""
    branch, skip = index
    states = _as_states(x)
    y = self.mix.evaluate(branch, states, params, stats)
    return y + self._shortcut(skip, states)

  def extract(self, branch: int, params, stats) -> tuple[dict, dict]:
    """(params, batch_stats) that the branch's module finds in the banks."""
    found = self.mix.branches[branch]
    return (
      mixed.read_view(found.params, params),
      mixed.read_view(found.stats, stats),
    )


class _Table(NamedTuple):
  """Arrays of a bank, by branch and array; those of fewer axes than four have
  ones in front.

  Attributes:
    start: int32[branches, arrays].
    shape: int32[branches, arrays, 4].
    used: int32[branches, widths, arrays, 4], the part that is not 0.
    value: f32[branches, widths, arrays], of what is in it: of kernels the
      standard deviation.
  """

  start: np.ndarray
  shape: np.ndarray
  used: np.ndarray
  value: np.ndarray


def _fill(table: _Table, size: int, branch: Array, width: Array) -> Array:
  """f32[size], a bank of the table's values and of zeros."""
  start, shape = jnp.asarray(table.start)[branch], jnp.asarray(table.shape)
  shape = shape[branch]
  used = jnp.asarray(table.used)[branch, width]
  value = jnp.asarray(table.value)[branch, width]
  place, bank = jnp.arange(size), jnp.zeros(size)
  for s in range(table.start.shape[1]):
    rest = place - start[s]
    inside = (rest >= 0) & (rest < shape[s].prod())
    for axis in reversed(range(4)):
      inside &= rest % shape[s, axis] < used[s, axis]
      rest //= shape[s, axis]
    bank += jnp.where(inside, value[s], 0.0)
  return bank


def _as_states(x: Array):
  """What `mixed.unbatched` takes for a single state."""
  return ((x[None], jnp.int32(0)),)


def _first_state(way, states):
  return way(mixed.read_state(states, 0))


def _pullback(way, states):
  """The gradient of what enters; the last state is that of what leaves."""
  x, g = (mixed.read_state(states, group) for group in range(2))
  return jax.vjp(way, x)[1](g)[0]


# --- the network -------------------------------------------------------------


class Genes(NamedTuple):
  """What a child chose for one block, as numbers of switches and tables."""

  branch: Array
  skip: Array  # into SKIPS
  features: Array  # into the block's widths
  layers: Array  # how many


class AnyBlocks:
  """A `BlockNetwork` of MnasNet's space, for any genotype."""

  def __init__(
    self,
    config: block_network.BlockConfig,
    space: MnasSpace,
    image_shape: tuple[int, int, int],
  ):
    if config.dropout:
      raise ValueError("a child has no dropout")
    self._config, self._space, self._image_shape = config, space, image_shape
    sizes = space.sizes
    designs = list(map(range, (sizes.operation, sizes.kernel, sizes.squeeze)))
    designs = list(itertools.product(*designs))
    of_design = [self._plan(*design) for design in designs]
    groups = tuple(_bare(plan[0].group) for plan in of_design)
    self._features = np.array(
      [
        [block.features for block in _firsts(self._plan(features=j))]
        for j in range(sizes.features)
      ]
    ).T
    counts = [self._plan(layers=n) for n in range(sizes.layers)]
    self._counts = np.array(
      [_repeats(plan, space.num_blocks) for plan in counts], np.int32
    ).T
    self._codes = np.array([SKIPS.index(s) for s in space.skips], np.int32)
    arch = space.architecture(self._genotype())
    self._ends = block_network.Ends(config, arch)
    stem = block_network.stem_features(arch, config.width)
    side = [-(-length // arch.stem_stride) for length in image_shape[:2]]
    entering = np.array([stem])
    self.firsts: list[AnyLayer] = []
    self.rests: list[AnyLayer | None] = []
    self._same = []
    make = functools.partial(AnyLayer, groups, arch.activation, config.numerics)
    for b, row in enumerate(self._features):
      shape, stride = (*side, int(entering.max())), space.strides[b]
      pairs = tuple((int(i), int(j)) for i in entering for j in row)
      self.firsts.append(make(shape, stride, pairs))
      side = [-(-length // stride) for length in side]
      alike = tuple((int(j), int(j)) for j in row)
      shape = (*side, int(row.max()))
      more = self._counts[b].max() > 1
      self.rests.append(make(shape, 1, alike) if more else None)
      self._same.append(np.array([i == j for i, j in pairs]))
      entering = row

  def _genotype(self, *design, features=0, layers=0) -> MnasGenotype:
    """One in which all blocks are alike."""
    operation, kernel, squeeze = design or (0, 0, 0)
    row = [operation, kernel, squeeze, 0, features, layers]
    return self._space.decode(np.tile(row, self._space.num_blocks))

  def _plan(self, *design, **sizes) -> tuple[block_network.BlockPlan, ...]:
    config = self._config
    arch = self._space.architecture(self._genotype(*design, **sizes))
    return block_network.plan(arch, config.width, config.depth)

  @property
  def genotype_shapes(self) -> MnasGenotype:
    """Shapes and types of one child's genotype."""
    shape = jax.ShapeDtypeStruct((self._space.num_blocks,), jnp.int32)
    return MnasGenotype(*[shape] * len(MnasGenotype._fields))

  def genes(self, genotype: MnasGenotype, block: int) -> Genes:
    """Of one block; genotype: traced, int32[B]."""
    g = MnasGenotype(*(jnp.asarray(leaf)[block] for leaf in genotype))
    sizes = self._space.sizes
    branch = (g.operation * sizes.kernel + g.kernel) * sizes.squeeze + g.squeeze
    return Genes(
      branch,
      jnp.asarray(self._codes)[g.skip],
      g.features,
      jnp.asarray(self._counts)[block, g.layers],
    )

  def _first_index(self, block: int, genes: Genes, entering: Array):
    """((branch, skip), number of its widths) of a block's first layer."""
    width = entering * self._features.shape[1] + genes.features
    same = jnp.asarray(self._same[block])[width]
    return (genes.branch, jnp.where(same, genes.skip, 0)), width

  def _rest_indices(self, block: int, genes: Genes):
    """(branches, skips), int32[most layers - 1]: those that a child lacks are
    inactive, beside an identity."""
    most = int(self._counts[block].max())
    active = jnp.arange(1, most) < genes.layers
    inactive = self.rests[block].mix.inactive
    return (
      jnp.where(active, genes.branch, inactive),
      jnp.where(active, genes.skip, SKIPS.index("identity")),
    )

  def switches(self, genotype: MnasGenotype) -> dict[int, Array]:
    """{branches of a switch: int32[layers], those that the layers take}."""
    branches, skips, entering = [], [], jnp.int32(0)
    for b in range(self._space.num_blocks):
      genes = self.genes(genotype, b)
      index, _ = self._first_index(b, genes, entering)
      rows = [jax.tree.map(lambda x: x[None], index)]
      if self.rests[b]:
        rows.append(self._rest_indices(b, genes))
      for branch, skip in rows:
        branches.append(branch)
        skips.append(skip)
      entering = genes.features
    size = self.firsts[0].mix.inactive + 1
    return {
      len(SKIPS): jnp.concatenate(skips),
      size: jnp.concatenate(branches),
    }

  def init(self, rng: Array, genotype: MnasGenotype) -> tuple[dict, dict]:
    """(params, batch_stats) of a child."""
    ends_key, *keys = jax.random.split(rng, self._space.num_blocks + 1)
    entering = jnp.int32(0)
    params, stats = {}, {}
    for b, key in enumerate(keys):
      genes = self.genes(genotype, b)
      (branch, _), width = self._first_index(b, genes, entering)
      first_key, rest_key = jax.random.split(key)
      made = {"first": self.firsts[b].init(first_key, branch, width)}
      if self.rests[b]:
        branches, _ = self._rest_indices(b, genes)
        fill = functools.partial(self.rests[b].init, width=genes.features)
        rest_keys = jax.random.split(rest_key, branches.shape[0])
        made["rest"] = jax.vmap(fill)(rest_keys, branches)
      params[_name(b)] = {part: pair[0] for part, pair in made.items()}
      stats[_name(b)] = {part: pair[1] for part, pair in made.items()}
      entering = genes.features
    ends = self._init_ends(ends_key, entering)
    return {**ends["params"], **params}, {**ends["batch_stats"], **stats}

  def _init_ends(self, rng: Array, last: Array) -> dict[str, Any]:
    """Stem, head and classifier; last: number of the last block's width."""
    image = jnp.zeros((1, *self._image_shape))

    def init(width, rng=rng):
      return self._ends.init(
        rng, image, False, lambda x: jnp.zeros((1, 1, 1, width), x.dtype)
      )

    widths = [int(width) for width in self._features[-1]]
    key = jax.random.key(0)
    shapes = [
      jax.eval_shape(functools.partial(init, width), key) for width in widths
    ]

    def fit(path, leaf, *of_widths):
      if path[-1].key != "kernel" or {s.shape for s in of_widths} == {
        leaf.shape
      }:
        return leaf
      num = self._config.numerics
      stds = [kernel_std(num, s.shape) for s in of_widths]
      ratio = jnp.asarray(stds)[last] / kernel_std(num, leaf.shape)
      rows = jnp.asarray([s.shape[0] for s in of_widths])[last]
      inside = jnp.arange(leaf.shape[0])[:, None] < rows
      return jnp.where(inside, leaf * ratio, 0.0)

    return jax.tree_util.tree_map_with_path(fit, init(max(widths)), *shapes)

  def apply(
    self,
    params: dict,
    stats: dict,
    genotype: MnasGenotype,
    images: Array,
    train: bool,
  ) -> tuple[Array, dict]:
    """(logits f32[N, classes], batch_stats) of images f32[N, H, W, C]."""
    new = {}

    def between(x):
      entering = jnp.int32(0)
      for b in range(self._space.num_blocks):
        genes = self.genes(genotype, b)
        index, _ = self._first_index(b, genes, entering)
        name, entering = _name(b), genes.features
        p, s = params[name], stats[name]
        x, first = self._layer(self.firsts[b], train, index, p, s, "first", x)
        new[name] = {"first": first}
        if self.rests[b]:
          x, new[name]["rest"] = self._rest(b, genes, p, s, x, train)
      return x

    found = {
      "params": {k: v for k, v in params.items() if k not in self._names},
      "batch_stats": {k: v for k, v in stats.items() if k not in self._names},
    }
    if not train:
      return self._ends.apply(found, images, False, between), stats
    logits, update = self._ends.apply(
      found, images, True, between, mutable=["batch_stats"]
    )
    return logits, {**update["batch_stats"], **new}

  @property
  def _names(self) -> set[str]:
    return set(map(_name, range(self._space.num_blocks)))

  def _layer(self, layer, train, index, params, stats, part, x):
    if train:
      return layer.train(index, params[part], stats[part], x)
    return layer.evaluate(index, params[part], stats[part], x), stats[part]

  def _rest(self, block: int, genes: Genes, params, stats, x, train):
    """All layers of a block behind its first one: (x, statistics)."""
    layer = self.rests[block]

    def one(x, row):
      index, p, s = row
      p, s = {"rest": p}, {"rest": s}
      return self._layer(layer, train, index, p, s, "rest", x)

    rows = (self._rest_indices(block, genes), params["rest"], stats["rest"])
    return lax.scan(one, x, rows)

  def extract(
    self, params: dict, stats: dict, genotype: MnasGenotype
  ) -> dict[str, Any]:
    """The variables of the `BlockNetwork` of this genotype."""
    arch = self._space.architecture(genotype)
    network = block_network.BlockNetwork(self._config, arch)
    shapes = _shapes(network, self._image_shape)
    found = {"params": dict(params), "batch_stats": dict(stats)}
    for b in range(self._space.num_blocks):
      banks = [found[c].pop(_name(b)) for c in ("params", "batch_stats")]
      genes = jax.tree.map(int, self.genes(genotype, b))
      for i in range(genes.layers):
        name = f"{_name(b)}_block_{i}"
        layer, mine = self.firsts[b], [bank["first"] for bank in banks]
        if i:
          layer = self.rests[b]
          mine = [
            {k: v[i - 1] for k, v in bank["rest"].items()} for bank in banks
          ]
        pair = layer.extract(genes.branch, *mine)
        found["params"][name], found["batch_stats"][name] = pair
    return jax.tree.map(_cut, found, shapes)


@functools.lru_cache(maxsize=16)
def _shapes(network: block_network.BlockNetwork, image_shape) -> dict[str, Any]:
  """Of the network's variables."""
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  init = functools.partial(network.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), image)


def _cut(leaf, shape):
  return leaf[tuple(slice(length) for length in shape.shape)]


def _name(block: int) -> str:
  return f"group_{block}"


def _bare(group: Group) -> Group:
  """Only what a layer's operation is."""
  return dataclasses.replace(group.layer, skip=False, skip_pool=False)


def _firsts(plan) -> list[block_network.BlockPlan]:
  """The first block of each group."""
  return [block for block in plan if block.name.endswith("_block_0")]


def _repeats(plan, num_groups: int) -> list[int]:
  """How many blocks each group has."""
  names = [block.name.split("_")[1] for block in plan]
  return [names.count(str(group)) for group in range(num_groups)]
