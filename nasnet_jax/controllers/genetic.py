"""The genetic algorithm of Genetic CNN (Xie & Yuille 2017, section 3.2).

Generations of a fixed size. From one to the next: roulette selection by how
much better than the worst an individual is; then pair by pair either whole
stages change sides, or single decisions change. All of a generation are
evaluated before the next is bred, also those that came through unchanged.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base
from nasnet_jax.spaces import base as spaces


class State(NamedTuple):
  """The controller's state: the generation under way, of P individuals.

  Attributes:
    decisions: int32[P, D]; zeros before the first `ask`.
    rewards: f32[P], 0 for those that failed or are not answered yet.
    succeeded: bool[P], those that have a reward.
    answered: bool[P], they and those that failed.
    asked: int64[], how many of them were proposed.
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
  decisions (`space.groups`: a stage, a cell) changes sides with probability
  `crossover_group`. Else each of the two mutates with probability `mutation`:
  then each decision takes another value with probability `mutation_decision`.

  It waits for a whole generation: asked meanwhile, it proposes what is left of
  the generation, then none. It never ends: equal individuals come again and
  are evaluated again.

  What the paper leaves open: where all that succeeded are equally good, all of
  them are selected alike; where none succeeded, a new random generation comes.

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
  choices = np.asarray(space.num_choices)
  groups = np.asarray(space.groups)

  def init(rng) -> State:
    del rng
    return State(
      decisions=np.zeros((population, len(choices)), np.int32),
      rewards=np.zeros(population, np.float32),
      succeeded=np.zeros(population, bool),
      answered=np.ones(population, bool),
      asked=np.array(population, np.int64),
      generation=np.array(-1, np.int64),
      next_id=np.zeros((), np.int64),
    )

  def ask(state: State, rng, n: int) -> tuple[base.Proposals, State]:
    if n and int(state.asked) == population and np.all(state.answered):
      state = _next(state, rng)
    first = int(state.asked)
    rows = np.array(state.decisions)[first : first + n]
    proposals, next_id = base.number(state.next_id, rows)
    asked = np.array(first + len(rows), np.int64)
    return proposals, state._replace(asked=asked, next_id=next_id)

  def _next(state: State, rng) -> State:
    draw = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    good = np.asarray(state.succeeded)
    if good.any():
      parents = select(
        draw, np.asarray(state.decisions)[good], state.rewards[good], population
      )
      children = cross(draw, parents, groups, crossover, crossover_group)
      decisions = mutate(draw, *children, choices, mutation, mutation_decision)
    else:  # also before the first
      decisions = spaces.sample(tuple(choices), draw, population)
    return state._replace(
      decisions=decisions,
      rewards=np.zeros(population, np.float32),
      succeeded=np.zeros(population, bool),
      answered=np.zeros(population, bool),
      asked=np.zeros((), np.int64),
      generation=np.asarray(state.generation + 1, np.int64),
    )

  def tell(state: State, proposals, rewards, status) -> State:
    good = base.succeeded(proposals, rewards, status)
    # All ids of a generation follow each other: it waits for its answers.
    place = np.asarray(proposals.id) - (int(state.next_id) - int(state.asked))
    kept, succeeded = np.array(state.rewards), np.array(state.succeeded)
    answered = np.array(state.answered)
    kept[place] = np.where(good, np.asarray(rewards, np.float32), 0)
    succeeded[place], answered[place] = good, True
    return state._replace(rewards=kept, succeeded=succeeded, answered=answered)

  return base.Controller(init, ask, tell)


def select(
  rng, decisions: np.ndarray, rewards: np.ndarray, n: int
) -> np.ndarray:
  """int32[n, D], drawn in proportion to how much better than the worst.

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
  """(int32[P, D], bool[P] whether crossed over): rows 0 and 1 are a pair, and
  so on; a last odd one has no partner.

  Args:
    groups: int[D].
    pair: probability that a pair is crossed over.
    rate: probability that a group of such a pair changes sides.
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
  """int32[P, D]: those that were not crossed over, some decisions changed.

  Args:
    crossed: bool[P], left as they are.
    choices: int[D].
    individual: probability that an individual mutates.
    rate: probability that a decision of it takes another of its values.
  """
  mutant = (rng.uniform(size=len(children)) < individual) & ~crossed
  changes = mutant[:, None] & (rng.uniform(size=children.shape) < rate)
  shift = rng.integers(1, np.maximum(choices, 2), children.shape)
  changed = (children + shift) % choices
  return np.where(changes, changed, children).astype(np.int32)
