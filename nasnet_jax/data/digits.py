"""Digits: scikit-learn's real 8x8 images, in its wheel; needs no download."""

import numpy as np

from nasnet_jax.data import image_data
from nasnet_jax.data.image_data import DataError, ImageData


def load_digits(
  data_dir=None, *, num_test: int = 297, seed: int = 0
) -> ImageData:
  """1,797 handwritten digits, uint8[N, 8, 8, 1], ten classes.

  The set is the test part of UCI's "Optical Recognition of Handwritten
  Digits", grey values 0..16, here spread to 0..255. It has no split of its
  own: a seeded one, stratified, sets `num_test` aside.

  Args:
    data_dir: unused.

  Raises:
    DataError: without scikit-learn.
  """
  del data_dir
  try:
    from sklearn import datasets
  except ImportError:
    raise DataError(
      "digits come with scikit-learn: pip install scikit-learn"
    ) from None
  raw = datasets.load_digits()
  images = np.rint(raw.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = raw.target.astype(np.int32)
  train, test = image_data.stratified_split(labels, num_test, seed)
  return ImageData(
    images[train],
    labels[train],
    images[test],
    labels[test],
    tuple(str(digit) for digit in range(10)),
    name="digits",
  )
