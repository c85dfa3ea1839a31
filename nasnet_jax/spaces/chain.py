"""A part of the PNAS space small enough to train all of it: chains.

Block k of a cell reads the state before it (block 0: the cell's input h_i) by
one of two operations and h_{i-1} by one of two others; the cell concatenates
all its blocks, as in the PNAS space. So a block is one of four, and cells of 1
to 4 blocks are 4 + 16 + 64 + 256 = 340, no two of them equal (with 5 blocks
1,364). A table that holds them all can answer whatever a strategy asks.

The decisions are those of the PNAS space: the number of blocks, then for each
block two inputs, of which there is no choice here, and two operations.
"""

import dataclasses
import itertools

import numpy as np

from nasnet_jax.spaces import genotype as gt
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.pnas import PNAS

ALONG = ("sep_conv_3x3", "max_pool_3x3")  # of the state before
ACROSS = ("identity", "sep_conv_5x5")  # of h_{i-1}


@dataclasses.dataclass(frozen=True)
class ChainSpace(CellSpace):
  """See the top of this file. Its genotypes are those of the PNAS space, so
  one program trains the cells of both."""

  def __post_init__(self):
    super().__post_init__()
    if self.operations != PNAS.operations:
      raise ValueError(f"the operations of space {self.name} are fixed")

  @property
  def num_choices(self) -> tuple[int, ...]:
    header = (self.num_blocks - self.min_blocks + 1,) * self._header
    return header + (1, 1, len(ALONG), len(ACROSS)) * self.num_blocks

  @property
  def sides_alike(self) -> bool:
    return False

  @property
  def whole(self) -> CellSpace:
    """The PNAS space with the same number of blocks."""
    return dataclasses.replace(
      PNAS, num_blocks=self.num_blocks, min_blocks=self.min_blocks
    )

  def in_whole(self, decisions) -> np.ndarray:
    """int[..., D] -> int32[..., D]: the same cells in the space `whole`."""
    counts, table = self._split(decisions)
    whole = np.empty_like(table)
    whole[..., 0] = _before(self.num_blocks)
    whole[..., 1] = 1
    whole[..., 2] = _codes(ALONG)[table[..., 2]]
    whole[..., 3] = _codes(ACROSS)[table[..., 3]]
    return self._join(counts, whole)

  def decode(self, decisions) -> gt.Genotype:
    """See `CellSpace.decode`."""
    return self.whole.decode(self.in_whole(decisions))

  def encode(self, genotype: gt.Genotype) -> np.ndarray:
    """See `CellSpace.encode`; ValueError also for a cell that is no chain."""
    counts, table = self.whole._split(self.whole.encode(genotype))
    fits = (table[..., 0] == _before(self.num_blocks)) & (table[..., 1] == 1)
    found = np.zeros_like(table)
    for column, names in ((2, ALONG), (3, ACROSS)):
      matches = table[..., column, None] == _codes(names)
      fits &= matches.any(-1)
      found[..., column] = matches.argmax(-1)
    used = np.arange(self.num_blocks) < counts[..., None]
    if (used & ~fits).any():
      raise ValueError(f"the cell is none of space {self.name}")
    return self._join(counts, np.where(used[..., None], found, 0))

  def canonical(self, decisions) -> np.ndarray:
    """int[n, D] -> int32[n, D]: without what stands behind the last block."""
    counts, table = self._split(decisions)
    used = np.arange(self.num_blocks) < counts[..., None]
    return self._join(counts, np.where(used[..., None], table, 0))

  def all_cells(self) -> np.ndarray:
    """int32[n, D]: every cell once, smaller ones first."""
    choices = list(itertools.product(*map(range, self.num_choices)))
    return np.unique(self.canonical(np.array(choices, np.int32)), axis=0)


def _before(num_blocks: int) -> np.ndarray:
  """int[B]: the state before each block."""
  return np.where(np.arange(num_blocks) == 0, 0, np.arange(num_blocks) + 1)


def _codes(names) -> np.ndarray:
  return np.array([PNAS.operations.index(name) for name in names])


PNAS_CHAIN = ChainSpace(
  "pnas_chain",
  PNAS.operations,
  num_blocks=4,
  cells=PNAS.cells,
  output="all",
  min_blocks=1,
)
