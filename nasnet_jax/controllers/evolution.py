"""Regularised evolution: the search that found AmoebaNet-A.

Real et al. 2019, algorithm 1: the best of a random sample of the population
becomes a parent, its mutated child joins the population, and the oldest member
dies, however good it is. `ageing=False` is the paper's control, in which the
worst of the sample dies instead.

`pareto=True` is for several objectives: Deb et al. 2002 (NSGA-II, IEEE
Transactions on Evolutionary Computation 6), child by child in place of
generations (Durillo et al. 2009, "On the effect of the steady-state selection
scheme in multi-objective genetic algorithms").
"""

from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.pareto import fronts
from nasnet_jax.spaces import base as spaces

NOBODY = -1  # the serial number of no member


class State(NamedTuple):
  """The controller's state. P members at most, in no order.

  Attributes:
    decisions: int32[P, D].
    rewards: f32[P], or f32[P, k] of k objectives.
    serial: int64[P], numbers members in the order in which they were told;
      NOBODY where there is no member yet.
    ids: int64[P], with which members were proposed.
    born: int64[], the next serial number: how many members there ever were.
    next_id: int64[].
  """

  decisions: Any
  rewards: Any
  serial: Any
  ids: Any
  born: Any
  next_id: Any


class Mutation(NamedTuple):
  """What a mutation may change. K kinds of decision, at most N of a kind.

  Attributes:
    places: int64[K, N], the decisions of each kind, in the first columns.
    counts: int64[K], how many there are of each kind.
    choices: int64[D].
    other: bool[D], whether the new value must differ from the old one.
  """

  places: Any
  counts: Any
  choices: Any
  other: Any


class Settings(NamedTuple):
  """What a search was given.

  Attributes:
    num_choices: D ints.
    mutation: Mutation.
    objectives: rewards of a child; 1: not pareto.
    The others: see `evolution`.
  """

  num_choices: tuple[int, ...]
  population: int
  sample: int
  identity: float
  ageing: bool
  objectives: int
  mutation: Mutation


def evolution(
  space,
  *,
  population: int = 100,  # P: Real et al. 2019
  sample: int = 25,  # S: the same
  identity: float = 0.05,  # the same
  ageing: bool = True,
  redraw: bool = True,
  pareto: bool = False,
  objectives: int = 2,
) -> base.Controller:
  """Evolution by tournaments among the children that have answered.

  A mutation first picks one of the space's `kinds` of decision (the paper's
  hidden state mutation and op mutation), then a decision of that kind, then its
  new value, each uniformly. As in the paper, an input becomes another input,
  whereas an operation becomes a random one of the list, maybe the same again.
  Kinds that the paper does not know are treated as operations.

  Answers may come in any order and at any time:

  - The first P proposals are random. After them, samples are drawn from the
    children that have succeeded so far, however few; proposals stay random
    until there is one.
  - Members join in the order in which they are told. None dies before there
    are P. A failed child does not join, so the population fills up a little
    later.
  - All proposals of one ask sample the same population.
  - Without ageing, the worst member of the child's sample dies, of those that
    are still alive; if none is, or if the child was a random one, the worst of
    all. Of equally bad ones the oldest dies.
  - With `pareto` the best of a sample is that of the lowest non-dominated rank,
    and of equal ranks the one with the most room around it (crowding distance).
    So is who dies: the worst of all, of equally bad ones the oldest. It may be
    the newcomer, but never one that has the front for itself.

  The search never ends: an architecture may be proposed again.

  Args:
    space: see `base.as_space`.
    population: P.
    sample: S, drawn uniformly with replacement; with 1 there is no selection.
    identity: probability that a child is equal to its parent.
    ageing: whether the oldest dies; else the worst of the sample.
    redraw: whether an operation may become the same again, as in the paper; if
      not, only `identity` makes copies.
    pareto: whether children have several rewards. Nobody dies of age then.
    objectives: how many, with `pareto`; a search says it itself.

  Raises:
    ValueError: for a decision without a choice, sizes below 1, an identity
      outside [0, 1], fewer than two objectives, or `pareto` without `ageing`,
      whose dying is that of one reward.
  """
  space = base.as_space(space)
  if min(population, sample) < 1:
    raise ValueError("population and sample must be at least 1")
  if not 0 <= identity <= 1:
    raise ValueError(f"identity is a probability, not {identity}")
  if pareto:
    _check_pareto(objectives, ageing)
  settings = Settings(
    tuple(space.num_choices),
    population,
    sample,
    identity,
    ageing,
    objectives if pareto else 1,
    mutation_of(space, redraw),
  )
  made = base.bind(settings, init, ask, tell, teach, parents)
  return made._replace(objectives=settings.objectives)


def _check_pareto(objectives: int, ageing: bool):
  if objectives < 2:
    raise ValueError(
      f"evolution: objectives is {objectives}: pareto=True compares children in"
      " 2 or more; set it to False for one"
    )
  if not ageing:
    raise ValueError(
      "evolution: ageing=False lets the worst of a sample die, and pareto=True"
      " the worst of all by rank and crowding: leave ageing at True"
    )


def init(settings: Settings, rng) -> State:
  """The state without members. rng: not needed."""
  del rng
  size, objectives = settings.population, settings.objectives
  return State(
    decisions=np.zeros((size, len(settings.num_choices)), np.int32),
    rewards=np.zeros(
      size if objectives == 1 else (size, objectives), np.float32
    ),
    serial=np.full(size, NOBODY, np.int64),
    ids=np.full(size, base.NOBODY, np.int64),
    born=np.zeros((), np.int64),
    next_id=np.zeros((), np.int64),
  )


def ask(
  settings: Settings, state: State, rng, n: int
) -> tuple[base.Proposals, State]:
  """Random children up to the first P, then children of winners."""
  rng, size = base.generator(rng), settings.population
  members = min(int(state.born), size)
  randoms = max(size - int(state.next_id), 0) if members else n
  randoms = min(randoms, n)
  drawn = rng.integers(0, max(members, 1), (n - randoms, settings.sample))
  best = _fitness(settings, state.rewards, members)[drawn].argmax(-1)
  chosen = drawn[np.arange(len(best)), best]
  parents = np.asarray(state.decisions)[chosen]
  decisions = [
    spaces.sample(settings.num_choices, rng, randoms),
    mutate(settings.mutation, rng, parents, settings.identity),
  ]
  parent = np.full(n, base.NOBODY, np.int64)
  parent[randoms:] = np.asarray(state.ids)[chosen]
  extras = ()
  if not settings.ageing:
    serial = np.full((n, settings.sample), NOBODY, np.int64)
    serial[randoms:] = np.asarray(state.serial)[drawn]
    extras = {"sample": serial}
  proposals, next_id = base.number(
    state.next_id, np.concatenate(decisions), extras, parent
  )
  return proposals, state._replace(next_id=next_id)


def tell(settings: Settings, state: State, proposals, rewards, status) -> State:
  """The state with those that succeeded as members, in place of those that
  die."""
  good = base.succeeded(proposals, rewards, status, settings.objectives)
  rewards = np.asarray(rewards, np.float32)[good]
  told, born = proposals.rows(good), int(state.born)
  state = State(*(np.array(x) for x in state))  # the old one stays as it was
  for row in range(len(told)):
    # The slots are a ring: the next one is free, or the oldest member's.
    slot = (born + row) % settings.population
    full = born + row >= settings.population
    if full and settings.objectives > 1:
      slot = _crowded_out(state, rewards[row])
    elif full and not settings.ageing:
      slot = _worst(state, told.extras["sample"][row])
    if slot == NOBODY:
      continue
    state.decisions[slot] = told.decisions[row]
    state.rewards[slot] = rewards[row]
    state.serial[slot] = born + row
    state.ids[slot] = told.id[row]
  return state._replace(born=np.array(born + len(told), np.int64))


def teach(settings: Settings, state: State, decisions, rewards) -> State:
  """The state with these as members: the last P of them, or without ageing, or
  of several objectives, the best. As many fewer children are random."""
  rewards, size = np.asarray(rewards, np.float32), settings.population
  rows = np.arange(len(rewards))
  if not settings.ageing or settings.objectives > 1:
    value = _fitness(settings, rewards, len(rewards))
    rows = np.sort(np.argsort(-value, kind="stable")[:size])
  rows = rows[-size:]
  state = State(*(np.array(x) for x in state))
  state.decisions[: len(rows)] = np.asarray(decisions)[rows]
  state.rewards[: len(rows)] = rewards[rows]
  state.serial[: len(rows)] = np.arange(len(rows))
  state.ids[: len(rows)] = rows
  return state._replace(
    born=np.array(len(rows), np.int64),
    next_id=np.array(len(rewards), np.int64),
  )


def parents(settings: Settings, state: State) -> np.ndarray:
  """int64[P]: the ids of the members."""
  del settings
  return np.asarray(state.ids)


def mutation_of(space, redraw: bool) -> Mutation:
  """The decisions of a space by kind, without those of a single choice."""
  choices = np.asarray(space.num_choices)
  real = [(k, i) for i, k in enumerate(space.kinds) if choices[i] > 1]
  by_kind = {kind: [] for kind, _ in real}
  for kind, place in real:
    by_kind[kind].append(place)
  counts = np.array([len(p) for p in by_kind.values()], np.int64)
  places = np.zeros((len(counts), max(counts, default=0)), np.int64)
  for row, decisions in zip(places, by_kind.values()):
    row[: len(decisions)] = decisions
  inputs = np.array([kind == "input" for kind in space.kinds])
  return Mutation(places, counts, choices, inputs | (not redraw))


def mutate(
  mutation: Mutation, rng: np.random.Generator, parents, identity: float
) -> np.ndarray:
  """int32[m, D]: a copy of each parent with one decision drawn again.

  Args:
    mutation: as `mutation_of` gives it.
    rng: five draws per child.
    parents: int32[m, D].
    identity: probability that a child is left as it is.
  """
  children = np.array(parents, np.int32)
  if not len(mutation.counts):
    return children
  m = len(children)
  changed = rng.random(m) >= identity
  kinds = rng.integers(0, len(mutation.counts), m)
  places = mutation.places[kinds, rng.integers(0, mutation.counts[kinds])]
  choices, rows = mutation.choices[places], np.arange(m)
  old = children[rows, places]
  # Another value is the old one shifted by 1 to choices - 1, around the end.
  shifted = (old + rng.integers(1, choices)) % choices
  drawn = rng.integers(0, choices)
  new = np.where(mutation.other[places], shifted, drawn)
  children[rows, places] = np.where(changed, new, old)
  return children


def _fitness(settings: Settings, rewards, members: int) -> np.ndarray:
  """[P]: what selection compares, larger is better; 0 where nobody is."""
  rewards = np.asarray(rewards)
  if settings.objectives == 1:
    return rewards
  found = np.zeros(len(rewards), np.int64)
  found[:members] = -fronts.standing(rewards[:members])
  return found


def _crowded_out(state: State, newcomer) -> int:
  """The slot of the worst of a full population and a newcomer, of equally bad
  ones the oldest; NOBODY if that is the newcomer itself.

  Args:
    newcomer: f32[k], its rewards.
  """
  places = fronts.standing(np.concatenate([state.rewards, newcomer[None]]))
  ages = np.append(-state.serial, -state.serial.max() - 1)
  worst = int(np.lexsort((ages, places))[-1])
  return NOBODY if worst == len(state.serial) else worst


def _worst(state: State, sample) -> int:
  """The slot of the worst living member of a sample, or of all if none lives.

  Args:
    state: State of a full population.
    sample: int64[S], serial numbers.
  """
  slots = np.flatnonzero(np.isin(state.serial, sample))
  if not len(slots):
    slots = np.arange(len(state.serial))
  return int(slots[np.lexsort((state.serial[slots], state.rewards[slots]))[0]])
