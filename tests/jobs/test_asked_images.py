"""Arrays that a network is asked about: as those it was trained on, or not."""

import pathlib

import numpy as np
import pytest

from nasnet_jax.api import models
from nasnet_jax.data import arrays, augment
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import results


@pytest.mark.parametrize(
  "ask",
  [
    lambda network, images: results.Trained(*network).predict(images),
    lambda network, images: models.Model(*network).preprocess(images),
  ],
)
@pytest.mark.parametrize(
  ("shape", "words"),
  [
    # The whitening of three channels would make three of one.
    ((2, 8, 8, 1), "have 1 channel.*trained on 3$"),
    ((2, 3, 8, 8), r"trained on 3; these look like \[N, C, H, W\]"),
    ((2, 8, 8, 4), "have 4 channel"),
  ],
)
def test_images_of_other_channels_are_refused(ask, shape, words):
  data = {"image_shape": [8, 8, 3]}
  aug = augment.Augmentation(mean=(0.5,) * 3, std=(0.5,) * 3)
  network = (None, {}, aug, {"data": data}, pathlib.Path("run"))
  with pytest.raises((DataError, ValueError), match=words):
    ask(network, np.zeros(shape, np.uint8))


def test_another_side_than_that_of_the_training_is_told_once(caplog):
  trained = {"image_shape": [8, 12, 3], "load": {}}
  arrays.check_fit("images", (2, 8, 12, 3), trained)
  arrays.check_fit("images", (2, 64, 48, 3), {"image_shape": [8, 12, 3]})
  assert not caplog.records  # weights of elsewhere are asked at any side
  for _ in range(2):
    arrays.check_fit("images", (2, 9, 12, 3), trained)
  (line,) = caplog.records
  assert "are 9x12 (height x width) and the network was trained on 8x12" in (
    line.getMessage()
  )
