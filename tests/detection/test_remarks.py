"""What is said of sets with boxes, and refused, before anything is trained."""

import json
import logging

import pytest

from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import pictures


def _coco(top, write, boxes, test_split="val2017", names=("cell",)):
  """Splits of two pictures, 20 high and 30 wide; each has all of the boxes."""
  for split in ("train2017", "val2017"):
    (top / split).mkdir(parents=True)
    for i in range(2):
      (top / split / f"{i}.png").write_bytes(write.encoded(20, 30))
    content = {
      "images": [{"id": i, "file_name": f"{i}.png"} for i in range(2)],
      "annotations": [
        {"image_id": i, "category_id": 1, "bbox": box}
        for i in range(2)
        for box in boxes
      ],
      "categories": [{"id": i, "name": n} for i, n in enumerate(names, 1)],
    }
    (top / f"{split}.json").write_text(json.dumps(content))
  return pictures.load("coco", data_dir=top, test_split=test_split)


def _voc(top, write, box="<xmin>{}</xmin><xmax>{}</xmax>", x=(3, 20)):
  for i in range(4):
    (top / f"{i}.png").write_bytes(write.encoded(20, 30))
    (top / f"{i}.xml").write_text(
      f"<annotation><filename>{i}.png</filename><object><name>a</name><bndbox>"
      f"{box.format(*x)}<ymin>{x[0]}</ymin><ymax>{x[1]}</ymax></bndbox>"
      "</object></annotation>"
    )
  return pictures.load("voc", data_dir=top)


def _yolo(top, write, line="0 0.5 0.5 0.2 0.2", yaml=""):
  for split in ("train", "val", "test"):
    for part in ("images", "labels"):
      (top / part / split).mkdir(parents=True)
    (top / f"images/{split}/{split}.png").write_bytes(write.encoded(20, 40))
    (top / f"labels/{split}/{split}.txt").write_text(f"{line}\r\n")
  (top / "data.yaml").write_text(f"names: [a, b]\n{yaml}")
  return top


def test_corners_given_as_cocos_boxes_are_refused(tmp_path, write):
  with pytest.raises(DataError, match=r"train2017\.json: 4 .*x1, y1, x2, y2"):
    _coco(tmp_path, write, [[10, 8, 25, 18], [16, 2, 29, 19]])


def test_a_box_that_could_be_no_corners_clears_the_others(tmp_path, write):
  found = _coco(
    tmp_path, write, [[10, 8, 25, 18], [16, 2, 29, 19], [9, 9, 4, 4]]
  )
  assert found.train.num_boxes == 6


@pytest.mark.parametrize(
  "load",
  [
    lambda top, write: _coco(top, write, [[0.2, 0.3, 0.5, 0.4]]),
    lambda top, write: _voc(top, write, x=(0.2, 0.9)),
  ],
)
def test_shares_where_pixels_belong_are_refused(tmp_path, write, load):
  with pytest.raises(DataError, match="as shares of the sides would"):
    load(tmp_path, write)


def test_a_box_cut_at_the_border_is_said(tmp_path, write, caplog):
  found = _coco(tmp_path, write, [[20, 15, 30, 5], [2, 2, 28.9, 4]])
  assert found.train.cut == 2  # the second is a rounding's
  assert "2 of 4 boxes reach over the border" in caplog.text


def test_a_reason_is_given_where_no_box_counts(tmp_path, write):
  with pytest.raises(DataError, match="that counts: 3 are without area"):
    _voc(tmp_path, write, x=(20, 3))


def test_pictures_to_test_that_were_trained_on_are_said(
  tmp_path, write, caplog
):
  _coco(tmp_path, write, [[1, 2, 3, 4]], test_split="train2017")
  assert "2 of 2 test pictures are training pictures too" in caplog.text


def test_classes_that_differ_by_case_are_said(tmp_path, write, caplog):
  _coco(tmp_path, write, [[1, 2, 3, 4]], names=("Cell", "cell"))
  assert "Cell, cell are different classes" in caplog.text


def test_pictures_that_no_file_annotates_are_said(tmp_path, write, caplog):
  (tmp_path / "more.png").write_bytes(write.encoded(20, 30))
  (tmp_path / "phone.heic").write_bytes(b"x")
  _voc(tmp_path, write)
  said = "left out: 1 picture(s) that the splits do not name (more.png)"
  assert said in caplog.text
  assert "left out: 1 .heic" in caplog.text


def test_boxes_without_a_picture_are_said(tmp_path, write, caplog):
  top = _yolo(tmp_path, write)
  (top / "labels/train/gone.txt").write_text("1 0.5 0.5 0.1 0.1\n")
  (top / "labels/train/readme.txt").write_text("made by hand\n")
  pictures.load("yolo", data_dir=top)
  assert "1 text file(s) with boxes whose pictures" in caplog.text
  assert "gone.txt" in caplog.text and "readme.txt" not in caplog.text


def test_keypoints_are_not_taken_for_an_outline(tmp_path, write, caplog):
  line = "0 0.5 0.5 0.2 0.2 0.1 0.1 0.9 0.9"
  top = _yolo(tmp_path, write, line, "kpt_shape: [2, 2]\n")
  (one,) = pictures.load("yolo", data_dir=top).train.annotations
  assert one.boxes.tolist() == [pytest.approx([8, 16, 12, 24])]
  assert "keypoints are left out" in caplog.text


def test_a_split_of_yolo_that_is_not_there_is_said(tmp_path, write, caplog):
  top = _yolo(tmp_path, write)
  with pytest.raises(DataError, match="no split 'trian': set train_split"):
    pictures.load("yolo", data_dir=top, train_split="trian")
  pictures.load("yolo", data_dir=top, valid_split="vla")
  assert "no split 'vla': nothing is left to validate on" in caplog.text


def test_a_set_of_which_everything_is_used_says_nothing(
  tmp_path, write, caplog
):
  caplog.set_level(logging.WARNING)
  _coco(tmp_path / "c", write, [[1, 2, 3, 4]])
  (tmp_path / "v").mkdir()
  _voc(tmp_path / "v", write)
  pictures.load("yolo", data_dir=_yolo(tmp_path / "y", write))
  assert not caplog.records
