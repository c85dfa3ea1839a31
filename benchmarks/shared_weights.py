"""How well shared weights rank children that were also trained alone.

  python benchmarks/shared_weights.py --config=search_digits:tiny \\
      --children=16 --epochs=20 --shared_epochs=60 --seeds=0,1,2

The same random children are trained alone, each with a seed of its own, and
judged by weights that all share, trained before on uniform samples (Guo et al.
2019). Kendall's tau of the two accuracies, tau-b, which allows for ties; a line
of JSON per seed of the shared weights. Beside it the tau of a child's
parameters, which costs nothing.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

from nasnet_jax.report.statistics import kendall as tau


def evaluator_of(config):
  """(space, evaluator) of a search's config."""
  from nasnet_jax.search import parts, search_config

  made = parts.prepare(config, search_config.get_evaluator)
  return made.space, made.evaluator


def alone(config, decisions, epochs: int) -> tuple[list, list[int]]:
  """(accuracies, parameters) of children that are trained by themselves."""
  config.child.epochs = epochs
  _, evaluator = evaluator_of(config)
  seeds = np.arange(len(decisions), dtype=np.uint32)
  budgets = np.ones(len(decisions), np.float32)
  outcomes = evaluator.evaluate(decisions, seeds, budgets)
  return [o.reward for o in outcomes], [o.params for o in outcomes]


def shared(config, decisions, epochs: int, seed: int, fields) -> list[float]:
  """Accuracies under shared weights."""
  config.child.epochs = epochs
  config.search.seed = seed
  config.search.weights = "shared"
  config.search.shared.epochs = 0.0  # all of it before any child
  config.search.shared.update(fields)
  _, evaluator = evaluator_of(config)
  with tempfile.TemporaryDirectory() as folder:
    evaluator.before_round(pathlib.Path(folder), 0, lambda n: None)
  nothing = np.zeros(len(decisions))
  outcomes = evaluator.evaluate(decisions, nothing, nothing)
  return [o.reward for o in outcomes]


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--config", default="search_digits:tiny")
  parser.add_argument("--children", type=int, default=16)
  parser.add_argument("--epochs", type=int, default=20, help="of each alone")
  parser.add_argument("--shared_epochs", type=int, default=60)
  parser.add_argument("--seeds", default="0", help="of the shared weights")
  parser.add_argument("--shared", default="{}", help="JSON: search.shared.*")
  flags = parser.parse_args()

  from nasnet_jax.cli import shipped
  from nasnet_jax.search import search_config

  def config():
    return shipped.config(flags.config)

  space = search_config.get_space(config())
  decisions = space.sample(np.random.default_rng(0), flags.children)
  start = time.process_time()
  truth, params = alone(config(), decisions, flags.epochs)
  spent = time.process_time() - start
  print(json.dumps({"alone": truth, "cpu_seconds": round(spent, 1)}))
  print(json.dumps({"tau_of_parameters": round(tau(truth, params), 3)}))
  for seed in map(int, flags.seeds.split(",")):
    start = time.process_time()
    fields = json.loads(flags.shared)
    found = shared(config(), decisions, flags.shared_epochs, seed, fields)
    row = {
      "seed": seed,
      "tau": round(tau(truth, found), 3),
      "shared": found,
      "cpu_seconds": round(time.process_time() - start, 1),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
  sys.exit(main())
