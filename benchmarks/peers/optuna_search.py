"""Optuna's samplers as the peers of our search strategies.

A search is a generator: it yields decisions int[n, D] and is sent rewards
f64[n], or f64[n, k] of k objectives, higher is better. Optuna's own settings
everywhere.
"""

import numpy as np
import optuna


def tpe(num_choices, seed: int):
  """Tree-structured Parzen estimators (Bergstra et al. 2011)."""
  return _search(num_choices, optuna.samplers.TPESampler(seed=seed))


def nsga2(num_choices, seed: int):
  """NSGA-II (Deb et al. 2002) with one objective: a population of 50."""
  return _search(num_choices, optuna.samplers.NSGAIISampler(seed=seed))


def nsga2_of_several(num_choices, seed: int, objectives: int, population=50):
  """NSGA-II (Deb et al. 2002) for several objectives; 50 is Optuna's own."""
  sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
  return _search(num_choices, sampler, objectives)


def _search(num_choices, sampler, objectives: int = 1):
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  study = optuna.create_study(
    directions=["maximize"] * objectives, sampler=sampler
  )
  choices = {
    str(i): optuna.distributions.CategoricalDistribution(list(range(c)))
    for i, c in enumerate(num_choices)
  }
  while True:
    trial = study.ask(choices)
    decisions = [trial.params[str(i)] for i in range(len(num_choices))]
    rewards = yield np.array([decisions], np.int32)
    study.tell(trial, np.ravel(rewards[0]).tolist())
