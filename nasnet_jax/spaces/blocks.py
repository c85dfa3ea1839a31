"""Networks that are a row of blocks: ResNets, MobileNets, EfficientNets.

`BLOCKS` has what the jobs ask of a space (JSON, a name), and no decisions: its
architectures are published ones, or what a search of another space found.
"""

import dataclasses
from typing import Any

# What a group repeats; `models.blocks` has their modules.
KINDS = ("mbconv", "separable", "basic", "bottleneck", "conv")
ACTIVATIONS = ("relu", "relu6", "swish")
# What scaling may leave alone: channels of the stem or the head, the number of
# blocks of the first or the last group.
FIXED = ("stem", "head", "first", "last")


@dataclasses.dataclass(frozen=True)
class Group:
  """Blocks of one kind; the first carries stride and width.

  Attributes:
    kind: one of KINDS.
    repeats: blocks.
    features: channels that come out.
    kernel: side of the spatial convolution.
    stride: of the first block.
    expansion: of mbconv, hidden over input channels; of bottleneck, output
      over hidden channels.
    squeeze: of squeeze-excite: its hidden channels as a share of those that
      enter the block (mbconv, conv) or leave it (basic, bottleneck); 0: none.
    skip: whether what enters is added where shapes allow it; a basic or
      bottleneck block always adds, through a 1x1 convolution if need be.
    skip_pool: of mbconv and conv, whether its 3x3 average is added instead,
      at stride 2 too.
  """

  kind: str
  repeats: int
  features: int
  kernel: int = 3
  stride: int = 1
  expansion: int = 1
  squeeze: float = 0.0
  skip: bool = True
  skip_pool: bool = False

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f"kind {self.kind!r} is not one of: {', '.join(KINDS)}")
    if self.skip_pool and self.kind not in ("mbconv", "conv"):
      raise ValueError(f"a block of kind {self.kind!r} pools no skip")
    for field in ("repeats", "features", "kernel", "stride", "expansion"):
      if getattr(self, field) < 1:
        raise ValueError(
          f"{field} of a group is {getattr(self, field)}: give 1 or more"
        )
    if not 0 <= self.squeeze <= 1:
      raise ValueError(f"squeeze is {self.squeeze}: give a share from 0 to 1")

  @property
  def layer(self) -> "Group":
    """What matters to a block whose features and stride are known: equal for
    equal blocks of different groups."""
    return dataclasses.replace(self, repeats=1, features=1, stride=1)


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network before it is scaled.

  Attributes:
    stem: channels of the first convolution.
    groups: in their order.
    head: channels of the 1x1 convolution before the pool; 0: there is none.
    activation: one of ACTIVATIONS, of the whole network.
    stem_kernel, stem_stride: of the first convolution.
    stem_pool: whether a 3x3 max pool of stride 2 follows it.
    fixed: what scaling leaves alone, of FIXED.
  """

  stem: int
  groups: tuple[Group, ...]
  head: int = 0
  activation: str = "relu"
  stem_kernel: int = 3
  stem_stride: int = 2
  stem_pool: bool = False
  fixed: tuple[str, ...] = ()

  def __post_init__(self):
    if self.activation not in ACTIVATIONS:
      raise ValueError(
        f"activation {self.activation!r} is not one of:"
        f" {', '.join(ACTIVATIONS)}"
      )
    unknown = set(self.fixed) - set(FIXED)
    if unknown:
      raise ValueError(
        f"fixed has {min(unknown)!r}, not one of: {', '.join(FIXED)}"
      )
    if not self.groups:
      raise ValueError("an architecture has at least one group of blocks")


@dataclasses.dataclass(frozen=True)
class BlockSpace:
  """All architectures of blocks. Nothing searches it."""

  name: str = "blocks"

  @property
  def options(self) -> dict[str, Any]:
    """What `spaces.get` needs beside the name."""
    return {}

  def to_json(self, architecture: Architecture) -> dict[str, Any]:
    """A readable dict; `from_json` is the inverse."""
    fields = dataclasses.asdict(architecture)
    return {"space": self.name, "architecture": fields}

  def from_json(self, data: dict[str, Any]) -> Architecture:
    """The architecture of such a dict; ValueError, in a line, for another."""
    fields = dict(data.get("architecture", {}))
    try:
      groups = tuple(Group(**group) for group in fields.pop("groups", ()))
      fixed = tuple(fields.pop("fixed", ()))
      return Architecture(groups=groups, fixed=fixed, **fields)
    except TypeError as error:
      raise ValueError(f"no architecture of blocks: {error}") from None


BLOCKS = BlockSpace()
