"""What one gets for one's minutes: eight ways to search, on few digits.

    python benchmarks/cheap_search.py --runs=runs/cheap \\
        --out=docs/results/cheap/digits [--only=inherit,shared] [--seeds=5]

`search_digits` on a harder split: 300 images to train on, 300 to validate and
1,197 to test, so that networks can be told apart. Every way of searching may
train the same number of epochs, EPOCHS in all, whatever it spends them on; what
it took is measured, compiling apart. After a third of the epochs and at the
end the best three children so far are retrained and ranked, as in the final
stage of a search, and the first of them is trained on training and validation
images from RETRAININGS seeds, and tested. So all ways are judged by networks
that stand alone, trained by one recipe.

Ways are compared seed by seed. It may be stopped at any time and goes on with
the same command; results lie in OUT, from where it goes on without RUNS too.
About a minute and a half of two quiet CPU cores per search.
"""

import argparse
import functools
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import numpy as np
import table_runs
from demonstration import final_evaluator, tested, train, words

from nasnet_jax.cli import shipped
from nasnet_jax.report import style
from nasnet_jax.search import (
  budgets,
  final,
  halving,
  parts,
  rounds,
  scoring,
  search_config,
  sifting,
)
from nasnet_jax.training import mesh, workdir

EPOCHS = 384  # 48 children from nothing to their end
CHILD_EPOCHS = 8
MARKS = (1 / 3, 1.0)  # of EPOCHS
RETRAININGS = 2
CONTROL = "random_search"
ALONE, INHERIT, SHARED = "alone", "inherit", "shared"


class Way(NamedTuple):
  """How to search.

  Attributes:
    fields: of config.search that differ.
    child_epochs: of all children together, if they share their weights.
    children: at most so many.
  """

  fields: dict[str, Any]
  child_epochs: int = CHILD_EPOCHS
  children: int = EPOCHS


WAYS = {
  "random_search": Way({"controller": "random_search"}),
  "evolution": Way({"controller": "evolution"}),
  "predictor_search": Way({"controller": "predictor_search"}),
  "halving": Way(
    {"controller": "evolution", "halving.eta": 4, "halving.min_epochs": 2.0}
  ),
  "inherit": Way(
    {"controller": "evolution", "weights": INHERIT, "inherit.epochs": 2.0}
  ),
  "prefilter_synflow": Way(
    {
      "controller": "random_search",
      "prefilter": 10,
      "prefilter_score": "synflow",
    }
  ),
  "prefilter_params": Way(
    {
      "controller": "random_search",
      "prefilter": 10,
      "prefilter_score": "params",
    }
  ),
  # All of the training comes first, so that children are judged by the same
  # weights: Guo et al. 2019.
  "shared": Way(
    {"controller": "evolution", "weights": SHARED, "shared.epochs": 0.0},
    child_epochs=EPOCHS,
    children=200,
  ),
}
COLORS = [
  style.LIGHT[name]
  for name in (
    "muted",
    "accent",
    "pool_edge",
    "conv_edge",
    "identity_edge",
    "second",
    "previous",
    "ink",
  )
]


class Study:
  """The parts that searches share.

  Attributes:
    runs: the folder of the searches.
  """

  def __init__(self, runs: pathlib.Path):
    self.runs = runs
    self._evaluators: dict[tuple, Any] = {}

  @functools.cached_property
  def base(self) -> parts.Parts:
    return parts.prepare(_config(WAYS[CONTROL], 0), self._evaluator)

  @functools.cached_property
  def rank(self):
    """The evaluator of the ranking."""
    return final_evaluator(self.base, self.base.images, "rank_epochs")

  @functools.cached_property
  def last(self):
    """The evaluator that trains on all but the test images, and tests."""
    return final_evaluator(self.base, tested(self.base.images), "epochs")

  def play(self, way: Way, folder: pathlib.Path, seed: int) -> dict:
    """One search and what came of it: the row that is kept."""
    rows, scoring_seconds = self._search(way, folder, seed)
    marks = MARKS if way.child_epochs == CHILD_EPOCHS else MARKS[-1:]
    row: dict[str, Any] = {"run": seed, "marks": []}
    for mark in marks:
      there = rows[: _children_within(rows, mark * EPOCHS, way)]
      searched = sum(child["seconds"] for child in there)
      searched += scoring_seconds * len(there) / len(rows)
      row["marks"].append(
        {
          "share": mark,
          "children": len(there),
          "seconds": round(searched, 1),
          **self._judge(there, seed),
        }
      )
    row["rewards"] = [
      None if child["reward"] is None else round(child["reward"], 4)
      for child in rows
    ]
    return row

  def _search(self, way: Way, folder: pathlib.Path, seed: int):
    """The history, and the seconds that scores took."""
    config = _config(way, seed)
    found = parts.prepare(config, self._evaluator)
    controller, clock = found.controller, [0.0]
    sifted = scoring.prefilter(config)
    if sifted.is_on:
      judge = sifting.judge(
        found.evaluator, sifted.score, seed, found.rounds.limit
      )
      judge(controller.ask(*_anything(controller), 8)[0])  # compiles
      controller = sifting.sifted(
        controller, sifted.times, _timed(judge, clock)
      )
    shutil.rmtree(folder, ignore_errors=True)  # seconds are of one process
    folder.mkdir(parents=True)
    over = budgets.reproducible(
      budgets.BudgetSettings(epochs=EPOCHS), CHILD_EPOCHS
    )
    if way.child_epochs != CHILD_EPOCHS:
      over = budgets.never
    rows = rounds.run(
      folder, controller, found.evaluator, found.rounds, over=over
    )
    return rows, clock[0]

  def _judge(self, rows: list[dict], seed: int) -> dict:
    """The winner out of these children, by networks that stand alone."""
    best = final.top_children(rows, self.base.space, self.base.final.top_k)
    ranking = train(self.rank, best, seed)
    first = int(np.argmax([outcome.reward for outcome in ranking]))
    winner = best[first]
    again = [{**winner, "id": k} for k in range(RETRAININGS)]
    outcomes = train(self.last, again, seed)
    return {
      "winner": winner["decisions"],
      "ranking": round(ranking[first].reward, 4),
      "params": outcomes[0].params,
      "macs": outcomes[0].macs,
      "tests": [round(outcome.reward, 4) for outcome in outcomes],
    }

  def _evaluator(self, config, space, images, aug):
    """Made once, but for weights that belong to one search."""
    search = config.search
    if search.weights == SHARED:
      return search_config.get_evaluator(config, space, images, aug)
    key = search.weights, bool(search.prefilter)
    if key not in self._evaluators:
      made = search_config.get_evaluator(config, space, images, aug)
      self._evaluators[key] = made
    return self._evaluators[key]


def _config(way: Way, seed: int):
  """`search_digits` on a harder split, by a way."""
  config = shipped.config("search_digits")
  config.data.options.num_test = 1197
  config.child.epochs = way.child_epochs
  config.search.seed = seed
  config.search.children = way.children
  config.update_from_flattened_dict(
    {f"search.{name}": value for name, value in way.fields.items()}
  )
  config.final.rank_epochs = 20
  config.final.epochs = 24
  return config


def _children_within(rows: list[dict], epochs: float, way: Way) -> int:
  """How many of the first children trained no more than so many epochs, up to
  the end of a round."""
  if way.child_epochs != CHILD_EPOCHS:
    return len(rows)
  ends = [
    i for i in range(1, len(rows)) if rows[i]["round"] > rows[i - 1]["round"]
  ]
  fits = [
    end
    for end in (*ends, len(rows))
    if halving.spent(rows[:end], CHILD_EPOCHS).epochs <= epochs
  ]
  return max(fits, default=len(rows))


def _anything(controller):
  """A state and random bits to ask with."""
  import jax

  rng = jax.random.key(0)
  return controller.init(rng), rng


def _timed(judge, clock: list[float]):
  """The judge, whose seconds are added up."""

  def judged(proposals):
    start = time.perf_counter()
    scores = judge(proposals)
    clock[0] += time.perf_counter() - start
    return scores

  return judged


def read(out: pathlib.Path) -> dict[str, list[dict]]:
  """The searches that are done, of each way by seed."""
  found = {}
  for way in WAYS:
    path = out / f"{way}.jsonl"
    if path.exists():
      found[way] = table_runs.read(path)[1]
  return found


def table(found: dict[str, list[dict]]) -> str:
  """All ways, in Markdown."""
  control = {
    (row["run"], at["share"]): _test(at)
    for row in found.get(CONTROL, ())
    for at in row["marks"]
  }
  lines = [
    "| way | share of the epochs | seeds | children | seconds | test accuracy"
    " of the winner, % | minus random search, seed by seed | parameters |",
    "|---|" + "---|" * 7,
  ]
  for way, rows in found.items():
    for share in MARKS:
      at = {
        row["run"]: mark
        for row in rows
        for mark in row["marks"]
        if mark["share"] == share
      }
      if not at:
        continue
      against = [
        _test(mark) - control[run, share]
        for run, mark in at.items()
        if (run, share) in control and way != CONTROL
      ]
      marks = list(at.values())
      lines.append(
        f"| {way} | {share:.2f} | {len(at)} |"
        f" {np.mean([mark['children'] for mark in marks]):.0f} |"
        f" {np.median([mark['seconds'] for mark in marks]):.0f} |"
        f" {words([_test(mark) for mark in marks])} | {words(against)} |"
        f" {np.mean([mark['params'] for mark in marks]):,.0f} |"
      )
  return "\n".join(lines) + "\n"


def _test(mark: dict) -> float:
  """Mean accuracy of the retrained winner, in percent."""
  return 100 * float(np.mean(mark["tests"]))


def draw(found: dict[str, list[dict]], path: pathlib.Path):
  """Accuracy over seconds: means, and standard errors as bars."""
  with style.style():
    figure = style.new_figure(6.4, 3.8, "constrained")
    axes = figure.subplots()
    for (way, rows), color in zip(found.items(), COLORS):
      by_share = {
        share: [m for row in rows for m in row["marks"] if m["share"] == share]
        for share in MARKS
      }
      marks = [of_share for of_share in by_share.values() if of_share]
      axes.errorbar(
        [np.median([m["seconds"] for m in some]) for some in marks],
        [np.mean([_test(m) for m in some]) for some in marks],
        [
          np.std([_test(m) for m in some], ddof=1) / len(some) ** 0.5
          if len(some) > 1
          else 0
          for some in marks
        ],
        color=color,
        label=way.replace("_", " "),
        marker="o",
        markersize=4,
        capsize=2,
      )
    axes.set_xlabel("seconds of search, two CPU cores")
    axes.set_ylabel("test accuracy of the winner, %")
    figure.legend(loc="outside upper left", ncols=4)
  style.save(figure, path)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--runs", type=pathlib.Path, default="runs/cheap")
  parser.add_argument("--out", type=pathlib.Path, default="cheap")
  parser.add_argument("--only", default=",".join(WAYS))
  parser.add_argument("--seeds", type=int, default=5)
  options = parser.parse_args()
  mesh.prepare_host()
  study = Study(options.runs)
  # Seed by seed, so that what is done at any time compares all of them.
  for seed in range(options.seeds):
    for name in options.only.split(","):
      way = WAYS[name]
      play = functools.partial(study.play, way, options.runs / f"{name}_{seed}")
      settings = {"way": name, **way.fields}
      table_runs.complete(
        options.out / f"{name}.jsonl", settings, play, seed, 1
      )
      print(f"{name}, seed {seed}", flush=True)
  found = read(options.out)
  workdir.write_text(options.out / "table.md", table(found))
  draw(found, options.out / "seconds")
  print(table(found))


if __name__ == "__main__":
  main()
