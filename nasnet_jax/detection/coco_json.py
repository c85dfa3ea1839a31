"""Boxes as COCO's JSON files have them, and as other tools write them.

Merged files, hand-made ones and exports of annotation tools differ from COCO's
own in small ways. What can only be meant one way is read so; anything else is
refused in a line that names the file and the entry.
"""

import collections
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.data.image_data import DataError
from nasnet_jax.data.paths import local
from nasnet_jax.detection.annotations import (
  Box,
  Files,
  Finder,
  Pictures,
  Splits,
  annotation,
  check_missing,
  check_once,
  first_ten,
  folder,
  nothing,
  sides_of,
  splits,
)

# Where the file of a split lies: COCO, CVAT, Datumaro; Roboflow; others.
_FILES = (
  "annotations/instances_{}.json",
  "{}/_annotations.coco.json",
  "annotations/{}.json",
  "{}/annotations.json",
  "{}.json",
)


def open_coco(
  data_dir=None,
  *,
  path: str | None = None,
  train_split: str = "train2017",
  valid_split: str = "",
  test_split: str = "val2017",
  images: str | None = None,
  note: str = "",
) -> Splits:
  """COCO's layout: annotations/instances_<split>.json, <split>/<image>.

  Also <split>/_annotations.coco.json beside its images (Roboflow), and
  images/<split>/<image> (CVAT).

  Args:
    data_dir: what `path` is relative to.
    path: folder with both; None: `data_dir` itself.
    train_split, valid_split, test_split: their names, or the JSON files
      themselves, relative to the folder; "": none.
    images: folder of the images, relative to the folder; None: it is looked
      for.
    note: see `Splits`.

  Raises:
    DataError: for missing or damaged files, in one line.
  """
  top = folder(data_dir, path)
  names = (train_split, valid_split, test_split)
  files = [_File.read(top, name) if name else None for name in names]
  first = files[0].categories() if files[0] else {}
  for file in filter(None, files):
    if file.categories() != first:
      raise DataError(
        f"{top}: {file.split} and {train_split} have other categories: give"
        " splits of one set"
      )
  number = {key: i for i, key in enumerate(first)}
  parts = [
    file.pictures(_image_folders(top, file, images), number)
    if file
    else nothing()
    for file in files
  ]
  ids = tuple(first)
  return splits(parts, tuple(first.values()), ids, f"coco {top.name}", note)


def _image_folders(top, file: "_File", images) -> list[pathlib.Path]:
  if images is not None:
    chosen = top / local(images)
    if not chosen.is_dir():
      raise DataError(f"{chosen} is no folder: mend data.options.images")
    return [chosen]
  beside = file.path.parent
  split = file.split if file.split != file.path.name else file.path.stem
  return [
    top / split,
    top / "images" / split,
    beside,
    beside / "images",
    top / "images",
    top / "JPEGImages",
    top,
  ]


# So many boxes over the border are no chance.
_CORNERS = 4


class _Image(NamedTuple):
  """An entry of `images`. side: None: the file does not say it."""

  name: str
  side: tuple[int, int] | None


class _File(NamedTuple):
  """A JSON file of one split; its methods raise DataError, in one line."""

  split: str
  path: pathlib.Path
  data: dict[str, Any]

  @classmethod
  def read(cls, top: pathlib.Path, split: str) -> "_File":
    path = _locate(top, split)
    try:
      data = json.loads(path.read_bytes())
    except OSError as error:
      raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
      raise DataError(f"{path} is no JSON ({error}): copy it again") from None
    if not isinstance(data, dict):
      raise DataError(f"{path} holds a {type(data).__name__}, no COCO file")
    for part in ("images", "annotations", "categories"):
      rows = data.get(part)
      if not isinstance(rows, list) or not all(
        isinstance(row, dict) for row in rows
      ):
        raise DataError(f"{path} has no list of {part}, as COCO's files have")
    return cls(split, path, data)

  def categories(self) -> dict[int | str, str]:
    """{id: name}, by id."""
    names: dict[int | str, str] = {}
    for row in self.data["categories"]:
      key, name = self._id(row, "category"), row.get("name")
      if not isinstance(name, str) or not name.strip():
        raise DataError(f"{self.path}: category {key} has no name: give it one")
      if names.setdefault(key, name) != name:
        raise DataError(
          f"{self.path}: category id {key} is given twice, to {names[key]!r}"
          f" and {name!r}: number them anew"
        )
    for name, count in collections.Counter(names.values()).items():
      if count > 1:
        keys = ", ".join(str(key) for key in names if names[key] == name)
        raise DataError(
          f"{self.path}: {name!r} is the name of categories {keys}: join or"
          " rename them"
        )
    return dict(sorted(names.items(), key=lambda item: _order(item[0])))

  def pictures(self, folders, number: dict) -> Pictures:
    """The split, its boxes looked over.

    Args:
      folders: where images may lie, the likeliest first.
      number: {category id: class}.
    """
    dropped: collections.Counter = collections.Counter()
    images = self._images()
    objects = self._objects(images, number, dropped)
    finder = Finder(folders)
    paths = {key: finder.named(one.name) for key, one in images.items()}
    missing = [images[key].name for key, path in paths.items() if path is None]
    check_missing(self.path, missing, len(images))
    check_once(
      [f"{self.path}, image {key}" for key in images], [*paths.values()]
    )
    unmeasured = [key for key, one in images.items() if one.side is None]
    sides = {key: one.side for key, one in images.items()}
    measured = sides_of([paths[key] for key in unmeasured])
    sides.update(zip(unmeasured, measured, strict=True))
    self._check_corners(objects, sides)
    annotations = [
      annotation(str(path), key, sides[key], objects[key], dropped)
      for key, path in paths.items()
    ]
    files = Files(tuple(map(str, paths.values())))
    return Pictures.of(annotations, files, dropped)

  def _images(self) -> dict[int | str, _Image]:
    found: dict[int | str, _Image] = {}
    keys: dict[str, int | str] = {}
    for row in self.data["images"]:
      key, name = self._id(row, "image"), row.get("file_name")
      if not isinstance(name, str) or not name.strip():
        raise DataError(f"{self.path}: image {key} has no file_name")
      if key in found:
        raise DataError(
          f"{self.path}: image id {key} is given twice, to {found[key].name}"
          f" and {name}: number the images anew"
        )
      if name in keys:
        raise DataError(
          f"{self.path}: {name} is there twice, as images {keys[name]} and"
          f" {key}: join their boxes under one id"
        )
      keys[name] = key
      found[key] = _Image(name, self._side(row, key))
    return found

  def _side(self, row, key) -> tuple[int, int] | None:
    values = [row.get("height"), row.get("width")]
    if any(value in (None, 0, "", "0") for value in values):
      return None
    numbers = _numbers(values)
    if numbers is None or min(numbers) < 1:
      raise DataError(
        f"{self.path}: image {key} is {values[0]!r}x{values[1]!r}: mend height"
        " and width, or leave them out"
      )
    return int(numbers[0]), int(numbers[1])

  def _objects(self, images, number, dropped) -> dict[Any, list[Box]]:
    """{image id: boxes}."""
    found = collections.defaultdict(list)
    seen = set()
    for row in self.data["annotations"]:
      image = self._id(row, "annotation", "image_id")
      if image not in images:
        raise DataError(
          f"{self.path}: image {image} has boxes, and is not among the images"
          " of the file: mend it"
        )
      category = self._id(row, "annotation", "category_id")
      if category not in number:
        raise DataError(
          f"{self.path}: annotation {row.get('id')} is of category {category},"
          " which the file does not know: mend it"
        )
      box = self._box(row, images[image].name)
      if box is None:
        dropped["without a box"] += 1
        continue
      # Files that were merged may hold the same annotation twice; other boxes
      # under the same id are other objects.
      same = (str(row.get("id")), image, category, box)
      if row.get("id") is not None and same in seen:
        dropped["given twice"] += 1
        continue
      seen.add(same)
      found[image].append(
        Box(box, number[category], self._crowd(row), self._area(row))
      )
    return found

  def _box(self, row, image: str) -> tuple[float, float, float, float] | None:
    """(y1, x1, y2, x2); None where the file says that there is none, as some
    tools do for images without objects."""
    if "bbox" in row and row["bbox"] in (None, []):
      return None
    numbers = _numbers(row.get("bbox"))
    if numbers is None or len(numbers) != 4:
      has = repr(row["bbox"])[:80] if "bbox" in row else "nothing"
      raise DataError(
        f"{self.path}: annotation {row.get('id')} (of {image}) has {has} as its"
        " bbox: give [x, y, width, height] in pixels"
      )
    x, y, width, height = numbers
    return y, x, y + height, x + width

  def _check_corners(self, objects, sides):
    """Refuses [x1, y1, x2, y2], which reach over the border when they are read
    as [x, y, width, height], and lie inside when they are not."""
    over = 0
    for key, boxes in objects.items():
      for (y1, x1, y2, x2), *_ in boxes:
        size = x2 - x1, y2 - y1
        if (
          size[0] < x1
          or size[1] < y1
          or np.greater(size, sides[key][::-1]).any()
        ):
          return
        over += y2 > sides[key][0] or x2 > sides[key][1]
    if over >= _CORNERS:
      raise DataError(
        f"{self.path}: {over} boxes reach over the border of their images, and"
        " all lie inside if they are read as [x1, y1, x2, y2]: give [x, y,"
        " width, height] in pixels"
      )

  def _crowd(self, row) -> bool:
    value = row.get("iscrowd")
    if value in (None, "", "0"):
      return False
    numbers = _numbers([value])
    if numbers is None or numbers[0] not in (0, 1):
      raise DataError(
        f"{self.path}: annotation {row.get('id')} has iscrowd {value!r}: give 0"
        " or 1"
      )
    return bool(numbers[0])

  def _area(self, row) -> float | None:
    if row.get("area") is None:
      return None
    numbers = _numbers([row["area"]])
    if numbers is None:
      raise DataError(
        f"{self.path}: annotation {row.get('id')} has area {row['area']!r}:"
        " give a number, or leave it out"
      )
    return numbers[0]

  def _id(self, row, what: str, field: str = "id") -> int | str:
    """An id; digits that were written as text are the number."""
    value = row.get(field)
    if isinstance(value, float) and value.is_integer():
      return int(value)
    if isinstance(value, str) and value.strip():
      text = value.strip()
      return int(text) if text.isascii() and text.isdigit() else text
    if isinstance(value, int) and not isinstance(value, bool):
      return value
    whose = row.get("file_name") or row.get("name") or row.get("id")
    raise DataError(
      f"{self.path}: {what} {whose!r} has {value!r} as its {field}: give a"
      " number"
    )


def _locate(top: pathlib.Path, split: str) -> pathlib.Path:
  if split.endswith(".json"):
    return top / split
  for form in _FILES:
    path = top / form.format(split)
    if path.is_file():
      return path
  there = sorted(
    path.relative_to(top).as_posix()
    for pattern in ("*.json", "*/*.json")
    for path in top.glob(pattern)
    if not path.name.startswith(".")
  )
  has = f"there are {first_ten(there)}" if there else "there is no JSON file"
  raise DataError(
    f"{top} has no {_FILES[0].format(split)} nor {_FILES[1].format(split)};"
    f" {has}: set data.options.path to the folder that holds them, or the"
    " splits (train_split, valid_split, test_split) to those files"
  )


def _numbers(values) -> list[float] | None:
  """Finite numbers, also written as text; None: something else."""
  try:
    found = [float(value) for value in values]
  except (TypeError, ValueError):
    return None
  if isinstance(values, str | dict) or not all(map(math.isfinite, found)):
    return None
  return found


def _order(key):
  """Numbers before names: a file may have both."""
  return isinstance(key, str), key
