"""PyGlove's regularised evolution as the peer of our search strategies.

A search is a generator: it yields decisions int[n, D] and is sent rewards
f64[n], higher is better.
"""

import numpy as np
import pyglove as pg

# Small enough for hundreds of queries; the same as ours in the comparison.
POPULATION, TOURNAMENT = 20, 5


def evolution(num_choices, seed: int):
  """Regularised evolution (Real et al. 2019) by the algorithm's own methods,
  three times as fast as the loop of `pg.sample` around them."""
  algorithm = _algorithm(seed)
  algorithm.setup(pg.dna_spec(_space(num_choices)))
  while True:
    dna = algorithm.propose()
    rewards = yield np.array([dna.to_numbers()], np.int32)
    algorithm.feedback(dna, float(rewards[0]))


def sampled_evolution(num_choices, seed: int):
  """The same by `pg.sample`, which is how its documentation uses it."""
  examples = pg.sample(_space(num_choices), _algorithm(seed))
  for example, feedback in examples:
    decisions = [example[f"d{i}"] for i in range(len(num_choices))]
    rewards = yield np.array([decisions], np.int32)
    feedback(float(rewards[0]))


def _algorithm(seed: int):
  return pg.evolution.regularized_evolution(
    population_size=POPULATION, tournament_size=TOURNAMENT, seed=seed
  )


def _space(num_choices):
  choices = {f"d{i}": list(range(c)) for i, c in enumerate(num_choices)}
  return pg.Dict(**{name: pg.oneof(values) for name, values in choices.items()})
