"""Proposals per second of Optuna's and PyGlove's searches, as JSON.

Run by `controllers.py` with a Python that has both (see `strategies.py`);
nothing of nasnet_jax is imported. One proposal at a time, as these libraries
give them; being told the answer is in the time. The time per proposal grows
with a search's age, so each is measured after `WARM` answers.
"""

import argparse
import importlib.metadata
import json
import random
import time

import optuna_search
import pyglove_search

SEARCHES = {
  "optuna, TPE": optuna_search.tpe,
  "optuna, NSGA-II": optuna_search.nsga2,
  "pyglove, evolution": pyglove_search.evolution,
  "pyglove, evolution by pg.sample": pyglove_search.sampled_evolution,
}
WARM = 200
SECONDS = 3.0


def measure(start, num_choices) -> dict:
  """Of one search, with rewards at random."""
  rng = random.Random(0)
  search = start(num_choices, 0)
  next(search)
  for _ in range(WARM):
    search.send([rng.random()])
  count, began = 0, time.perf_counter()
  while time.perf_counter() - began < SECONDS:
    search.send([rng.random()])
    count += 1
  seconds = time.perf_counter() - began
  search.close()
  return {"proposals_per_second": round(count / seconds, 1), "calls": count}


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("num_choices", type=int, nargs="+")
  num_choices = tuple(parser.parse_args().num_choices)
  versions = {
    name: importlib.metadata.version(name) for name in ("optuna", "pyglove")
  }
  found = {
    name: measure(start, num_choices) for name, start in SEARCHES.items()
  }
  print(json.dumps({"versions": versions, "searches": found}))


if __name__ == "__main__":
  main()
