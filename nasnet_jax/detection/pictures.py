"""Pictures with boxes that stay on disk: COCO JSON, VOC XML, sets of tfds.

What is opened here holds every box and knows where each encoded image lies;
`detection.stream` reads, decodes and scales it, in other processes. Boxes
without area and boxes outside of their image are dropped and counted, those
that reach over its border are clipped.
"""

import collections
import hashlib
import inspect
import io
import json
import logging
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from nasnet_jax.data import cache, image_data, tfds_source
from nasnet_jax.data.image_data import DataError

_log = logging.getLogger(__name__)


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
  """

  annotations: tuple[Annotation, ...]
  contents: Contents
  dropped: dict[str, int]

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


def load(source: str, *, data_dir=None, **options) -> Splits:
  """Opens a source.

  Args:
    source: a key of `SOURCES`.
    data_dir: where files lie.
    **options: the source's own.

  Raises:
    DataError: one line that names the fix.
  """
  if source not in SOURCES:
    hint = image_data.nearest(source, SOURCES)
    raise DataError(f"no source of boxes {source!r}: {hint}")
  opener = SOURCES[source]
  parameters = inspect.signature(opener).parameters.values()
  known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
  for option in options:
    if option not in known:
      raise DataError(
        f"boxes of {source!r} have no option {option!r}:"
        f" {image_data.nearest(option, known)}"
      )
  if data_dir is not None:
    data_dir = pathlib.Path(data_dir).expanduser()
  found = opener(data_dir, **options)
  for split in (found.train, found.valid, found.test):
    if split.dropped:
      words = ", ".join(f"{n} {why}" for why, n in split.dropped.items())
      _log.warning("%s: dropped %s", found.name, words)
  return found


def _splits(parts, class_names, category_ids, name: str, note: str) -> Splits:
  """The set of (train, valid, test), looked over."""
  train, _, test = parts
  if not train.num_images or not test.num_images:
    raise DataError(f"{name}: there are no images to train on, or none to test")
  if not train.num_boxes:
    raise DataError(f"{name}: no training image has a box")
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


class _Object(NamedTuple):
  """A box as a file has it. area: None: the box's own."""

  box: tuple[float, float, float, float]
  label: int
  crowd: bool
  area: float | None = None


def _annotation(
  name: str, key, side, objects: Iterable[_Object], dropped
) -> Annotation:
  """The objects that can be used. dropped: a Counter of the others."""
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
    area = one.area
    if area is None:
      area = (box[2] - box[0]) * (box[3] - box[1])
    kept.append(_Object(box, one.label, one.crowd, area))
  return Annotation(
    name,
    key,
    (int(height), int(width)),
    np.array([one.box for one in kept], np.float32).reshape(-1, 4),
    np.array([one.label for one in kept], np.int32),
    np.array([one.crowd for one in kept], bool),
    np.array([one.area for one in kept], np.float32),
  )


# COCO


def open_coco(
  data_dir=None,
  *,
  path: str | None = None,
  train_split: str = "train2017",
  valid_split: str = "",
  test_split: str = "val2017",
  note: str = "",
) -> Splits:
  """COCO's layout: annotations/instances_<split>.json, <split>/<image>.

  Args:
    data_dir: what `path` is relative to.
    path: folder with both; None: `data_dir` itself.
    train_split, valid_split, test_split: their names; "": none.
    note: see `Splits`.

  Raises:
    DataError: for missing or damaged files, in one line.
  """
  top = _folder(data_dir, path)
  names = [train_split, valid_split, test_split]
  data = [_coco_json(top, name) if name else None for name in names]
  first = _found(top, train_split, _categories, data[0])
  for name, content in zip(names, data):
    if content and _found(top, name, _categories, content) != first:
      raise DataError(
        f"{top}: {name} and {train_split} have other categories: give splits of"
        " one set"
      )
  number = {key: i for i, key in enumerate(first)}
  parts = [
    _found(top, name, _coco_pictures, content, top / name, number)
    if content
    else _nothing()
    for name, content in zip(names, data)
  ]
  ids = tuple(first)
  return _splits(parts, tuple(first.values()), ids, f"coco {top.name}", note)


def _folder(data_dir, path) -> pathlib.Path:
  if path is None and data_dir is None:
    raise DataError("there is nothing to open: set data_dir or path")
  # A path of its own stands by itself; joining leaves an absolute one alone.
  top = pathlib.Path(data_dir or "", pathlib.Path(path or "").expanduser())
  if not top.is_dir():
    raise DataError(f"{top} is no folder: unpack it, or give another path")
  return top


def _nothing() -> Pictures:
  return Pictures((), Files(()), {})


def _coco_json(top: pathlib.Path, split: str) -> dict[str, Any]:
  path = top / "annotations" / f"instances_{split}.json"
  try:
    return json.loads(path.read_bytes())
  except OSError as error:
    raise DataError(
      f"{path} cannot be read ({error.strerror}): give the folder that holds"
      " annotations/, or the name of a split that is there"
    ) from None
  except ValueError as error:
    raise DataError(f"{path} is no JSON ({error}): copy it again") from None


def _found(top, split: str, function: Callable, *arguments):
  """function(*arguments), its stumbles over a file said in a line."""
  try:
    return function(*arguments)
  except (KeyError, TypeError, AttributeError, IndexError) as error:
    raise DataError(
      f"annotations of {split} in {top} are not as COCO has them"
      f" ({type(error).__name__}: {error}): mend them"
    ) from error


def _categories(data: dict[str, Any]) -> dict[int, str]:
  """{id: name}, by id."""
  names = {entry["id"]: entry["name"] for entry in data["categories"]}
  return dict(sorted(names.items()))


def _coco_pictures(data, images: pathlib.Path, number) -> Pictures:
  objects = collections.defaultdict(list)
  for entry in data["annotations"]:
    x, y, width, height = map(float, entry["bbox"])
    if entry["category_id"] not in number:
      raise DataError(
        f"{images}: annotation {entry['id']} is of category"
        f" {entry['category_id']}, which the file does not know: mend it"
      )
    objects[entry["image_id"]].append(
      _Object(
        (y, x, y + height, x + width),
        number[entry["category_id"]],
        bool(entry.get("iscrowd", 0)),
        entry.get("area"),
      )
    )
  dropped: collections.Counter = collections.Counter()
  annotations, paths = [], []
  for entry in data["images"]:
    path = images / entry["file_name"]
    found = objects.pop(entry["id"], [])
    side = entry["height"], entry["width"]
    annotations.append(
      _annotation(str(path), entry["id"], side, found, dropped)
    )
    paths.append(str(path))
  if objects:
    raise DataError(
      f"{images}: image {next(iter(objects))} has boxes, and is not among the"
      " images of the file: mend it"
    )
  return Pictures(tuple(annotations), Files(tuple(paths)), dict(dropped))


# VOC


def open_voc(
  data_dir=None,
  *,
  path: str | None = None,
  train_split: str = "train",
  valid_split: str = "val",
  test_split: str = "test",
  class_names: tuple[str, ...] | None = None,
  note: str = "",
) -> Splits:
  """Pascal VOC's layout: Annotations/, ImageSets/Main/<split>.txt, JPEGImages/.

  Corners are taken as they stand, as the TF Object Detection API does, though
  VOC's own count pixels from 1 and include the last one.

  Args:
    data_dir: what `path` is relative to.
    path: folder with the three; None: `data_dir` itself.
    train_split, valid_split, test_split: their names; "": none.
    class_names: in the order of the classes; None: those that occur, by name.
    note: see `Splits`.

  Raises:
    DataError: for missing or damaged files, in one line.
  """
  top = _folder(data_dir, path)
  keys = [_voc_keys(top, s) for s in (train_split, valid_split, test_split)]
  trees = [[(key, _voc_tree(top, key)) for key in part] for part in keys]
  names = class_names or sorted(
    {
      _text(one, "name", top)
      for part in trees
      for _, tree in part
      for one in tree.iter("object")
    }
  )
  number = {name: i for i, name in enumerate(names)}
  parts = [_voc_pictures(top, part, number) for part in trees]
  ids = range(1, len(names) + 1)
  return _splits(parts, tuple(names), ids, f"voc {top.name}", note)


def _voc_keys(top: pathlib.Path, split: str) -> list[str]:
  if not split:
    return []
  path = top / "ImageSets" / "Main" / f"{split}.txt"
  try:
    lines = path.read_text().splitlines()
  except OSError as error:
    raise DataError(
      f"{path} cannot be read ({error.strerror}): give the folder that holds"
      " ImageSets/, or the name of a split that is there"
    ) from None
  return [line.split()[0] for line in lines if line.strip()]


def _voc_tree(top: pathlib.Path, key: str):
  path = top / "Annotations" / f"{key}.xml"
  try:
    return ElementTree.parse(path).getroot()
  except OSError as error:
    raise DataError(f"{path} cannot be read ({error.strerror})") from None
  except ElementTree.ParseError as error:
    raise DataError(f"{path} is no XML ({error}): copy it again") from None


def _text(node, name: str, path) -> str:
  found = node.findtext(name)
  if found is None:
    raise DataError(f"{path}: <{node.tag}> has no <{name}>: mend it")
  return found.strip()


def _number(node, name: str, path) -> float:
  text = _text(node, name, path)
  try:
    return float(text)
  except ValueError:
    raise DataError(f"{path}: <{name}> is {text!r}, no number") from None


def _voc_pictures(top: pathlib.Path, trees, number) -> Pictures:
  dropped: collections.Counter = collections.Counter()
  annotations, paths = [], []
  for key, tree in trees:
    xml = top / "Annotations" / f"{key}.xml"
    image = top / "JPEGImages" / (tree.findtext("filename") or f"{key}.jpg")
    size = tree.find("size")
    if size is None:
      raise DataError(f"{xml} has no <size>: mend it")
    side = [int(_number(size, name, xml)) for name in ("height", "width")]
    objects = [_voc_object(one, number, xml) for one in tree.iter("object")]
    annotations.append(_annotation(str(image), key, side, objects, dropped))
    paths.append(str(image))
  return Pictures(tuple(annotations), Files(tuple(paths)), dict(dropped))


def _voc_object(node, number, xml) -> _Object:
  name = _text(node, "name", xml)
  if name not in number:
    raise DataError(f"{xml}: class {name!r} is not one of: {', '.join(number)}")
  box = node.find("bndbox")
  if box is None:
    raise DataError(f"{xml}: an object has no <bndbox>: mend it")
  corners = ("ymin", "xmin", "ymax", "xmax")
  difficult = node.findtext("difficult", "0").strip() == "1"
  return _Object(
    tuple(_number(box, corner, xml) for corner in corners),
    number[name],
    difficult,
  )


# TensorFlow Datasets


class TfdsContents:
  """Encoded images of a prepared set. Opened again where it is unpickled."""

  def __init__(self, name: str, split: str, data_dir):
    self._place = name, split, data_dir
    self.rows = tfds_source.open_rows(*self._place)[0]

  def __getstate__(self):
    return self._place

  def __setstate__(self, place):
    self.__init__(*place)

  def read(self, index: int) -> bytes:
    return self.rows[index]["image"]


def open_tfds(
  data_dir=None,
  *,
  name: str = "coco/2017",
  train_split: str = "train",
  valid_split: str = "",
  test_split: str = "validation",
  note: str = "",
) -> Splits:
  """A detection set of TensorFlow Datasets with COCO's features.

  Its rows do not say how large their images are: all are read once, which
  takes minutes for COCO, and is kept in the cache.

  Args:
    data_dir: where tfds keeps its sets; None: ~/tensorflow_datasets.
    name: as tfds has it.
    train_split, valid_split, test_split: as tfds has them, slices too.
    note: see `Splits`.

  Raises:
    DataError: as `data.tfds_source.load_tfds`.
  """
  names = (train_split, valid_split, test_split)
  parts = [
    _tfds_pictures(name, s, data_dir) if s else _nothing() for s in names
  ]
  _, class_names = tfds_source.open_rows(name, train_split, data_dir)
  # COCO's own numbers have gaps, which tfds has closed.
  ids = range(1, len(class_names) + 1)
  return _splits(parts, class_names, ids, f"tfds {name}", note)


def _tfds_pictures(name: str, split: str, data_dir) -> Pictures:
  contents = TfdsContents(name, split, data_dir)
  key = {"detection": name, "split": split, "dir": str(data_dir)}
  table = cache.cached(
    key | {"rows": len(contents.rows)}, lambda: _scan(contents.rows)
  )
  ends = np.cumsum(table["count"])
  dropped: collections.Counter = collections.Counter()
  annotations = []
  for i, (end, count) in enumerate(zip(ends, table["count"])):
    side = tuple(table["side"][i].tolist())
    part = slice(end - count, end)
    objects = [
      _Object(tuple(box), int(label), bool(crowd), float(area))
      for box, label, crowd, area in zip(
        table["boxes"][part] * np.tile(side, 2),
        table["label"][part],
        table["crowd"][part],
        table["area"][part],
      )
    ]
    image = f"{name} {split} image {i}"
    image_id = int(table["id"][i])
    annotations.append(_annotation(image, image_id, side, objects, dropped))
  return Pictures(tuple(annotations), contents, dict(dropped))


def _scan(rows) -> dict[str, np.ndarray]:
  """All of the rows but the pixels."""
  from PIL import Image

  found = collections.defaultdict(list)
  for row in rows:
    with Image.open(io.BytesIO(row["image"])) as image:
      found["side"].append((image.height, image.width))
    objects = row["objects"]
    found["id"].append(row["image/id"])
    found["count"].append(len(objects["label"]))
    found["boxes"].append(np.reshape(objects["bbox"], (-1, 4)))
    found["label"].append(objects["label"])
    found["crowd"].append(objects["is_crowd"])
    found["area"].append(objects["area"])
  table = {k: np.array(found[k], np.int64) for k in ("side", "id", "count")}
  for k in ("boxes", "label", "crowd", "area"):
    table[k] = np.concatenate(found[k]).astype(np.float64)
  return table


SOURCES = {"coco": open_coco, "voc": open_voc, "tfds": open_tfds}
