"""The genetic algorithm of Genetic CNN (Xie & Yuille 2017, section 3.2).

Generations have a fixed size. The next one is made by roulette selection, by
how much better than the worst an individual is; then each pair of the selected
either exchanges whole stages or mutates in single decisions. A whole generation
is evaluated before the next is made, with those that came through unchanged.
"""

from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.spaces import base as spaces


class State(NamedTuple):
  """The controller's state: the generation under way, of P individuals.

  Attributes:
    decisions: int32[P, D]; zeros before the first `ask`.
    rewards: f32[P], 0 for those that failed or are not answered yet.
    succeeded: bool[P], those that have a reward.
    answered: bool[P], those that have a reward and those that failed.
    asked: int64[], how many individuals were proposed.
    generation: int64[], -1 before the first.
    next_id: int64[].
  """

  decisions: Any
  rewards: Any
  succeeded: Any
  answered: Any
  asked: Any
  generation: Any
  next_id: Any


class Settings(NamedTuple):
  """What a search was given.

  Attributes:
    choices: int64[D], the number of choices of each decision.
    groups: int64[D], see `SearchSpace.groups`.
    The others: see `genetic`.
  """

  choices: np.ndarray
  groups: np.ndarray
  population: int
  crossover: float
  crossover_group: float
  mutation: float
  mutation_decision: float


def genetic(
  space,
  *,
  population: int = 20,  # Xie & Yuille 2017, MNIST (as in gentun)
  crossover: float = 0.2,  # p_C, the same
  crossover_group: float = 0.3,  # q_C, the same
  mutation: float = 0.8,  # p_M, the same
  mutation_decision: float = 0.1,  # q_M, the same; CIFAR-10: 0.05, from memory
) -> base.Controller:
  """Genetic CNN's search, for any space.

  A pair is crossed over with probability `crossover`: then each group of
  decisions (`space.groups`: a stage, a cell) is exchanged with probability
  `crossover_group`. Else each of the two mutates with probability `mutation`:
  then each decision takes another value with probability `mutation_decision`.

  An ask gives what is left of the generation, and then none until the whole
  generation is answered. The search never ends: equal individuals may come
  again, and are evaluated again.

  What the paper leaves open: if all that succeeded are equally good, all are
  equally likely to be selected; if none succeeded, the next generation is
  random.

  Args:
    space: see `base.as_space`.
    population: P, individuals per generation.
    crossover, crossover_group, mutation, mutation_decision: p_C, q_C, p_M, q_M.

  Raises:
    ValueError: for a decision without a choice, or a number out of range.
  """
  space = base.as_space(space)
  rates = (crossover, crossover_group, mutation, mutation_decision)
  if population < 1 or min(rates) < 0 or max(rates) > 1:
    raise ValueError("population must be 1 or more, and rates within 0..1")
  settings = Settings(
    np.asarray(space.num_choices), np.asarray(space.groups), population, *rates
  )
  return base.bind(settings, init, ask, tell, teach)


def init(settings: Settings, rng) -> State:
  """The state before the first generation. rng: not needed."""
  del rng
  size = settings.population
  return State(
    decisions=np.zeros((size, len(settings.choices)), np.int32),
    rewards=np.zeros(size, np.float32),
    succeeded=np.zeros(size, bool),
    answered=np.ones(size, bool),
    asked=np.array(size, np.int64),
    generation=np.array(-1, np.int64),
    next_id=np.zeros((), np.int64),
  )


def ask(
  settings: Settings, state: State, rng, n: int
) -> tuple[base.Proposals, State]:
  """The next individuals of the generation, or of the next one if this one is
  answered."""
  complete = int(state.asked) == settings.population and np.all(state.answered)
  if n and complete:
    state = next_generation(settings, state, base.generator(rng))
  first = int(state.asked)
  rows = np.array(state.decisions)[first : first + n]
  proposals, next_id = base.number(state.next_id, rows)
  asked = np.array(first + len(rows), np.int64)
  return proposals, state._replace(asked=asked, next_id=next_id)


def tell(settings: Settings, state: State, proposals, rewards, status) -> State:
  """The state with the answers to individuals of the generation."""
  del settings
  good = base.succeeded(proposals, rewards, status)
  # A generation's ids are consecutive: the next one starts when all are told.
  place = np.asarray(proposals.id) - (int(state.next_id) - int(state.asked))
  kept, succeeded = np.array(state.rewards), np.array(state.succeeded)
  answered = np.array(state.answered)
  kept[place] = np.where(good, np.asarray(rewards, np.float32), 0)
  succeeded[place], answered[place] = good, True
  return state._replace(rewards=kept, succeeded=succeeded, answered=answered)


def teach(settings: Settings, state: State, decisions, rewards) -> State:
  """The state whose generation before the first are the best P of these."""
  rewards = np.asarray(rewards, np.float32)
  rows = np.argsort(-rewards, kind="stable")[: settings.population]
  state = State(*(np.array(x) for x in state))
  state.decisions[: len(rows)] = np.asarray(decisions)[rows]
  state.rewards[: len(rows)] = rewards[rows]
  state.succeeded[: len(rows)] = True
  return state._replace(next_id=np.array(len(rewards), np.int64))


def next_generation(
  settings: Settings, state: State, rng: np.random.Generator
) -> State:
  """The state with a new generation, none of it asked for."""
  good, size = np.asarray(state.succeeded), settings.population
  if good.any():
    parents = select(
      rng, np.asarray(state.decisions)[good], state.rewards[good], size
    )
    children, crossed = cross(
      rng,
      parents,
      settings.groups,
      settings.crossover,
      settings.crossover_group,
    )
    decisions = mutate(
      rng,
      children,
      crossed,
      settings.choices,
      settings.mutation,
      settings.mutation_decision,
    )
  else:  # also before the first
    decisions = spaces.sample(tuple(settings.choices), rng, size)
  return state._replace(
    decisions=decisions,
    rewards=np.zeros(size, np.float32),
    succeeded=np.zeros(size, bool),
    answered=np.zeros(size, bool),
    asked=np.zeros((), np.int64),
    generation=np.asarray(state.generation + 1, np.int64),
  )


def select(
  rng, decisions: np.ndarray, rewards: np.ndarray, n: int
) -> np.ndarray:
  """int32[n, D], drawn in proportion to how much better than the worst they
  are.

  Args:
    decisions: int32[m, D], of those that succeeded.
    rewards: f32[m].
  """
  fitness = rewards.astype(np.float64) - rewards.min()
  if not fitness.any():
    fitness = np.ones(len(rewards))
  odds = fitness / fitness.sum()
  return decisions[rng.choice(len(decisions), n, p=odds)]


def cross(
  rng, parents: np.ndarray, groups: np.ndarray, pair: float, rate: float
):
  """(children int32[P, D], bool[P] whether crossed over). Rows 0 and 1 are a
  pair, and so on; of an odd number the last has no partner.

  Args:
    groups: int[D].
    pair: probability that a pair is crossed over.
    rate: probability that such a pair exchanges a group.
  """
  pairs = len(parents) // 2
  crossed = rng.uniform(size=pairs) < pair
  names, index = np.unique(groups, return_inverse=True)
  swapped = rng.uniform(size=(pairs, len(names))) < rate
  swap = (swapped & crossed[:, None])[:, index]
  children = parents.copy()
  left, right = parents[0 : 2 * pairs : 2], parents[1 : 2 * pairs : 2]
  children[0 : 2 * pairs : 2] = np.where(swap, right, left)
  children[1 : 2 * pairs : 2] = np.where(swap, left, right)
  done = np.zeros(len(parents), bool)
  done[: 2 * pairs] = np.repeat(crossed, 2)
  return children, done


def mutate(
  rng,
  children: np.ndarray,
  crossed: np.ndarray,
  choices: np.ndarray,
  individual: float,
  rate: float,
) -> np.ndarray:
  """int32[P, D]: the children, with decisions changed at random.

  Args:
    crossed: bool[P], children that stay as they are.
    choices: int[D].
    individual: probability that an individual mutates.
    rate: probability that a decision of such an individual changes.
  """
  mutant = (rng.uniform(size=len(children)) < individual) & ~crossed
  changes = mutant[:, None] & (rng.uniform(size=children.shape) < rate)
  shift = rng.integers(1, np.maximum(choices, 2), children.shape)
  changed = (children + shift) % choices
  return np.where(changes, changed, children).astype(np.int32)
