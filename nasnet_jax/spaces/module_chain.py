"""A chain of choices: each layer of a network is one of several modules.

The modules are a user's own Linen modules. Nothing here looks into them: to a
space they are names, by which `spaces.get` finds the chain again that a file of
the user's has made.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.spaces import base

NAME = "chain"
Names = tuple[tuple[str, ...], ...]
# Those that were made in this process, the last one of each set of names.
_MADE: dict[Names, "ChainSpace"] = {}


class ChainGenotype(NamedTuple):
  """The choices of L layers; a pytree, so that many can be stacked.

  Attributes:
    choice: int32[..., L].
  """

  choice: Any


@dataclasses.dataclass(frozen=True)
class ChainSpace:
  """All networks of so many layers.

  Attributes:
    choices: names of what each layer can be, such as "Conv(features=8)".
    modules: the same as modules.
  """

  choices: Names
  modules: tuple[tuple[Any, ...], ...]
  name: str = NAME

  def __post_init__(self):
    if not self.choices:
      raise ValueError("a chain has no layer: give one_of(...) or more")
    for layer, names in enumerate(self.choices):
      if not names:
        raise ValueError(f"layer {layer} of the chain has nothing to choose")
      twice = [name for name in names if names.count(name) > 1]
      if twice:
        raise ValueError(f"layer {layer} of the chain has {twice[0]} twice")

  @property
  def operations(self) -> tuple[str, ...]:
    """Names of all modules, each once."""
    return tuple(dict.fromkeys(n for names in self.choices for n in names))

  @property
  def options(self) -> dict[str, Any]:
    """What `spaces.get` needs beside the name; JSON can hold it."""
    return {"choices": [list(names) for names in self.choices]}

  @property
  def summary(self) -> str:
    """The space in a few words."""
    sizes = " x ".join(str(len(names)) for names in self.choices)
    return f"a chain of {sizes} modules"

  @property
  def num_choices(self) -> tuple[int, ...]:
    return tuple(map(len, self.choices))

  @property
  def decision_names(self) -> tuple[str, ...]:
    return tuple(f"layer {i}" for i in range(len(self.choices)))

  @property
  def kinds(self) -> tuple[str, ...]:
    return ("module",) * len(self.choices)

  @property
  def groups(self) -> tuple[int, ...]:
    """Each layer is a group of its own."""
    return tuple(range(len(self.choices)))

  def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
    return base.sample(self.num_choices, rng, n)

  def neighbours(self, decisions) -> np.ndarray:
    return base.neighbours(self.num_choices, decisions)

  def decode(self, decisions) -> ChainGenotype:
    """int[..., L] -> ChainGenotype."""
    return ChainGenotype(base.check_decisions(self.num_choices, decisions))

  def encode(self, genotype: ChainGenotype) -> np.ndarray:
    """The inverse of `decode`."""
    return base.check_decisions(self.num_choices, np.asarray(genotype.choice))

  def canonical(self, decisions) -> np.ndarray:
    """int[n, L] -> int32[n, L]: no two networks of a chain are equal."""
    return base.check_decisions(self.num_choices, decisions)

  def key(self, decisions) -> str:
    """A hash of the network. decisions: int[L]."""
    return base.key(self, decisions)

  def to_json(self, genotype: ChainGenotype) -> dict[str, Any]:
    """A readable dict; `from_json` is the inverse."""
    row = self.encode(genotype).tolist()
    chosen = [names[i] for names, i in zip(self.choices, row, strict=True)]
    return {"space": self.name, "layers": chosen}

  def from_json(self, data: dict[str, Any]) -> ChainGenotype:
    """The genotype of a dict as `to_json` writes it; ValueError in a line."""
    layers = data.get("layers", [])
    if len(layers) != len(self.choices):
      raise ValueError(
        f"{len(layers)} layers are not the {len(self.choices)} of the chain"
      )
    row = []
    for i, (name, names) in enumerate(zip(layers, self.choices)):
      if name not in names:
        raise ValueError(f"layer {i} is {name!r}, not one of {names}")
      row.append(names.index(name))
    return ChainGenotype(np.array(row, np.int32))


def make(choices: Names, modules) -> ChainSpace:
  """The space, which `get` finds from now on."""
  space = ChainSpace(choices, modules)
  _MADE[choices] = space
  return space


def get(choices) -> ChainSpace:
  """The chain of these names.

  Raises:
    ValueError: one line, if no file that makes it was imported.
  """
  names = tuple(map(tuple, choices))
  if names not in _MADE:
    listed = " | ".join(", ".join(layer) for layer in names)
    raise ValueError(
      f"no chain of {listed or 'nothing'} was made here: import the file that"
      " makes it with nas.chain before (a command: --import=FILE)"
    )
  return _MADE[names]
