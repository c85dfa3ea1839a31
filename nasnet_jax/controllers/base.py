"""What a controller is: three functions that see decisions and rewards only.

    state = controller.init(rng)
    proposals, state = controller.ask(state, rng, n)
    state = controller.tell(state, proposals, rewards, status)

Every controller keeps these promises (tests/controllers/test_contract.py):

- State is a pytree of arrays whose structure, shapes and types `init` fixes,
  so a search is saved by saving it and restored onto `init`'s state. Functions
  return a new state and leave the old one as it was.
- Functions are deterministic, so replaying the journal of asks and tells
  rebuilds the state bit for bit (`nasnet_jax.controllers.journal`).
- It may be asked again before all answers are in, and told in any order and in
  any portions: the rows' order counts, not how calls divide them.
- A reward that is not finite, or a status of FAILED, is an answer (nobody
  waits for that child any more) that teaches nothing.

A strategy of several objectives is told rewards [m, k], in each of which larger
is better, wherever this says f32[m]; one that is not finite makes the child a
failed one.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.spaces.base import ListSpace, SearchSpace

OK, FAILED = 0, 1
NOBODY = -(2**31)  # the parent of a child that was made from none


# Not a NamedTuple: len() should count proposals, and a tuple whose len() is
# not its number of fields breaks `_replace` and `_make`.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Proposals:
  """m <= n proposals. Every leaf has the leading axis m, so rows can be split,
  joined and told back in any order.

  Attributes:
    id: int64[m], unique over the life of a controller state, ascending.
    decisions: int32[m, D].
    budget: float32[m], multiple of the job's own budget (1.0 = as configured).
    extras: pytree of arrays [m, ...] that `tell` needs back (PPO's
      log-probabilities, say); () for none.
    parent: int64[m], the id of the child that each was made from; negative:
      none of this search. () of a strategy whose proposals have no parent.
  """

  id: Any
  decisions: Any
  budget: Any
  extras: Any = ()
  parent: Any = ()

  def __len__(self) -> int:
    """m."""
    return len(self.id)

  def rows(self, index) -> "Proposals":
    """The rows that `index` (int array, slice or mask) selects."""
    return jax.tree.map(lambda x: np.asarray(x)[index], self)


class Controller(NamedTuple):
  """optax-shaped: a tuple of functions.

  Attributes:
    init: (rng) -> state. rng is a `jax.random.key`.
    ask: (state, rng, n) -> (proposals, state). Fewer than n proposals, or
      none, is an answer (the space is exhausted, or answers are awaited);
      even none are arrays of the usual types, with m = 0.
    tell: (state, proposals, rewards f32[m], status i32[m]) -> state. A
      reward of NaN or a status of FAILED must harm nothing.
    teach: (state, decisions i32[k, D], rewards f32[k]) -> state. What `init`
      gave, as if its first k children had been these, with these rewards: its
      next id is k. None where a strategy cannot learn from children that it
      did not propose.
    parents: (state) -> int64[k], who of the children that were told may be
      the parent of a later proposal; negative ids mean nothing. Who is not
      among them never becomes one again, so what is kept of a child may then
      be thrown away. None where proposals have no parent.
    objectives: how many rewards a child has; 1: rewards are f32[m].
  """

  init: Callable
  ask: Callable
  tell: Callable
  teach: Callable | None = None
  parents: Callable | None = None
  objectives: int = 1


def bind(settings, *functions) -> Controller:
  """The controller of functions, in its order, or None, whose first argument
  is `settings`."""
  return Controller(*(f and functools.partial(f, settings) for f in functions))


def generator(rng) -> np.random.Generator:
  """NumPy's generator, seeded with the data of a `jax.random.key`."""
  return np.random.default_rng(np.asarray(jax.random.key_data(rng)))


def number(
  next_id, decisions, extras=(), parent=()
) -> tuple[Proposals, np.ndarray]:
  """Proposals of budget 1 with the ids from `next_id` on, and the id after.

  Args:
    next_id: int64[], the state's counter (checkpoints may restore it as
      another integer type).
    decisions: int32[m, D].
    extras: pytree of arrays [m, ...].
    parent: int64[m], or ().
  """
  first, m = int(next_id), len(decisions)
  proposals = Proposals(
    id=np.arange(first, first + m, dtype=np.int64),
    decisions=decisions,
    budget=np.ones(m, np.float32),
    extras=extras,
    parent=parent,
  )
  return proposals, np.array(first + m, np.int64)


def join(parts: Sequence[Proposals]) -> Proposals:
  """The rows of all parts (at least one), in their order."""
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def renumber(proposals: Proposals, shift: int) -> Proposals:
  """The proposals, with other ids, those of their parents too."""
  return dataclasses.replace(
    proposals,
    id=np.asarray(proposals.id) + shift,
    parent=jax.tree.map(lambda ids: shifted(ids, shift), proposals.parent),
  )


def shifted(parents, shift: int) -> np.ndarray:
  """int64[k]: ids of parents, with other numbers."""
  parents = np.asarray(parents, np.int64)
  return np.where(parents == NOBODY, NOBODY, parents + shift)


def succeeded(
  proposals: Proposals, rewards, status, objectives: int = 1
) -> np.ndarray:
  """bool[m]: the children whose reward, or all of whose rewards, may teach
  something.

  Args:
    objectives: how many rewards a child has; 1: rewards are [m].

  Raises:
    ValueError: unless there are so many rewards and one status per proposal.
  """
  with np.errstate(over="ignore"):  # too large for float32: not finite either
    rewards = np.asarray(rewards).astype(np.float32)
  status = np.asarray(status)
  m = len(proposals)
  shape = (m,) if objectives == 1 else (m, objectives)
  if not m and not rewards.size:
    rewards = rewards.reshape(shape)  # of nobody
  if rewards.shape != shape or status.shape != (m,):
    raise ValueError(
      f"{m} proposals are told rewards of shape {rewards.shape} and a status"
      f" of shape {status.shape}, not {shape} and {(m,)}"
    )
  finite = np.isfinite(rewards)
  return (finite if objectives == 1 else finite.all(-1)) & (status == OK)


def objectives_of(rewards) -> int:
  """How many rewards each child has, of rewards [m] or [m, k]."""
  shape = np.shape(rewards)
  return shape[1] if len(shape) == 2 else 1


def as_space(space: SearchSpace | Sequence[int]) -> SearchSpace:
  """The space; of a plain list of numbers of choices, the space of it.

  Raises:
    ValueError: for no decision or one without a choice.
  """
  if not hasattr(space, "num_choices"):
    space = ListSpace(tuple(int(c) for c in space))
  if not space.num_choices or min(space.num_choices) < 1:
    raise ValueError(
      f"every decision needs at least one choice, got {space.num_choices}"
    )
  return space


def keys(space: SearchSpace, decisions) -> np.ndarray:
  """uint64[m]: hashes that equivalent architectures share. decisions: [m, D].

  Among 10^5 architectures two have the same with a chance of 3e-10.
  """
  rows = space.canonical(decisions).astype(np.uint64)
  word = np.zeros(len(rows), np.uint64)
  for column in rows.T:
    word = mix(word ^ column)
  return word


def mix(word: np.ndarray) -> np.ndarray:
  """splitmix64's step on uint64[m] (Steele et al. 2014): one-to-one."""
  word = word + np.uint64(0x9E3779B97F4A7C15)
  word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return word ^ (word >> np.uint64(31))
