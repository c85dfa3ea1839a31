"""Random search: every decision uniform, nothing learnt.

The control of Zoph et al. 2018 (figure 6), and a strong one. `unique` draws
without replacement and so ends once a small space is exhausted.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.spaces import base as spaces

# Up to here a space's shuffled order is a plain permutation, rebuilt in each
# ask (2 ms at most); beyond, a cipher computes any place of the order.
SMALL_SPACE = 1 << 16

# Rounds of the cipher. Four suffice for pseudo-randomness in theory (Luby and
# Rackoff 1988); halves of two or three decisions are far from theory.
ROUNDS = 10


class State(NamedTuple):
  """The controller's state.

  Attributes:
    next_id: int64[], the id of the next proposal.
    key: uint32[k], the key data that `unique` shuffles the space by.
  """

  next_id: Any
  key: Any


def random_search(space, *, unique: bool = False) -> base.Controller:
  """Uniform proposals: 10^5 and more per second in batches.

  Args:
    space: see `base.as_space`.
    unique: never propose the same decisions twice. Proposals then walk along
      one shuffled order of the whole space, which follows from `init`'s key,
      so the state remembers only how far it went. (Equivalent architectures
      with different decisions do come more than once.)

  Raises:
    ValueError: for a decision without a choice.
  """
  num_choices = base.as_space(space).num_choices
  size = math.prod(num_choices)

  def init(rng) -> State:
    return State(np.zeros((), np.int64), np.asarray(jax.random.key_data(rng)))

  def ask(state: State, rng, n: int) -> tuple[base.Proposals, State]:
    if unique:
      first = int(state.next_id)
      places = np.arange(first, min(first + n, size), dtype=np.int64)
      decisions = shuffled(num_choices, state.key, places)
    else:
      data = np.asarray(jax.random.key_data(rng))
      decisions = spaces.sample(num_choices, np.random.default_rng(data), n)
    proposals, next_id = base.number(state.next_id, decisions)
    return proposals, state._replace(next_id=next_id)

  def tell(state: State, proposals, rewards, status) -> State:
    base.succeeded(proposals, rewards, status)
    return state

  return base.Controller(init, ask, tell)


def shuffled(num_choices, key, places) -> np.ndarray:
  """int32[m, D]: the decisions at places of the space's shuffled order.

  Args:
    num_choices: tuple of D ints.
    key: uint32[k], names the order.
    places: int64[m], below the space's size.
  """
  size = math.prod(num_choices)
  rng = np.random.default_rng(np.asarray(key, np.uint32))
  if size <= SMALL_SPACE:
    return _digits(num_choices, rng.permutation(size)[places])
  return _encipher(num_choices, rng, _digits(num_choices, places))


def _digits(num_choices, numbers) -> np.ndarray:
  """int32[m, D]: numbers as digits to the bases num_choices, last first."""
  digits = np.zeros((len(numbers), len(num_choices)), np.int32)
  for i, choices in reversed(list(enumerate(num_choices))):
    numbers, digits[:, i] = np.divmod(numbers, choices)
  return digits


def _encipher(num_choices, rng, decisions) -> np.ndarray:
  """A one-to-one map of the space onto itself that looks random.

  A Feistel network on digits: in turn, one half of the decisions is shifted,
  each modulo its choices, by amounts hashed from the other half. A shift can
  be undone, so no two inputs meet, however large the space.
  """
  choices = np.asarray(num_choices)
  real = np.flatnonzero(choices > 1)
  left, right = real[0::2], real[1::2]
  decisions = decisions.copy()
  for _ in range(ROUNDS):
    salts = rng.integers(0, 1 << 63, len(num_choices) + 1, dtype=np.uint64)
    word = np.full(len(decisions), salts[-1])
    for i in right:
      word = base.mix(word ^ decisions[:, i].astype(np.uint64))
    for i in left:
      shift = base.mix(word ^ salts[i]) % np.uint64(choices[i])
      decisions[:, i] = (decisions[:, i] + shift.astype(np.int64)) % choices[i]
    left, right = right, left
  return decisions
