"""Which strategy the demonstration should take: ten seeds of each on digits.

    python benchmarks/demonstration.py --runs=runs/demonstration \\
        --out=docs/results/demonstration [--only=evolution,ppo] [--seeds=10]

Every strategy searches `search_digits` with the budget and the options of
`make search`, once per seed. Then, as in the final stage, the best three
children of each search are retrained and ranked, and the first of them is
trained on training and validation images and tested. All networks of all
searches, children and final ones, are trained by three compiled programs: an
architecture is data, and a network of the any-cell program equals the static
one, but for the order in which numbers are added.

The seed fixes what strategies draw and how children begin, so strategies are
compared seed by seed. It may be stopped at any time and goes on with the same
command: searches lie in RUNS, results in OUT, from where it goes on without
RUNS too. A search with its final networks is a minute and a half of two quiet
CPU cores, so all of them are an hour and a half.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import table_runs
from scipy import stats

from nasnet_jax.cli import shipped
from nasnet_jax.jobs import job_config
from nasnet_jax.report import statistics, style
from nasnet_jax.search import (
  final,
  parts,
  rank_together,
  rounds,
  search_config,
)
from nasnet_jax.training import datasets, mesh, workdir

# name -> what differs from `search_digits`. Not genetic and progressive, whose
# spaces are others: codes of stages, cells that grow.
STRATEGIES = {
  "random_search": {},
  "ppo": {},
  "reinforce": {},
  "evolution": {},
  "local_search": {},
  "predictor_search": {},
}
CONTROL = "random_search"
WINDOW = 12  # children: a quarter of a search
COLORS = [
  style.LIGHT[name]
  for name in (
    "muted",
    "accent",
    "pool_edge",
    "conv_edge",
    "identity_edge",
    "ink",
    "second",
    "previous",
  )
]


class Study:
  """The parts that all searches share.

  Attributes:
    runs: the folder of the searches.
  """

  def __init__(self, runs: pathlib.Path):
    self.runs = runs

  @functools.cached_property
  def base(self) -> parts.Parts:
    return parts.prepare(_config("random_search", 0), _evaluator)

  @functools.cached_property
  def rank(self):
    """The evaluator of the ranking."""
    return final_evaluator(self.base, self.base.images, "rank_epochs")

  @functools.cached_property
  def last(self):
    """The evaluator that trains on all training images, and tests."""
    return final_evaluator(self.base, tested(self.base.images), "epochs")

  def play(self, strategy: str, seed: int) -> dict:
    """One search and what came of it: the row that is kept."""
    rows = self._search(strategy, seed)
    best, ranking = self.ranked(rows, seed)
    winner = best[int(np.argmax(ranking))]
    [last] = train(self.last, [winner], seed)
    return {
      "run": seed,
      "rewards": [row["reward"] for row in rows],
      "best": [row["id"] for row in best],
      "ranking": [round(reward, 4) for reward in ranking],
      "winner": winner["decisions"],
      "params": last.params,
      "macs": last.macs,
      "test": round(last.reward, 4),
    }

  def ranked(self, rows: list[dict], seed: int) -> tuple[list[dict], list]:
    """The best children of a search, and their accuracies when retrained."""
    best = final.top_children(rows, self.base.space, self.base.final.top_k)
    return best, [outcome.reward for outcome in train(self.rank, best, seed)]

  def _search(self, strategy: str, seed: int) -> list[dict]:
    config = _config(strategy, seed)
    found = parts.prepare(config, lambda *_: self.base.evaluator)
    folder = self.runs / f"{strategy}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return rounds.run(folder, found.controller, found.evaluator, found.rounds)


def _config(strategy: str, seed: int):
  """`search_digits` by a strategy."""
  config = shipped.config("search_digits")
  config.search.controller = strategy
  config.search.seed = seed
  for name, value in STRATEGIES[strategy].items():
    config.search.controller_options[strategy][name] = value
  return config


_evaluator = search_config.get_evaluator


def final_evaluator(base: parts.Parts, images, epochs: str):
  """Trains networks as the final stage does, in one program for all cells.

  Args:
    epochs: the field of config.final that has how many.
  """
  final_ = base.final
  recipe = {"rank_epochs": final_.rank, "epochs": final_.final}[epochs]
  fields = base.config.mesh
  return rank_together.evaluator(
    *(base.space, final_.network, recipe, final_.augmentation),
    lambda: mesh.make_mesh(fields.arch, fields.data),
    images.train,
    images.valid,
  )


def tested(images: job_config.Splits) -> job_config.Splits:
  """Training and validation images to train on, test images to look at."""
  train = datasets.Images(
    np.concatenate([images.train.images, images.valid.images]),
    np.concatenate([images.train.labels, images.valid.labels]),
  )
  return images._replace(train=train, valid=images.test)


def train(evaluator, rows: list[dict], seed: int) -> list:
  """Outcomes of networks from the history."""
  decisions = np.array([row["decisions"] for row in rows], np.int32)
  seeds = [rounds.child_seed(seed, row["id"]) for row in rows]
  return evaluator.evaluate(
    decisions, np.array(seeds, np.uint32), np.ones(len(rows), np.float32)
  )


def read(out: pathlib.Path) -> dict[str, list[dict]]:
  """The searches that are done, of each strategy by seed."""
  return table_runs.read_all(out, STRATEGIES)


def table(found: dict[str, list[dict]]) -> str:
  """All strategies, in Markdown.

  Quarters are of a search's children, in the order in which they were asked
  for; a failed child has the reward 0.
  """
  lines = [
    "| strategy | seeds | mean reward, first quarter | last quarter | seeds in"
    " which the last was better | best reward | test accuracy of the winner, %"
    " | minus random search, seed by seed | parameters |",
    "|---|" + "---|" * 8,
  ]
  control = {row["run"]: row["test"] for row in found.get(CONTROL, ())}
  for strategy, rows in found.items():
    rewards = rewards_of(rows)
    quarter = rewards.shape[1] // 4
    first, last = rewards[:, :quarter].mean(1), rewards[:, -quarter:].mean(1)
    tests = [100 * row["test"] for row in rows]
    against = [
      100 * (row["test"] - control[row["run"]])
      for row in rows
      if row["run"] in control and strategy != CONTROL
    ]
    lines.append(
      f"| {strategy} | {len(rows)} | {first.mean():.3f} | {last.mean():.3f} |"
      f" {(last > first).sum()} | {rewards.max(1).mean():.3f} |"
      f" {words(tests)} | {words(against)} |"
      f" {np.mean([row['params'] for row in rows]):,.0f} |"
    )
  return "\n".join(lines) + "\n"


def rewards_of(rows: list[dict]) -> np.ndarray:
  """f64[searches, children]."""
  return np.nan_to_num(np.array([row["rewards"] for row in rows], float))


def words(values: list[float]) -> str:
  """The mean, and its 95 % interval by Student's t."""
  if len(values) < 2:
    return f"{values[0]:.2f}" if values else "-"
  mean, error = np.mean(values), stats.sem(values)
  half = error * stats.t.ppf(0.975, len(values) - 1)
  return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def draw(found: dict[str, list[dict]], path: pathlib.Path):
  """How good the latest children are: means over searches."""
  with style.style():
    figure = style.new_figure(6.4, 3.6, "constrained")
    axes = figure.subplots()
    for (name, rows), color in zip(found.items(), COLORS):
      rewards = rewards_of(rows)
      means = [statistics.rolling_mean(row, WINDOW) for row in rewards]
      latest = np.mean(means, 0)[WINDOW - 1 :]
      children = np.arange(WINDOW, rewards.shape[1] + 1)
      axes.plot(children, latest, color=color, label=name)
    axes.set_xlabel("children trained")
    axes.set_ylabel(f"mean reward of the latest {WINDOW}")
    figure.legend(loc="outside upper left", ncols=3)
  style.save(figure, path)


def arguments(name: str, labels: Iterable[str], seeds: int):
  """Flags of a study of searches that are compared seed by seed."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--runs", type=pathlib.Path, default=f"runs/{name}")
  parser.add_argument("--out", type=pathlib.Path, default=name)
  parser.add_argument("--only", default=",".join(labels))
  parser.add_argument("--seeds", type=int, default=seeds)
  return parser.parse_args()


def complete(
  options,
  fields: dict[str, dict[str, Any]],
  play: Callable[[str, int], dict],
  kind: str,
):
  """Plays the searches that options.out lacks.

  Args:
    options: of `arguments`.
    fields: label -> what differs, kept beside `kind` in the file's first line.
    play: (label, seed) -> row.
  """
  # Seed by seed, so that what is done at any time compares all of them.
  for seed in range(options.seeds):
    for label in options.only.split(","):
      path = options.out / f"{label}.jsonl"
      settings = {kind: label, **fields[label]}
      of_label = functools.partial(play, label)
      table_runs.complete(path, settings, of_label, seed, 1)
      print(f"{label}, seed {seed}", flush=True)


def main():
  options = arguments("demonstration", STRATEGIES, 10)
  mesh.prepare_host()
  complete(options, STRATEGIES, Study(options.runs).play, "strategy")
  found = read(options.out)
  workdir.write_text(options.out / "table.md", table(found))
  draw(found, options.out / "latest")
  print(table(found))


if __name__ == "__main__":
  main()
