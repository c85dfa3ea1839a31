"""Seeded splits, smaller sets, and the checks that all data passes."""

import subprocess
import sys

import numpy as np
import pytest

from nasnet_jax import data
from nasnet_jax.data import image_data
from nasnet_jax.data.image_data import DataError, ImageData


def small(**changes) -> ImageData:
  """12 + 4 images of 2x3x1 in two classes."""
  result = ImageData(
    train_images=np.arange(72, dtype=np.uint8).reshape(12, 2, 3, 1),
    train_labels=np.arange(12) % 2,
    test_images=np.zeros((4, 2, 3, 1), np.uint8),
    test_labels=np.array([0, 1, 0, 1]),
    class_names=("a", "b"),
    name="small",
  )
  return result._replace(**changes)


@pytest.mark.smoke
def test_importing_data_imports_no_heavy_package():
  code = (
    "import sys, nasnet_jax.data; heavy = {'jax', 'tensorflow', 'sklearn',"
    " 'PIL', 'tensorflow_datasets'} & set(sys.modules); assert not heavy, heavy"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.smoke
def test_split_gives_the_same_indices_on_every_version():
  train, valid = data.split(np.zeros(50_000), 5_000, seed=0)
  assert valid[:6].tolist() == [2, 3, 11, 13, 20, 48]
  assert len(train) == 45_000 and len(valid) == 5_000
  train, valid = data.split(np.zeros(10), 3, seed=1)
  assert valid.tolist() == [2, 4, 9]


def test_split_divides_all_examples_and_depends_on_the_seed():
  train, valid = data.split(np.zeros(100), 20, seed=3)
  assert sorted([*train, *valid]) == list(range(100))
  other = data.split(np.zeros(100), 20, seed=4)[1]
  assert set(other) != set(valid)


def test_split_is_random_and_not_stratified():
  labels = np.arange(50_000) % 10
  _, valid = data.split(labels, 5_000, seed=0)
  counts = np.bincount(labels[valid])
  assert len(set(counts)) > 1
  assert abs(counts - 500).max() < 100


@pytest.mark.parametrize("num_valid", [0, 10, 11, -1])
def test_split_that_leaves_nothing_is_refused(num_valid):
  with pytest.raises(DataError, match="ask for 1 to 9"):
    data.split(np.zeros(10), num_valid, seed=0)


def test_stratified_split_takes_the_same_share_of_each_class():
  labels = np.repeat([0, 1, 2], [50, 30, 20])
  train, test = data.stratified_split(labels, 10, seed=0)
  assert np.bincount(labels[test]).tolist() == [5, 3, 2]
  assert sorted([*train, *test]) == list(range(100))
  assert test.tolist() != data.stratified_split(labels, 10, 1)[1].tolist()


@pytest.mark.parametrize("num_test", range(1, 14))
def test_stratified_split_keeps_a_training_image_of_each_class(num_test):
  labels = np.repeat([0, 1, 2, 4], [1, 2, 5, 9])
  train, test = data.stratified_split(labels, num_test, seed=0)
  assert len(test) == num_test
  assert set(labels[train]) == {0, 1, 2, 4}


def test_stratified_split_of_too_few_images_says_how_many_it_can_give():
  with pytest.raises(DataError, match="ask for 1 to 2"):
    data.stratified_split([0, 0, 1, 1], 3, seed=0)


def test_classes_that_get_no_test_image_are_told(caplog):
  labels = np.repeat([0, 1, 2], 8)
  image_data.set_aside("small", labels, 0.2, 0)
  assert not caplog.records
  image_data.set_aside("small", labels, 0.05, 0)
  assert "small: 2 of 3 classes have no test image" in caplog.text


def test_fraction_keeps_that_share_of_each_class_in_both_splits():
  full = data.load("digits")
  part = data.load("digits", fraction=0.5)
  for labels in ("train_labels", "test_labels"):
    before = np.bincount(getattr(full, labels))
    np.testing.assert_array_equal(
      np.bincount(getattr(part, labels)), np.rint(before / 2)
    )
  assert part.fingerprint != full.fingerprint
  assert "part of the images" in part.note


def test_a_larger_fraction_holds_every_smaller_one():
  rows = [
    {x.tobytes() for x in data.load("digits", fraction=f).train_images}
    for f in (0.1, 0.3)
  ]
  assert rows[0] < rows[1]


def test_max_per_class_is_a_maximum():
  part = data.load("digits", max_per_class=40)
  assert np.bincount(part.train_labels).tolist() == [40] * 10
  assert np.bincount(part.test_labels).max() <= 31


def test_a_limit_that_leaves_all_images_there_says_nothing_of_them():
  assert image_data.limit(small(), 1.0, 100, seed=0).note == ""
  assert "part of" in image_data.limit(small(), 1.0, 3, seed=0).note


@pytest.mark.parametrize(
  "options, said",
  [
    ({"fraction": 0}, "fraction is 0"),
    ({"fraction": 1.5}, "fraction is 1.5"),
    ({"fraction": 0.001}, "leaves nothing of"),
    ({"max_per_class": 0}, "give 1 or more"),
  ],
)
def test_shares_that_leave_nothing_are_refused(options, said):
  with pytest.raises(DataError, match=said):
    data.load("digits", **options)


def test_fingerprint_changes_with_any_image_label_or_class_name():
  first = image_data.checked(small())
  assert first.fingerprint == image_data.checked(small()).fingerprint
  pixels = small().test_images.copy()
  pixels[0, 0, 0] = 1
  others = [
    small(test_images=pixels),
    small(train_labels=1 - np.arange(12) % 2),
    small(class_names=("a", "c")),
  ]
  prints = {image_data.checked(other).fingerprint for other in others}
  assert len(prints | {first.fingerprint}) == 4
  assert image_data.checked(small(name="b")).fingerprint == first.fingerprint


def test_pixels_of_zero_to_one_that_were_cast_are_told(caplog):
  image_data.checked(small())
  assert not caplog.records
  image_data.checked(small(train_images=small().train_images % 2))
  assert "multiply them by 255 first" in caplog.text


def test_checked_labels_are_int32():
  checked = image_data.checked(
    small(train_labels=np.arange(12, dtype="u1") % 2)
  )
  assert checked.train_labels.dtype == checked.test_labels.dtype == np.int32


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"train_labels": np.arange(12) % 3}, "train set has label 2 at image 2"),
    ({"test_labels": np.array([0, 1, -1, 0])}, "test set has label -1"),
    ({"train_labels": np.zeros(12, int)}, r"class 'b' \(label 1\) has no"),
    ({"train_labels": np.zeros(11, int)}, "12 images but 11 labels"),
    ({"train_labels": np.zeros(12)}, "labels float64"),
    ({"class_names": ("a",), "train_labels": np.zeros(12, int)}, "label 1"),
    (
      {
        "class_names": ("a",),
        "train_labels": np.zeros(12, int),
        "test_labels": np.zeros(4, int),
      },
      "only one class, 'a'",
    ),
    ({"test_images": np.zeros((4, 2, 2, 1), np.uint8)}, "one size"),
    ({"test_images": np.zeros((4, 2, 3, 1))}, "test set is float64"),
    ({"test_images": np.zeros((4, 2, 3), np.uint8)}, "must be uint8"),
    (
      {
        "test_images": np.zeros((0, 2, 3, 1), np.uint8),
        "test_labels": np.zeros(0, int),
      },
      "no images",
    ),
  ],
)
def test_data_that_training_would_trip_over_is_refused_in_one_line(
  changes, said
):
  with pytest.raises(DataError, match=said) as caught:
    image_data.checked(small(**changes))
  assert "\n" not in str(caught.value)
