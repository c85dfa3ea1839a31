"""Values that fit their field and not the images."""

import pytest
from ml_collections import ConfigDict

from nasnet_jax.data import photographs
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import user_checks


def _apart(images, folder, source="folder"):
  fields = {
    "source": source,
    "data_dir": None,
    "options": {"path": str(images)},
  }
  user_checks.apart(ConfigDict(fields), folder)


def test_a_run_does_not_begin_among_its_images(tmp_path):
  images, run = tmp_path / "images", tmp_path / "images/runs/a"
  run.mkdir(parents=True)
  for folder in (images, run):
    with pytest.raises(DataError, match=r"lies in the folder of its images"):
      _apart(images, folder)
  _apart(images, tmp_path / "run")
  _apart(run, images)  # the images in the run's folder are no trouble
  _apart(images, run, source="digits")
  (run / "config.json").write_text("{}")  # it has begun
  _apart(images, run)


@pytest.mark.parametrize("name", ["pad", "cutout"])
def test_augmentation_leaves_something_of_each_image(name):
  user_checks.augmentation({name: 8}, (8, 12, 3))
  with pytest.raises(DataError, match=f"{name} is 10, and images have 8"):
    user_checks.augmentation({name: 10}, (8, 12, 3))


@pytest.mark.parametrize(
  ("name", "values", "words"),
  [
    ("mean", (0.5, 0.5), "images have 3"),
    ("mean", (123.7, 116.3, 103.5), "give numbers of 0..1"),
    ("std", (58.4,), "give numbers of 0..1"),
  ],
)
def test_whitening_is_of_the_images_channels_and_of_shares(name, values, words):
  user_checks.augmentation({name: (0.5,)}, (8, 8, 3))
  user_checks.augmentation({name: (0.1, 0.2, 0.3)}, (8, 8, 3))
  with pytest.raises(DataError, match=words):
    user_checks.augmentation({name: values}, (8, 8, 3))


def test_photographs_that_are_scaled_up_are_told(caplog):
  found = photographs.load("fake", num_images=9, width=50, height=40)
  user_checks.tell_small(found.train, 40)
  assert not caplog.records
  user_checks.tell_small(found.train, 64)
  assert "9 of 9 photographs looked at have shorter sides below 64" in (
    caplog.text
  )
