"""How well scores without training rank the cells of NAS-Bench-201.

    python -m venv BENCH
    BENCH/bin/pip install -e '.[bench]'
    NASNET_JAX_DATA=DATA BENCH/bin/python benchmarks/scores.py \\
        --out=docs/results/scores

1,000 random cells, each a network of NAS-Bench-201 (its figure 1) with random
weights, scored on one batch of real CIFAR-10 images, out of
DATA/cifar10_subset_1000_500.npz. Accuracies are the table's: validation, 200
epochs, mean over its seeds, on all three data sets; the scores are the same for
all three. Networks are smaller than the table's, `--cells` of 5 in a stage and
`--features` of 16 channels, so that they are a matter of minutes on a CPU.

A cell whose score is not finite ranks last. The cells that are done lie in
`scores.jsonl`; started again, it goes on behind them.
"""

import argparse
import json
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from table_runs import complete

from nasnet_jax.report.statistics import kendall, spearman
from nasnet_jax.scores import formulas
from nasnet_jax.search import nasbench201_table
from nasnet_jax.spaces import nasbench201 as nb201

IMAGES = "cifar10_subset_1000_500.npz"
ROWS, CELLS, CLASSES = "scores.jsonl", 1000, 10
SETTINGS = ("images", "cells", "features")
# CIFAR-10's, of pixels scaled to 0..1.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# Spearman's of Abdelfattah et al. 2021, table 1, as we remember it: networks of
# full size, on the images of each set.
PUBLISHED = {
  "cifar10": {
    "grad_norm": 0.58,
    "snip": 0.58,
    "synflow": 0.74,
    "jacob_cov": 0.73,
  },
  "cifar100": {
    "grad_norm": 0.64,
    "snip": 0.63,
    "synflow": 0.76,
    "jacob_cov": 0.71,
  },
  "imagenet16-120": {
    "grad_norm": 0.58,
    "snip": 0.58,
    "synflow": 0.75,
    "jacob_cov": 0.71,
  },
}


def _conv_params(rng, size: int, wide: int, features: int):
  """As PyTorch initialises a convolution: uniform in +-1 / sqrt(fan-in)."""
  shape, most = (size, size, wide, features), (size * size * wide) ** -0.5
  return {"kernel": jax.random.uniform(rng, shape, minval=-most, maxval=most)}


def _edge_params(rng, features: int):
  """Of both convolutions that an edge may be."""
  keys = jax.random.split(rng)
  return {
    name: _conv_params(key, size, features, features)
    for name, size, key in zip(("1x1", "3x3"), (1, 3), keys, strict=True)
  }


def init(rng, cells: int, features: int):
  """Weights of a network of any cell; offsets are 0, and left out."""
  keys = iter(jax.random.split(rng, 18 * cells + 8))
  params = {"stem": _conv_params(next(keys), 3, 3, features)}
  for stage in range(3):
    wide = features << stage
    if stage:
      params[f"reduce_{stage}"] = {
        "first": _conv_params(next(keys), 3, wide // 2, wide),
        "second": _conv_params(next(keys), 3, wide, wide),
        "shortcut": _conv_params(next(keys), 1, wide // 2, wide),
      }
    for cell in range(cells):
      params[f"cell_{stage}_{cell}"] = [
        _edge_params(next(keys), wide) for _ in nb201.EDGES
      ]
  head = _conv_params(next(keys), 1, features << 2, CLASSES)["kernel"]
  return {**params, "head": {"kernel": head[0, 0]}}


def _conv(x, params, stride: int = 1):
  return lax.conv_general_dilated(
    x,
    params["kernel"],
    (stride, stride),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _pool(x, size: int, stride: int):
  """The average of the pixels that are there."""

  def total(x):
    shape, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, 0.0, lax.add, shape, strides, "SAME")

  return total(x) / total(jnp.ones_like(x))


def _norm(x, normalise: bool):
  if not normalise:
    return x
  mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
  return (x - mean) * lax.rsqrt(variance + 1e-5)


def _edge(op, x, params, normalise: bool):
  def conv(name):
    return lambda x: _norm(_conv(jax.nn.relu(x), params[name]), normalise)

  branches = {
    nb201.NONE: jnp.zeros_like,
    nb201.SKIP: lambda x: x,
    nb201.CONV_1X1: conv("1x1"),
    nb201.CONV_3X3: conv("3x3"),
    nb201.POOL: lambda x: _pool(x, 3, 1),
  }
  return lax.switch(op, [branches[i] for i in range(len(branches))], x)


def _cell(ops, x, params, normalise: bool):
  nodes = [x, 0.0, 0.0, 0.0]
  for op, (to, source), weights in zip(ops, nb201.EDGES, params, strict=True):
    nodes[to] += _edge(op, nodes[source], weights, normalise)
  return nodes[3]


def _reduce(x, params, normalise: bool):
  y = _norm(_conv(jax.nn.relu(x), params["first"], 2), normalise)
  y = _norm(_conv(jax.nn.relu(y), params["second"]), normalise)
  return y + _conv(_pool(x, 2, 2), params["shortcut"])


def apply(params, ops, images, cells: int, normalise: bool):
  """f32[N, classes]. ops: int[6], of the cell; all architectures run in one
  program."""
  x = _norm(_conv(images, params["stem"]), normalise)
  for stage in range(3):
    if stage:
      x = _reduce(x, params[f"reduce_{stage}"], normalise)
    for cell in range(cells):
      x = _cell(ops, x, params[f"cell_{stage}_{cell}"], normalise)
  x = jax.nn.relu(_norm(x, normalise)).mean((1, 2))
  return x @ params["head"]["kernel"]


def make_measure(images, labels, cells: int, features: int):
  """(ops int[6], seed) -> what `formulas.finish` takes, compiled once."""

  def measure(ops, seed):
    def applied(normalise):
      return lambda params, x: apply(params, ops, x, cells, normalise)

    params = init(jax.random.key(seed), cells, features)
    model = formulas.Model(params, applied(True), applied(False))
    return formulas.measure(formulas.NAMES, model, images, labels)

  return jax.jit(measure)


def read_images(folder, count: int):
  """(f32[n, 32, 32, 3] whitened, int32[n]): as many of each class."""
  with np.load(pathlib.Path(folder) / IMAGES) as file:
    images, labels = file["x_train"], file["y_train"].astype(np.int32)
  order = np.argsort(labels, kind="stable").reshape(CLASSES, -1).T.ravel()
  chosen = order[:count]
  return (images[chosen] / 255.0 - MEAN).astype(np.float32) / np.float32(
    STD
  ), labels[chosen]


def score(path, flags):
  """Scores the cells that are not there yet."""
  images, labels = read_images(os.environ["NASNET_JAX_DATA"], flags.images)
  measure = make_measure(images, labels, flags.cells, flags.features)
  rows = chosen_rows()

  def play(run: int):
    start = time.process_time()
    found = formulas.finish(measure(nb201.all_cells()[rows[run]], run))
    spent = round(time.process_time() - start, 2)
    return {"run": run, "row": int(rows[run]), **found, "cpu_seconds": spent}

  settings = {name: getattr(flags, name) for name in SETTINGS}
  complete(path, settings, play, 0, flags.limit)


def chosen_rows() -> np.ndarray:
  """int[CELLS], of the table."""
  rng = np.random.default_rng(0)
  return rng.choice(len(nb201.all_cells()), CELLS, replace=False)


def correlations(lines, dataset: str) -> dict[str, tuple[float, float]]:
  """(Spearman's, Kendall's tau-b) of each score, parameters and MACs."""
  table = nasbench201_table.nasbench201(dataset)
  rows = [line["row"] for line in lines]
  accuracy = table.mean()[rows]
  values = {
    name: [-np.inf if line[name] is None else line[name] for line in lines]
    for name in formulas.NAMES
  }
  values |= {"params": table.params[rows], "macs": table.macs[rows]}
  return {
    name: (spearman(found, accuracy), kendall(found, accuracy))
    for name, found in values.items()
  }


def table(lines) -> str:
  """All scores, in Markdown."""
  found = {name: correlations(lines, name) for name in PUBLISHED}
  rows = [
    "| score | CIFAR-10 | CIFAR-100 | ImageNet16-120 | published |",
    "|---|---|---|---|---|",
  ]
  for name in (*formulas.NAMES, "params", "macs"):
    ours = [f"{s:.2f} ({k:.2f})" for s, k in (f[name] for f in found.values())]
    known = [PUBLISHED[d].get(name) for d in PUBLISHED]
    words = ", ".join(f"{k:.2f}" for k in known) if all(known) else "-"
    rows.append(f"| `{name}` | {' | '.join(ours)} | {words} |")
  return "\n".join(rows)


def markdown(lines, flags) -> str:
  """The page of the results."""
  spent = sum(line["cpu_seconds"] for line in lines)
  text = [
    "# Scores without training, on NAS-Bench-201",
    "",
    f"{len(lines):,} random cells: Spearman's rank correlation (Kendall's"
    " tau-b) of each",
    "score with the table's validation accuracy after 200 epochs, on its three"
    " data sets.",
    f"Scores are of {flags.images} real CIFAR-10 images for all three, and of"
    " smaller networks",
    f"than the table's: {flags.cells} of 5 cells in a stage, {flags.features}"
    " of 16 channels in the first.",
    f"They took {spent / 60:.1f} CPU minutes, compiling included.",
    "",
    table(lines),
    "",
    "Published: Spearman's by Abdelfattah et al. 2021 (arXiv 2101.08134),"
    " table 1, in the",
    "same order, quoted from memory: of networks of full size, on the images of"
    " each set.",
    "",
    f"`python benchmarks/scores.py --images={flags.images}"
    f" --cells={flags.cells} --features={flags.features}`",
    "",
  ]
  none = {
    name: sum(line[name] is None for line in lines) for name in formulas.NAMES
  }
  words = [f"{count} of `{name}`" for name, count in none.items() if count]
  if words:
    text += [f"Scores that are not finite rank last: {', '.join(words)}.", ""]
  return "\n".join(text)


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--out", required=True)
  parser.add_argument("--images", type=int, default=32)
  parser.add_argument("--cells", type=int, default=1, help="in a stage")
  parser.add_argument("--features", type=int, default=8, help="in the first")
  parser.add_argument("--limit", type=int, default=CELLS, help="cells")
  flags = parser.parse_args()
  folder = pathlib.Path(flags.out)
  folder.mkdir(parents=True, exist_ok=True)
  score(folder / ROWS, flags)
  _, *lines = map(json.loads, (folder / ROWS).read_text().splitlines())
  (folder / "README.md").write_text(markdown(lines, flags))


if __name__ == "__main__":
  main()
