"""Local search: climb to the best neighbour, and start again at each summit.

White et al. 2020 (arXiv 2005.02960): train a random architecture, then all of
its neighbours, go on with the best of these, and stop where no neighbour is
better. As in the authors' code (naszilla), neighbours come in random order,
nothing is trained twice, and after a summit the search starts again elsewhere.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.spaces import base as spaces

# What is known of a candidate. NEW is also the id of one not yet proposed.
NEW, WAITING, KNOWN, FAILED = -1, 0, 1, 2

# To find a new start, DRAWN random architectures are drawn at a time. If none
# of them is new TRIES times in a row, the space counts as exhausted, unless it
# has at most SMALL_SPACE decision vectors: then all of them are tried.
DRAWN, TRIES = 256, 16
SMALL_SPACE = 1 << 16


class State(NamedTuple):
  """The controller's state. M architectures remembered, K candidates at most.

  Attributes:
    keys: uint64[M], hashes of the latest M architectures proposed; that of
      proposal i lies in row i modulo M.
    rewards: f32[M], 0 unless KNOWN.
    status: int8[M], WAITING, KNOWN or FAILED.
    current: int32[D], where the climb stands.
    reward: f32[], of `current`.
    parent: int64[], the id of `current`, the parent of its neighbours; NOBODY
      for a start, and if it was proposed before it became a candidate.
    climbing: bool[]; false before the climb's start is chosen.
    candidates: int32[K, D], the neighbours of `current`, or possible starts.
    candidate_keys: uint64[K].
    ids: int64[K], the id with which a candidate was proposed, or NEW.
    total: int64[], how many candidates there are.
    since: int64[], the first id that was free when they became candidates.
    next_id: int64[].
  """

  keys: Any
  rewards: Any
  status: Any
  current: Any
  reward: Any
  parent: Any
  climbing: Any
  candidates: Any
  candidate_keys: Any
  ids: Any
  total: Any
  since: Any
  next_id: Any


class Settings(NamedTuple):
  """What a search was given.

  Attributes:
    space: a `SearchSpace`.
    most_candidates: K.
    The others: see `local_search`.
  """

  space: Any
  first_improvement: bool
  starts: int
  memory: int
  most_candidates: int


def local_search(
  space,
  *,
  first_improvement: bool = False,
  starts: int = 1,
  memory: int = 20_000,
) -> base.Controller:
  """Hill climbing over architectures that differ in one decision.

  - No architecture is proposed twice while it is remembered; equal canonical
    forms are one architecture. Neighbours whose rewards are known already
    count when the climb moves on, without being trained again.
  - A climb waits for answers: an ask may give fewer proposals than it wants,
    and none when all neighbours have been proposed and answers are missing. A
    new climb begins with `starts` proposals.
  - The climb never moves to a failed child. If all of its starts fail, others
    are drawn.
  - The search ends when every architecture has been proposed. In a space of
    more than 2^16 decision vectors it ends when none of 4,096 random ones is
    new.

  Args:
    space: see `base.as_space`.
    first_improvement: whether to move on as soon as a better neighbour is
      known ("query until lower" in the paper); else when all are known. Either
      way the climb goes to the best known.
    starts: random architectures that a climb begins with; it goes on from the
      best of them.
    memory: M, at least K.

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

  settings = Settings(space, first_improvement, starts, memory, most)
  return base.bind(settings, init, ask, tell, teach, parents)


def init(settings: Settings, rng) -> State:
  """The state before the first climb. rng: not needed."""
  del rng
  memory, most = settings.memory, settings.most_candidates
  depth = len(settings.space.num_choices)
  return State(
    keys=np.zeros(memory, np.uint64),
    rewards=np.zeros(memory, np.float32),
    status=np.zeros(memory, np.int8),
    current=np.zeros(depth, np.int32),
    reward=np.zeros((), np.float32),
    parent=np.array(base.NOBODY, np.int64),
    climbing=np.zeros((), bool),
    candidates=np.zeros((most, depth), np.int32),
    candidate_keys=np.zeros(most, np.uint64),
    ids=np.full(most, NEW, np.int64),
    total=np.zeros((), np.int64),
    since=np.zeros((), np.int64),
    next_id=np.zeros((), np.int64),
  )


def ask(
  settings: Settings, state: State, rng, n: int
) -> tuple[base.Proposals, State]:
  """New candidates, of as many steps of the climb as the answers allow."""
  rng = base.generator(rng)
  first, parts = state.next_id, [state.candidates[:0]]
  parent = [np.zeros(0, np.int64)]
  while n > 0:
    state = advance(settings, state, rng)
    decisions, state = _take(state, n)
    if not len(decisions):
      break
    parts.append(decisions)
    parent.append(np.full(len(decisions), state.parent, np.int64))
    n -= len(decisions)
  proposals, _ = base.number(
    first, np.concatenate(parts), parent=np.concatenate(parent)
  )
  return proposals, state


def tell(settings: Settings, state: State, proposals, rewards, status) -> State:
  """The state with the answers to architectures that it remembers."""
  good = base.succeeded(proposals, rewards, status)
  ids, memory = np.asarray(proposals.id), settings.memory
  kept = ids >= int(state.next_id) - memory
  rows = ids[kept] % memory
  known, result = np.array(state.rewards), np.array(state.status)
  known[rows] = np.where(good, rewards, 0)[kept]
  result[rows] = np.where(good, KNOWN, FAILED)[kept]
  return state._replace(rewards=known, status=result)


def teach(settings: Settings, state: State, decisions, rewards) -> State:
  """The state that remembers these, and whose climb starts from the best of the
  ones that are remembered."""
  decisions, count = np.asarray(decisions, np.int32), len(rewards)
  ids = np.arange(count)[-settings.memory :]
  rows = ids % settings.memory
  state = State(*(np.array(x) for x in state))
  state.keys[rows] = base.keys(settings.space, decisions[ids])
  state.rewards[rows], state.status[rows] = np.asarray(rewards)[ids], KNOWN
  best = ids[np.asarray(rewards)[ids].argmax()]
  state.candidates[0], state.ids[0] = decisions[best], best
  state.candidate_keys[0] = state.keys[best % settings.memory]
  count = np.array(count, np.int64)
  return state._replace(total=np.array(1, np.int64), since=count, next_id=count)


def parents(settings: Settings, state: State) -> np.ndarray:
  """int64[1 or 2]: where the climb stands, and the best candidate so far, of
  those that were first proposed as candidates of this step."""
  del settings
  status, rewards = _answers(state)
  ids = state.ids[: int(state.total)]
  own = np.where(ids >= int(state.since), status, np.int8(FAILED))
  best = _best(state, own, rewards)
  found = [int(state.parent)]
  if best is not None:
    found.append(int(ids[best]))
  return np.array(found, np.int64)


def advance(
  settings: Settings, state: State, rng: np.random.Generator
) -> State:
  """The state as far on as the answers allow: with new candidates, unless the
  search has to wait or has ended."""
  space = settings.space
  while True:
    status, rewards = _answers(state)
    best = _best(state, status, rewards)
    complete = not np.isin(status, (NEW, WAITING)).any()
    hasty = settings.first_improvement and state.climbing
    if best is not None and (complete or hasty):
      known_before = state.ids[best] < int(state.since)
      parent = base.NOBODY if known_before else state.ids[best]
      state = state._replace(
        parent=np.array(parent, np.int64),
        current=state.candidates[best],
        reward=np.array(rewards[best], np.float32),
        climbing=np.ones((), bool),
      )
      rows = rng.permutation(
        spaces.neighbours(space.num_choices, state.current)
      )
    elif complete:
      rows = _unknown(space, state, rng)[: settings.starts]
      if not len(rows):
        return state
      state = state._replace(
        climbing=np.zeros((), bool), parent=np.array(base.NOBODY, np.int64)
      )
    else:
      return state
    state = _with_candidates(space, state, rows)


def _answers(state: State) -> tuple[np.ndarray, np.ndarray]:
  """(status int8, rewards f32) of the candidates; forgotten ones count as
  FAILED."""
  ids = state.ids[: int(state.total)]
  rows = ids % len(state.keys)
  forgotten = ids < int(state.next_id) - len(state.keys)
  status = np.where(forgotten, np.int8(FAILED), state.status[rows])
  return np.where(ids == NEW, np.int8(NEW), status), state.rewards[rows]


def _best(state: State, status, rewards) -> int | None:
  """The best known candidate, if it is better than `current`."""
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
    since=np.array(state.next_id, np.int64),
  )


def _find(state: State, keys) -> np.ndarray:
  """int64[k]: the ids with which the architectures were proposed, or NEW."""
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
  """int32[k, D]: random architectures that are new; none if there are none."""
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
