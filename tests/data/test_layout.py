"""Which folders are splits and which are classes, by their names alone."""

from pathlib import PurePosixPath

import pytest

from nasnet_jax.data import layout
from nasnet_jax.data.image_data import DataError


def names(*folders: str, count=2) -> list[PurePosixPath]:
  return [PurePosixPath(f, f"{i}.png") for f in folders for i in range(count)]


def in_classes(*tops: str) -> list[PurePosixPath]:
  return names(*(f"{top}/{label}" for top in tops for label in "ab"))


def sorted_out(found):
  result = layout.sort_out("set", found)
  counts = {}
  for part in result.parts:
    counts[part] = counts.get(part, 0) + 1
  return result.class_names, counts, result.remarks


BOTH = {(s, c): 2 for s in ("train", "test") for c in "ab"}


@pytest.mark.parametrize(
  "tops",
  [
    ("train", "test"),
    ("Training", "TEST"),
    ("train", "valid"),
    ("train", "validation"),
    ("training_set", "test_set"),
    ("trainset", "testset"),
    ("TrainImages", "TestImages"),
    ("train_images", "test_images"),
    ("images-train", "images-val"),
    ("seg_train", "seg_test"),
    ("train2017", "val2017"),
    ("birds_train", "birds_test"),
    ("train", "eval"),
    ("all/train", "all/test"),
    ("seg_train/seg_train", "seg_test/seg_test"),
    ("train/train/train", "test"),
  ],
)
def test_any_usual_spelling_of_splits_is_one(tops):
  assert sorted_out(in_classes(*tops))[:2] == (["a", "b"], BOTH)


def test_what_is_no_plain_name_of_a_split_is_told():
  assert sorted_out(in_classes("train", "test"))[2] == []
  (line,) = sorted_out(in_classes("seg_train", "seg_test"))[2]
  assert line == "taken for splits: seg_test (test), seg_train (train)"


@pytest.mark.parametrize(
  ("found", "words"),
  [
    (
      in_classes("train", "test") + names("images to test"),
      "beside test/ and train/ lies 'images to test': take it out",
    ),
    (
      in_classes("train", "valid", "test", "extra"),
      "lies 'extra'",
    ),
    (
      in_classes("train", "test", "x/train", "x/test"),
      "lies 'x', which holds test/ and train/ again: a second copy",
    ),
    (in_classes("seg_train", "seg_test", "seg_pred"), "lies 'seg_pred'"),
    (in_classes("train", "more"), "beside train/ lies 'more'"),
    (in_classes("train") + names("sorted out"), "lies 'sorted out'"),
    (names("train", "test"), "test/0.png|train/0.png.* in no class folder"),
    (names("train", "test1"), "lies in no class folder.*labels"),
    (
      in_classes("one/train", "one/test", "two/train", "two/test"),
      "lie inside of 'one' and beside it lies 'two': set path",
    ),
    (names("cat/train", "cat/test", "dog/train", "dog/test"), "inside of"),
    (names("a", "b", "s/a", "s/b"), "folder s holds a/ and b/ again"),
    (
      in_classes("train", "train/s", "test"),
      "folder train/s holds a/ and b/ again",
    ),
    (in_classes("train") + names("test/c"), "class 'c' has test images but no"),
    (
      in_classes("train") + names("test/A"),
      "'A' has test images but no training image \\(there is 'a'\\)",
    ),
    ([PurePosixPath("0.png"), *names("a", "b")], "image 0.png lies in no"),
  ],
)
def test_what_could_mean_two_things_is_refused_by_name(found, words):
  with pytest.raises(DataError, match=words) as error:
    layout.sort_out("set", found)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "found",
  [
    names("bus", "car", "train"),
    names("bus/old", "car", "train/steam"),
    names("all/bus", "all/car", "all/train"),
    names("test tube", "flask"),
    names("validity", "trainer", "a"),
    names("eval", "b"),
  ],
)
def test_a_class_may_be_called_like_a_split(found):
  classes, counts, remarks = sorted_out(found)
  assert {split for split, _ in counts} == {"train"} and remarks == []
  assert sum(counts.values()) == len(found) and len(classes) >= 2


def test_classes_without_test_images_are_told():
  found = in_classes("train") + names("test/a")
  (line,) = sorted_out(found)[2]
  assert "no test image of class b" in line


def test_two_folders_of_one_class_are_told():
  found = names("cafe\u0301", "caf\u00e9", "b")
  classes, _, (line,) = sorted_out(found)
  assert classes == ["b", "caf\u00e9"] and "for one class" in line


def test_classes_that_differ_by_case_are_told():
  (line,) = sorted_out(names("Cat", "cat", "dog"))[2]
  assert line == "Cat, cat are different classes"
