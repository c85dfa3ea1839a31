"""What a set of pictures with boxes is, whatever its files look like.

Boxes without area and boxes outside their image are dropped and counted; those
that reach over its border are clipped.
"""

import hashlib
import logging
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from nasnet_jax.data import cache, pixels, places
from nasnet_jax.data.image_data import DataError

_log = logging.getLogger(__name__)

# Other names of a split, under which tools write it too.
OTHER_NAMES = {
  "val": ("valid", "validation"),
  "valid": ("val", "validation"),
  "validation": ("val", "valid"),
}


# The largest number that may be a share of a side, rounded beyond the border.
_SHARES = 2
_CUT = "cut at the border"
# Pixels by which tools reach over a border when they count or round otherwise.
_ROUNDING = 1.5


class Annotation(NamedTuple):
  """One image and its boxes.

  Attributes:
    name: of the image, for messages.
    key: what its source calls it: an integer of COCO and tfds, a name of VOC.
    side: (height, width) in pixels.
    boxes: f32[G, 4], (y1, x1, y2, x2) in pixels.
    classes: int32[G].
    crowd: bool[G]: not to be found, and no mistake where it is: COCO's
      iscrowd, VOC's difficult.
    areas: f32[G] in pixels, by which COCO calls objects small or large: there
      that of the outline, else that of the box.
  """

  name: str
  key: int | str
  side: tuple[int, int]
  boxes: np.ndarray
  classes: np.ndarray
  crowd: np.ndarray
  areas: np.ndarray


class Contents(Protocol):
  """Encoded images by number; can be pickled."""

  def read(self, index: int) -> bytes:
    """The image file's content. OSError if it cannot be read."""
    ...


class Files(NamedTuple):
  """Image files."""

  paths: tuple[str, ...]

  def read(self, index: int) -> bytes:
    return pathlib.Path(self.paths[index]).read_bytes()


class Pictures(NamedTuple):
  """One split.

  Attributes:
    annotations: one per image.
    contents: the images, by the same number.
    dropped: {reason: boxes that were left out}.
    cut: boxes of which more than `_ROUNDING` reached over their image's border.
  """

  annotations: tuple[Annotation, ...]
  contents: Contents
  dropped: dict[str, int]
  cut: int = 0

  @classmethod
  def of(cls, annotations, contents: Contents, counts) -> "Pictures":
    """counts: as `annotation` has filled it."""
    dropped = {why: n for why, n in counts.items() if why != _CUT}
    return cls(tuple(annotations), contents, dropped, counts[_CUT])

  @property
  def num_images(self) -> int:
    return len(self.annotations)

  @property
  def num_boxes(self) -> int:
    return sum(len(one.boxes) for one in self.annotations)


class Splits(NamedTuple):
  """A detection set.

  Attributes:
    train, valid, test: its splits; valid may be empty.
    class_names: K names.
    category_ids: int[K], what COCO's files call the classes.
    name: the source.
    note: what a report must say beside a figure from this set.
    fingerprint: 16 hexadecimal digits that stand for names and boxes, not for
      the content of images.
  """

  train: Pictures
  valid: Pictures
  test: Pictures
  class_names: tuple[str, ...]
  category_ids: tuple[int, ...]
  name: str
  note: str
  fingerprint: str


def nothing() -> Pictures:
  """A split that is not there."""
  return Pictures((), Files(()), {})


def splits(parts, class_names, category_ids, name: str, note: str) -> Splits:
  """The set of (train, valid, test), looked over."""
  train, _, test = parts
  if not train.num_images or not test.num_images:
    raise DataError(f"{name}: there are no images to train on, or none to test")
  if not train.num_boxes:
    lost = ", ".join(f"{n} are {why}" for why, n in train.dropped.items())
    raise DataError(
      f"{name}: no training image has a box{lost and f' that counts: {lost}'}"
    )
  for part in parts:
    _check_pixels(name, part)
  digest = hashlib.sha256(repr(class_names).encode())
  for part in parts:
    for one in part.annotations:
      digest.update(f"{one.key} {one.side}".encode())
      for array in one[3:]:
        digest.update(np.ascontiguousarray(array).tobytes())
  return Splits(
    *parts,
    tuple(class_names),
    tuple(category_ids),
    name,
    note,
    digest.hexdigest()[:16],
  )


def _check_pixels(name: str, part: Pictures):
  """Refuses shares of the sides, which would be dots in a corner."""
  ends = [one.boxes.max() for one in part.annotations if len(one.boxes)]
  if ends and max(ends) <= _SHARES:
    raise DataError(
      f"{name}: all {part.num_boxes} boxes of a split end within the first"
      f" {_SHARES} pixels of their images, as shares of the sides would: give"
      " pixels"
    )


class Box(NamedTuple):
  """A box as a file has it.

  Attributes:
    box: (y1, x1, y2, x2) in pixels.
    label: number of its class.
    crowd: see `Annotation`.
    area: in pixels; None: that of the box.
  """

  box: tuple[float, float, float, float]
  label: int
  crowd: bool
  area: float | None = None


def annotation(
  name: str, key, side, objects: Iterable[Box], dropped
) -> Annotation:
  """The objects that can be used.

  Args:
    name, key, side: see `Annotation`.
    dropped: a Counter of the other objects by reason, and of those that were
      cut at the border; for `Pictures.of`.

  Raises:
    DataError: for an image without a size.
  """
  height, width = side
  if not (height > 0 and width > 0):
    raise DataError(f"{name} is {height}x{width} by its annotation: mend it")
  kept = []
  for one in objects:
    y1, x1, y2, x2 = one.box
    if not np.isfinite(one.box).all() or y2 <= y1 or x2 <= x1:
      dropped["without area"] += 1
      continue
    box = (max(y1, 0.0), max(x1, 0.0), min(y2, height), min(x2, width))
    if box[2] <= box[0] or box[3] <= box[1]:
      dropped["outside of their image"] += 1
      continue
    if np.abs(np.subtract(box, one.box)).max() > _ROUNDING:
      dropped[_CUT] += 1
    area = one.area
    if area is None:
      area = (box[2] - box[0]) * (box[3] - box[1])
    kept.append(Box(box, one.label, one.crowd, area))
  return Annotation(
    name,
    key,
    (int(height), int(width)),
    np.array([one.box for one in kept], np.float32).reshape(-1, 4),
    np.array([one.label for one in kept], np.int32),
    np.array([one.crowd for one in kept], bool),
    np.array([one.area for one in kept], np.float32),
  )


# Files: where they lie, which are missing, how large their images are.


def folder(data_dir, path) -> pathlib.Path:
  """The folder of a set.

  Args:
    data_dir: what `path` is relative to, or None.
    path: of the folder; None: `data_dir` itself.

  Raises:
    DataError: if it is not there.
  """
  if path is None and data_dir is None:
    raise DataError("there is nothing to open: set data_dir or path")
  top = places.joined(data_dir, path)
  if not top.is_dir():
    raise DataError(f"{top} is no folder: unpack it, or give another path")
  return top


class Finder:
  """Finds the pictures that annotations name.

  Each folder is listed once: a file server answers that sooner than a question
  for every file.
  """

  def __init__(self, folders: Sequence[pathlib.Path]):
    """folders: where pictures may lie, the likeliest first."""
    self._folders = [one for one in folders if one.is_dir()]
    self._listed: dict[pathlib.Path, dict[str, str]] = {}

  def named(self, name: str) -> pathlib.Path | None:
    """The file of this name, or of its last part where it was written on
    another machine; None: there is none."""
    name = name.strip()
    last = re.split(r"[/\\]", name)[-1]
    for wanted in dict.fromkeys((name, last)):
      for top in self._folders:
        path = top / wanted
        found = self._names(path.parent).get(_one_form(path.name))
        if wanted and found:
          return path.with_name(found)
    return None

  def like(self, stem: str) -> pathlib.Path | None:
    """A picture of this name with any ending; None: there is none."""
    for top in self._folders:
      path = top / stem
      for form, found in self._names(path.parent).items():
        end = form.rfind(".")
        if form[:end] == _one_form(path.name) and is_picture(found):
          return path.with_name(found)
    return None

  def _names(self, folder: pathlib.Path) -> dict[str, str]:
    """{name in one Unicode form: name on the disk}."""
    if folder not in self._listed:
      try:
        names = os.listdir(folder)
      except OSError:
        names = []
      self._listed[folder] = {_one_form(name): name for name in names}
    return self._listed[folder]


def _one_form(name: str) -> str:
  """macOS writes accents apart from their letters, others do not."""
  return unicodedata.normalize("NFC", name)


def is_picture(name: str) -> bool:
  """Whether a file with this ending is taken for a picture."""
  return pathlib.PurePath(name).suffix.lower() in pixels.endings()


def check_missing(where, missing: Sequence[str], total: int):
  """Raises DataError where pictures are not there, naming the first ten."""
  if missing:
    raise DataError(
      f"{where}: {len(missing)} of {total} pictures are not there"
      f" ({first_ten(missing)}): put them there, or take them out of the"
      " annotations"
    )


def check_once(owners: Sequence, paths: Sequence[pathlib.Path]):
  """Raises DataError where two of the owners mean one picture."""
  first: dict[pathlib.Path, int] = {}
  for i, path in enumerate(paths):
    other = first.setdefault(path, i)
    if other != i:
      raise DataError(
        f"{owners[other]} and {owners[i]} both mean {path}: mend the name of"
        " the picture in one of them, or take it out"
      )


def first_ten(names: Sequence[str]) -> str:
  """The first ten of these, for a message."""
  more = ", ..." if len(names) > 10 else ""
  return ", ".join(map(str, names[:10])) + more


def sides_of(paths: Sequence[pathlib.Path]) -> list[tuple[int, int]]:
  """(height, width) of each picture, upright as a viewer shows it.

  Their headers are read once and kept in the cache.

  Raises:
    DataError: naming the first ten that cannot be read.
  """
  stats = [path.stat() for path in paths]
  files = [
    [str(path), stat.st_size, stat.st_mtime_ns]
    for path, stat in zip(paths, stats, strict=True)
  ]
  table = cache.cached({"sides": files}, lambda: {"side": _read_sides(paths)})
  return [(int(h), int(w)) for h, w in table["side"]]


def _read_sides(paths) -> np.ndarray:
  from PIL import ExifTags, Image

  found, broken = [], []
  for path in paths:
    try:
      with Image.open(path) as image:
        side = image.height, image.width
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
        found.append(side[::-1] if turned else side)
    except Exception:  # Pillow raises a dozen kinds for broken files
      empty = path.stat().st_size == 0
      broken.append(f"{path} (empty)" if empty else str(path))
  if broken:
    raise DataError(
      f"{len(broken)} pictures cannot be read: {first_ten(broken)}: mend them"
      " or take them out"
    )
  return np.array(found, np.int64).reshape(-1, 2)


def divided(keys: Sequence, fraction: float, where) -> tuple[list, list]:
  """(to train on, to test) of a set without splits, the same at every call.

  Raises:
    DataError: for a share that leaves one of them empty.
  """
  count = round(len(keys) * fraction)
  if not 0 < count < len(keys):
    raise DataError(
      f"{where} has no splits and {len(keys)} pictures: a test_fraction of"
      f" {fraction} would test {count} of them; give another share"
    )
  order = np.random.default_rng(0).permutation(len(keys))
  tested = set(order[:count].tolist())
  _log.info(
    "%s has no splits: %d of its %d pictures, chosen at random, are the test",
    where,
    count,
    len(keys),
  )
  return (
    [key for i, key in enumerate(keys) if i not in tested],
    [key for i, key in enumerate(keys) if i in tested],
  )
