"""Several objectives on NAS-Bench-201: our evolution beside Optuna's NSGA-II.

    python -m venv BENCH
    BENCH/bin/pip install -e '.[bench]' optuna==5.0.0
    BENCH/bin/python benchmarks/objectives.py --out=docs/results/objectives

Accuracy (validation, 200 epochs, mean over the table's seeds) against the
table's latency and the number of parameters, 200 queries, 30 runs of each data
set; a query counts whether or not the cell was queried before. What counts is
the hypervolume of all cells queried so far, each objective from its worst in
the whole table, 0, to its best, 1, as a share of that of the table's own front.
The number of the run is the seed of both.

`--tune` tries settings of our evolution on ImageNet16-120 with other seeds.
"""

import argparse
import pathlib
import time
from collections.abc import Generator
from typing import NamedTuple

import jax
import numpy as np
import table_runs
from table_runs import Ours, slug

from nasnet_jax import controllers
from nasnet_jax.pareto import fronts, hypervolume
from nasnet_jax.search import nasbench201_table, tabular
from nasnet_jax.training import workdir

OBJECTIVES = ("accuracy", "-latency", "-params")
MARKS = (50, 100, 200)  # queries


class Peer(NamedTuple):
  """Optuna's NSGA-II."""

  population: int


def _evolution(population: int, sample: int) -> Ours:
  # A child is never its parent's copy, which a table would answer for nothing.
  options = {"population": population, "sample": sample, "identity": 0.0}
  return Ours("evolution", {**options, "redraw": False, "pareto": True})


OPTUNA, OURS = "Optuna NSGA-II", "evolution, pareto"
STRATEGIES = {
  OURS: _evolution(10, 2),  # the best of `TUNING` on ImageNet16-120
  f"{OURS}, P = 50": _evolution(50, 2),
  OPTUNA: Peer(50),  # its own
  f"{OPTUNA}, P = 10": Peer(10),
  "random search": Ours("random_search"),
}
# Populations and tournaments: Deb et al. have 2 in a tournament.
TUNING = {
  f"P = {population}, S = {sample}": _evolution(population, sample)
  for population in (10, 20, 50, 100)
  for sample in (2, 5, 10)
}
TUNING_SET, TUNING_SEED = "imagenet16-120", 10_000


def rewards_of(table: tabular.Table) -> np.ndarray:
  """f64[n, 3] of the table's rows, larger is better."""
  return np.stack([table.mean(), -table.latency, -table.params], -1)


def scaled(rewards: np.ndarray) -> np.ndarray:
  """Each objective from 0, the table's worst, to 1, its best."""
  low, high = rewards.min(0), rewards.max(0)
  return (rewards - low) / (high - low)


def start(strategy: Ours | Peer, num_choices, seed: int) -> Generator:
  """A search: yields decisions int[n, D], is sent rewards f64[n, 3]."""
  if isinstance(strategy, Peer):
    from peers import optuna_search

    return optuna_search.nsga2_of_several(
      num_choices, seed, len(OBJECTIVES), strategy.population
    )
  return _start_ours(strategy, num_choices, seed)


def _start_ours(strategy: Ours, num_choices, seed: int) -> Generator:
  options = dict(strategy.options)
  if options.get("pareto"):
    options["objectives"] = len(OBJECTIVES)
  controller = controllers.make(strategy.controller, num_choices, **options)
  rng = jax.random.key(seed)
  state, number = controller.init(rng), 0
  while True:
    key = jax.random.fold_in(rng, number)
    proposals, state = controller.ask(state, key, strategy.per_round)
    rewards = yield np.asarray(proposals.decisions)
    status = np.zeros(len(proposals), np.int32)
    told = np.float32(rewards)
    told = told if controller.objectives > 1 else told[:, 0]
    state = controller.tell(state, proposals, told, status)
    number += 1


def play(strategy, evaluator, rewards: np.ndarray, run: int, queries: int):
  """One search.

  Returns:
    {"run", "grew": [[query, the table's row], ...] at each that enlarged the
    hypervolume, "distinct": cells, "own_seconds": of the strategy}
  """
  search = start(strategy, evaluator.table.space.num_choices, run)
  cells, answers, own = [], None, 0.0
  while len(cells) < queries:
    began = time.perf_counter()
    decisions = search.send(answers)
    own += time.perf_counter() - began
    found = evaluator.rows(decisions)
    answers = rewards[found]
    cells += found.tolist()
  search.close()
  del cells[queries:]
  volumes = _volumes(scaled(rewards)[cells])
  grew = np.flatnonzero(np.diff(volumes, prepend=0.0) > 0).tolist()
  return {
    "run": run,
    "grew": [[query + 1, cells[query]] for query in grew],
    "distinct": len(set(cells)),
    "own_seconds": round(own, 3),
  }


def _volumes(values: np.ndarray) -> np.ndarray:
  return hypervolume.by_child(values, np.zeros(values.shape[1]))


def complete(path, strategy, evaluator, rewards, first: int, args) -> None:
  """Plays the runs that the file lacks."""
  settings = {"queries": args.queries, **strategy._asdict()}
  if isinstance(strategy, Peer):
    import optuna

    settings["version"] = optuna.__version__

  def one(run: int):
    return play(strategy, evaluator, rewards, run, args.queries)

  table_runs.complete(path, settings, one, first, args.runs)


def read(path, values: np.ndarray) -> np.ndarray:
  """f64[runs, queries]: the hypervolume after each query.

  Args:
    values: as `scaled` gives them.
  """
  settings, rows = table_runs.read(path)
  return np.array([_curve(row, values, settings["queries"]) for row in rows])


def _curve(row, values: np.ndarray, queries: int) -> np.ndarray:
  found = np.zeros(queries)
  when, cells = np.array(row["grew"]).T
  for query, volume in zip(when, _volumes(values[cells])):
    found[query - 1 :] = volume
  return found


def interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
  """The 95 % bootstrap interval of the median (Efron 1979)."""
  rng = np.random.default_rng(0)
  chosen = rng.integers(0, len(values), (draws, len(values)))
  low, high = np.percentile(np.median(values[chosen], axis=1), [2.5, 97.5])
  return float(low), float(high)


def _words(values: np.ndarray) -> str:
  low, high = interval(values)
  return f"{np.median(values):.4f} [{low:.4f}, {high:.4f}]"


def tables(folder: pathlib.Path, labels, rewards: np.ndarray) -> str:
  """table.md of the runs that there are."""
  values = scaled(rewards)
  most = hypervolume.hypervolume(
    values[fronts.front(values)], np.zeros(values.shape[1])
  )
  found = {
    label: read(folder / f"{slug(label)}.jsonl", values) / most
    for label in labels
    if (folder / f"{slug(label)}.jsonl").exists()
  }
  marks = [
    mark for mark in MARKS if mark <= next(iter(found.values())).shape[1]
  ]
  lines = [
    f"| strategy | {' | '.join(f'{m} queries' for m in marks)} | runs |",
    "|---|" + "---|" * (len(marks) + 1),
  ]
  for label, curves in found.items():
    cells = [_words(curves[:, mark - 1]) for mark in marks]
    lines.append(f"| {label} | {' | '.join(cells)} | {len(curves)} |")
  lines += ["", *_paired(found, marks)]
  return "\n".join(lines).rstrip() + "\n"


def _paired(found: dict[str, np.ndarray], marks) -> list[str]:
  """Lines: ours less Optuna's, run by run."""
  if not {OURS, OPTUNA} <= found.keys():
    return []
  lines = [
    f"{OURS} less {OPTUNA}, of the same run:",
    "",
    "| queries | median difference | runs that ours won |",
    "|---|---|---|",
  ]
  for mark in marks:
    difference = found[OURS][:, mark - 1] - found[OPTUNA][:, mark - 1]
    won = int((difference > 0).sum())
    lines.append(
      f"| {mark} | {_words(difference)} | {won} of {len(difference)} |"
    )
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument(
    "--datasets", default=",".join(nasbench201_table.DATASETS)
  )
  parser.add_argument("--runs", type=int, default=30)
  parser.add_argument("--queries", type=int, default=MARKS[-1])
  parser.add_argument("--only", default="", help="labels, with ; between")
  parser.add_argument("--tune", action="store_true")
  args = parser.parse_args()
  strategies, datasets = STRATEGIES, args.datasets.split(",")
  out, first = args.out, 0
  if args.tune:
    strategies, datasets = TUNING, [TUNING_SET]
    out, first = out / "tuning", TUNING_SEED
  for dataset in datasets:
    table = nasbench201_table.nasbench201(dataset)
    evaluator, rewards = tabular.TabularEvaluator(table), rewards_of(table)
    for label in args.only.split(";") if args.only else strategies:
      strategy = strategies[label]
      path = out / dataset / f"{slug(label)}.jsonl"
      complete(path, strategy, evaluator, rewards, first, args)
      print(f"{dataset}, {label}: done", flush=True)
    text = tables(out / dataset, strategies, rewards)
    workdir.write_text(out / dataset / "table.md", text)
    print(text, flush=True)


if __name__ == "__main__":
  main()
