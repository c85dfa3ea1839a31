"""What tools other than COCO's and VOC's own write, and what is wrong in it."""

import json
import logging

import numpy as np
import pytest

from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import pictures

CATEGORIES = [{"id": 1, "name": "cell"}, {"id": 7, "name": "dust"}]


def _coco(top, write, images=None, annotations=(), categories=CATEGORIES):
  """A set whose only split is `s`, and whose pictures are a.jpg and b.jpg."""
  (top / "annotations").mkdir(parents=True)
  (top / "s").mkdir()
  for name in ("a.jpg", "b.jpg"):
    (top / "s" / name).write_bytes(write.encoded(20, 30))
  if images is None:
    images = [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate("ab")]
  box = {"id": 1, "image_id": images[0]["id"], "category_id": 1}
  rows = [{**box, "bbox": [1, 2, 3, 4], **more} for more in annotations or [{}]]
  content = {
    "images": [{"height": 20, "width": 30, **image} for image in images],
    "annotations": rows,
    "categories": list(categories),
  }
  file = top / "annotations/instances_s.json"
  file.write_text(json.dumps(content))
  return pictures.load("coco", data_dir=top, train_split="s", test_split="s")


def _boxes(split):
  return [one.boxes.tolist() for one in split.annotations]


@pytest.mark.parametrize(
  ("given", "words"),
  [
    (
      {"images": [{"id": 1, "file_name": n} for n in ("a.jpg", "b.jpg")]},
      "image id 1 is given twice, to a.jpg and b.jpg",
    ),
    (
      {"images": [{"id": i, "file_name": "a.jpg"} for i in (1, 2)]},
      "a.jpg is there twice, as images 1 and 2",
    ),
    (
      {"images": [{"id": i, "file_name": f"{i}/a.jpg"} for i in (1, 2)]},
      "image 1 and .* image 2 both mean .*a.jpg",
    ),
    (
      {"categories": [{"id": 1, "name": n} for n in ("cell", "dust")]},
      "category id 1 is given twice, to 'cell' and 'dust'",
    ),
    (
      {"categories": [{"id": i, "name": "cell"} for i in (1, 2)]},
      "'cell' is the name of categories 1, 2",
    ),
    ({"categories": [{"id": 1}]}, "category 1 has no name"),
    ({"images": [{"id": 4, "file_name": "x.jpg"}]}, "1 of 1 pictures .*x.jpg"),
    ({"images": [{"id": 4}]}, "image 4 has no file_name"),
    (
      {"images": [{"id": 4, "file_name": "a.jpg", "width": "wide"}]},
      "image 4 is 20x'wide'",
    ),
    (
      {"images": [{"id": None, "file_name": "a.jpg"}]},
      "image 'a.jpg' has None as its id",
    ),
    ({"annotations": [{"bbox": [1, 2, 3]}]}, r"annotation 1 \(of a.jpg\) has"),
    ({"annotations": [{"bbox": [1, 2, 3, 4, 5]}]}, "give .x, y, width, height"),
    ({"annotations": [{"bbox": [1, 2, 3, "x"]}]}, "annotation 1"),
    ({"annotations": [{"bbox": [1, 2, 3, float("nan")]}]}, "nan"),
    ({"annotations": [{"bbox": "1234"}]}, "'1234' as its bbox"),
    ({"annotations": [{"iscrowd": "yes"}]}, "iscrowd 'yes'"),
    ({"annotations": [{"area": "big"}]}, "area 'big'"),
    ({"annotations": [{"category_id": 3}]}, "is of category 3"),
  ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path, write, given, words):
  with pytest.raises(DataError, match=words) as error:
    _coco(tmp_path, write, **given)
  assert "instances_s.json" in str(error.value)
  assert "\n" not in str(error.value)


def test_an_empty_box_marks_a_background_picture(tmp_path, write, caplog):
  rows = [{}, {"id": 2, "bbox": []}, {"id": 3, "bbox": None}]
  found = _coco(tmp_path, write, annotations=rows)
  assert _boxes(found.train) == [[[2, 1, 6, 4]], []]
  assert found.train.dropped == {"without a box": 2}
  assert "2 without a box" in caplog.text


def test_ids_that_were_written_as_text_are_the_numbers(tmp_path, write):
  rows = [{"image_id": "1", "category_id": "7"}, {"id": 2, "image_id": 1.0}]
  images = [
    {"id": "1", "file_name": "a.jpg"},
    {"id": "x", "file_name": "b.jpg"},
  ]
  found = _coco(tmp_path, write, images, rows)
  assert [one.key for one in found.train.annotations] == [1, "x"]
  assert found.train.annotations[0].classes.tolist() == [1, 0]


def test_the_same_annotation_twice_counts_once(tmp_path, write):
  rows = [{}, {}, {"bbox": [5, 5, 3, 3]}]
  found = _coco(tmp_path, write, annotations=rows)
  assert len(_boxes(found.train)[0]) == 2
  assert found.train.dropped == {"given twice": 1}


def test_a_crowd_may_be_written_as_text(tmp_path, write):
  rows = [{"iscrowd": "0"}, {"id": 2, "iscrowd": "1"}, {"id": 3}]
  found = _coco(tmp_path, write, annotations=rows)
  assert found.train.annotations[0].crowd.tolist() == [False, True, False]


def test_a_size_that_is_not_given_is_read_from_the_picture(tmp_path, write):
  images = [{"id": 1, "file_name": "C:\\pictures\\a.jpg", "height": 0}]
  found = _coco(tmp_path, write, images)
  (one,) = found.train.annotations
  assert one.side == (20, 30)
  assert found.train.contents.read(0) == write.encoded(20, 30)


@pytest.mark.parametrize(
  ("json_file", "image", "options"),
  [
    ("{}/_annotations.coco.json", "{}/a.jpg", {}),
    ("annotations/instances_{}.json", "images/{}/a.jpg", {}),
    ("{}.json", "pics/a.jpg", {"images": "pics"}),
    ("my {}.json", "images/a.jpg", {"json": "my {}.json"}),
  ],
)
def test_layouts_of_other_tools_are_read(
  tmp_path, write, json_file, image, options
):
  options = dict(options)
  form = options.pop("json", "{}")
  splits = [form.format(name) for name in ("train", "valid")]
  for name in ("train", "valid"):
    for file, content in (
      (image, write.encoded(20, 30)),
      (
        json_file,
        json.dumps(
          {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [
              {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
            ],
            "categories": CATEGORIES,
          }
        ).encode(),
      ),
    ):
      path = tmp_path / file.format(name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
  found = pictures.load(
    "coco",
    data_dir=tmp_path,
    train_split=splits[0],
    test_split=splits[1],
    **options,
  )
  assert _boxes(found.train) == _boxes(found.test) == [[[2, 1, 6, 4]]]


def _xml(filename="", size=(20, 30), name="cell", box=(1, 2, 4, 6)):
  texts = zip(("xmin", "ymin", "xmax", "ymax"), box)
  corners = "".join(f"<{tag}>{n}</{tag}>" for tag, n in texts)
  side = ""
  if size:
    side = f"<size><height>{size[0]}</height><width>{size[1]}</width></size>"
  return (
    f"<annotation>{filename}{side}<object><name>{name}</name><bndbox>{corners}"
    "</bndbox></object></annotation>"
  )


def _voc(top, write, entries, line=None):
  """entries: {key: (XML, name of the picture)}; each key is a split's line."""
  for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
    (top / part).mkdir(parents=True)
  for key, (xml, picture) in entries.items():
    (top / "Annotations" / f"{key}.xml").write_text(xml)
    (top / "JPEGImages" / picture).write_bytes(write.encoded(20, 30))
  text = "\n".join(line or entries)
  (top / "ImageSets/Main/train.txt").write_text(text)
  return pictures.load(
    "voc", data_dir=top, valid_split="", test_split="train"
  ).train


@pytest.mark.parametrize(
  ("key", "filename", "picture"),
  [
    ("b", "<filename>b</filename>", "b.jpg"),
    ("c", r"<filename>C:\pics\old.jpg</filename>", "c.jpg"),
    ("c", "<filename>/Volumes/disk/old.jpg</filename>", "c.jpg"),
    ("d", "<filename>d.jpg</filename>", "d.png"),
    ("f", "", "f.png"),
    ("g", "<filename>\n g.jpg \n</filename>", "g.jpg"),
    ("h", "<filename>other.jpg</filename>", "other.jpg"),
    ("my cat 1", "<filename>my cat 1.jpg</filename>", "my cat 1.jpg"),
    ("e\u0301", "<filename>\u00e9.jpg</filename>", "e\u0301.jpg"),
  ],
)
def test_a_picture_is_found_as_labelimg_names_it(
  tmp_path, write, key, filename, picture
):
  found = _voc(tmp_path, write, {key: (_xml(filename), picture)})
  assert found.contents.read(0) == write.encoded(20, 30)
  assert found.annotations[0].key == key


@pytest.mark.parametrize("size", [(0, 0), None, ("", "")])
def test_a_size_of_zero_or_none_is_read_from_the_picture(tmp_path, write, size):
  found = _voc(tmp_path, write, {"e": (_xml(size=size), "e.jpg")})
  assert found.annotations[0].side == (20, 30)
  assert _boxes(found) == [[[2, 1, 6, 4]]]


def test_only_a_last_word_that_is_a_flag_is_one(tmp_path, write):
  entries = {key: (_xml(), f"{key}.jpg") for key in ("a", "my cat 1", "b 2")}
  lines = ["a -1", "my cat 1", "b 2  1"]
  found = _voc(tmp_path, write, entries, lines)
  assert [one.key for one in found.annotations] == ["a", "my cat 1", "b 2"]


@pytest.mark.parametrize(
  ("entries", "lines", "words"),
  [
    ({"a": (_xml(), "b.jpg")}, None, r"1 of 1 pictures .*a\.xml"),
    ({"a": (_xml(), "a.jpg")}, ["a", "b"], r"b\.xml is not there"),
    ({"a": (_xml(box=(1, 2, "x", 4)), "a.jpg")}, None, "<xmax> is 'x'"),
    ({"a": (_xml(box=(1, 2, "nan", 4)), "a.jpg")}, None, "<xmax> is 'nan'"),
    ({"a": (_xml(name=" "), "a.jpg")}, None, "has no <name>"),
    ({"a": ("<annotation>", "a.jpg")}, None, "is no XML"),
    (
      {k: (_xml("<filename>a.jpg</filename>"), "a.jpg") for k in "ab"},
      None,
      r"a\.xml and .*b\.xml both mean .*a\.jpg",
    ),
  ],
)
def test_a_wrong_xml_file_is_named(tmp_path, write, entries, lines, words):
  with pytest.raises(DataError, match=words):
    _voc(tmp_path, write, entries, lines)


def test_a_folder_of_labelimg_is_divided_the_same_at_every_call(
  tmp_path, write, caplog
):
  for i in range(10):
    (tmp_path / f"{i}.xml").write_text(_xml())
    (tmp_path / f"{i}.png").write_bytes(write.encoded(20, 30))
  caplog.set_level(logging.INFO)
  found, again = (pictures.load("voc", data_dir=tmp_path) for _ in range(2))
  assert found.train.num_images == 8 and found.test.num_images == 2
  keys = {
    one.key for one in (*found.train.annotations, *found.test.annotations)
  }
  assert len(keys) == 10 and found.fingerprint == again.fingerprint
  assert "2 of its 10 pictures" in caplog.text


def test_a_folder_for_each_split_is_read(tmp_path, write):
  for name in ("train", "valid", "test"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.xml").write_text(_xml())
    (tmp_path / name / "a.png").write_bytes(write.encoded(20, 30))
  found = pictures.load("voc", data_dir=tmp_path)
  parts = (found.train, found.valid, found.test)
  paths = [part.contents.paths[0] for part in parts]
  names = ("train", "valid", "test")
  assert paths == [str(tmp_path / name / "a.png") for name in names]


def _yolo(
  top, write, layout="images/{}", labels="labels/{}", yaml=None, **texts
):
  """A picture per split, called as it; texts: its lines by split."""
  for split in ("train", "val", "test"):
    place = top / layout.format(split)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{split}.jpg").write_bytes(write.encoded(20, 40))
    file = top / labels.format(split)
    file.mkdir(parents=True, exist_ok=True)
    text = texts.get(split, "1 0.5 0.5 0.5 0.2\n")
    if text is not None:
      (file / f"{split}.txt").write_text(text)
  if yaml is None:
    yaml = "names: [cell, dust]\nnc: 2\n"
  (top / "data.yaml").write_text(yaml)
  return pictures.load("yolo", data_dir=top)


def test_shares_of_yolo_become_corners(tmp_path, write):
  outline = "0 0.25 0.5 0.5 0.75 0.75 0.5\n\n"
  found = _yolo(tmp_path, write, val=outline, test="")
  assert found.class_names == ("cell", "dust")
  np.testing.assert_allclose(_boxes(found.train), [[[8, 10, 12, 30]]])
  np.testing.assert_allclose(_boxes(found.valid), [[[10, 10, 15, 30]]])
  assert _boxes(found.test) == [[]]
  assert found.train.annotations[0].classes.tolist() == [1]
  assert found.valid.annotations[0].classes.tolist() == [0]


@pytest.mark.parametrize(
  ("layout", "labels", "yaml"),
  [
    ("{}/images", "{}/labels", "train: ../train/images\nval: ../val/images\n"),
    ("{}", "{}", ""),
    ("images/{}", "labels/{}", "path: ../elsewhere\ntrain: images/train\n"),
    ("images/{}", "labels/{}", "train: [images/train]\ntest: list.txt\n"),
  ],
)
def test_layouts_of_yolo_are_read(tmp_path, write, layout, labels, yaml):
  (tmp_path / "list.txt").write_text("./images/test/test.jpg\n")
  names = "names: {0: cell, 1: dust}\n"
  found = _yolo(tmp_path, write, layout, labels, names + yaml)
  paths = [
    part.contents.paths[0].rpartition("/")[2]
    for part in (found.train, found.valid, found.test)
  ]
  assert paths == ["train.jpg", "val.jpg", "test.jpg"]
  assert all(part.num_boxes == 1 for part in (found.train, found.test))


def test_a_picture_without_a_text_file_is_background_and_said(
  tmp_path, write, caplog
):
  found = _yolo(tmp_path, write)
  extra = tmp_path / "images/train/extra.png"
  extra.write_bytes(write.encoded(8, 8))
  found = pictures.load("yolo", data_dir=tmp_path)
  assert found.train.num_images == 2 and found.train.num_boxes == 1
  assert "1 of 2 pictures have no text file" in caplog.text


@pytest.mark.parametrize(
  ("text", "yaml", "words"),
  [
    ("2 0.5 0.5 0.5 0.5", None, r"train\.txt, line 1: class 2, .* 0 to 1"),
    ("0 0.5 0.5 0.5", None, "line 1 has 4 numbers"),
    ("\n0 0.5 0.5 a 0.5", None, "line 2: .* are no numbers"),
    ("0 100 80 30 20", None, "are no shares"),
    (None, "names: [a, a]\n", "'a' is the name of two classes"),
    (None, "names: [a, b]\nnc: 3\n", "nc is 3 and there are 2 names"),
    (None, "nc: 2\n", "does not say what the classes are called"),
    (None, "names: [a\n", "is no YAML"),
    (None, "names: [a, b]\ntrain: nowhere\n", "'nowhere', which is not there"),
  ],
)
def test_a_wrong_file_of_yolo_is_named(tmp_path, write, text, yaml, words):
  texts = {} if text is None else {"train": text}
  with pytest.raises(DataError, match=words) as error:
    _yolo(tmp_path, write, yaml=yaml, **texts)
  assert "\n" not in str(error.value)


def test_without_a_test_split_yolos_val_is_the_test(tmp_path, write, caplog):
  yaml = "names: [cell, dust]\ntrain: images/train\nval: images/val\n"
  _yolo(tmp_path, write, yaml=yaml)
  found = pictures.load("yolo", data_dir=tmp_path, test_split="none")
  assert found.valid.num_images == 0
  assert found.test.contents.paths[0].endswith("val.jpg")
  assert "'val' is the test" in caplog.text
