"""Boxes as YOLO's text files have them: a file per picture, a line per object.

A line is `class cx cy width height`, shares of the picture's sides; or
`class x1 y1 x2 y2 x3 y3 ...`, an outline, whose box is taken. A picture without
a file has no objects.
"""

import collections
import logging
import math
import pathlib
from typing import Any

from nasnet_jax.data.image_data import DataError
from nasnet_jax.data.paths import local
from nasnet_jax.detection.annotations import (
  OTHER_NAMES,
  Box,
  Files,
  Pictures,
  Splits,
  annotation,
  divided,
  first_ten,
  folder,
  is_picture,
  nothing,
  sides_of,
  splits,
)

_log = logging.getLogger(__name__)
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt")


def open_yolo(
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
  """data.yaml beside images/<split>/ and labels/<split>/, as Ultralytics reads
  it; <split>/images/ and <split>/labels/ (Roboflow); or text files beside the
  pictures of one folder (Darknet, LabelImg), a random part of which is tested.

  Args:
    data_dir: what `path` is relative to.
    path: the folder, or a YAML file in it; None: `data_dir` itself.
    train_split, valid_split, test_split: their names; "": none.
    class_names: in the order of the classes; None: those of data.yaml, or of
      classes.txt or obj.names.
    test_fraction: the share of the pictures that are tested where there are
      no splits.
    note: see `Splits`.

  Raises:
    DataError: for missing or damaged files, in one line.
  """
  file = path if str(path).endswith((".yaml", ".yml")) else None
  top = folder(data_dir, local(path).parent if file else path)
  info = _yaml(top, pathlib.Path(file).name if file else None)
  names = tuple(class_names or _class_names(top, info))
  found = [
    _find(top, info, split) if split else None
    for split in (train_split, valid_split, test_split)
  ]
  if not any(found):
    paths = _walk(top)
    if not paths:
      raise DataError(f"{top} holds no pictures: set data.options.path")
    train, test = divided(paths, test_fraction, top)
    found = [train, None, test]
  train, valid, test = found
  if not train:
    raise DataError(f"{top} has no split {train_split!r}: set train_split")
  if valid_split and test and not valid:
    _log.warning(
      "%s has no split %r: nothing is left to validate on", top, valid_split
    )
  if valid and not test:
    _log.warning(
      "%s has no split %r: %r is the test, and nothing is left to validate on",
      *(top, test_split, valid_split),
    )
    valid, test = None, valid
  numbers = _numbers_of_points(info)
  parts = [
    _pictures(part, names, numbers) if part else nothing()
    for part in (train, valid, test)
  ]
  _tell_alone([*train, *(valid or ()), *(test or ())])
  ids = range(1, len(names) + 1)
  return splits(parts, names, ids, f"yolo {top.name}", note)


def _yaml(top: pathlib.Path, name: str | None) -> dict[str, Any]:
  import yaml

  files = sorted([*top.glob("*.yaml"), *top.glob("*.yml")])
  likely = [one for one in files if one.stem in ("data", "dataset", top.name)]
  if name:
    path = top / name
  elif likely or len(files) == 1:
    path = (likely or files)[0]
  elif files:
    raise DataError(
      f"{top} has {first_ten([one.name for one in files])}: set"
      " data.options.path to the one that is meant"
    )
  else:
    return {}
  try:
    info = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
  except OSError as error:
    raise DataError(f"{path} cannot be read ({error.strerror})") from None
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    text = " ".join(str(error).split())
    raise DataError(f"{path} is no YAML ({text}): mend it") from None
  if not isinstance(info, dict):
    raise DataError(f"{path} has no names and splits: mend it")
  return {**info, "file": path}


def _class_names(top: pathlib.Path, info) -> list[str]:
  names = info.get("names")
  where = info.get("file")
  if isinstance(names, dict):
    if sorted(names) != list(range(len(names))):
      raise DataError(f"{where}: names are not numbered 0, 1, 2, ...: mend it")
    names = [names[i] for i in range(len(names))]
  if names is None:
    for name in _NAME_FILES:
      if (top / name).is_file():
        where = top / name
        lines = where.read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
        break
  if not isinstance(names, list) or not names:
    raise DataError(
      f"{where or top} does not say what the classes are called: set"
      " data.options.class_names, or write a data.yaml with names"
    )
  names = [str(name) for name in names]
  if len(set(names)) < len(names):
    twice = collections.Counter(names).most_common(1)[0][0]
    raise DataError(f"{where}: {twice!r} is the name of two classes: mend it")
  if info.get("nc") not in (None, len(names)):
    raise DataError(
      f"{where}: nc is {info['nc']} and there are {len(names)} names: mend it"
    )
  return names


def _find(top: pathlib.Path, info, split: str) -> list[pathlib.Path] | None:
  """The pictures of a split; None: it is not there."""
  names = (split, *OTHER_NAMES.get(split, ()))
  for name in names:
    if info.get(name):
      return _of_yaml(info, name)
  for name in names:
    for place in (top / "images" / name, top / name / "images", top / name):
      if place.is_dir():
        return _walk(place) or None
  return None


def _of_yaml(info, name: str) -> list[pathlib.Path]:
  """What data.yaml has under the split's name: a folder, a list, or several."""
  file = info["file"]
  entries = info[name] if isinstance(info[name], list) else [info[name]]
  found = []
  for entry in map(str, entries):
    place = _resolve(file, str(info.get("path") or ""), entry)
    if place is None:
      raise DataError(
        f"{file}: {name} is {entry!r}, which is not there: mend it"
      )
    found += _walk(place) if place.is_dir() else _list(place)
  if not found:
    raise DataError(f"{file}: there are no pictures in {name}: {info[name]}")
  return found


def _resolve(file: pathlib.Path, root: str, entry: str) -> pathlib.Path | None:
  """A path of data.yaml. Exports begin paths with ../, and roots are often
  those of another machine."""
  bases = [file.parent / root, file.parent]
  inner = entry
  while inner.startswith(("../", "./", "..\\")):
    inner = inner.partition("/" if "/" in inner else "\\")[2]
  for base in bases:
    for one in (entry, inner):
      place = base / one.replace("\\", "/")
      if place.exists():
        return place
  return None


def _list(file: pathlib.Path) -> list[pathlib.Path]:
  """The pictures that a text file names, a line each."""
  lines = file.read_text(encoding="utf-8-sig").splitlines()
  names = [line.strip() for line in lines if line.strip()]
  found = [_resolve(file, "", name) for name in names]
  missing = [name for name, path in zip(names, found) if path is None]
  if missing:
    raise DataError(
      f"{file}: {len(missing)} of {len(names)} pictures are not there:"
      f" {first_ten(missing)}"
    )
  return found


def _walk(place: pathlib.Path) -> list[pathlib.Path]:
  """All pictures below a folder; hidden files and folders are not looked at."""
  return [
    path
    for path in sorted(place.rglob("*"))
    if is_picture(path.name)
    and not any(part.startswith(".") for part in path.relative_to(place).parts)
    and path.is_file()
  ]


def _label_file(picture: pathlib.Path) -> pathlib.Path:
  """images/ becomes labels/, at its last place in the path; where there is no
  such file it lies beside the picture."""
  parts = list(picture.parts)
  if "images" in parts:
    at = len(parts) - 1 - parts[::-1].index("images")
    there = pathlib.Path(*parts[:at], "labels", *parts[at + 1 :])
    if there.with_suffix(".txt").is_file():
      return there.with_suffix(".txt")
  return picture.with_suffix(".txt")


def _numbers_of_points(info) -> int:
  """How many numbers of keypoints follow the box of a line."""
  shape = info.get("kpt_shape")
  if shape is None:
    return 0
  if (
    not isinstance(shape, list)
    or len(shape) != 2
    or not all(isinstance(n, int) and n > 0 for n in shape)
  ):
    raise DataError(
      f"{info['file']}: kpt_shape is {shape!r}: give [points, 2 or 3], or take"
      " it out"
    )
  _log.warning("%s: keypoints are left out, boxes are taken", info["file"])
  return shape[0] * shape[1]


def _tell_alone(pictures: list[pathlib.Path]):
  """Says which text files hold boxes and have no picture."""
  used = {_label_file(path) for path in pictures}
  alone = [
    str(path)
    for place in sorted({file.parent for file in used if file.is_file()})
    for path in sorted(place.glob("*.txt"))
    if path not in used and _has_boxes(path)
  ]
  if alone:
    _log.warning(
      "left out: %d text file(s) with boxes whose pictures are not there or not"
      " in a split: %s",
      *(len(alone), first_ten(alone)),
    )


def _has_boxes(file: pathlib.Path) -> bool:
  lines = file.read_text(encoding="utf-8", errors="replace").split("\n", 1)
  words = lines[0].split()
  try:
    return len(words) >= 5 and all(math.isfinite(float(w)) for w in words)
  except ValueError:
    return False


def _pictures(paths: list[pathlib.Path], names, points: int) -> Pictures:
  """points: numbers of keypoints on each line."""
  dropped: collections.Counter = collections.Counter()
  files = [_label_file(path) for path in paths]
  without = [
    str(path) for path, file in zip(paths, files) if not file.is_file()
  ]
  if len(without) == len(paths):
    raise DataError(
      f"none of {len(paths)} pictures has a text file, such as {files[0]}"
    )
  if without:
    _log.warning(
      "%d of %d pictures have no text file and count as pictures without"
      " objects: %s",
      *(len(without), len(paths), first_ten(without)),
    )
  annotations = []
  for path, file, side in zip(paths, files, sides_of(paths)):
    objects = _objects(file, side, names, points) if file.is_file() else []
    annotations.append(annotation(str(path), str(path), side, objects, dropped))
  return Pictures.of(annotations, Files(tuple(map(str, paths))), dropped)


def _objects(file: pathlib.Path, side, names, points: int) -> list[Box]:
  try:
    lines = file.read_text(encoding="utf-8-sig").splitlines()
  except UnicodeDecodeError:
    raise DataError(f"{file} is no text: mend it or take it out") from None
  return [
    _object(f"{file}, line {number}", line.split(), side, names, points)
    for number, line in enumerate(lines, 1)
    if line.strip()
  ]


def _object(where: str, words: list[str], side, names, points: int) -> Box:
  try:
    label, *numbers = (float(word) for word in words)
  except ValueError:
    raise DataError(
      f"{where}: {' '.join(words)[:60]!r} are no numbers"
    ) from None
  if not label.is_integer() or not 0 <= label < len(names):
    raise DataError(
      f"{where}: class {words[0]}, and there are classes 0 to {len(names) - 1}"
    )
  if points:
    if len(numbers) not in (4, 4 + points):
      raise DataError(
        f"{where} has {len(words)} numbers: give class, cx, cy, width, height"
        f" and {points} of keypoints, as kpt_shape says"
      )
    numbers = numbers[:4]
  if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
    raise DataError(
      f"{where} has {len(words)} numbers: give class, cx, cy, width, height, or"
      " a class and the corners of an outline"
    )
  # Some tools round beyond the border, which is clipped; pixels are larger.
  if not all(math.isfinite(n) and -0.5 <= n <= 1.5 for n in numbers):
    raise DataError(
      f"{where}: {' '.join(words[1:])[:60]} are no shares of the picture's"
      " sides, 0 to 1"
    )
  height, width = side
  if len(numbers) == 4:
    x, y, w, h = numbers
    shares = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
  else:
    xs, ys = numbers[::2], numbers[1::2]
    shares = (min(ys), min(xs), max(ys), max(xs))
  y1, x1, y2, x2 = shares
  box = (y1 * height, x1 * width, y2 * height, x2 * width)
  return Box(box, int(label), crowd=False)
