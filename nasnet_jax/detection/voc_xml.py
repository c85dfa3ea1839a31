"""Boxes as Pascal VOC's XML files have them, and as LabelImg, Roboflow and
others write them."""

import collections
import logging
import math
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection.annotations import (
  OTHER_NAMES,
  Box,
  Files,
  Finder,
  Pictures,
  Splits,
  annotation,
  check_missing,
  check_once,
  divided,
  folder,
  is_picture,
  sides_of,
  splits,
)

_log = logging.getLogger(__name__)
# What VOC writes behind a name: whether the class of the list is there.
_FLAGS = ("1", "-1", "0")


def open_voc(
  data_dir=None,
  *,
  path: str | None = None,
  train_split: str = "train",
  valid_split: str = "val",
  test_split: str = "test",
  class_names: tuple[str, ...] | None = None,
  test_fraction: float = 0.2,
  note: str = "",
) -> Splits:
  """Pascal VOC's layout: Annotations/, ImageSets/Main/<split>.txt, JPEGImages/.

  Also a folder per split that holds XML files beside their images (Roboflow),
  and one folder of all of them (LabelImg), of which a random part is the test.

  Corners are taken as they stand, as the TF Object Detection API does, though
  VOC's own count pixels from 1 and include the last one.

  Args:
    data_dir: what `path` is relative to.
    path: folder with the three; None: `data_dir` itself.
    train_split, valid_split, test_split: their names; "": none.
    class_names: in the order of the classes; None: those that occur, by name.
    test_fraction: the share of the images that are tested where there are no
      splits.
    note: see `Splits`.

  Raises:
    DataError: for missing or damaged files, in one line.
  """
  top = folder(data_dir, path)
  names = (train_split, valid_split, test_split)
  files = [
    [_Xml.read(path) for path in part]
    for part in _paths(top, names, test_fraction)
  ]
  classes = class_names or sorted(
    {
      one.text(node, "name")
      for part in files
      for one in part
      for node in one.tree.iter("object")
    }
  )
  number = {name: i for i, name in enumerate(classes)}
  parts = [_pictures(top, part, number) for part in files]
  ids = range(1, len(classes) + 1)
  return splits(parts, tuple(classes), ids, f"voc {top.name}", note)


def _paths(top, names, test_fraction) -> list[list[pathlib.Path]]:
  """The XML files of each split."""
  if any(_list_of(top, name).is_file() for name in names if name):
    return [_listed(top, name) if name else [] for name in names]
  if any((top / name).is_dir() for name in names if name):
    return [_in_folder(top, name) if name else [] for name in names]
  for place in (top / "Annotations", top):
    files = sorted(place.glob("*.xml"))
    if files:
      train, test = divided(files, test_fraction, place)
      return [train, [], test]
  raise DataError(
    f"{top} has no {_list_of('', names[0])}, no folder {names[0]} and no XML"
    " files: set data.options.path to the folder that holds ImageSets/ or the"
    " splits, or train_split, valid_split and test_split to their names"
  )


def _list_of(top, split: str) -> pathlib.Path:
  return pathlib.Path(top, "ImageSets", "Main", f"{split}.txt")


def _listed(top: pathlib.Path, split: str) -> list[pathlib.Path]:
  path = _list_of(top, split)
  try:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
  except OSError as error:
    there = sorted(one.stem for one in path.parent.glob("*.txt"))
    raise DataError(
      f"{path} cannot be read ({error.strerror}): name a split that is there"
      f" ({', '.join(there)}), or none"
    ) from None
  finder = Finder([top / "Annotations"])
  return [_xml_of(top, finder, line.strip()) for line in lines if line.strip()]


def _xml_of(top, finder: Finder, line: str) -> pathlib.Path:
  """The XML file that a line of a split names. A name may hold blanks."""
  *words, last = line.split()
  names = [line, line.removesuffix(last).strip()] if last in _FLAGS else [line]
  stems = [pathlib.PurePath(name).stem for name in names if is_picture(name)]
  for name in [*names, *stems]:
    found = finder.named(f"{name}.xml") if name else None
    if found:
      return found
  name = names[-1] if words else line
  raise DataError(f"{top / 'Annotations' / name}.xml is not there")


def _in_folder(top: pathlib.Path, split: str) -> list[pathlib.Path]:
  for name in (split, *OTHER_NAMES.get(split, ())):
    files = sorted((top / name).glob("*.xml"))
    if files:
      return files
  raise DataError(
    f"{top / split} holds no XML files: give another split, or none"
  )


def _finder(top: pathlib.Path, place: pathlib.Path) -> Finder:
  """Where the pictures of the XML files in `place` may lie. Splits may have
  pictures of the same names, so what lies beside comes first."""
  places = (place, top / "JPEGImages", place / "images", top / "images", top)
  return Finder(places)


class _Xml(NamedTuple):
  """One file; its methods raise DataError, in one line."""

  path: pathlib.Path
  tree: ElementTree.Element

  @classmethod
  def read(cls, path: pathlib.Path) -> "_Xml":
    try:
      return cls(path, ElementTree.parse(path).getroot())
    except OSError as error:
      raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
      raise DataError(f"{path} is no XML ({error}): copy it again") from None

  def text(self, node, name: str) -> str:
    found = (node.findtext(name) or "").strip()
    if not found:
      raise DataError(f"{self.path}: <{node.tag}> has no <{name}>: mend it")
    return found

  def number(self, node, name: str) -> float:
    text = self.text(node, name)
    try:
      value = float(text)
    except ValueError:
      value = math.nan
    if not math.isfinite(value):
      raise DataError(f"{self.path}: <{name}> is {text!r}, no number")
    return value

  def side(self) -> tuple[int, int] | None:
    """(height, width); None: the file does not say it."""
    size = self.tree.find("size")
    if size is None:
      return None
    texts = [
      (size.findtext(name) or "").strip() for name in ("height", "width")
    ]
    if any(text in ("", "0") for text in texts):
      return None
    height, width = (self.number(size, name) for name in ("height", "width"))
    return int(height), int(width)

  def object(self, node, number) -> Box:
    name = self.text(node, "name")
    if name not in number:
      raise DataError(
        f"{self.path}: class {name!r} is not one of: {', '.join(number)}"
      )
    box = node.find("bndbox")
    if box is None:
      raise DataError(f"{self.path}: an object has no <bndbox>: mend it")
    corners = ("ymin", "xmin", "ymax", "xmax")
    difficult = (node.findtext("difficult") or "0").strip() == "1"
    numbers = tuple(self.number(box, corner) for corner in corners)
    return Box(numbers, number[name], difficult)

  def image(self, finder: Finder) -> pathlib.Path | None:
    """The picture: that of <filename> if it is there, else the one that is
    called as this file, as pictures are renamed and converted."""
    name = (self.tree.findtext("filename") or "").strip()
    named = finder.named(name) if is_picture(name) else None
    return (
      named
      or finder.like(self.path.stem)
      or (name and finder.like(name))
      or None
    )


def _pictures(top, files: list[_Xml], number) -> Pictures:
  dropped: collections.Counter = collections.Counter()
  finders = {p: _finder(top, p) for p in {one.path.parent for one in files}}
  images = [one.image(finders[one.path.parent]) for one in files]
  missing = [str(f.path) for f, image in zip(files, images) if image is None]
  check_missing(f"{top}, by their XML files", missing, len(files))
  check_once([str(one.path) for one in files], images)
  sides = [one.side() for one in files]
  unmeasured = [i for i, side in enumerate(sides) if side is None]
  measured = sides_of([images[i] for i in unmeasured])
  for i, side in zip(unmeasured, measured, strict=True):
    sides[i] = side
  annotations = []
  for one, image, side in zip(files, images, sides):
    objects = [one.object(node, number) for node in one.tree.iter("object")]
    found = annotation(str(image), one.path.stem, side, objects, dropped)
    annotations.append(found)
  return Pictures.of(annotations, Files(tuple(map(str, images))), dropped)
