"""MnasNet's factorised hierarchical space (Tan et al. 2019, section 4).

A network is a fixed row of blocks. A block repeats one design of a layer, and
each block chooses its own: six decisions, 4 x 2 x 2 x 3 x 3 x 3 = 432 ways.
Channels and numbers of layers are given relative to MobileNetV2's.

What the text leaves open, and how it is read here:

- The blocks are MobileNetV2's seven groups (Sandler et al. 2018, table 2).
- Channels are rounded to multiples of 8 as the released code rounds them
  (`compound_scaling.round_features`), and a block has at least one layer. So
  some choices come out equal: `canonical` knows them.
- "Pooling" as a skip is a 3x3 average of what enters, with the layer's stride.
  Like the identity it is added where channels agree.
- The depthwise operation ends in a 1x1 convolution without activation, as the
  first block of the released networks does.

The released MnasNet-A1 and B1 (and EfficientNet-B0, which came from the same
space) have blocks of 112 and 192 channels. Of MobileNetV2's 96 and 160 these
are 1.2 times, rounded, and not the text's 1.25: `MNASNET` is the text's space,
`MNASNET_RELEASED` has 1.2 in place of 1.25 and holds these three.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.spaces import base, compound_scaling
from nasnet_jax.spaces.blocks import BLOCKS, Architecture, Group

# Section 4.1, in this order the choices of a block. The two expansions are
# those of the released networks.
OPERATIONS = ("conv", "dconv", "mbconv3", "mbconv6")
KERNELS = (3, 5)
SQUEEZES = (0.0, 0.25)
SKIPS = ("none", "identity", "pool")
LAYERS = (-1, 0, 1)  # relative

_EXPANSIONS = {"dconv": 1, "mbconv3": 3, "mbconv6": 6}


class MnasGenotype(NamedTuple):
  """The choices of B blocks; a pytree, so that many can be stacked.

  Attributes:
    operation, kernel, squeeze, skip, features, layers: int32[..., B], indices
      into the space's operations, kernels, squeezes, skips and ratios, and
      into LAYERS.
  """

  operation: Any
  kernel: Any
  squeeze: Any
  skip: Any
  features: Any
  layers: Any


@dataclasses.dataclass(frozen=True)
class MnasSpace:
  """Rows of blocks, each with a layer of its own.

  Attributes:
    name: key in `SPACES`.
    ratios: what a block's channels may be multiplied with.
    operations, kernels, squeezes, skips: what a block can choose from. Table 2
      of the paper has a search without squeeze-excite, for one.
    features, layers, strides: of each block, before the choices; the stride is
      that of its first layer.
    stem, stem_stride, head, activation: see `blocks.Architecture`.
  """

  name: str
  ratios: tuple[float, ...] = (0.75, 1.0, 1.25)  # section 4.1
  operations: tuple[str, ...] = OPERATIONS
  kernels: tuple[int, ...] = KERNELS
  squeezes: tuple[float, ...] = SQUEEZES
  skips: tuple[str, ...] = SKIPS
  # Sandler et al. 2018, table 2.
  features: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
  layers: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
  strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
  stem: int = 32
  stem_stride: int = 2
  head: int = 1280
  activation: str = "relu"  # tensorflow/tpu, mnasnet_models.py

  def __post_init__(self):
    for field, value in dataclasses.asdict(self).items():
      # JSON and configs have lists; programs are kept by what stands here.
      if isinstance(value, list):
        object.__setattr__(self, field, tuple(value))
    for field, known in (("operations", OPERATIONS), ("skips", SKIPS)):
      _check_names(field, getattr(self, field), known)
    for field in ("kernels", "squeezes"):
      if not getattr(self, field):
        raise ValueError(f"space.blocks.{field} is empty: give one or more")
    sizes = {len(self.features), len(self.layers), len(self.strides)}
    if sizes != {self.num_blocks} or not self.num_blocks:
      raise ValueError(
        "space.blocks has"
        f" {len(self.features)} features, {len(self.layers)} layers and"
        f" {len(self.strides)} strides: give each block one of each"
      )
    self.architecture(self.decode(np.zeros(len(self.num_choices), int)))

  @property
  def num_blocks(self) -> int:
    return len(self.features)

  @property
  def options(self) -> dict[str, Any]:
    """What `spaces.get` needs beside the name; JSON can hold it."""
    fields = dataclasses.asdict(self)
    return {
      "blocks": {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if name not in ("name", "ratios")
      }
    }

  @property
  def summary(self) -> str:
    """The space in a few words."""
    return f"{self.num_blocks} blocks around {_listed(self.features)} channels"

  @property
  def sizes(self) -> MnasGenotype:
    """The number of choices of each decision of a block."""
    tables = (self.operations, self.kernels, self.squeezes, self.skips)
    return MnasGenotype(*map(len, (*tables, self.ratios, LAYERS)))

  @property
  def num_choices(self) -> tuple[int, ...]:
    return tuple(self.sizes) * self.num_blocks

  @property
  def decision_names(self) -> tuple[str, ...]:
    return tuple(
      f"block {b} {field}"
      for b in range(self.num_blocks)
      for field in MnasGenotype._fields
    )

  @property
  def kinds(self) -> tuple[str, ...]:
    return MnasGenotype._fields * self.num_blocks

  @property
  def groups(self) -> tuple[int, ...]:
    """A group is a block: what crossover swaps whole."""
    return tuple(
      b for b in range(self.num_blocks) for _ in MnasGenotype._fields
    )

  def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
    return base.sample(self.num_choices, rng, n)

  def neighbours(self, decisions) -> np.ndarray:
    return base.neighbours(self.num_choices, decisions)

  def decode(self, decisions) -> MnasGenotype:
    """int[..., 6 B] -> MnasGenotype of [..., B]."""
    decisions = base.check_decisions(self.num_choices, decisions)
    rows = decisions.reshape(*decisions.shape[:-1], self.num_blocks, -1)
    return MnasGenotype(*np.moveaxis(rows, -1, 0))

  def encode(self, genotype: MnasGenotype | Architecture) -> np.ndarray:
    """The inverse of `decode`; also of `architecture`, for a single one.

    Raises:
      ValueError: for an architecture that is not of this space, in a line.
    """
    if isinstance(genotype, Architecture):
      genotype = self._genotype_of(genotype)
    rows = np.stack([np.asarray(leaf) for leaf in genotype], -1)
    flat = rows.reshape(*rows.shape[:-2], -1)
    return base.check_decisions(self.num_choices, flat)

  def canonical(self, decisions) -> np.ndarray:
    """int[n, 6 B] -> int32[n, 6 B]: one representative per set of equal
    networks: of choices that come out equal the first, and no skip where
    channels or strides allow none."""
    genotype = self.decode(decisions)
    features = self.feature_choices()
    layers = self.layer_choices()
    every = np.arange(self.num_blocks)
    channels = features[every, genotype.features]
    counts = layers[every, genotype.layers]
    entering = np.concatenate(
      [np.full_like(channels[..., :1], self.stem), channels[..., :-1]], -1
    )
    pooled = (counts > 1) | (entering == channels)
    same = (counts > 1) | (pooled & (np.asarray(self.strides) == 1))
    possible = np.stack([np.ones_like(same), same, pooled], -1)
    codes = np.array([SKIPS.index(skip) for skip in self.skips])
    effects = codes * possible[..., codes]  # 0: none
    chosen = np.take_along_axis(effects, genotype.skip[..., None], -1)
    return self.encode(
      genotype._replace(
        features=_first(features)[every, genotype.features],
        layers=_first(layers)[every, genotype.layers],
        skip=(effects == chosen).argmax(-1),
      )
    )

  def feature_choices(self) -> np.ndarray:
    """int[B, ratios]: the channels that each block can have."""
    return np.array(
      [
        [compound_scaling.round_features(f, ratio) for ratio in self.ratios]
        for f in self.features
      ]
    )

  def layer_choices(self) -> np.ndarray:
    """int[B, 3]: the numbers of layers that each block can have."""
    return np.maximum(np.asarray(self.layers)[:, None] + LAYERS, 1)

  def architecture(self, genotype: MnasGenotype) -> Architecture:
    """The network of a single genotype, as a literal."""
    features, layers = self.feature_choices(), self.layer_choices()
    rows = np.stack([np.asarray(leaf) for leaf in genotype], -1).tolist()
    groups = []
    for b, row in enumerate(rows):
      choice = MnasGenotype(*row)
      operation = self.operations[choice.operation]
      skip = self.skips[choice.skip]
      groups.append(
        Group(
          "mbconv" if operation in _EXPANSIONS else "conv",
          repeats=int(layers[b, choice.layers]),
          features=int(features[b, choice.features]),
          kernel=self.kernels[choice.kernel],
          stride=self.strides[b],
          expansion=_EXPANSIONS.get(operation, 1),
          squeeze=self.squeezes[choice.squeeze],
          skip=skip != "none",
          skip_pool=skip == "pool",
        )
      )
    return Architecture(
      stem=self.stem,
      groups=tuple(groups),
      head=self.head,
      activation=self.activation,
      stem_stride=self.stem_stride,
      fixed=("head",),
    )

  def _genotype_of(self, arch: Architecture) -> MnasGenotype:
    if len(arch.groups) != self.num_blocks:
      raise ValueError(
        f"{len(arch.groups)} groups of blocks are not the {self.num_blocks} of"
        f" space {self.name}"
      )
    features, layers = self.feature_choices(), self.layer_choices()
    rows = []
    for b, group in enumerate(arch.groups):
      operation = {v: k for k, v in _EXPANSIONS.items()}.get(group.expansion)
      operation = "conv" if group.kind == "conv" else operation
      skip = "pool" if group.skip_pool else "identity"
      chosen = {
        "operation": (operation, self.operations),
        "kernel": (group.kernel, self.kernels),
        "squeeze": (group.squeeze, self.squeezes),
        "skip": (skip if group.skip else "none", self.skips),
        "features": (group.features, features[b].tolist()),
        "layers": (group.repeats, layers[b].tolist()),
      }
      for field, (value, known) in chosen.items():
        if value not in known:
          raise ValueError(
            f"block {b} has {field} {value}, and space {self.name} there"
            f" {_listed(known)}"
          )
      rows.append([known.index(value) for value, known in chosen.values()])
    genotype = MnasGenotype(*np.array(rows, np.int32).T)
    if self.architecture(genotype) != arch:
      raise ValueError(
        "stem, head, strides or activation of the architecture are not those"
        f" of space {self.name}: set space.blocks"
      )
    return genotype

  def key(self, decisions) -> str:
    """A hash that equal networks share. decisions: int[D]."""
    return base.key(self, decisions)

  def to_json(self, genotype: MnasGenotype) -> dict[str, Any]:
    """A readable dict; `from_json` is the inverse, up to equal networks."""
    arch = BLOCKS.to_json(self.architecture(genotype))
    return {**arch, "space": self.name}

  def from_json(self, data: dict[str, Any]) -> MnasGenotype:
    """The genotype of a dict as `to_json` writes it; ValueError in a line."""
    return self._genotype_of(BLOCKS.from_json(data))


def _check_names(field: str, names, known):
  """Raises ValueError, in a line, unless they are some of the known ones."""
  unknown = [name for name in names if name not in known]
  if unknown or not names or len(set(names)) < len(names):
    raise ValueError(
      f"space.blocks.{field} is {_listed(names) or 'empty'}: give one or more,"
      f" each once, of: {_listed(known)}"
    )


def _first(table: np.ndarray) -> np.ndarray:
  """int32[B, n]: for each entry the first of its row that is equal."""
  return (table[:, :, None] == table[:, None]).argmax(-1).astype(np.int32)


def _listed(values) -> str:
  return ", ".join(map(str, values))


MNASNET = MnasSpace("mnasnet")
MNASNET_RELEASED = MnasSpace("mnasnet_released", (0.75, 1.0, 1.2))
