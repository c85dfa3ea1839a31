"""A trained network's answers to a folder of labelled pictures: one folder per
class, of any network, imported ones too."""

import csv
import json
import logging
import pathlib
import unicodedata
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.data import archive, buckets, paths, pixels, places
from nasnet_jax.data.image_data import DataError, listed, printable
from nasnet_jax.jobs import predict, preparation, results
from nasnet_jax.training import workdir
from nasnet_jax.zoo import imagenet

_log = logging.getLogger(__name__)
TOP = 5
# Classes of the folder for which everything is printed.
FEW = 12
_SPLITS = ("train", "test", "val", "valid", "validation")


class Matched(NamedTuple):
  """Which classes of a network the folders of pictures are.

  Attributes:
    folders: of each class, in order.
    classes: index of each one's class among the network's.
    how: in words.
  """

  folders: tuple[pathlib.Path, ...]
  classes: tuple[int, ...]
  how: str


class Score(NamedTuple):
  """Answers to labelled pictures.

  Attributes:
    names: of the network's classes.
    classes: those that the folder has, by index.
    confusion: int64[len(classes), len(names)], pictures by what they are and by
      the likeliest class.
    top_5: pictures whose class is among the five likeliest; None: there are no
      more than five.
  """

  names: tuple[str, ...]
  classes: tuple[int, ...]
  confusion: np.ndarray
  top_5: int | None

  @property
  def totals(self) -> np.ndarray:
    """int64[len(classes)], pictures of each class."""
    return self.confusion.sum(1)

  @property
  def right(self) -> np.ndarray:
    """int64[len(classes)], right answers to each class."""
    return self.confusion[np.arange(len(self.classes)), list(self.classes)]

  @property
  def accuracy(self) -> float:
    return self.right.sum() / self.totals.sum()

  @property
  def by_class(self) -> np.ndarray:
    """float64[len(classes)], share of right answers to each class."""
    return self.right / self.totals


def match(folder, names) -> Matched:
  """The class folders of a folder, and which of the named classes each is.

  By name; by synset, as n01440764 or n01440764_tench, if the names are
  ImageNet's; or, where no name is known and there are as many folders as
  classes, by their sorted order.

  Args:
    folder: one subfolder per class; of some of the classes only, too.
    names: of a network's classes, in the order of its logits.

  Raises:
    DataError: in one line, if that cannot be told.
  """
  top = places.fetched(folder)
  if not top.is_dir():
    what = "is a file" if top.exists() else "is not there"
    raise DataError(f"{top} {what}: give a folder with a folder per class")
  folders = tuple(
    sorted(
      p for p in top.iterdir() if p.is_dir() and not archive.is_hidden(p.name)
    )
  )
  # macOS takes accents apart; classes are kept in the other form.
  found = [unicodedata.normalize("NFC", f.name) for f in folders]
  if not found:
    raise DataError(f"{top} has no folders in it: give one with one per class")
  _tell_loose(top)
  known = {name: i for i, name in enumerate(names)}
  if len(known) < len(names):
    raise DataError("the network has two classes of one name")
  for how, indices in (
    ("name", [known.get(name) for name in found]),
    ("synset", _synsets(found, tuple(names))),
  ):
    if None not in indices and len(set(indices)) == len(indices):
      return Matched(folders, tuple(indices), f"by {how}")
    if any(i is not None for i in indices):
      odd = [n for n, i in zip(found, indices) if i is None] or ["a name twice"]
      raise DataError(
        f"{top}: not classes of the network: {_listed(odd)}; it has"
        f" {_listed(names)}"
      )
  _check_splits(top, found)
  if len(found) == len(names):
    how = f"by sorted order, {found[0]} is taken for {names[0]} and so on"
    return Matched(folders, tuple(range(len(names))), how)
  raise DataError(
    f"{top} has {len(found)} folders, {_listed(found)}, and the network"
    f" {len(names)} classes, {_listed(names)}: name the folders as the classes"
  )


def _tell_loose(top: pathlib.Path):
  """Says which pictures lie in no class folder."""
  loose = sorted(
    p.name
    for p in top.iterdir()
    if pixels.is_picture(p) and p.is_file() and not archive.is_hidden(p.name)
  )
  if loose:
    _log.warning(
      "%s: left out: %d image(s) in no class folder (%s)",
      printable(top),
      len(loose),
      listed(loose, 3),
    )


def _synsets(found, names: tuple[str, ...]) -> list[int | None]:
  """Of a network of ImageNet, the classes by synset."""
  if names != imagenet.names():
    return [None] * len(found)
  order = {synset: i for i, synset in enumerate(imagenet.classes())}
  return [order.get(imagenet.synset(name)) for name in found]


def _check_splits(top: pathlib.Path, found):
  if all(name.lower() in _SPLITS for name in found):
    raise DataError(
      f"{top} has splits and no classes in it: give one of them, such as"
      f" {top / found[-1]}"
    )


def _listed(names, count: int = 5) -> str:
  shown = ", ".join(map(repr, names[:count]))
  rest = len(names) - count
  return f"{shown} and {rest} more" if rest > 0 else shown


def score(
  network: results.Trained,
  matched: Matched,
  batch_size: int = 32,
  broken: list[str] | None = None,
) -> Score:
  """Answers to every picture, each prepared as in predictions.

  Args:
    broken: takes a line for each file that is no image; None: the first one
      ends it.

  Raises:
    DataError: for a folder without pictures, or a file that is none unless
      `broken` takes it.
  """
  names = tuple(network.result["data"]["classes"])
  index = {name: i for i, name in enumerate(names)}
  rows = {
    path: row
    for row, folder in enumerate(matched.folders)
    for path in preparation.find_images([folder])
  }
  confusion = np.zeros((len(matched.classes), len(names)), np.int64)
  top_5 = 0
  for answer in predict.classify(network, rows, batch_size, TOP, broken):
    row, given = rows[answer.path], [index[name] for name, _ in answer.classes]
    confusion[row, given[0]] += 1
    top_5 += matched.classes[row] in given
  if broken and not confusion.sum(1).all():
    row = int(np.argmin(confusion.sum(1)))
    raise DataError(
      f"none of the images in {matched.folders[row]} can be read: mend them or"
      " take the folder out"
    )
  return Score(
    names, matched.classes, confusion, top_5 if len(names) > TOP else None
  )


def lines(found: Score) -> list[str]:
  """What it says in words: everything of few classes, of many the worst."""
  total = found.totals.sum()
  result = [f"top 1: {found.accuracy:.4f} ({found.right.sum()} of {total})"]
  if found.top_5 is not None:
    result.append(
      f"top 5: {found.top_5 / total:.4f} ({found.top_5} of {total})"
    )
  result.append(f"mean accuracy per class {found.by_class.mean():.4f}:")
  few = len(found.classes) <= FEW
  order = np.argsort(found.by_class, kind="stable")
  for row in range(len(found.classes)) if few else order[:FEW]:
    name = found.names[found.classes[row]]
    result.append(
      f"  {found.by_class[row]:.4f}  {name} ({found.right[row]} of"
      f" {found.totals[row]})"
    )
  if few:
    return result + _matrix(found)
  result[-FEW - 1] = f"{result[-FEW - 1][:-1]}, the lowest {FEW}:"
  return result + _mistakes(found)


def _matrix(found: Score) -> list[str]:
  """The confusion matrix, with one column for all classes without pictures."""
  inside = found.confusion[:, list(found.classes)]
  others = found.totals - inside.sum(1)
  columns = [str(i + 1) for i in range(len(found.classes))]
  if others.any():
    inside = np.concatenate([inside, others[:, None]], 1)
    columns.append("others")
  names = [f"{i + 1} {found.names[c]}" for i, c in enumerate(found.classes)]
  left = max(map(len, names))
  wide = max(len(str(inside.max())), *map(len, columns)) + 2
  head = " " * left + "".join(c.rjust(wide) for c in columns)
  body = [
    name.ljust(left) + "".join(str(n).rjust(wide) for n in row)
    for name, row in zip(names, inside)
  ]
  return ["what pictures are, by row, and the answers:", head, *body]


def _mistakes(found: Score) -> list[str]:
  """The most frequent wrong answers."""
  wrong = found.confusion.copy()
  wrong[np.arange(len(found.classes)), list(found.classes)] = 0
  order = np.argsort(-wrong, axis=None, kind="stable")[:FEW]
  rows, columns = np.unravel_index(order, wrong.shape)
  said = [
    f"  {wrong[r, c]} of {found.totals[r]}"
    f" {found.names[found.classes[r]]}: {found.names[c]}"
    for r, c in zip(rows, columns)
    if wrong[r, c]
  ]
  return ["wrong most often:", *said] if said else []


def to_json(found: Score) -> dict[str, Any]:
  """Everything, with the confusion matrix as a list of rows."""
  return {
    "examples": int(found.totals.sum()),
    "correct": int(found.right.sum()),
    "accuracy": float(found.accuracy),
    "top_5": found.top_5,
    "mean_per_class": float(found.by_class.mean()),
    "classes": [
      {
        "name": found.names[c],
        "examples": int(found.totals[row]),
        "correct": int(found.right[row]),
      }
      for row, c in enumerate(found.classes)
    ],
    "answers": list(found.names),
    "confusion": found.confusion.tolist(),
  }


def check_out(path) -> str:
  """A file for `write`; ValueError for an ending that it does not know, or an
  address that cannot be reached."""
  path = paths.expanded(path)
  if not path.endswith((".csv", ".json")):
    raise ValueError(f"--out={path} is neither a .csv nor a .json")
  if buckets.is_address(path):
    buckets.at(path)
  return path


def write(found: Score, path):
  """The confusion matrix as .csv, a row per class of the folder and a column
  per answer, or everything as .json."""
  with places.sent(check_out(path)) as file:
    _write(found, file)


def _write(found: Score, path: pathlib.Path):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == ".json":
    workdir.write_text(path, json.dumps(to_json(found), indent=1) + "\n")
    return
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["", *found.names])
    for c, row in zip(found.classes, found.confusion):
      writer.writerow([found.names[c], *row])
