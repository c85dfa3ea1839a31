"""Search strategies on NAS-Bench-201: ours, Optuna's and PyGlove's.

    python -m venv BENCH
    BENCH/bin/pip install -e '.[bench]' optuna==5.0.0 pyglove==0.4.5
    BENCH/bin/python benchmarks/strategies.py --out=docs/results/strategies

Every strategy searches each of the three data sets 100 times (the number of
the run is the seed) with 500 queries. What it sees and what is reported is the
validation accuracy after 200 epochs, mean over the table's seeds
(`--answers=seed`: it sees one seed's, and the mean of the cell it prefers is
reported). A query counts whether or not the cell was queried before. A strategy
is asked for as many cells at a time as stands in `STRATEGIES`, and told all
answers before it is asked again.

Runs are written down one by one, so the command goes on where it was stopped;
`--only="LABEL;..."` takes some strategies, and what is not installed is left
out with a line that names it. `--tune` tries learning rates of PPO instead, on
ImageNet16-120 with other seeds. `--datasets=pnas_chain` searches our own cells,
all 340 of that space, in place of NAS-Bench-201.
"""

import argparse
import importlib
import importlib.metadata
import pathlib
import time
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np
import table_runs
from table_runs import Ours, slug

from nasnet_jax import controllers, report
from nasnet_jax.controllers import base
from nasnet_jax.search import cell_table, nasbench201_table, rounds, tabular
from nasnet_jax.training import workdir

MARKS = (50, 100, 200, 500)  # queries


class Peer(NamedTuple):
  """A search of benchmarks/peers: a module, its function, its package."""

  module: str
  function: str
  package: str


STRATEGIES = {
  "random search": Ours("random_search"),
  # P and S for a few hundred queries; a child is never its parent's copy, which
  # a table would answer for nothing new.
  "evolution": Ours(
    "evolution",
    {"population": 20, "sample": 5, "identity": 0.0, "redraw": False},
  ),
  # The better of the two on ImageNet16-120 and CIFAR-100.
  "local search": Ours(
    "local_search", {"first_improvement": True, "memory": 2000}
  ),
  "local search, all neighbours": Ours("local_search", {"memory": 2000}),
  "predictor search": Ours("predictor_search", per_round=5),
  "PPO at 3.5e-4": Ours("ppo", per_round=20),
  # The best of `RATES` on ImageNet16-120: see docs/results/strategies.
  "PPO, tuned": Ours("ppo", {"learning_rate": 3e-3}, per_round=20),
  "Optuna TPE": Peer("optuna_search", "tpe", "optuna"),
  "Optuna NSGA-II": Peer("optuna_search", "nsga2", "optuna"),
  "PyGlove evolution": Peer("pyglove_search", "evolution", "pyglove"),
}
# Searches of cells that grow by blocks, which NAS-Bench-201's do not.
GROWING = {
  f"progressive, K = {beam}": Ours("progressive", {"beam": beam}, beam)
  for beam in (8, 16, 32)
}
# What others reach with fewer queries, if they are better.
TARGETS = ("random search", "PPO, tuned", "evolution")
RATES = (3.5e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TUNING = {
  f"PPO {rate:g}": Ours("ppo", {"learning_rate": rate}, per_round=20)
  for rate in RATES
}
TUNING_SET, TUNING_SEED = "imagenet16-120", 10_000


def load_table(dataset: str, path=None) -> tabular.Table:
  """NAS-Bench-201 on a data set, or our own cells, from that file if given."""
  if dataset in ("pnas", "pnas_chain"):
    return cell_table.cifar_cells(dataset, path)
  return nasbench201_table.nasbench201(dataset)


def start(strategy: Ours | Peer, space, seed: int) -> Generator:
  """A search: yields decisions int[n, D], is sent rewards f64[n]."""
  if isinstance(strategy, Ours):
    return _start_ours(strategy, space, seed)
  module = importlib.import_module(f"peers.{strategy.module}")
  return getattr(module, strategy.function)(space.num_choices, seed)


def _start_ours(strategy: Ours, space, seed: int) -> Generator:
  controller = controllers.make(strategy.controller, space, **strategy.options)
  rng = jax.random.key(seed)
  state, number = controller.init(rng), 0
  while True:
    key = jax.random.fold_in(rng, number)
    proposals, state = controller.ask(state, key, strategy.per_round)
    if not len(proposals):
      return
    if (np.asarray(proposals.budget) != 1).any():
      raise ValueError(f"{strategy} asks for less than a whole training")
    rewards = yield np.asarray(proposals.decisions)
    status = np.where(np.isfinite(rewards), base.OK, base.FAILED)
    state = controller.tell(state, proposals, np.float32(rewards), status)
    number += 1


def play(strategy, evaluator: tabular.TabularEvaluator, run: int, queries: int):
  """One search; the row that is kept of it.

  Returns:
    {"run", "best": [[query, table's row, seconds of training so far], ...] at
    each improvement, "queries", "distinct": cells at each of `MARKS`,
    "train_seconds": at each of them, "own_seconds": of the strategy}
  """
  search = start(strategy, evaluator.table.space, run)
  rows, rewards, seconds = [], [], []
  own, answers = 0.0, None
  while len(rows) < queries:
    began = time.perf_counter()
    try:
      decisions = search.send(answers)
    except StopIteration:  # it has nothing more to propose
      break
    own += time.perf_counter() - began
    decisions = decisions[: queries - len(rows)]
    numbers = range(len(rows), len(rows) + len(decisions))
    seeds = np.array([rounds.child_seed(run, i) for i in numbers], np.uint32)
    outcomes = evaluator.evaluate(decisions, seeds, np.ones(len(decisions)))
    answers = np.array([outcome.reward for outcome in outcomes])
    rows += evaluator.rows(decisions).tolist()
    rewards += answers.tolist()
    seconds += [outcome.seconds for outcome in outcomes]
  search.close()
  spent = np.cumsum(seconds)
  best = np.maximum.accumulate(np.nan_to_num(rewards, nan=-np.inf))
  better = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
  marks = [min(mark, len(rows)) for mark in MARKS]
  return {
    "run": run,
    "best": [[int(i) + 1, rows[i], round(float(spent[i]))] for i in better],
    "queries": len(rows),
    "distinct": [len(set(rows[:mark])) for mark in marks],
    "train_seconds": [round(float(spent[mark - 1])) for mark in marks],
    "own_seconds": round(own, 3),
  }


def settings_of(strategy, args) -> dict[str, Any]:
  """What a file's runs have in common; stands in its first line."""
  about = {"queries": args.queries, "answers": args.answers}
  if isinstance(strategy, Peer):
    about["version"] = importlib.metadata.version(strategy.package)
  return {**strategy._asdict(), **about}


def complete(path, strategy, evaluator, first: int, args) -> None:
  """Plays the runs that the file lacks."""

  def one(run: int):
    return play(strategy, evaluator, run, args.queries)

  settings = settings_of(strategy, args)
  table_runs.complete(path, settings, one, first, args.runs)


def curve(row, values: np.ndarray, queries: int) -> np.ndarray:
  """f64[queries]: the value of the best cell so far.

  Args:
    row: as `play` returns it.
    values: f64[n] of the table's rows.
  """
  found = np.full(queries, np.nan)
  for query, place, _ in row["best"]:
    found[query - 1 :] = values[place]
  return found


def read_curves(path, values) -> tuple[np.ndarray, list[dict]]:
  """(f64[runs, queries], rows) of a file's runs."""
  settings, rows = table_runs.read(path)
  return np.array([curve(r, values, settings["queries"]) for r in rows]), rows


def summarise(folder: pathlib.Path, labels, table: tabular.Table) -> None:
  """Writes table.md and curves.png of the runs that there are so far."""
  values = 100 * table.mean()
  text, curves = tables(folder, labels, values)
  workdir.write_text(folder / "table.md", text)
  if curves:
    report.draw_searches(
      curves,
      folder / "curves",
      "validation accuracy, %",
      np.nanmax(values),
    )


def tables(
  folder: pathlib.Path, labels, values: np.ndarray
) -> tuple[str, dict[str, np.ndarray]]:
  """(table.md, curves by label) of the runs that there are so far.

  Args:
    values: f64[n] of the table's rows, in %.
  """
  curves, lines = {}, []
  for label in labels:
    path = folder / f"{slug(label)}.jsonl"
    if path.exists():
      found, rows = read_curves(path, values)
      if len(rows):
        curves[label] = found
        lines.append(f"| {label} | {' | '.join(_columns(found, rows))} |")
  best = f"{np.nanmax(values):.2f} | " * len(MARKS)
  head = [
    f"| strategy | {' | '.join(f'{m} queries' for m in MARKS)} | runs |"
    f" distinct cells of {MARKS[-1]} |",
    "|---|" + "---|" * (len(MARKS) + 2),
  ]
  last = f"| best cell of the table | {best}| |"
  text = "\n".join([*head, *lines, last, "", *queries_needed(curves)])
  return text.rstrip() + "\n", curves


def _columns(found: np.ndarray, rows) -> list[str]:
  """Of a strategy's row in the table."""
  marks = [mark for mark in MARKS if mark <= found.shape[1]]
  cells = [_mean_and_spread(found[:, mark - 1]) for mark in marks]
  cells += ["-"] * (len(MARKS) - len(marks))
  distinct = np.mean([row["distinct"][-1] for row in rows])
  return [*cells, str(len(rows)), f"{distinct:.0f}"]


def queries_needed(curves: dict[str, np.ndarray]) -> list[str]:
  """Lines: how soon each strategy's mean is where another's ends; the form of
  Liu et al. 2018, table 2."""
  targets = [label for label in curves if label in TARGETS]
  if not targets:
    return []
  lines = [
    "Queries until the mean reaches the end of another strategy's:",
    "",
    f"| strategy | {' | '.join(targets)} |",
    "|---|" + "---|" * len(targets),
  ]
  for label, found in curves.items():
    cells = []
    for target in targets:
      there = np.flatnonzero(found.mean(0) >= curves[target][:, -1].mean())
      cells.append(str(there[0] + 1) if len(there) else "-")
    lines.append(f"| {label} | {' | '.join(cells)} |")
  return lines


def _mean_and_spread(values) -> str:
  spread = values.std(ddof=1) if len(values) > 1 else 0.0
  return f"{values.mean():.2f} ± {spread:.2f}"


def missing_package(strategy) -> str | None:
  """The package that this strategy needs and that is not installed."""
  if isinstance(strategy, Peer):
    try:
      importlib.metadata.version(strategy.package)
    except importlib.metadata.PackageNotFoundError:
      return strategy.package
  return None


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument(
    "--datasets", default=",".join(nasbench201_table.DATASETS)
  )
  parser.add_argument("--only", default="", help="labels, with ; between")
  parser.add_argument("--runs", type=int, default=100)
  parser.add_argument("--queries", type=int, default=MARKS[-1])
  parser.add_argument("--answers", default="mean", choices=("mean", "seed"))
  parser.add_argument("--tune", action="store_true")
  args = parser.parse_args()
  strategies, datasets = STRATEGIES, args.datasets.split(",")
  out, first = args.out, 0
  if args.tune:
    strategies, datasets = TUNING, [TUNING_SET]
    out, first = out / "tuning", TUNING_SEED
  elif args.answers == "seed":
    out = out / "one_seed"
  only = [label for label in args.only.split(";") if label]
  for dataset in datasets:
    table = load_table(dataset)
    evaluator = tabular.TabularEvaluator(table, args.answers)
    if getattr(table.space, "min_blocks", 0):
      strategies = strategies | GROWING
    for label in only or strategies:
      package = missing_package(strategies[label])
      if package:
        print(f"{label} is left out: pip install {package}")
        continue
      path = out / dataset / f"{slug(label)}.jsonl"
      complete(path, strategies[label], evaluator, first, args)
      print(f"{dataset}, {label}: done", flush=True)
    summarise(out / dataset, strategies, table)
    print((out / dataset / "table.md").read_text(), flush=True)


if __name__ == "__main__":
  main()
