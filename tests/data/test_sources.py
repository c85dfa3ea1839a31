"""Sources by name; digits."""

import numpy as np
import pytest

from nasnet_jax import data
from nasnet_jax.data.image_data import DataError


@pytest.mark.smoke
def test_digits_are_1500_and_297_real_images_of_ten_classes():
  digits = data.load("digits")
  assert digits.train_images.shape == (1500, 8, 8, 1)
  assert digits.test_images.shape == (297, 8, 8, 1)
  assert digits.image_shape == (8, 8, 1)
  assert digits.num_classes == 10
  assert digits.train_images.dtype == np.uint8
  assert digits.train_images.max() == 255
  # The same pixels and the same split on every version of everything.
  assert digits.fingerprint == "4f0976da4782cc32"


def test_digits_are_scaled_from_sixteenths_by_rounding():
  from sklearn import datasets

  raw = datasets.load_digits()
  digits = data.load("digits")
  ours = np.concatenate([digits.train_images, digits.test_images])[..., 0]
  expected = np.rint(raw.images * 255 / 16)
  assert sorted(x.tobytes() for x in ours) == sorted(
    x.astype(np.uint8).tobytes() for x in expected
  )


def test_digits_test_split_is_stratified_and_follows_the_seed():
  first, second = data.load("digits"), data.load("digits", seed=1)
  counts = np.bincount(first.test_labels)
  assert counts.max() - counts.min() <= 2
  assert first.fingerprint != second.fingerprint
  assert len(data.load("digits", num_test=100).test_labels) == 100


@pytest.mark.parametrize(
  "source, options, said",
  [
    ("cifar", {}, "did you mean 'cifar10'"),
    ("cigits", {}, "did you mean 'digits'"),
    ("digits", {"num_tests": 3}, "did you mean 'num_test'"),
    ("folder", {"img_size": 3}, "did you mean 'image_size'"),
    ("digits", {"max_per_clas": 3}, "did you mean 'max_per_class'"),
  ],
)
def test_a_misspelt_source_or_option_names_the_nearest(source, options, said):
  with pytest.raises(DataError, match=said):
    data.load(source, **options)
