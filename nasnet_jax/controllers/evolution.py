"""Regularised evolution: the search that found AmoebaNet-A.

Real et al. 2019, algorithm 1: of a sample of the population the best becomes a
parent, its mutated child joins the population, and the oldest member dies,
however good it is. `ageing=False` is the paper's control, in which the worst
of the sample dies instead.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.spaces import base as spaces

NOBODY = -1  # the serial number of no member


class State(NamedTuple):
  """The controller's state. P members at most, in no order.

  Attributes:
    decisions: int32[P, D].
    rewards: f32[P].
    serial: int64[P], the member's place in the order of telling; NOBODY where
      there is no member yet.
    born: int64[], members that there ever were: the next serial number.
    next_id: int64[].
  """

  decisions: Any
  rewards: Any
  serial: Any
  born: Any
  next_id: Any


class Mutation(NamedTuple):
  """What a mutation may change. K kinds of decision, N the most of any.

  Attributes:
    places: int64[K, N], the decisions of a kind, in its first columns.
    counts: int64[K], how many there are.
    choices: int64[D].
    other: bool[D], whether the new value must differ from the old one.
  """

  places: Any
  counts: Any
  choices: Any
  other: Any


def evolution(
  space,
  *,
  population: int = 100,  # P: Real et al. 2019
  sample: int = 25,  # S: the same
  identity: float = 0.05,  # the same
  ageing: bool = True,
  redraw: bool = True,
) -> base.Controller:
  """Evolution by tournaments among the children that have answered.

  A mutation first picks a kind of decision, uniformly of the space's `kinds`
  (the paper's hidden state mutation and op mutation), then a decision of that
  kind, then its new value. In the paper an input becomes another one, whereas
  an operation becomes a random one of the list, maybe itself again; so it is
  here, and kinds that the paper does not know are treated as operations.

  Answers may come in any order and at any time:

  - The first P proposals are random. Beyond them, a sample is drawn of those
    that have answered so far, however few; while nobody has, proposals stay
    random.
  - Members join in the order they are told. Before there are P, nobody dies.
    A failed child does not join, so the population fills up a little later.
  - All proposals of one ask sample the same population.
  - Without ageing, that member dies which is the worst among those of the
    child's sample that are still alive; if none is, or the child was a random
    one, the worst of all. Of equals the oldest dies.

  It never ends: the same architecture may be proposed again.

  Args:
    space: see `base.as_space`.
    population: P.
    sample: S, drawn uniformly with replacement; 1 selects nobody.
    identity: probability of a child equal to its parent.
    ageing: the oldest dies; else the worst of the sample.
    redraw: as in the paper; False: every new value differs from the old one,
      so that only `identity` makes copies.

  Raises:
    ValueError: for a decision without a choice, sizes below 1, or an identity
      outside [0, 1].
  """
  space = base.as_space(space)
  if min(population, sample) < 1:
    raise ValueError("population and sample must be at least 1")
  if not 0 <= identity <= 1:
    raise ValueError(f"identity is a probability, not {identity}")
  mutation = mutation_of(space, redraw)

  def init(rng) -> State:
    return State(
      decisions=np.zeros((population, len(space.num_choices)), np.int32),
      rewards=np.zeros(population, np.float32),
      serial=np.full(population, NOBODY, np.int64),
      born=np.zeros((), np.int64),
      next_id=np.zeros((), np.int64),
    )

  def ask(state: State, rng, n: int) -> tuple[base.Proposals, State]:
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    members = min(int(state.born), population)
    strangers = max(population - int(state.next_id), 0) if members else n
    strangers = min(strangers, n)
    drawn = rng.integers(0, max(members, 1), (n - strangers, sample))
    best = np.asarray(state.rewards)[drawn].argmax(-1)
    parents = np.asarray(state.decisions)[drawn[np.arange(len(best)), best]]
    decisions = [
      spaces.sample(space.num_choices, rng, strangers),
      mutate(mutation, rng, parents, identity),
    ]
    extras = ()
    if not ageing:
      serial = np.full((n, sample), NOBODY, np.int64)
      serial[strangers:] = np.asarray(state.serial)[drawn]
      extras = {"sample": serial}
    proposals, next_id = base.number(
      state.next_id, np.concatenate(decisions), extras
    )
    return proposals, state._replace(next_id=next_id)

  def tell(state: State, proposals, rewards, status) -> State:
    good = base.succeeded(proposals, rewards, status)
    rewards = np.asarray(rewards, np.float32)[good]
    told, born = proposals.rows(good), int(state.born)
    state = State(*(np.array(x) for x in state))  # the old one stays as it was
    for row in range(len(told)):
      # In the ring of slots, a free one or that of the oldest.
      slot = (born + row) % population
      if not ageing and born + row >= population:
        slot = _worst(state, told.extras["sample"][row])
      state.decisions[slot] = told.decisions[row]
      state.rewards[slot] = rewards[row]
      state.serial[slot] = born + row
    return state._replace(born=np.array(born + len(told), np.int64))

  return base.Controller(init, ask, tell)


def mutation_of(space, redraw: bool) -> Mutation:
  """The decisions of a space by kind; those of one choice do not mutate."""
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
  """int32[m, D]: each parent with one decision drawn anew.

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
