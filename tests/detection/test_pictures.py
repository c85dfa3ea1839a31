"""COCO JSON, VOC XML and tfds: what becomes of boxes and files."""

import pickle

import numpy as np
import pytest

from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import pictures, tfds_boxes

_XML = """<annotation><filename>{name}.png</filename>
<size><width>{w}</width><height>{h}</height><depth>3</depth></size>
{objects}</annotation>"""
_OBJECT = """<object><name>{0}</name><difficult>{1}</difficult><bndbox>
<xmin>{2}</xmin><ymin>{3}</ymin><xmax>{4}</xmax><ymax>{5}</ymax></bndbox>
</object>"""


def _voc(folder, write, splits):
  for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
    (folder / part).mkdir(parents=True)
  for split, images in splits.items():
    lines = []
    for number, (h, w, objects) in enumerate(images):
      name = f"{split}_{number}"
      (folder / f"JPEGImages/{name}.png").write_bytes(write.encoded(h, w))
      words = "".join(_OBJECT.format(*one) for one in objects)
      text = _XML.format(name=name, h=h, w=w, objects=words)
      (folder / f"Annotations/{name}.xml").write_text(text)
      lines.append(name)
    (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(lines))
  return folder


def _image(write, h, w, *boxes, **more):
  return write.encoded(h, w), (h, w), [{"bbox": b, **more} for b in boxes]


def test_coco_boxes_become_corners(tmp_path, write):
  train = [
    _image(write, 20, 30, (2, 3, 10, 5), category_id=7, area=41, iscrowd=1),
    _image(write, 20, 30),
  ]
  test = [_image(write, 8, 8, (1, 1, 2, 2))]
  folder = write.coco(tmp_path / "c", {"train2017": train, "val2017": test})
  found = pictures.load("coco", data_dir=folder)
  one, empty = found.train.annotations
  assert one.boxes.tolist() == [[3, 2, 8, 12]]
  assert one.classes.tolist() == [1] and one.crowd.tolist() == [True]
  assert one.areas.tolist() == [41] and one.side == (20, 30)
  assert one.key == 100 and empty.boxes.shape == (0, 4)
  assert found.class_names == ("cell", "dust")
  assert found.category_ids == (1, 7)
  assert found.valid.num_images == 0
  assert found.train.contents.read(0) == train[0][0]


def test_boxes_without_area_or_outside_are_dropped_and_counted(tmp_path, write):
  boxes = [
    (0, 0, 4, 4),
    (5, 5, 0, 3),
    (5, 5, 3, -1),
    (40, 0, 9, 9),
    (-9, 2, 5, 5),
    (-3, 15, 6, 60),
  ]
  images = [_image(write, 20, 30, *boxes)]
  folder = write.coco(tmp_path / "c", {"train2017": images, "val2017": images})
  found = pictures.load("coco", data_dir=folder).train
  assert found.dropped == {"without area": 2, "outside of their image": 2}
  (one,) = found.annotations
  # The last one is clipped, and has COCO's own area still.
  assert one.boxes.tolist() == [[0, 0, 4, 4], [15, 0, 20, 3]]
  assert one.areas.tolist() == [16, 360]


def test_voc_corners_are_taken_as_they_stand(tmp_path, write):
  objects = [("wheel", 0, 1, 2, 11, 8), ("car", 1, 0, 0, 30, 20)]
  splits = {
    "train": [(20, 30, objects), (20, 30, [])],
    "val": [],
    "test": [(9, 9, [])],
  }
  found = pictures.load("voc", data_dir=_voc(tmp_path / "v", write, splits))
  one, empty = found.train.annotations
  assert found.class_names == ("car", "wheel")
  assert one.boxes.tolist() == [[2, 1, 8, 11], [0, 0, 20, 30]]
  assert one.classes.tolist() == [1, 0]
  assert one.crowd.tolist() == [False, True]  # difficult
  assert one.key == "train_0" and len(empty.boxes) == 0
  assert found.train.contents.read(1) == write.encoded(20, 30)


def test_a_tfds_set_is_read_like_cocos_files(tmp_path, write):
  rows = [
    (write.encoded(20, 40), 17, [((0.25, 0.5, 0.75, 1.0), 1, True, 33)]),
    (write.encoded(10, 20), 5, []),
    (
      write.encoded(10, 20),
      6,
      [((0, 0, 0.5, 0.5), 0, False, 9), ((0.5, 0.5, 1, 0.5), 0, False, 0)],
    ),
  ]
  splits = {"train": rows, "validation": rows[:1]}
  write.tfds(tmp_path / "t", "boxed", splits, ("dog", "cat"))
  found = pictures.load("tfds", data_dir=tmp_path / "t", name="boxed")
  first, second, third = found.train.annotations
  assert first.boxes.tolist() == [[5, 20, 15, 40]] and first.key == 17
  assert first.classes.tolist() == [1] and first.crowd.tolist() == [True]
  assert first.side == (20, 40) and first.areas.tolist() == [33]
  assert len(second.boxes) == 0 and third.boxes.tolist() == [[0, 0, 5, 10]]
  assert found.train.dropped == {"without area": 1}
  assert found.class_names == ("dog", "cat") and found.test.num_images == 1
  again = pickle.loads(pickle.dumps(found.train.contents))
  assert again.read(1) == rows[1][0]


def test_what_tfds_images_measure_is_read_once(tmp_path, write, monkeypatch):
  row = (write.encoded(9, 9), 1, [((0, 0, 1, 1), 0, False, 81)])
  splits = {"train": [row], "validation": [row]}
  write.tfds(tmp_path / "t", "boxed", splits, ("dog",))
  first = pictures.load("tfds", data_dir=tmp_path / "t", name="boxed")
  monkeypatch.setattr(tfds_boxes, "_scan", None)
  again = pictures.load("tfds", data_dir=tmp_path / "t", name="boxed")
  assert again.fingerprint == first.fingerprint


def test_the_fingerprint_sees_a_moved_box(tmp_path, write):
  prints = set()
  for number in range(2):
    images = [_image(write, 20, 30, (number, 0, 4, 4))]
    folder = write.coco(
      tmp_path / str(number), {"train2017": images, "val2017": images}
    )
    prints.add(pictures.load("coco", data_dir=folder).fingerprint)
  assert len(prints) == 2


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"source": "cocoa"}, "did you mean 'coco'"),
    (
      {"train_split": "train2014"},
      "has no annotations/instances_train2014.json",
    ),
    ({"spilt": "x"}, "no option 'spilt'"),
    ({"path": "nowhere"}, "is no folder"),
  ],
)
def test_a_wrong_source_is_said_in_a_line(tmp_path, write, options, words):
  images = [_image(write, 9, 9, (0, 0, 4, 4))]
  folder = write.coco(tmp_path / "c", {"train2017": images, "val2017": images})
  options = {"source": "coco", "data_dir": folder} | options
  with pytest.raises(DataError, match=words) as error:
    pictures.load(**options)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"category_id": 3}, "is of category 3"),
    ({"image_id": 9}, "image 9 has boxes"),
    ({"image_id": None}, "has None as its image_id"),
  ],
)
def test_annotations_that_fit_nothing_are_named(tmp_path, write, fields, words):
  images = [_image(write, 9, 9, (0, 0, 4, 4), **fields)]
  folder = write.coco(tmp_path / "c", {"train2017": images, "val2017": images})
  with pytest.raises(DataError, match=words):
    pictures.load("coco", data_dir=folder)


def test_real_coco_loads(coco):
  found = pictures.load("coco", data_dir=coco)
  assert (found.train.num_images, found.train.num_boxes) == (50, 470)
  assert (found.test.num_images, found.test.num_boxes) == (50, 382)
  assert len(found.class_names) == 80 and max(found.category_ids) == 90
  crowds = sum(one.crowd.sum() for one in found.train.annotations)
  assert crowds == 5
  assert sum(not len(one.boxes) for one in found.test.annotations) == 2


def test_real_voc_loads(bccd):
  found = pictures.load("voc", data_dir=bccd)
  sizes = [part.num_images for part in (found.train, found.valid, found.test)]
  assert sizes == [205, 87, 72]
  parts = (found.train, found.valid, found.test)
  assert sum(part.num_boxes for part in parts) == 4888 - 2
  assert found.train.dropped == {"without area": 1}  # BloodImage_00338
  assert found.class_names == ("Platelets", "RBC", "WBC")
  for one in found.train.annotations:
    assert (one.boxes >= 0).all()
    assert (one.boxes[:, 2:] <= np.array(one.side)).all()
