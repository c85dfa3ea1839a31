"""What PNAS claims, on cells that our own population trained.

    python benchmarks/pnas_claims.py --out=docs/results/pnas_claims

Liu et al. 2018 claim that a predictor fitted to cells of b blocks orders those
of b + 1, that the cells it chooses are better than others of their size, and
that progressive search therefore needs fewer models. The table that is shipped
(`benchmarks/make_table.py`) answers all three in minutes:

- rank correlations of the MLP and the LSTM, single and five of each, on the
  cells they were fitted to and on those of one block more, in the form of the
  paper's table; with the correlation that two trainings of one cell have;
- at each number of blocks, the cells that progressive search chose beside as
  many random ones: how many lie above a threshold, which is set before;
- accuracy over models trained, of four strategies.

How many models each strategy needs is `benchmarks/strategies.py
--datasets=pnas_chain`. `--table=FILE` reads another table.
"""

import argparse
import json
import pathlib
from typing import NamedTuple

import numpy as np
import strategies

from nasnet_jax.controllers import predictors, surrogate
from nasnet_jax.report import style
from nasnet_jax.report.statistics import spearman
from nasnet_jax.search import cell_table, tabular
from nasnet_jax.training import workdir

TRIALS = 20  # Liu et al. 2018
SHARE = 0.8  # of a level's cells are fitted, so that trials differ
EPOCHS = 100  # over the fitted cells
BATCH_SIZE = 32  # as in `controllers.progressive`
METHODS = {  # label: predictor, members of the ensemble
  "MLP": ("mlp", 1),
  "LSTM": ("lstm", 1),
  "MLP ensemble": ("mlp", 5),
  "LSTM ensemble": ("lstm", 5),
}

SEARCHES = 100  # of the control, each with a seed of its own
BEAM = 16  # K of the control
STRATEGIES = strategies.STRATEGIES | {
  "progressive": strategies.Ours("progressive", {"beam": BEAM}, BEAM)
}
GOOD = 0.9  # the threshold: so much of all chains is below


class Level(NamedTuple):
  """Cells of one number of blocks: decisions int32[n, D], accuracy f64[n]."""

  decisions: np.ndarray
  accuracy: np.ndarray


def read_levels(path, space) -> list[Level]:
  """Of the table's cells of one block and its random larger ones."""
  _, rows = cell_table.read_cells(path)
  rows = [row for row in rows if row["part"] in ("one_block", "random")]
  rows = [row for row in rows if np.isfinite(row["accuracy"])]
  cells = [cell_table.read_cell_text(space, row["cell"]) for row in rows]
  cells, place = np.unique(
    space.canonical(np.array(cells)), axis=0, return_inverse=True
  )
  # The mean of a cell's trainings.
  accuracy = np.array([row["accuracy"] for row in rows])
  place = place.reshape(-1)
  accuracy = np.bincount(place, accuracy) / np.bincount(place)
  levels = [cells[:, 0] == level for level in range(space.num_blocks)]
  return [Level(cells[those], accuracy[those]) for those in levels]


def repeated_pairs(path) -> np.ndarray:
  """f64[n, 2]: accuracies of the first two trainings of a random cell."""
  _, rows = cell_table.read_cells(path)
  found: dict[str, list[float]] = {}
  for row in rows:
    if row["part"] == "random":
      found.setdefault(row["cell"], []).append(row["accuracy"])
  pairs = np.array([seeds[:2] for seeds in found.values()])
  return pairs[np.isfinite(pairs).all(-1)]


def correlate(space, levels, label: str, b: int, trial: int):
  """(rank correlation on the fitted cells, on those of one block more).

  Args:
    b: the number of blocks of the fitted cells.
  """
  predictor, members = METHODS[label]
  rng = np.random.default_rng([b, trial])
  known, larger = levels[b - 1], levels[b]
  cells = np.concatenate([known.decisions, larger.decisions])
  targets = np.concatenate([known.accuracy, larger.accuracy])
  tokens = predictors.cell_tokens(space, cells)
  # The paper's bias is near the accuracies of one-block cells; so is this one.
  mean = known.accuracy.mean()
  model = predictors.PREDICTORS[predictor](
    predictors.cell_vocabulary(space), head_bias=np.log(mean / (1 - mean))
  )
  inputs = model.inputs(tokens)
  n = len(known.accuracy)
  rows = rng.permutation(n)[: int(SHARE * n)]
  params = surrogate.fit(
    model,
    surrogate.init_ensemble(model, rng, members),
    inputs,
    targets,
    np.sort(rows),
    rng,
    blocks=b,
    steps=EPOCHS * len(rows) // BATCH_SIZE,
    learning_rate=0.01 if b == 1 else 0.002,  # the paper's
    batch_size=BATCH_SIZE,
  )
  scores = surrogate.predict(model, params, inputs, blocks=b + 1).mean(0)
  return (
    spearman(scores[rows], targets[rows]),
    spearman(scores[n:], targets[n:]),
  )


def correlations(path) -> dict:
  """label -> b -> {"fit": [mean, sd], "next": [mean, sd]}."""
  space = strategies.load_table("pnas", path).space
  levels = read_levels(path, space)
  found = {}
  for label in METHODS:
    found[label] = {}
    for b in range(1, len(levels)):
      trials = np.array(
        [correlate(space, levels, label, b, trial) for trial in range(TRIALS)]
      )
      mean, sd = trials.mean(0).round(3), trials.std(0, ddof=1).round(3)
      found[label][b] = {
        "fit": [float(mean[0]), float(sd[0])],
        "next": [float(mean[1]), float(sd[1])],
      }
      print(label, b, found[label][b], flush=True)
  sizes = [len(level.accuracy) for level in levels]
  return {"cells": sizes, "methods": found}


def trained_models(label: str, evaluator, seed: int, most: int):
  """(levels int[n], accuracies f64[n]) of a search, in its order."""
  search = strategies.start(STRATEGIES[label], evaluator.table.space, seed)
  rows, answers = [], None
  while len(rows) < most:
    try:
      decisions = search.send(answers)
    except StopIteration:
      break
    found = evaluator.rows(decisions)
    answers = evaluator.table.mean()[found]
    rows += found.tolist()
  search.close()
  rows = np.array(rows[:most])
  blocks = evaluator.table.decisions[rows, 0] + 1
  return blocks, evaluator.table.mean()[rows]


def control(table) -> dict:
  """b -> how many of the K chosen and of K random cells are good."""
  evaluator = tabular.TabularEvaluator(table, "mean")
  values = table.mean()
  threshold = float(np.quantile(values, GOOD))
  blocks = table.decisions[:, 0] + 1
  chosen = {b: [] for b in np.unique(blocks).tolist()}
  for seed in range(SEARCHES):
    levels, accuracy = trained_models("progressive", evaluator, seed, 10**9)
    for b, counts in chosen.items():
      counts.append(accuracy[levels == b])
  result = {"threshold": round(threshold, 4), "beam": BEAM, "levels": {}}
  for b, found in chosen.items():
    found = np.array(found)
    those = values[blocks == b]
    good = (found >= threshold).sum(1)
    result["levels"][b] = {
      "cells": len(those),
      "chosen": found.shape[1],
      "good_chosen": round(float(good.mean()), 2),
      "good_chosen_sd": round(float(good.std(ddof=1)), 2),
      "good_random": round(
        float((those >= threshold).mean() * found.shape[1]), 2
      ),
      "mean_chosen": round(float(found.mean()), 4),
      "mean_of_level": round(float(those.mean()), 4),
    }
  return result


def draw_correlations(found, ceiling: float, path) -> None:
  with style.style():
    figure = style.new_figure(4.6, 3.0, "constrained")
    axes = figure.subplots()
    for i, (label, by_level) in enumerate(found["methods"].items()):
      levels = [int(b) for b in by_level]
      mean, sd = np.array([by_level[b]["next"] for b in by_level]).T
      axes.errorbar(
        np.array(levels) + 0.06 * (i - 1.5),
        mean,
        sd,
        marker="o",
        markersize=4,
        linewidth=1.2,
        capsize=2,
        color=COLORS[i],
        label=label,
      )
    axes.axhline(
      ceiling,
      color=style.LIGHT["muted"],
      linewidth=0.8,
      linestyle="--",
      label="two trainings of one cell",
    )
    axes.axhline(0, color=style.LIGHT["line"], linewidth=0.8)
    axes.set_xticks(levels, [f"{b} on {b + 1}" for b in levels])
    axes.set_xlabel("blocks of the fitted cells, on those of the ordered ones")
    axes.set_ylabel("rank correlation")
    figure.legend(loc="outside upper left", ncols=2, borderpad=0)
  style.save(figure, path)


COLORS = [
  style.LIGHT[name]
  for name in ("accent", "pool_edge", "conv_edge", "identity_edge")
]


def draw_models(table, threshold: float, path) -> None:
  """Accuracy of each model over the number trained, one search of each."""
  evaluator = tabular.TabularEvaluator(table, "mean")
  labels = ["progressive", "evolution", "PPO, tuned", "random search"]
  searches = {"progressive": trained_models("progressive", evaluator, 0, 10**9)}
  most = len(searches["progressive"][0])
  for label in labels[1:]:
    searches[label] = trained_models(label, evaluator, 0, most)
  shades = [style.LIGHT["muted"], *COLORS]
  with style.style():
    figure = style.new_figure(6.4, 4.6, "constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, label in zip(grid.ravel(), labels):
      blocks, accuracy = searches[label]
      for b in range(1, table.space.num_blocks + 1):
        those = blocks == b
        axes.plot(
          np.flatnonzero(those) + 1,
          100 * accuracy[those],
          "o",
          markersize=3.2,
          markeredgewidth=0,
          color=shades[b - 1],
          label=f"{b} block{'s' * (b > 1)}",
        )
      axes.axhline(100 * threshold, color=style.LIGHT["ink"], linewidth=0.8)
      axes.set_title(label)
    for axes in grid[1]:
      axes.set_xlabel("models trained")
    for axes in grid[:, 0]:
      axes.set_ylabel("validation accuracy, %")
    names = dict(zip(*grid[0, 0].get_legend_handles_labels()[::-1]))
    figure.legend(
      names.values(), names.keys(), loc="outside upper left", ncols=5
    )
  style.save(figure, path)


def tables(result) -> str:
  """The two tables, in Markdown.

  Args:
    result: the content of results.json.
  """
  found = result["correlations"]
  levels = range(1, len(found["cells"]))
  head = [f"b={b} fit / ->{b + 1}" for b in levels]
  lines = [f"| method | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
  for label, by_level in found["methods"].items():
    cells = [
      f"{by_level[b]['fit'][0]:.3f} / {by_level[b]['next'][0]:.3f}"
      for b in map(str, levels)
    ]
    lines.append(f"| {label} | {' | '.join(cells)} |")
  lines += [
    "",
    "| blocks | cells | chosen, each search | good among the chosen |"
    " good among as many random | mean of the chosen | mean of all |",
    "|---|" + "---|" * 6,
  ]
  for b, row in result["control"]["levels"].items():
    lines.append(
      f"| {b} | {row['cells']} | {row['chosen']} |"
      f" {row['good_chosen']:.1f} ± {row['good_chosen_sd']:.1f} |"
      f" {row['good_random']:.1f} | {100 * row['mean_chosen']:.2f} |"
      f" {100 * row['mean_of_level']:.2f} |"
    )
  return "\n".join(lines) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--table", type=pathlib.Path)
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  pairs = repeated_pairs(args.table)
  table = strategies.load_table("pnas_chain", args.table)
  result = {
    "repeated_cells": len(pairs),
    "repeated_rank_correlation": round(spearman(*pairs.T), 3),
    "control": control(table),
    "correlations": correlations(args.table),
  }
  text = json.dumps(result, indent=1) + "\n"
  workdir.write_text(args.out / "results.json", text)
  workdir.write_text(args.out / "table.md", tables(json.loads(text)))
  draw_correlations(
    result["correlations"],
    result["repeated_rank_correlation"],
    args.out / "correlations",
  )
  threshold = result["control"]["threshold"]
  draw_models(table, threshold, args.out / "models")
  print((args.out / "table.md").read_text())


if __name__ == "__main__":
  main()
