"""What a search space is to a controller: a list of categorical decisions."""

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class SearchSpace(Protocol):
  """Any space a controller can search, cells or not.

  Attributes:
    name: the key in `nasnet_jax.spaces.SPACES`.
    num_choices: the decisions, in order; each a categorical.
    decision_names: one readable name per decision.
  """

  name: str

  @property
  def num_choices(self) -> tuple[int, ...]: ...

  @property
  def decision_names(self) -> tuple[str, ...]: ...

  def decode(self, decisions) -> Any:
    """int[..., D] -> the architecture(s)."""

  def encode(self, architecture) -> np.ndarray:
    """The inverse of `decode`."""

  def canonical(self, decisions) -> np.ndarray:
    """int[n, D] -> int[n, D]: equivalent architectures become equal rows."""


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
