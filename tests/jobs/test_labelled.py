"""Answers to a folder of labelled pictures: classes, counts, words."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nasnet_jax import zoo
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import labelled

SEVEN = [f"class {i}" for i in range(7)]


def _folders(top, *names, count=1):
  for number, name in enumerate(names):
    (top / name).mkdir(parents=True)
    for i in range(count):
      picture = Image.new("L", (8, 8), 20 * number + i)
      picture.save(top / name / f"{i}.png")
  return top


def _classes(top, names):
  found = labelled.match(top, names)
  return dict(zip([f.name for f in found.folders], found.classes)), found.how


def test_folders_are_matched_by_name_also_of_some_classes_only(tmp_path):
  _folders(tmp_path, "b", "a", ".hidden")
  assert _classes(tmp_path, ["c", "b", "a"]) == ({"a": 2, "b": 1}, "by name")


def test_folders_of_imagenet_are_matched_by_synset(tmp_path):
  _folders(tmp_path, "n07920052", "n01440764_tench")
  found, how = _classes(tmp_path, zoo.imagenet.names())
  assert found == {"n01440764_tench": 0, "n07920052": 967}
  assert how == "by synset"
  with pytest.raises(DataError, match="2 folders"):  # not a network of ImageNet
    labelled.match(tmp_path, SEVEN)


def test_unknown_names_are_matched_by_order_if_there_are_as_many(tmp_path):
  _folders(tmp_path, "dog", "cat")
  found, how = _classes(tmp_path, ["0", "1"])
  assert found == {"cat": 0, "dog": 1}
  assert how == "by sorted order, cat is taken for 0 and so on"


def test_a_folders_name_may_be_in_either_form_of_unicode(tmp_path):
  _folders(tmp_path, "A\u0308pfel", "b")
  found, how = _classes(tmp_path, ["b", "c", "\u00c4pfel"])
  assert sorted(found.values()) == [0, 2] and how == "by name"


def test_pictures_beside_the_class_folders_are_said(tmp_path, caplog):
  _folders(tmp_path, "a", "b")
  Image.new("L", (8, 8)).save(tmp_path / "loose.png")
  labelled.match(tmp_path, ["a", "b"])
  assert "left out: 1 image(s) in no class folder (loose.png)" in caplog.text


@pytest.mark.parametrize(
  ("folders", "names", "words"),
  [
    (
      ("a", "x"),
      ["a", "b"],
      "not classes of the network: 'x'; it has 'a', 'b'",
    ),
    (("n01440764", "x"), zoo.imagenet.names(), "'x'; it has 'tench', 'goldf"),
    (("x", "y"), SEVEN, "has 2 folders, 'x', 'y', and the network 7 classes"),
    (("test", "train"), ["a", "b"], "splits and no classes in it: give one"),
    ((), ["a", "b"], "has no folders in it"),
    (("a",), ["a", "a"], "two classes of one name"),
  ],
)
def test_what_cannot_be_matched_is_one_clear_line(
  tmp_path, folders, names, words
):
  _folders(tmp_path, *folders)
  with pytest.raises(DataError, match=words) as error:
    labelled.match(tmp_path, names)
  assert "\n" not in str(error.value)
  with pytest.raises(DataError, match="is not there: give a folder"):
    labelled.match(tmp_path / "none", names)


class _Network:
  """Answers a picture by its grey: class grey // 20, and 0 for 21; then come
  the classes nearest to it."""

  def __init__(self, names):
    shape = [8, 8, 1]
    self.result = {"data": {"classes": list(names), "image_shape": shape}}
    self._count = len(names)

  def predict(self, images):
    grey = images[:, 0, 0, 0]
    answer = jnp.where(grey == 21, 0, grey // 20)
    far = jnp.arange(self._count) - answer.astype(jnp.float32)[:, None]
    return -abs(far)


def _answered(top, names):
  """Three pictures each of classes 0 to 2, and of the last, which is painted
  as the fourth."""
  _folders(top, *names[:3], names[-1], count=3)
  matched = labelled.match(top, names)
  return labelled.score(_Network(names), matched, batch_size=5)


def test_a_class_whose_images_are_all_broken_is_named(tmp_path):
  _folders(tmp_path, *SEVEN[:2])
  (tmp_path / SEVEN[1] / "0.png").write_bytes(b"no picture")
  matched = labelled.match(tmp_path, SEVEN)
  with pytest.raises(DataError, match=r"none of the images in .*class 1 can"):
    labelled.score(_Network(SEVEN), matched, broken=[])


def test_answers_are_counted_and_said(tmp_path):
  found = _answered(tmp_path, SEVEN)
  wanted = np.zeros((4, 7), int)
  wanted[0, 0] = wanted[2, 2] = wanted[3, 3] = 3
  wanted[1, :2] = 1, 2
  np.testing.assert_array_equal(found.confusion, wanted)
  assert found.classes == (0, 1, 2, 6)
  np.testing.assert_allclose(found.by_class, [1, 2 / 3, 1, 0])
  assert labelled.lines(found) == [
    "top 1: 0.6667 (8 of 12)",
    "top 5: 0.7500 (9 of 12)",  # 6 is not among 3, 2, 4, 1, 5
    "mean accuracy per class 0.6667:",
    "  1.0000  class 0 (3 of 3)",
    "  0.6667  class 1 (2 of 3)",
    "  1.0000  class 2 (3 of 3)",
    "  0.0000  class 6 (0 of 3)",
    "what pictures are, by row, and the answers:",
    "                1       2       3       4  others",
    "1 class 0       3       0       0       0       0",
    "2 class 1       1       2       0       0       0",
    "3 class 2       0       0       3       0       0",
    "4 class 6       0       0       0       0       3",
  ]


def test_of_four_classes_there_is_no_first_five(tmp_path):
  found = _answered(tmp_path, ["a", "b", "c", "d"])
  assert found.top_5 is None
  words = "\n".join(labelled.lines(found))
  assert "top 5" not in words and "others" not in words
  assert found.right.tolist() == [3, 2, 3, 3]


def test_of_many_classes_the_worst_are_said(tmp_path, monkeypatch):
  monkeypatch.setattr(labelled, "FEW", 2)
  assert labelled.lines(_answered(tmp_path, SEVEN))[2:] == [
    "mean accuracy per class 0.6667, the lowest 2:",
    "  0.0000  class 6 (0 of 3)",
    "  0.6667  class 1 (2 of 3)",
    "wrong most often:",
    "  3 of 3 class 6: class 3",
    "  1 of 3 class 1: class 0",
  ]


def test_answers_are_written_as_csv_and_json(tmp_path):
  found = _answered(tmp_path / "in", SEVEN)
  labelled.write(found, tmp_path / "out" / "a.csv")
  with (tmp_path / "out" / "a.csv").open() as file:
    head, *rows = csv.reader(file)
  assert head == ["", *SEVEN]
  assert [row[0] for row in rows] == [*SEVEN[:3], SEVEN[6]]
  np.testing.assert_array_equal(
    [[int(n) for n in row[1:]] for row in rows], found.confusion
  )
  labelled.write(found, tmp_path / "out" / "a.json")
  content = json.loads((tmp_path / "out" / "a.json").read_text())
  assert (content["correct"], content["examples"], content["top_5"]) == (
    8,
    12,
    9,
  )
  assert content["confusion"] == found.confusion.tolist()
  with pytest.raises(ValueError, match=r"neither a \.csv nor a"):
    labelled.check_out("a.txt")
