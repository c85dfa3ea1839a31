"""What a search space is to a controller: a list of categorical decisions."""

import dataclasses
import hashlib
import json
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class SearchSpace(Protocol):
  """Any space a controller can search, cells or not.

  Attributes:
    name: the key in `nasnet_jax.spaces.SPACES`.
    num_choices: the decisions, in order; each a categorical.
    decision_names: one readable name per decision.
    kinds: what each decision is about ("input", "operation", ...). A mutation
      first picks a kind, as Real et al. 2019 do, then a decision of it.
    groups: int per decision, the part of the architecture that it belongs to
      (a cell, a stage); crossover swaps whole groups.
  """

  name: str

  @property
  def num_choices(self) -> tuple[int, ...]: ...

  @property
  def decision_names(self) -> tuple[str, ...]: ...

  @property
  def kinds(self) -> tuple[str, ...]: ...

  @property
  def groups(self) -> tuple[int, ...]: ...

  def decode(self, decisions) -> Any:
    """int[..., D] -> the architecture(s)."""

  def encode(self, architecture) -> np.ndarray:
    """The inverse of `decode`."""

  def canonical(self, decisions) -> np.ndarray:
    """int[n, D] -> int[n, D]: equivalent architectures become equal rows."""


@dataclasses.dataclass(frozen=True)
class ListSpace:
  """A plain list of decisions: all of one kind, each a group of its own."""

  num_choices: tuple[int, ...]
  name: str = "list"

  @property
  def decision_names(self) -> tuple[str, ...]:
    return tuple(f"decision {i}" for i in range(len(self.num_choices)))

  @property
  def kinds(self) -> tuple[str, ...]:
    return ("choice",) * len(self.num_choices)

  @property
  def groups(self) -> tuple[int, ...]:
    return tuple(range(len(self.num_choices)))

  def decode(self, decisions) -> np.ndarray:
    return check_decisions(self.num_choices, decisions)

  def encode(self, architecture) -> np.ndarray:
    return check_decisions(self.num_choices, architecture)

  def canonical(self, decisions) -> np.ndarray:
    return check_decisions(self.num_choices, decisions)


def key(space: SearchSpace, decisions) -> str:
  """A hash that equivalent architectures share. decisions: int[D]."""
  row = space.canonical(np.asarray(decisions)[None])[0]
  text = json.dumps([space.name, row.tolist()])
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def sample(
  num_choices: tuple[int, ...], rng: np.random.Generator, n: int
) -> np.ndarray:
  """int32[n, D] uniform decisions."""
  return rng.integers(0, np.asarray(num_choices), (n, len(num_choices))).astype(
    np.int32
  )


def neighbours(num_choices: tuple[int, ...], decisions) -> np.ndarray:
  """int32[sum(c_i - 1), D]: every vector that differs in one decision.

  Args:
    decisions: int[D].
  """
  decisions = np.asarray(decisions, np.int32)
  rows = []
  for i, choices in enumerate(num_choices):
    others = [c for c in range(choices) if c != decisions[i]]
    block = np.repeat(decisions[None], len(others), 0)
    block[:, i] = others
    rows.append(block)
  return np.concatenate(rows) if rows else np.zeros((0, 0), np.int32)


def new_rows(rows, seen) -> np.ndarray:
  """The rows that are not among those seen, each once, in their order.

  Args:
    rows: int[n, D], values in 0..65535.
    seen: int[m, D].
  """
  both = np.ascontiguousarray(np.concatenate([seen, rows]), np.uint16)
  items = both.view(f"V{both.itemsize * both.shape[1]}")[:, 0]
  first = np.sort(np.unique(items, return_index=True)[1])
  return rows[first[first >= len(seen)] - len(seen)]


def check_decisions(num_choices: tuple[int, ...], decisions) -> np.ndarray:
  """Returns int32 decisions; raises ValueError naming the first bad one."""
  array = np.asarray(decisions)
  if array.shape[-1:] != (len(num_choices),):
    raise ValueError(
      f"expected {len(num_choices)} decisions, got shape {array.shape}"
    )
  if array.dtype.kind not in "iu":
    raise ValueError(f"decisions are whole numbers, not {array.dtype}")
  bad = (array < 0) | (array >= np.asarray(num_choices))
  if bad.any():
    where = np.argwhere(bad)[0]
    raise ValueError(
      f"decision {where[-1]} is {array[tuple(where)]}, outside"
      f" 0..{num_choices[where[-1]] - 1}"
    )
  return array.astype(np.int32)
