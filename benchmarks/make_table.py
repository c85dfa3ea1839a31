"""Trains cells on CIFAR-10 images: nasnet_jax/search/tables/cifar_cells.csv.gz.

    python benchmarks/make_table.py --data=DATA --workdir=runs/table

DATA holds cifar10_jpeg_60000.tar.xz. Which cells, and what for, stands in
`choose_cells`; how each is trained, once, in `get_config`. It may be stopped at
any time and goes on with the same command; `--children=N` trains the first N
of them and writes no table.
"""

import argparse
import collections
import importlib.util
import itertools
import math
import pathlib
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nasnet_jax.training import mesh  # noqa: E402

DEVICES = 2  # a core for each child
if __name__ == "__main__":
  mesh.prepare_host(DEVICES)

import numpy as np  # noqa: E402

from nasnet_jax import spaces  # noqa: E402
from nasnet_jax.controllers import base  # noqa: E402
from nasnet_jax.jobs import job_config, run_log  # noqa: E402
from nasnet_jax.search import (  # noqa: E402
  cell_table,
  rounds,
  search_config,
)
from nasnet_jax.training import stop, workdir  # noqa: E402

SEED = 0  # of the random cells and of every training
ROUND = 40  # children between two lines of the journal
SPACE = spaces.get("pnas", min_blocks=1)
LEVELS = range(2, SPACE.num_blocks + 1)  # numbers of blocks


def get_config(data_dir: str | None):
  """`search_cifar:small` with the table's cells, and cheaper children."""
  path = ROOT / "configs" / "search_cifar.py"
  spec = importlib.util.spec_from_file_location("search_cifar", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("small")
  config.space.name = SPACE.name
  config.space.min_blocks = SPACE.min_blocks
  config.network.num_reductions = 1
  config.child.batch_size = 32
  config.child.learning_rate = 0.05
  config.data.data_dir = data_dir
  config.data.max_per_class = 520
  config.data.num_valid = 2000  # a standard error of 1 % at most
  config.mesh.arch = DEVICES
  config.search.seed = SEED
  config.search.children_per_round = ROUND
  return config


class Part(NamedTuple):
  """Cells with a purpose: name, decisions int32[n, D] in `SPACE`."""

  name: str
  cells: np.ndarray


def choose_cells(random_per_level: int, repeated_per_level: int) -> list[Part]:
  """What is trained, in this order.

  - repeated: of each number of blocks that many chains and that many others,
    twice: the noise. It comes first, so that a table which would be all noise
    is not made.
  - one_block: every cell of one block, on which a predictor learns first.
  - chain: every larger cell of the space "pnas_chain", which the table thus
    answers completely: strategies are compared there.
  - random: at each larger number of blocks, that many cells drawn uniformly
    from the whole space: a predictor's rank correlation, and its choice of
    cells against a random one, are measured on them.
  - All of these a second time, and the first two a third time: one training
    says as much of its seed as of its cell.
  """
  rng = np.random.default_rng(SEED)
  one_block = all_of_one_block()
  space = spaces.get("pnas_chain", num_blocks=SPACE.num_blocks)
  chains = SPACE.canonical(space.in_whole(space.all_cells()))
  drawn = draw_cells(rng, random_per_level, known=chains)
  again = [
    cells[rng.permutation(np.flatnonzero(cells[:, 0] == level))]
    for level in range(SPACE.num_blocks)
    for cells in (chains, drawn if level else one_block)
  ]
  again = np.concatenate([cells[:repeated_per_level] for cells in again])
  largest = spaces.get("pnas_chain").num_blocks - SPACE.min_blocks
  blocks = chains[:, 0]
  parts = [
    Part("one_block", one_block),
    Part("chain", chains[(blocks > 0) & (blocks <= largest)]),
    Part("random", drawn),
  ]
  return [Part("repeated", np.repeat(again, 2, 0)), *parts, *parts, *parts[:2]]


def all_of_one_block() -> np.ndarray:
  """int32[136, D]: canonical decisions in `SPACE`."""
  small = spaces.get("pnas", num_blocks=1)
  every = list(itertools.product(*map(range, small.num_choices)))
  cells = np.zeros((len(every), len(SPACE.num_choices)), np.int32)
  cells[:, 1 : 1 + len(small.num_choices)] = every  # its first 0: one block
  return np.unique(SPACE.canonical(cells), axis=0)


def draw_cells(rng, per_level: int, known: np.ndarray) -> np.ndarray:
  """int32[n, D]: that many of each level, no two equal and none known."""
  seen = {row.tobytes() for row in known}
  found = []
  for level in LEVELS:
    left = per_level
    while left:
      cell = SPACE.sample(rng, 1)
      cell[:, 0] = level - SPACE.min_blocks
      (cell,) = SPACE.canonical(cell)
      if cell.tobytes() not in seen:
        seen.add(cell.tobytes())
        found.append(cell)
        left -= 1
  return np.array(found, np.int32).reshape(-1, len(SPACE.num_choices))


class _Next(NamedTuple):
  """State of `from_list`: the number of the next cell."""

  next_id: Any


def from_list(cells: np.ndarray) -> base.Controller:
  """A controller that proposes these cells, one after the other."""

  def ask(state, rng, n):
    del rng
    first = int(state.next_id)
    proposals, after = base.number(state.next_id, cells[first : first + n])
    return proposals, _Next(after)

  def tell(state, proposals, rewards, status):
    base.succeeded(proposals, rewards, status)
    return state

  return base.Controller(lambda rng: _Next(np.zeros((), np.int64)), ask, tell)


def prepare(config):
  """(evaluator, images) of the trainings."""
  space = search_config.get_space(config)
  images = search_config.load_images(config)
  aug = job_config.get_augmentation(config.data, images)
  return search_config.get_evaluator(config, space, images, aug), images


def train(folder: pathlib.Path, evaluator, cells, children: int):
  """Rows of the history of the first `children` cells, with what is done."""
  with stop.on_signals() as request:
    return rounds.run(
      folder,
      from_list(cells),
      evaluator,
      rounds.RoundSettings(children, ROUND, SEED),
      progress=lambda share, text: request.check(),
      finished=lambda *now: say(*now, children),
    )


def say(rows, fresh: int, seconds: float, children: int) -> None:
  """A line after each round."""
  good = [r["reward"] for r in rows[-fresh:] if r["reward"] is not None]
  left = (children - len(rows)) * seconds / fresh
  print(
    f"{len(rows)}/{children} cells, accuracy {min(good):.3f} to"
    f" {max(good):.3f}, {seconds / fresh:.2f} s per cell,"
    f" {left / 60:.0f} minutes to go",
    flush=True,
  )


def noise(rows) -> str:
  """How far cells differ, and trainings of one cell, by numbers of blocks.

  Args:
    rows: of the history, each cell twice in a row.
  """
  pairs = [(a, b) for a, b in zip(rows[::2], rows[1::2])]
  lines = ["blocks, cells, accuracy, sd between cells, sd between seeds"]
  for level in range(SPACE.num_blocks):
    found = np.array(
      [
        [a["reward"], b["reward"]]
        for a, b in pairs
        if a["decisions"][0] == level and a["reward"] and b["reward"]
      ]
    )
    if len(found) > 1:
      seeds = found.var(-1, ddof=1).mean()
      # The mean of two seeds has half of their noise in it.
      cells = max(found.mean(-1).var(ddof=1) - seeds / 2, 0.0)
      lines.append(
        f"{level + 1}, {len(found)}, {found.mean():.3f}, {cells**0.5:.4f},"
        f" {seeds**0.5:.4f}"
      )
  return "\n".join(lines)


def count(parts: list[Part]) -> dict[str, int]:
  """Trainings for each purpose."""
  counts = collections.Counter()
  for part in parts:
    counts[part.name] += len(part.cells)
  return dict(counts)


def write_table(path, parts: list[Part], rows, config, images) -> None:
  """The table of a finished history."""
  names = [part.name for part in parts for _ in part.cells]
  table = [
    {
      "part": name,
      "cell": cell_table.cell_text(SPACE, row["decisions"]),
      "accuracy": math.nan
      if row["reward"] is None
      else round(row["reward"], 6),
      "params": row["params"],
      "macs": row["macs"],
      "seconds": row["seconds"],
      "seed": row["seed"],
    }
    for name, row in zip(names, rows)
  ]
  child = config.child.to_dict()
  about = {
    "images": job_config.describe(images) | {"load": None},
    "network": config.network.to_dict(),
    "child": child,
    "epochs": child["epochs"],
    "steps_per_epoch": images.train.num_images // child["batch_size"],
    "parts": count(parts),
    "seed": SEED,
    "environment": run_log.environment(),
  }
  path.parent.mkdir(exist_ok=True)
  cell_table.write_cells(path, about, table)
  print(f"wrote {path}")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True)
  parser.add_argument("--workdir", default="runs/table")
  parser.add_argument("--random-per-level", type=int, default=100)
  parser.add_argument("--repeated-per-level", type=int, default=3)
  parser.add_argument("--children", type=int)
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    default=ROOT / "nasnet_jax" / cell_table.CELLS,
  )
  args = parser.parse_args()
  config = get_config(args.data)
  parts = choose_cells(args.random_per_level, args.repeated_per_level)
  cells = np.concatenate([part.cells for part in parts])
  print(f"{len(cells)} trainings: {count(parts)}", flush=True)
  with workdir.locked(args.workdir) as folder:
    sizes = [args.random_per_level, args.repeated_per_level]
    claimed = {**config.to_dict(), "cells": sizes}
    workdir.claim(folder / "config.json", claimed, search_config.MAY_CHANGE)
    children = min(args.children or len(cells), len(cells))
    evaluator, images = prepare(config)
    first = min(len(parts[0].cells), children)
    rows = train(folder, evaluator, cells, first)
    print(noise(rows[:first]), flush=True)
    rows = train(folder, evaluator, cells, children)
    if len(rows) == len(cells):
      write_table(args.out, parts, rows, config, images)


if __name__ == "__main__":
  main()
