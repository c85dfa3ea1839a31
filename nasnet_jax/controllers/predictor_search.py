"""Search led by a predictor, for any list of decisions.

The idea of Liu et al. 2018 (see `progressive`) without the growing of cells:
fit an ensemble to the answers so far, score candidates, take the best, and fit
again. The closest published methods are BANANAS (White et al. 2019) and NPENAS
(Wei et al. 2020), whose idea is followed from memory: they, too, score
mutations of the best architectures with a neural predictor. They encode an
architecture by its paths or its graph; here each decision has an embedding.

How it is done here:

- If the space has at most 2^15 decision vectors, the candidates are all of
  it, each architecture once. Otherwise three quarters of them are mutations
  of the best children in one to three decisions, and the rest is random.
- The ensemble learns ranks, spread evenly over (0, 1), in place of rewards.
  What matters is the order of the best, and on NAS-Bench-201 the rewards of
  the best hundred span less than a hundredth of the range of all.
- The MLP is PNAS's, but smaller, because it is fitted so often. Its sizes
  were measured on NAS-Bench-201's CIFAR-100 and ImageNet16-120: 128 hidden
  units in place of 64 raised the best of 100 queries from 46.69 to 46.71 on
  the latter and halved its standard deviation.
- A share `near` of the proposals are neighbours, as in `local_search`, of
  the best child that still has new ones. Without them about one run in ten
  on NAS-Bench-201 stayed for hundreds of queries at a cell whose better
  neighbours the ensemble thought worse. 0.4 in place of 0.2 raised the best
  of 100 queries on CIFAR-100 from 73.48 to 73.49, the optimum, in each of 40
  runs, and on ImageNet16-120 from 46.70 to 46.71; 0.6 did no better.
- Once `max_children` are remembered, each further one replaces the worst
  among the older half: failed ones first, pending ones last. An answer to a
  forgotten child teaches nothing.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.controllers import base, predictors, surrogate
from nasnet_jax.spaces import base as spaces

# What became of a row's child; FREE has none.
FREE, ASKED, GOOD, FAILED = range(4)

# Up to so many decision vectors, the whole space is scored at each fit.
SMALL_SPACE = 1 << 15

# In a larger space: the share of candidates that are mutations of good
# children, and the most decisions in which a mutation differs.
MUTATIONS, CHANGES = 0.75, 3

# After so many draws without enough new random architectures there are none.
TRIES = 16


class State(NamedTuple):
  """The controller's state. C children are remembered.

  Attributes:
    ids: int64[C], -1 where the row is FREE.
    decisions: int32[C, D], canonical.
    rewards: f32[C], 0 unless GOOD.
    status: int8[C], FREE, ASKED, GOOD or FAILED.
    queue: int32[P, D], what the last fit advises and no ask has taken.
    queued: int32[], how many rows of the queue are filled.
    next_id: int64[].
  """

  ids: Any
  decisions: Any
  rewards: Any
  status: Any
  queue: Any
  queued: Any
  next_id: Any


class Settings(NamedTuple):
  """What a search was given.

  Attributes:
    space: a `SearchSpace`.
    model: the predictor that the ensemble has several of.
    everything: () -> `whole_space(space)`, computed at the first call; None
      where the space is too large for that.
    The others: see `predictor_search`.
  """

  space: Any
  model: predictors.Mlp
  everything: Callable[[], np.ndarray] | None
  first: int
  per_fit: int
  pool: int
  parents: int
  exploration: float
  near: float
  members: int
  learning_rate: float
  steps: int
  epochs: int
  batch_size: int
  max_children: int


def predictor_search(
  space,
  *,
  first: int = 10,
  per_fit: int = 5,
  pool: int = 4096,
  parents: int = 20,
  exploration: float = 0.5,
  near: float = 0.4,
  members: int = 5,  # Liu et al. 2018
  embedding: int = 16,
  hidden: int = 128,
  learning_rate: float = 0.01,  # Liu et al. 2018
  steps: int = 150,
  epochs: int = 10,
  batch_size: int = 32,
  max_children: int = 4096,
) -> base.Controller:
  """Proposes what an ensemble fitted to the answers so far thinks best.

  The first children are random. Then, whenever an ask needs more proposals
  than are left of the last fit, a new ensemble is fitted to the answers that
  are in by then: with few answers that takes a fraction of a second, and the
  order in which they came has no influence. No architecture is proposed twice
  while it is remembered; the search ends when all have been proposed, or when
  no candidate is new.

  Args:
    space: see `base.as_space`.
    first: proposals are random until so many children have succeeded.
    per_fit: proposals from one fit; more where a single ask wants more.
    pool: candidates that are scored in a space that is not scored as a whole;
      at least twice the number asked for.
    parents: best children that are mutated, or whose neighbours are tried.
    exploration: a candidate's score is the members' mean + exploration *
      their standard deviation.
    near: share of a fit's proposals that are neighbours of the best child;
      their number is rounded down.
    members: of the ensemble, each fitted on a different part of the answers.
    embedding: width of an embedding.
    hidden: units of each of the two layers.
    learning_rate: Adam's.
    steps: of Adam at each fit, at least.
    epochs: over the answers at each fit, at least.
    batch_size: answers per step.
    max_children: C.

  Raises:
    ValueError: for a decision without a choice, sizes below 1, or a share
      outside 0 to 1.
  """
  space = base.as_space(space)
  sizes = (first, per_fit, pool, parents, members, embedding, hidden)
  if min(*sizes, steps, batch_size) < 1 or max_children < 2:
    raise ValueError(
      "first, per_fit, pool, parents, members, embedding, hidden, steps and"
      " batch_size must be 1 or more, max_children 2 or more"
    )
  if not 0 <= near <= 1:
    raise ValueError(f"near is {near}: it is a share, from 0 to 1")
  is_small = math.prod(space.num_choices) <= SMALL_SPACE
  settings = Settings(
    space=space,
    # Half of all ranks are above a half: the last bias starts at sigmoid(0).
    model=predictors.Mlp(
      predictors.list_vocabulary(space.num_choices),
      embedding,
      hidden,
      head_bias=0.0,
    ),
    everything=functools.cache(lambda: whole_space(space))
    if is_small
    else None,
    first=first,
    per_fit=per_fit,
    pool=pool,
    parents=parents,
    exploration=exploration,
    near=near,
    members=members,
    learning_rate=learning_rate,
    steps=steps,
    epochs=epochs,
    batch_size=batch_size,
    max_children=max_children,
  )
  return base.bind(settings, init, ask, tell, teach)


def init(settings: Settings, rng) -> State:
  """The state before the first ask. rng: not needed."""
  del rng
  size, depth = settings.max_children, len(settings.space.num_choices)
  return State(
    ids=np.full(size, -1, np.int64),
    decisions=np.zeros((size, depth), np.int32),
    rewards=np.zeros(size, np.float32),
    status=np.full(size, FREE, np.int8),
    queue=np.zeros((settings.per_fit, depth), np.int32),
    queued=np.zeros((), np.int32),
    next_id=np.zeros((), np.int64),
  )


def ask(
  settings: Settings, state: State, rng, n: int
) -> tuple[base.Proposals, State]:
  """What is left of the last fit's advice, and more if that is too little."""
  state = State(*(np.array(x) for x in state))  # the old one stays
  ready = state.queue[: int(state.queued)]
  if n > len(ready):
    advice = advise(settings, state, base.generator(rng), n, ready)
    ready = np.concatenate([ready, advice])
  decisions, left = ready[:n], ready[n:][: settings.per_fit]
  state.queue[: len(left)] = left
  state.queue[len(left) :] = 0
  proposals, next_id = base.number(state.next_id, decisions)
  _remember(state, proposals)
  queued = np.array(len(left), np.int32)
  return proposals, state._replace(queued=queued, next_id=next_id)


def tell(settings: Settings, state: State, proposals, rewards, status) -> State:
  """The state with the answers to the children that it remembers."""
  del settings
  good = base.succeeded(proposals, rewards, status)
  state = State(*(np.array(x) for x in state))
  rows, known = _find(state.ids, proposals.id)
  state.rewards[rows] = np.where(good, rewards, 0)[known]
  state.status[rows] = np.where(good, GOOD, FAILED)[known]
  return state


def teach(settings: Settings, state: State, decisions, rewards) -> State:
  """The state that remembers these; an architecture that is there twice counts
  with its last reward."""
  rows = settings.space.canonical(np.asarray(decisions))
  _, last = np.unique(rows[::-1], axis=0, return_index=True)
  last = np.sort(len(rows) - 1 - last)
  proposals, next_id = base.number(state.next_id, rows.astype(np.int32))
  state = State(*(np.array(x) for x in state))
  known = proposals.rows(last)
  _remember(state, known)
  good = np.zeros(len(last), np.int32)
  state = tell(settings, state, known, np.asarray(rewards)[last], good)
  return state._replace(next_id=next_id)


def advise(
  settings: Settings, state: State, rng: np.random.Generator, n: int, ready
) -> np.ndarray:
  """int32[m, D]: new proposals, so many that they and `ready` are n or more,
  if the space has them. ready: int32[k, D], left of an earlier fit."""
  seen = np.concatenate([state.decisions[state.status != FREE], ready])
  rows = np.flatnonzero(state.status == GOOD)
  missing = n - len(ready)
  if len(rows) < settings.first:
    return random_new(settings, rng, missing, seen)
  best = rows[np.argsort(-state.rewards[rows], kind="stable")]
  best = state.decisions[best[: settings.parents]]
  found = candidates(settings, rng, best, n, seen)
  if not len(found):
    return found
  params = learn(settings, state, rows, rng)
  scores = score(settings, params, found)
  found = found[np.argsort(-scores, kind="stable")]
  wanted = max(missing, settings.per_fit)
  around = near_best(settings.space, best, found)[: int(settings.near * wanted)]
  others = np.setdiff1d(np.arange(len(found)), around)
  return found[np.append(others[: wanted - len(around)], around)]


def candidates(
  settings: Settings, rng: np.random.Generator, best, n: int, seen
) -> np.ndarray:
  """int32[m, D]: new architectures to be scored when n are asked for."""
  if settings.everything:
    return spaces.new_rows(settings.everything(), seen)
  size = max(settings.pool, 2 * n)
  return spaces.new_rows(draw(settings.space, rng, best, size), seen)


def random_new(
  settings: Settings, rng: np.random.Generator, n: int, seen
) -> np.ndarray:
  """int32[m <= n, D]: random architectures that are not among `seen`."""
  if settings.everything:
    rows = spaces.new_rows(settings.everything(), seen)
    return rows[rng.permutation(len(rows))[:n]]
  space, found = settings.space, seen[:0]
  for _ in range(TRIES):
    if len(found) >= n:
      break
    rows = spaces.sample(space.num_choices, rng, n)
    known = np.concatenate([seen, found])
    rows = spaces.new_rows(space.canonical(rows), known)
    found = np.concatenate([found, rows])
  return found[:n]


def learn(settings: Settings, state: State, rows, rng: np.random.Generator):
  """An ensemble's weights, fitted to the ranks of the children in these rows,
  which are taken in the order of their ids."""
  rows = rows[np.argsort(state.ids[rows])]
  targets = np.zeros(settings.max_children, np.float32)
  targets[: len(rows)] = spread(state.rewards[rows])
  decisions = np.zeros_like(state.decisions)
  decisions[: len(rows)] = state.decisions[rows]
  passes = math.ceil(settings.epochs * len(rows) / settings.batch_size)
  return surrogate.fit(
    settings.model,
    surrogate.init_ensemble(settings.model, rng, settings.members),
    settings.model.inputs(predictors.list_tokens(decisions)),
    targets,
    np.arange(len(rows)),
    rng,
    blocks=1,
    steps=max(settings.steps, passes),
    learning_rate=settings.learning_rate,
    batch_size=settings.batch_size,
  )


def score(settings: Settings, params, decisions) -> np.ndarray:
  """f32[m]: the ensemble's mean and `exploration` standard deviations more."""
  inputs = settings.model.inputs(predictors.list_tokens(decisions))
  found = surrogate.predict(settings.model, params, inputs, blocks=1)
  return found.mean(0) + np.float32(settings.exploration) * found.std(0)


def near_best(space, best, found) -> np.ndarray:
  """int[m]: which of `found` are neighbours of the first of the `best` that has
  any among them.

  Args:
    best: int32[k, D], the best child first.
    found: int32[c, D], canonical.
  """
  places = {row.tobytes(): i for i, row in enumerate(found)}
  for decisions in best:
    around = spaces.neighbours(space.num_choices, decisions)
    keys = {row.tobytes() for row in space.canonical(around)}
    if there := sorted(places[key] for key in keys & places.keys()):
      return np.array(there)
  return np.zeros(0, np.int64)


def spread(rewards) -> np.ndarray:
  """f64[n]: (0, 1) in n equal parts, and for each reward the middle of the part
  that is its by rank; equal rewards get the mean of their parts."""
  _, place, counts = np.unique(rewards, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - counts / 2)[place] / len(rewards)


def whole_space(space) -> np.ndarray:
  """int32[m, D]: each architecture of a space once, canonical."""
  size = math.prod(space.num_choices)
  digits = np.unravel_index(np.arange(size), space.num_choices)
  rows = space.canonical(np.stack(digits, -1).astype(np.int32))
  return spaces.new_rows(rows, rows[:0])


def draw(space, rng: np.random.Generator, parents, n: int) -> np.ndarray:
  """int32[n, D], canonical: mutations of the parents, and random ones.

  Args:
    parents: int32[k, D], k >= 1.
  """
  mutants = int(n * MUTATIONS)
  rows = np.concatenate(
    [
      mutate(space.num_choices, rng, parents, mutants),
      spaces.sample(space.num_choices, rng, n - mutants),
    ]
  )
  return space.canonical(rows)


def mutate(num_choices, rng: np.random.Generator, parents, n: int):
  """int32[n, D]: random parents, each changed in 1 to `CHANGES` decisions, or
  in fewer where fewer have a choice."""
  choices = np.asarray(num_choices)
  rows = parents[rng.integers(0, len(parents), n)]
  # The decisions in random order, those without a choice last.
  order = np.where(choices > 1, rng.random(rows.shape), 1.0).argsort(-1)
  place = order.argsort(-1)
  changed = place < rng.integers(1, CHANGES + 1, (n, 1))
  # Another value is the old one shifted by 1 to choices - 1, around the end.
  shift = 1 + (rng.random(rows.shape) * (choices - 1)).astype(np.int32)
  return np.where(changed, (rows + shift) % choices, rows).astype(np.int32)


def _remember(state: State, proposals: base.Proposals) -> None:
  """Writes proposals into the state's rows, over other children if need be."""
  newest = proposals.rows(slice(-len(state.ids), None))
  old = state.ids <= np.median(state.ids)
  # Overwritten in this order: free rows; of the older half the failed, then the
  # worst, then the pending ones; then the newer half.
  turn = np.where(old, np.array([0, 3, 2, 1])[state.status], 4)
  turn[state.status == FREE] = 0
  worth = np.where(turn == 2, state.rewards, 0)
  rows = np.lexsort((state.ids, worth, turn))[: len(newest)]
  state.ids[rows], state.decisions[rows] = newest.id, newest.decisions
  state.rewards[rows], state.status[rows] = 0, ASKED


def _find(ids, wanted) -> tuple[np.ndarray, np.ndarray]:
  """(rows of the wanted ids that are there, bool[m] which of them are)."""
  order = np.argsort(ids)
  places = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
  rows = order[places]
  known = ids[rows] == np.asarray(wanted)
  return rows[known], known
