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

import functools
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import demonstration
import jax
import numpy as np
import table_runs
from demonstration import COLORS, CONTROL, train, words

from nasnet_jax.cli import shipped
from nasnet_jax.report import style
from nasnet_jax.search import (
  budgets,
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
SHARED = "shared"


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

  @property
  def is_shared(self) -> bool:
    """Whether its epochs are those of one set of weights."""
    return self.fields.get("weights") == SHARED


WAYS = {
  "random_search": Way({"controller": "random_search"}),
  "evolution": Way({"controller": "evolution"}),
  "predictor_search": Way({"controller": "predictor_search"}),
  "halving": Way(
    {"controller": "evolution", "halving.eta": 4, "halving.min_epochs": 2.0}
  ),
  "inherit": Way(
    {"controller": "evolution", "weights": "inherit", "inherit.epochs": 2.0}
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


class Study(demonstration.Study):
  """That of the demonstration, on the harder split."""

  def __init__(self, runs: pathlib.Path):
    super().__init__(runs)
    self._evaluators: dict[tuple, Any] = {}

  @functools.cached_property
  def base(self) -> parts.Parts:
    return parts.prepare(_config(WAYS[CONTROL], 0), self._evaluator)

  def play(self, label: str, seed: int) -> dict:
    """One search and what came of it: the row that is kept."""
    way = WAYS[label]
    rows, scoring_seconds = self._search_by(
      way, self.runs / f"{label}_{seed}", seed
    )
    marks = MARKS[-1:] if way.is_shared else MARKS
    row: dict[str, Any] = {"run": seed, "marks": []}
    for mark in marks:
      there = rows[: _children_within(rows, mark * EPOCHS)]
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

  def _search_by(self, way: Way, folder: pathlib.Path, seed: int):
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
    if way.is_shared:
      over = budgets.never
    rows = rounds.run(
      folder, controller, found.evaluator, found.rounds, over=over
    )
    return rows, clock[0]

  def _judge(self, rows: list[dict], seed: int) -> dict:
    """The winner out of these children, by networks that stand alone."""
    best, ranking = self.ranked(rows, seed)
    winner = best[int(np.argmax(ranking))]
    again = [{**winner, "id": k} for k in range(RETRAININGS)]
    outcomes = train(self.last, again, seed)
    return {
      "winner": winner["decisions"],
      "ranking": round(max(ranking), 4),
      "params": outcomes[0].params,
      "macs": outcomes[0].macs,
      "tests": [round(outcome.reward, 4) for outcome in outcomes],
    }

  def _evaluator(self, config, space, images, aug):
    """Made once, but for weights that belong to one search."""
    make = functools.partial(
      search_config.get_evaluator, config, space, images, aug
    )
    search = config.search
    if search.weights == SHARED:
      return make()
    key = search.weights, bool(search.prefilter)
    if key not in self._evaluators:
      self._evaluators[key] = make()
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


def _children_within(rows: list[dict], epochs: float) -> int:
  """How many of the first children trained no more than so many epochs, up to
  the end of a round; all of them if the first round trained more."""
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
  return table_runs.read_all(out, WAYS)


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
  options = demonstration.arguments("cheap", WAYS, 5)
  mesh.prepare_host()
  fields = {label: way.fields for label, way in WAYS.items()}
  demonstration.complete(options, fields, Study(options.runs).play, "way")
  found = read(options.out)
  workdir.write_text(options.out / "table.md", table(found))
  draw(found, options.out / "seconds")
  print(table(found))


if __name__ == "__main__":
  main()
