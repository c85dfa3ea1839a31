"""Local search: always on to the best neighbour, anew from each summit.

White et al. 2020 (arXiv 2005.02960): train a random architecture, then all of
its neighbours, go on with the best of these, and stop where no neighbour is
better. As in the authors' code (naszilla), neighbours come in random order,
nothing is trained twice, and the search then starts again elsewhere.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.spaces import base as spaces

# What is known of a candidate; NEW is also the id of one not yet proposed.
NEW, WAITING, KNOWN, FAILED = -1, 0, 1, 2

# Random architectures are drawn so many at a time when a start is looked for,
# and so many times before the space counts as exhausted; in a space of at most
# SMALL_SPACE decision vectors the last ones are found by trying all.
DRAWN, TRIES = 256, 16
SMALL_SPACE = 1 << 16


class State(NamedTuple):
  """The controller's state. M architectures remembered, K candidates at most.

  Attributes:
    keys: uint64[M], hashes of the architectures proposed, that of proposal i
      in row i modulo M: the latest M are remembered.
    rewards: f32[M], 0 unless KNOWN.
    status: int8[M], WAITING, KNOWN or FAILED.
    current: int32[D], where the climb stands.
    reward: f32[], of it.
    climbing: bool[]; false before the climb's start is chosen.
    candidates: int32[K, D], the neighbours of `current`, or possible starts.
    candidate_keys: uint64[K].
    ids: int64[K], as which the candidate was proposed, or NEW.
    total: int64[], candidates there are.
    next_id: int64[].
  """

  keys: Any
  rewards: Any
  status: Any
  current: Any
  reward: Any
  climbing: Any
  candidates: Any
  candidate_keys: Any
  ids: Any
  total: Any
  next_id: Any


def local_search(
  space,
  *,
  first_improvement: bool = False,
  starts: int = 1,
  memory: int = 20_000,
) -> base.Controller:
  """Hill climbing over architectures that differ in one decision.

  - No architecture is proposed twice while it is remembered; equal canonical
    forms are one architecture. Neighbours that are known from before count
    when the climb moves on, without being trained again.
  - A climb waits: when all neighbours have been proposed and answers are
    missing, an ask is answered with none, and a round may be smaller than
    asked for. A new climb begins with `starts` proposals.
  - A failed child is no place to go to. If all of a climb's starts fail, others
    are drawn.
  - The search ends where every architecture has been proposed. In a space of
    more than 2^16 decision vectors it ends when 4,096 random ones in a row are
    known.

  Args:
    space: see `base.as_space`.
    first_improvement: move on as soon as a better neighbour is known, to the
      best that is ("query until lower" in the paper); else when all are.
    starts: random architectures that a climb begins with; it goes on from the
      best of them.
    memory: M, at least the number of candidates.

  Raises:
    ValueError: for a decision without a choice, no start, or a memory that is
      too small.
  """
  space = base.as_space(space)
  if starts < 1:
    raise ValueError("starts must be at least 1")
  most = max(starts, sum(space.num_choices) - len(space.num_choices))
  if memory < most:
    raise ValueError(f"memory must be at least {most}, the candidates at once")

  def init(rng) -> State:
    return State(
      keys=np.zeros(memory, np.uint64),
      rewards=np.zeros(memory, np.float32),
      status=np.zeros(memory, np.int8),
      current=np.zeros(len(space.num_choices), np.int32),
      reward=np.zeros((), np.float32),
      climbing=np.zeros((), bool),
      candidates=np.zeros((most, len(space.num_choices)), np.int32),
      candidate_keys=np.zeros(most, np.uint64),
      ids=np.full(most, NEW, np.int64),
      total=np.zeros((), np.int64),
      next_id=np.zeros((), np.int64),
    )

  def ask(state: State, rng, n: int) -> tuple[base.Proposals, State]:
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    first, parts = state.next_id, [state.candidates[:0]]
    while n > 0:
      state = _advance(space, state, rng, starts, first_improvement)
      decisions, state = _take(state, n)
      if not len(decisions):
        break
      parts.append(decisions)
      n -= len(decisions)
    proposals, _ = base.number(first, np.concatenate(parts))
    return proposals, state

  def tell(state: State, proposals, rewards, status) -> State:
    good = base.succeeded(proposals, rewards, status)
    ids = np.asarray(proposals.id)
    kept = ids >= int(state.next_id) - memory
    rows = ids[kept] % memory
    known, result = np.array(state.rewards), np.array(state.status)
    known[rows] = np.where(good, rewards, 0)[kept]
    result[rows] = np.where(good, KNOWN, FAILED)[kept]
    return state._replace(rewards=known, status=result)

  return base.Controller(init, ask, tell)


def _advance(
  space, state: State, rng, starts: int, first_improvement: bool
) -> State:
  """Moves on as far as the answers allow.

  Returns:
    a state with new candidates, if the search need not wait and has not ended.
  """
  while True:
    status, rewards = _answers(state)
    best = _best(state, status, rewards)
    complete = not np.isin(status, (NEW, WAITING)).any()
    hasty = first_improvement and state.climbing
    if best is not None and (complete or hasty):
      state = state._replace(
        current=state.candidates[best],
        reward=np.array(rewards[best], np.float32),
        climbing=np.ones((), bool),
      )
      rows = rng.permutation(
        spaces.neighbours(space.num_choices, state.current)
      )
    elif complete:
      rows = _unknown(space, state, rng)[:starts]
      if not len(rows):
        return state
      state = state._replace(climbing=np.zeros((), bool))
    else:
      return state
    state = _with_candidates(space, state, rows)


def _answers(state: State) -> tuple[np.ndarray, np.ndarray]:
  """(status int8, rewards f32) of the candidates; who is forgotten FAILED."""
  ids = state.ids[: int(state.total)]
  rows = ids % len(state.keys)
  forgotten = ids < int(state.next_id) - len(state.keys)
  status = np.where(forgotten, np.int8(FAILED), state.status[rows])
  return np.where(ids == NEW, np.int8(NEW), status), state.rewards[rows]


def _best(state: State, status, rewards) -> int | None:
  """The best candidate known, if it is better than where the climb stands."""
  known = np.flatnonzero(status == KNOWN)
  if not len(known):
    return None
  best = known[rewards[known].argmax()]
  if state.climbing and rewards[best] <= state.reward:
    return None
  return int(best)


def _take(state: State, n: int) -> tuple[np.ndarray, State]:
  """The first n new candidates, and the state that remembers them."""
  taken = np.flatnonzero(state.ids[: int(state.total)] == NEW)[:n]
  new_ids = int(state.next_id) + np.arange(len(taken))
  rows = new_ids % len(state.keys)
  keys, rewards, status, ids = (
    np.array(x) for x in (state.keys, state.rewards, state.status, state.ids)
  )
  keys[rows], rewards[rows], status[rows] = state.candidate_keys[taken], 0, 0
  ids[taken] = new_ids
  return state.candidates[taken], state._replace(
    keys=keys,
    rewards=rewards,
    status=status,
    ids=ids,
    next_id=np.array(int(state.next_id) + len(taken), np.int64),
  )


def _with_candidates(space, state: State, rows) -> State:
  """The state with the architectures among rows int32[k, D] as candidates."""
  keys = base.keys(space, rows)
  distinct = np.sort(np.unique(keys, return_index=True)[1])
  total = len(distinct)
  candidates = np.zeros_like(state.candidates)
  candidate_keys = np.zeros_like(state.candidate_keys)
  ids = np.full_like(state.ids, NEW)
  candidates[:total] = rows[distinct]
  candidate_keys[:total] = keys[distinct]
  ids[:total] = _find(state, keys[distinct])
  return state._replace(
    candidates=candidates,
    candidate_keys=candidate_keys,
    ids=ids,
    total=np.array(total, np.int64),
  )


def _find(state: State, keys) -> np.ndarray:
  """int64[k]: the ids that the architectures were proposed as, or NEW."""
  next_id, size = int(state.next_id), len(state.keys)
  if not next_id:
    return np.full(len(keys), NEW, np.int64)
  remembered = state.keys[:next_id]
  order = remembered.argsort()
  places = np.searchsorted(remembered, keys, sorter=order)
  rows = order[np.minimum(places, len(order) - 1)]
  # The latest proposal of that row.
  ids = next_id - 1 - (next_id - 1 - rows) % size
  return np.where(remembered[rows] == keys, ids, NEW)


def _unknown(space, state: State, rng) -> np.ndarray:
  """int32[k, D]: random architectures not remembered; none at the end."""
  for _ in range(TRIES):
    rows = spaces.sample(space.num_choices, rng, DRAWN)
    rows = _not_remembered(space, state, rows)
    if len(rows):
      return rows
  size = math.prod(space.num_choices)
  if size > SMALL_SPACE:
    return rows
  everything = np.unravel_index(rng.permutation(size), space.num_choices)
  rows = np.stack(everything, -1).astype(np.int32)
  return _not_remembered(space, state, rows)


def _not_remembered(space, state: State, rows) -> np.ndarray:
  """The rows of architectures that are new, each architecture once."""
  keys = base.keys(space, rows)
  first = np.sort(np.unique(keys, return_index=True)[1])
  return rows[first[_find(state, keys[first]) == NEW]]
