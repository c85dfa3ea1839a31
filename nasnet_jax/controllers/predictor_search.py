"""Search led by a predictor, for any list of decisions.

The idea of Liu et al. 2018 (see `progressive`) without the growing of cells:
fit an ensemble to the answers so far, score candidates, take the best, again.
The closest published methods are BANANAS (White et al. 2019) and NPENAS (Wei
et al. 2020), of which this was written from memory of the idea: they, too,
score mutations of the best architectures with a neural predictor. They encode
an architecture by its paths or its graph; here each decision has an embedding.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base, surrogate
from nasnet_jax.spaces import base as spaces

# What became of a row's child; FREE has none.
FREE, ASKED, GOOD, FAILED = range(4)

# Up to so many decision vectors, the whole space is scored at each fit.
SMALL_SPACE = 1 << 15

# Of the candidates in a larger space, mutations of good ones; and in how many
# decisions they differ at most.
MUTATIONS, CHANGES = 0.75, 3

# So often new random architectures are looked for before there are none.
TRIES = 16


class State(NamedTuple):
  """The controller's state. C children are remembered.

  Attributes:
    ids: int64[C], -1 where the row is FREE.
    decisions: int32[C, D], canonical.
    rewards: f32[C], 0 unless GOOD.
    status: int8[C], FREE, ASKED, GOOD or FAILED.
    queue: int32[P, D], what the last fit advises and was not yet asked for.
    queued: int32[], its length.
    next_id: int64[].
  """

  ids: Any
  decisions: Any
  rewards: Any
  status: Any
  queue: Any
  queued: Any
  next_id: Any


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
  than are left of the last fit, the ensemble is fitted anew, to the answers
  that are in by then: with few answers that takes a fraction of a second, and
  the order in which they came has no influence. No architecture is proposed
  twice while it is remembered; the search ends where all have been, or where
  no candidate is new.

  - Candidates are the whole space, each architecture once, if it has at most
    2^15 decision vectors. Else three quarters are mutations of the best
    children in one to three decisions, the rest is random.
  - The ensemble learns ranks, spread evenly over (0, 1), in place of rewards.
    What matters is the order of the best, and on NAS-Bench-201 the best
    hundred differ by less than a hundredth of the range of all.
  - It is a smaller and otherwise equal MLP to PNAS's, since it is fitted so
    often; sizes are by measurement on NAS-Bench-201's CIFAR-100 and
    ImageNet16-120: 128 hidden units against 64 took the best of 100 queries
    from 46.69 to 46.71 on the latter, and its standard deviation to a half.
  - A share `near` of the proposals are neighbours of the best child which
    still has new ones, as in `local_search`. Without them about one run in ten
    on NAS-Bench-201 stayed for hundreds of queries at a cell whose better
    neighbours the ensemble thought worse. 0.4 against 0.2 took the best of 100
    queries on CIFAR-100 from 73.48 to 73.49 in each of 40 runs, the optimum,
    and from 46.70 to 46.71 on ImageNet16-120; 0.6 did no better.
  - Once `max_children` are remembered, each further one takes the place of
    the worst among the older half: failed ones first, pending ones last. An
    answer to a child that was forgotten teaches nothing.

  Args:
    space: see `base.as_space`.
    first: random children, until so many have answered well.
    per_fit: proposals after a fit before there is another, or as many as one
      ask wants if these are more.
    pool: candidates to be scored in a space that is not scored as a whole;
      twice the number asked for, if that is more.
    parents: best children that are mutated, or whose neighbours are tried.
    exploration: a candidate's score is the members' mean + exploration *
      their standard deviation.
    near: of the proposals after a fit, rounded down to a whole number of them.
    members: of the ensemble, each fitted on a different part of the answers.
    embedding: width of an embedding.
    hidden: units of the two layers.
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
  vocabulary = surrogate.list_vocabulary(space.num_choices)
  # Half of all ranks are above a half: the last bias starts at sigmoid(0).
  model = surrogate.Mlp(vocabulary, embedding, hidden, head_bias=0.0)
  small = math.prod(space.num_choices) <= SMALL_SPACE
  everything = functools.cache(lambda: whole_space(space))

  def init(rng) -> State:
    del rng
    depth = len(space.num_choices)
    return State(
      ids=np.full(max_children, -1, np.int64),
      decisions=np.zeros((max_children, depth), np.int32),
      rewards=np.zeros(max_children, np.float32),
      status=np.full(max_children, FREE, np.int8),
      queue=np.zeros((per_fit, depth), np.int32),
      queued=np.zeros((), np.int32),
      next_id=np.zeros((), np.int64),
    )

  def ask(state: State, rng, n: int) -> tuple[base.Proposals, State]:
    state = State(*(np.array(x) for x in state))  # the old one stays
    ready = state.queue[: int(state.queued)]
    if n > len(ready):
      rng = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
      ready = np.concatenate([ready, advise(state, rng, n, ready)])
    decisions, left = ready[:n], ready[n:][:per_fit]
    state.queue[: len(left)] = left
    state.queue[len(left) :] = 0
    proposals, next_id = base.number(state.next_id, decisions)
    _remember(state, proposals)
    queued = np.array(len(left), np.int32)
    return proposals, state._replace(queued=queued, next_id=next_id)

  def tell(state: State, proposals, rewards, status) -> State:
    good = base.succeeded(proposals, rewards, status)
    state = State(*(np.array(x) for x in state))
    rows, known = _find(state.ids, proposals.id)
    state.rewards[rows] = np.where(good, rewards, 0)[known]
    state.status[rows] = np.where(good, GOOD, FAILED)[known]
    return state

  def advise(state: State, rng, n: int, ready) -> np.ndarray:
    """int32[m, D]: enough new proposals for n in all, if there are."""
    seen = np.concatenate([state.decisions[state.status != FREE], ready])
    rows = np.flatnonzero(state.status == GOOD)
    if len(rows) < first:
      return strangers(rng, n - len(ready), seen)
    if small:
      found = spaces.new_rows(everything(), seen)
    else:
      best = rows[np.argsort(-state.rewards[rows], kind="stable")[:parents]]
      size = max(pool, 2 * n)
      found = draw(space, rng, state.decisions[best], size)
      found = spaces.new_rows(found, seen)
    if not len(found):
      return found
    params = learn(state, rows, rng)
    inputs = model.inputs(surrogate.list_tokens(found))
    scores = surrogate.predict(model, params, inputs, blocks=1)
    scores = scores.mean(0) + np.float32(exploration) * scores.std(0)
    found = found[np.argsort(-scores, kind="stable")]
    wanted = max(n - len(ready), per_fit)
    around = near_best(state, rows, found)[: int(near * wanted)]
    others = np.setdiff1d(np.arange(len(found)), around)
    return found[np.append(others[: wanted - len(around)], around)]

  def near_best(state: State, rows, found) -> np.ndarray:
    """int[m]: which of `found` are neighbours of the best child that has any
    there."""
    places = {row.tobytes(): i for i, row in enumerate(found)}
    best = rows[np.argsort(-state.rewards[rows], kind="stable")[:parents]]
    for decisions in state.decisions[best]:
      around = spaces.neighbours(space.num_choices, decisions)
      keys = {row.tobytes() for row in space.canonical(around)}
      if there := sorted(places[key] for key in keys & places.keys()):
        return np.array(there)
    return np.zeros(0, np.int64)

  def strangers(rng, n: int, seen) -> np.ndarray:
    """int32[m <= n, D], random and new."""
    if small:
      rows = spaces.new_rows(everything(), seen)
      return rows[rng.permutation(len(rows))[:n]]
    found = seen[:0]
    for _ in range(TRIES):
      if len(found) >= n:
        break
      rows = spaces.sample(space.num_choices, rng, n)
      known = np.concatenate([seen, found])
      rows = spaces.new_rows(space.canonical(rows), known)
      found = np.concatenate([found, rows])
    return found[:n]

  def learn(state: State, rows, rng):
    """An ensemble fitted to the ranks of those rows, in the order of ids."""
    rows = rows[np.argsort(state.ids[rows])]
    targets = np.zeros(max_children, np.float32)
    targets[: len(rows)] = spread(state.rewards[rows])
    decisions = np.zeros_like(state.decisions)
    decisions[: len(rows)] = state.decisions[rows]
    return surrogate.fit(
      model,
      surrogate.init_ensemble(model, rng, members),
      model.inputs(surrogate.list_tokens(decisions)),
      targets,
      np.arange(len(rows)),
      rng,
      blocks=1,
      steps=max(steps, math.ceil(epochs * len(rows) / batch_size)),
      learning_rate=learning_rate,
      batch_size=batch_size,
    )

  return base.Controller(init, ask, tell)


def spread(rewards) -> np.ndarray:
  """f64[n]: rewards replaced by the middles of n equal parts of (0, 1), in
  their order; equal ones share their parts' mean."""
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
  """int32[n, D]: random parents, each other in 1 to `CHANGES` decisions, as
  far as there are so many that have a choice."""
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
  """Writes proposals into the state's rows, in place of others if need be."""
  newest = proposals.rows(slice(-len(state.ids), None))
  old = state.ids <= np.median(state.ids)
  # Who goes first: free rows, then failed, bad and pending ones of the older
  # half, then the rest.
  turn = np.where(old, np.array([0, 3, 2, 1])[state.status], 4)
  turn[state.status == FREE] = 0
  worth = np.where(turn == 2, state.rewards, 0)
  rows = np.lexsort((state.ids, worth, turn))[: len(newest)]
  state.ids[rows], state.decisions[rows] = newest.id, newest.decisions
  state.rewards[rows], state.status[rows] = 0, ASKED


def _find(ids, wanted) -> tuple[np.ndarray, np.ndarray]:
  """(rows of those ids that are there, bool[m] which of the wanted are)."""
  order = np.argsort(ids)
  places = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
  rows = order[places]
  known = ids[rows] == np.asarray(wanted)
  return rows[known], known
