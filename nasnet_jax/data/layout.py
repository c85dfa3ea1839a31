"""What the folders of a set mean: which are splits, and which are classes."""

import logging
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from nasnet_jax.data.image_data import DataError, listed, printable
from nasnet_jax.data.listing import Listing

_log = logging.getLogger(__name__)
Parts = tuple[str, ...]

# Words for a split, and those that may stand beside them.
_WORDS = {
  "train": ("train", "training", "trainval"),
  "test": ("test", "testing"),
  "valid": (
    "val",
    "valid",
    "validate",
    "validation",
    "eval",
    "evaluation",
    "dev",
  ),
}
_EXACT = ("train", "training", "test", "testing", "val", "valid", "validation")
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words}
_BESIDE = (
  *("set", "sets", "data", "dataset", "image", "images", "img", "imgs"),
  *("picture", "pictures", "photo", "photos", "seg", "split", "folder"),
  *("files", "jpg", "jpeg", "png"),
)
_JOINED = re.compile(
  f"({'|'.join(_KINDS)})(?:{'|'.join(_BESIDE)})?|(?:{'|'.join(_BESIDE)})"
)


class Layout(NamedTuple):
  """Where each picture of a set belongs.

  Attributes:
    parts: (split "train" or "test", class) of each picture.
    class_names: sorted.
    remarks: lines on what was understood otherwise than it may be meant.
    above: folders in which folders of classes, or of splits, lie.
  """

  parts: list[tuple[str, str]]
  class_names: list[str]
  remarks: list[str]
  above: frozenset[PurePosixPath] = frozenset()


def common_top(names: list[PurePosixPath]) -> int:
  """How many leading folders all names share above the class folders."""
  top = 0
  while True:
    firsts = {name.parts[top] for name in names if len(name.parts) > top}
    deep = all(len(name.parts) > top + 2 for name in names)
    if len(firsts) > 1 or not deep or next(iter(firsts)).lower() in _EXACT:
      return top
    top += 1


def split_of(folder: str) -> str | None:
  """ "train", "test" or "valid" if a folder's name says so, in a usual way:
  "Testing", "seg_train", "val2017", "train_images"; else None."""
  found = [_JOINED.fullmatch(word) for word in _words(folder)]
  kinds = {_KINDS[m[1]] for m in found if m and m[1]}
  return kinds.pop() if all(found) and len(kinds) == 1 else None


def sort_out(path, names: list[PurePosixPath]) -> Layout:
  """Splits and classes by the names of folders.

  Class folders lie at the top or in folders of splits; both may lie in further
  folders that all pictures share. Pictures to validate on stand in for those
  to test on where there are none; beside them they are for training.

  Args:
    path: of the set, for messages.
    names: of the pictures.

  Raises:
    DataError: naming the folder or file that leaves it open what is meant.
  """
  top = common_top(names)
  tails = [name.parts[top:] for name in names]
  _refuse_lone(path, tails, 2)
  splits = _splits(path, tails)
  if splits:
    _refuse_lone(path, tails, 3)
    tails = _without_nested(tails, splits)
  for split in splits or [None]:
    inner = [t[1:] if splits else t for t in tails if split in (None, t[0])]
    _refuse_copies(path, inner, split)
  test = "test" if "test" in splits.values() else "valid"
  parts, spelled = [], {}
  for tail in tails:
    raw = tail[1] if splits else tail[0]
    label = class_name(path, raw)
    spelled.setdefault(label, set()).add(raw)
    is_test = bool(splits) and splits[tail[0]] == test
    parts.append(("test" if is_test else "train", label))
  remarks = [
    f"the folders {', '.join(map(ascii, sorted(raws)))} are taken for one class"
    for raws in spelled.values()
    if len(raws) > 1
  ]
  loose = [f for f in sorted(splits) if f.lower() not in _EXACT]
  if loose:
    remarks.append(
      "taken for splits: "
      + ", ".join(f"{printable(f)} ({splits[f]})" for f in sorted(splits))
    )
  within = 1 if splits else 0  # of a tail, where its class stands
  above = {
    PurePosixPath(*name.parts[: len(name.parts) - len(tail) + within])
    for name, tail in zip(names, tails)
  }
  above.add(PurePosixPath(*names[0].parts[:top]))
  found = make(path, parts, remarks)
  return found._replace(above=frozenset(above))


def splits_of(names: list[PurePosixPath]) -> dict[str, str]:
  """{top folder: split} where folders of several splits hold the pictures."""
  named = _kinds({name.parts[0] for name in names if len(name.parts) > 1})
  return named if len(set(named.values())) > 1 else {}


def make(path, parts: list[tuple[str, str]], remarks: list[str]) -> Layout:
  """The layout of these parts, if every class can be learnt."""
  train = {label for part, label in parts if part == "train"}
  test = {label for part, label in parts if part == "test"}
  for label in sorted(test - train):
    alike = [c for c in sorted(train) if c.lower() == label.lower()]
    hint = f" (there is {alike[0]!r})" if alike else ""
    raise DataError(
      f"{path}: class {label!r} has test images but no training image{hint}:"
      " add some or take the class out"
    )
  if test and train - test:
    remarks = [
      *remarks,
      f"no test image of class {listed(sorted(train - test))}: the test says"
      " nothing of it",
    ]
  by_case: dict[str, list[str]] = {}
  for label in sorted(train):
    by_case.setdefault(label.casefold(), []).append(label)
  remarks = [
    *remarks,
    *(
      f"{listed(alike)} are different classes"
      for alike in by_case.values()
      if len(alike) > 1
    ),
  ]
  return Layout(parts, sorted(train), remarks)


def class_name(path, raw: str) -> str:
  """A folder's name as a class: the same on every system."""
  try:
    raw.encode()
  except UnicodeError:
    raise DataError(
      f"{path}: the name of class folder {printable(raw)} is not in UTF-8:"
      " rename it"
    ) from None
  # macOS takes accents apart, and others do not.
  return unicodedata.normalize("NFC", raw)


def check_empty(listing: Listing, layout: Layout):
  """A class folder without images is a mistake worth stopping for."""
  for folder in sorted(listing.without_pictures()):
    named = unicodedata.normalize("NFC", folder.name)
    if folder.parent in layout.above and named not in layout.class_names:
      raise listing.refuse_empty(folder)


def _refuse_lone(path, tails: Iterable[Parts], depth: int):
  for tail in tails:
    if len(tail) < depth:
      raise DataError(
        f"{path}: image {printable('/'.join(tail))} lies in no class folder:"
        " move it into one, or name a table of labels (labels, in a config"
        " data.options.labels)"
      )


def _inner(tails: Iterable[Parts]) -> dict[str, set[str]]:
  """{top folder: folders inside of it}."""
  found: dict[str, set[str]] = {}
  for tail in tails:
    inside = found.setdefault(tail[0], set())
    if len(tail) > 2:
      inside.add(tail[1])
  return found


def _splits(path, tails: list[Parts]) -> dict[str, str]:
  """{top folder: split}, empty where they are classes."""
  inner = _inner(tails)
  named = _kinds(inner)
  odd = sorted(set(inner) - set(named))
  if not named:
    _refuse_inner_splits(path, inner)
    return {}
  if not odd:
    return named
  if len(set(named.values())) > 1 or _holds_classes(tails, inner, named, odd):
    raise DataError(
      f"{path}: beside {_slashed(named)} lies {_quoted(odd)}{_what(inner, odd)}"
      ": take it out, or make it one of the splits"
    )
  return {}


def _kinds(tops: Iterable[str]) -> dict[str, str]:
  """{folder: split} of those whose name says so, alone or, as "birds_train"
  beside "birds_test", with others."""
  found, groups = {}, {}
  for top in tops:
    words = _words(top)
    kinds = {_KINDS[word] for word in words if word in _KINDS}
    if split_of(top):
      found[top] = split_of(top)
    elif len(kinds) == 1:
      rest = tuple(word for word in words if word not in _KINDS)
      groups.setdefault(rest, {})[top] = kinds.pop()
  for group in groups.values():
    if len(set(group.values())) > 1:
      found |= group
  return found


def _words(folder: str) -> list[str]:
  spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", folder)
  return re.findall("[^\\W\\d_]+", spaced.lower())


def _holds_classes(tails, inner, named, odd) -> bool:
  """Whether one folder named like a split is one, and no class of that name."""
  classes = {c for top in named for c in inner[top]}
  others = {c for top in odd for c in inner[top]}
  flat = any(len(tail) == 2 for tail in tails if tail[0] in named)
  return bool(classes & others) or (
    len(classes) > 1 and not flat and not others
  )


def _refuse_inner_splits(path, inner: dict[str, set[str]]):
  """train/ and test/ one folder too deep, in several folders."""
  for top, folders in sorted(inner.items()):
    kinds = {split_of(folder) for folder in folders} - {None}
    if len(kinds) > 1:
      among = {f for f in folders if split_of(f)}
      raise DataError(
        f"{path}: {_slashed(among)} lie inside of {printable(top)!r} and beside"
        f" it lies {_quoted(sorted(set(inner) - {top})) or 'nothing'}: set path"
        " to the folder in which they lie; classes go inside of the splits"
      )


def _refuse_copies(path, tails: list[Parts], split: str | None):
  """A class folder that holds the other classes again."""
  inner = _inner(tails)
  for top, folders in sorted(inner.items()):
    again = folders & (set(inner) - {top})
    if len(again) > 1:
      where = f"{split}/{top}" if split else top
      raise DataError(
        f"{path}: folder {printable(where)} holds {_slashed(again)} again,"
        " which lie beside it: it looks like a second copy, take it out"
      )


def _without_nested(tails: list[Parts], splits: dict[str, str]) -> list[Parts]:
  """train/train/cat/1.png as train/cat/1.png, where it is so for all."""
  for split, kind in splits.items():
    while True:
      mine = [tail for tail in tails if tail[0] == split]
      seconds = {tail[1] for tail in mine}
      second = next(iter(seconds))
      if len(seconds) > 1 or min(map(len, mine)) < 4:
        break
      if second.lower() != split.lower() and split_of(second) != kind:
        break
      tails = [
        (tail[0], *tail[2:]) if tail[0] == split else tail for tail in tails
      ]
  return tails


def _what(inner: dict[str, set[str]], odd: list[str]) -> str:
  folders = inner[odd[0]]
  if len({split_of(folder) for folder in folders} - {None}) > 1:
    return f", which holds {_slashed(folders)} again: a second copy"
  return ""


def _slashed(names: Iterable[str]) -> str:
  words = [f"{printable(name)}/" for name in sorted(names)][:6]
  return " and ".join(
    [", ".join(words[:-1]), words[-1]] if words[1:] else words
  )


def _quoted(names: list[str]) -> str:
  return ", ".join(repr(name) for name in names[:6])
