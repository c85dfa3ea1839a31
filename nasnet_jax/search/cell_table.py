"""The table of PNAS cells that our own population trained on CIFAR-10.

`benchmarks/make_table.py` makes it.
"""

import csv
import gzip
import importlib.resources
import io
import json
import pathlib
from typing import Any

import numpy as np

from nasnet_jax import spaces
from nasnet_jax.search.tabular import Table, TabularEvaluator
from nasnet_jax.spaces.cells import CellSpace

CELLS = "tables/cifar_cells.csv.gz"  # package data
COLUMNS = ("part", "cell", "accuracy", "params", "macs", "seconds", "seed")


def cifar_cells(space: str = "pnas", path=None) -> Table:
  """The cells of the PNAS space that `benchmarks/make_table.py` trained.

  Args:
    space: "pnas": all of them, a small part of the space of cells of 1 to 5
      blocks; "pnas_chain": the cells of that space, of which the table has
      every one.
    path: of the table; None: the one that is shipped.

  Raises:
    ValueError: for another space, or a table that lacks some of its cells.
  """
  if space not in ("pnas", "pnas_chain"):
    raise ValueError(f"the table has no cells of space {space!r}")
  about, rows = read_cells(path)
  whole = spaces.get("pnas", min_blocks=1)
  table = _table(whole, about, rows)
  if space == "pnas":
    return table
  chain = spaces.get(space)
  cells = chain.all_cells()
  # Decisions after a cell's last block mean nothing.
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
  """(how the table was made, its rows as dicts of `COLUMNS`).

  "part" says for what a cell was trained; accuracy is NaN if its training
  failed.
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
  """Writes what `read_cells` reads: the same bytes for the same table."""
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


def _table(space: CellSpace, about, rows) -> Table:
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
