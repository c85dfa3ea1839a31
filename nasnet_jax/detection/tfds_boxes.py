"""Detection sets of TensorFlow Datasets."""

import collections
import io

import numpy as np

from nasnet_jax.data import cache, tfds_source
from nasnet_jax.detection.annotations import (
  Box,
  Pictures,
  Splits,
  annotation,
  nothing,
  splits,
)


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
  parts = [_tfds_pictures(name, s, data_dir) if s else nothing() for s in names]
  _, class_names = tfds_source.open_rows(name, train_split, data_dir)
  # COCO's own numbers have gaps, which tfds has closed.
  ids = range(1, len(class_names) + 1)
  return splits(parts, class_names, ids, f"tfds {name}", note)


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
      Box(tuple(box), int(label), bool(crowd), float(area))
      for box, label, crowd, area in zip(
        table["boxes"][part] * np.tile(side, 2),
        table["label"][part],
        table["crowd"][part],
        table["area"][part],
      )
    ]
    image = f"{name} {split} image {i}"
    image_id = int(table["id"][i])
    annotations.append(annotation(image, image_id, side, objects, dropped))
  return Pictures.of(annotations, contents, dropped)


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
