"""A row of blocks whose design is data: the traced twin of `BlockNetwork`.

The layers of a block behind its first one have the same shapes, so they are a
scan over one instance of the switch that a layer is (`any_layer`). A layer that
a child has not got is the switch's `inactive` branch beside an identity: it
costs nothing.
"""

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasnet_jax.models import block_network
from nasnet_jax.models.layers import kernel_std
from nasnet_jax.population.any_layer import AnyLayer
from nasnet_jax.spaces.blocks import Group
from nasnet_jax.spaces.mnasnet import SKIPS, MnasGenotype, MnasSpace

Array = jax.Array

NO_PATHS = "a child of blocks drops no paths: set child.drop_path_keep to 1"


class Choices(NamedTuple):
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

  def choices(self, genotype: MnasGenotype, block: int) -> Choices:
    """Of one block; genotype: traced, int32[B]."""
    g = MnasGenotype(*(jnp.asarray(leaf)[block] for leaf in genotype))
    sizes = self._space.sizes
    branch = (g.operation * sizes.kernel + g.kernel) * sizes.squeeze + g.squeeze
    return Choices(
      branch,
      jnp.asarray(self._codes)[g.skip],
      g.features,
      jnp.asarray(self._counts)[block, g.layers],
    )

  def _first_index(self, block: int, chosen: Choices, entering: Array):
    """((branch, skip), number of its widths) of a block's first layer."""
    width = entering * self._features.shape[1] + chosen.features
    same = jnp.asarray(self._same[block])[width]
    return (chosen.branch, jnp.where(same, chosen.skip, 0)), width

  def _rest_indices(self, block: int, chosen: Choices):
    """(branches, skips), int32[most layers - 1]: those that a child lacks are
    inactive, beside an identity."""
    most = int(self._counts[block].max())
    active = jnp.arange(1, most) < chosen.layers
    inactive = self.rests[block].mix.inactive
    return (
      jnp.where(active, chosen.branch, inactive),
      jnp.where(active, chosen.skip, SKIPS.index("identity")),
    )

  def switches(self, genotype: MnasGenotype) -> dict[int, Array]:
    """{branches of a switch: int32[layers], those that the layers take}."""
    branches, skips, entering = [], [], jnp.int32(0)
    for b in range(self._space.num_blocks):
      chosen = self.choices(genotype, b)
      index, _ = self._first_index(b, chosen, entering)
      rows = [jax.tree.map(lambda x: x[None], index)]
      if self.rests[b]:
        rows.append(self._rest_indices(b, chosen))
      for branch, skip in rows:
        branches.append(branch)
        skips.append(skip)
      entering = chosen.features
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
      chosen = self.choices(genotype, b)
      (branch, _), width = self._first_index(b, chosen, entering)
      first_key, rest_key = jax.random.split(key)
      made = {"first": self.firsts[b].init(first_key, branch, width)}
      if self.rests[b]:
        branches, _ = self._rest_indices(b, chosen)
        fill = functools.partial(self.rests[b].init, width=chosen.features)
        rest_keys = jax.random.split(rest_key, branches.shape[0])
        made["rest"] = jax.vmap(fill)(rest_keys, branches)
      params[_name(b)] = {part: pair[0] for part, pair in made.items()}
      stats[_name(b)] = {part: pair[1] for part, pair in made.items()}
      entering = chosen.features
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
        chosen = self.choices(genotype, b)
        index, _ = self._first_index(b, chosen, entering)
        name, entering = _name(b), chosen.features
        p, s = params[name], stats[name]
        x, first = self._layer(self.firsts[b], train, index, p, s, "first", x)
        new[name] = {"first": first}
        if self.rests[b]:
          x, new[name]["rest"] = self._rest(b, chosen, p, s, x, train)
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

  def _rest(self, block: int, chosen: Choices, params, stats, x, train):
    """All layers of a block behind its first one: (x, statistics)."""
    layer = self.rests[block]

    def one(x, row):
      index, p, s = row
      p, s = {"rest": p}, {"rest": s}
      return self._layer(layer, train, index, p, s, "rest", x)

    rows = (self._rest_indices(block, chosen), params["rest"], stats["rest"])
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
      chosen = jax.tree.map(int, self.choices(genotype, b))
      for i in range(chosen.layers):
        name = f"{_name(b)}_block_{i}"
        layer, mine = self.firsts[b], [bank["first"] for bank in banks]
        if i:
          layer = self.rests[b]
          mine = [
            {k: v[i - 1] for k, v in bank["rest"].items()} for bank in banks
          ]
        pair = layer.extract(chosen.branch, *mine)
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
