"""How a job divides its images, and what it says of small sets."""

import json
import logging
import pathlib
import runpy

import ml_collections
import numpy as np
import pytest

from nasnet_jax.data import image_data
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import job_config, train

COUNTS = (400, 30, 12, 1)


@pytest.fixture
def fields(tmp_path, monkeypatch):
  """config.data of an uneven set; the split of this seed loses a class."""
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))
  labels = np.repeat(np.arange(4), COUNTS)
  images = np.zeros((len(labels), 4, 4, 1), np.uint8)
  np.savez(
    tmp_path / "set.npz",
    x_train=images,
    y_train=labels,
    x_test=images[::9],
    y_test=labels[::9],
    class_names=["many", "some", "few", "one"],
  )
  return ml_collections.ConfigDict(
    {
      "source": "folder",
      "data_dir": None,
      "fraction": 1.0,
      "max_per_class": None,
      "seed": _losing_seed(labels),
      "num_valid": 40,
      "options": {"path": str(tmp_path / "set.npz")},
    }
  )


def _losing_seed(labels) -> int:
  for seed in range(99):
    _, valid = image_data.split(labels, 40, seed)
    if len(set(labels[valid])) < 3:
      return seed
  raise AssertionError


def test_no_class_is_missing_from_training_or_validation(fields, caplog):
  found = job_config.load_images(fields, {"train.batch_size": 8})
  assert found.split == image_data.STRATIFIED
  assert set(found.valid.labels) == {0, 1, 2}
  assert set(found.train.labels) == {0, 1, 2, 3}
  assert (found.valid.num_images, found.train.num_images) == (40, 403)
  assert "no validation image of class one" in caplog.text


def test_a_run_that_began_with_a_plain_split_keeps_it(fields, tmp_path):
  def known():
    return job_config.split_of(job_config.known_config(tmp_path))

  assert known() is None
  (tmp_path / "config.json").write_text("{}")  # as older versions leave it
  old = known()
  found = job_config.load_images(fields, {}, old)
  labels = np.repeat(np.arange(4), COUNTS)
  train, _ = image_data.split(labels, 40, fields.seed)
  np.testing.assert_array_equal(found.train.labels, labels[train])
  assert job_config.recorded_split(found) == {}
  new = job_config.load_images(fields, {})
  said = json.dumps(job_config.recorded_split(new))
  (tmp_path / "config.json").write_text(said)
  assert known() == image_data.STRATIFIED


def test_a_split_that_loses_no_class_is_the_plain_one(fields):
  labels = np.arange(90) % 3
  for seed in range(20):
    plain = image_data.split(labels, 30, seed)
    found = image_data.validation_split(labels, 30, seed)
    assert found[2] == image_data.PLAIN
    np.testing.assert_array_equal(found[0], plain[0])


@pytest.mark.parametrize("seed", range(30))
def test_every_class_of_two_images_is_in_both_parts(seed):
  rng = np.random.default_rng(seed)
  counts = rng.integers(2, 40, rng.integers(2, 8))
  labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
  wanted = int(rng.integers(len(counts), len(labels) - len(counts) + 1))
  train, valid, _ = image_data.validation_split(labels, wanted, seed)
  assert sorted([*train, *valid]) == list(range(len(labels)))
  assert len(valid) == wanted
  assert set(labels[train]) == set(labels[valid]) == set(range(len(counts)))


def test_a_batch_larger_than_the_set_names_its_field(fields):
  with pytest.raises(DataError, match=r"403 images are fewer than .* of 1600"):
    job_config.load_images(fields, (1600,))
  with pytest.raises(DataError, match=r"set child\.batch_size to at most 403"):
    job_config.load_images(fields, {"child.batch_size": 1600})
  fields.num_valid = 443
  with pytest.raises(DataError, match=r"data\.num_valid"):
    job_config.load_images(fields, {})


def test_averages_that_cannot_follow_are_told_with_a_value_that_can(caplog):
  def told(steps, decay):
    caplog.clear()
    job_config.tell_slow_statistics(steps, decay, "network.bn_decay")
    return caplog.text

  assert told(16_667, 0.9997) == "" and told(50, 0.9) == ""
  words = told(160, 0.9997)
  assert "network.bn_decay is 0.9997, and there are 160 steps" in words
  assert "set network.bn_decay to 0.937 or lower" in words
  assert told(160, 0.937) == ""
  assert "train for more steps" in told(8, 0.9)


def test_what_a_share_leaves_out_is_told(fields, caplog):
  fields.max_per_class = 20
  with caplog.at_level(logging.INFO):
    found = job_config.load_images(fields, {})
  assert "390 training and" in caplog.text
  assert "data.max_per_class 20" in caplog.text
  assert found.train.num_images + found.valid.num_images == 53


def test_only_a_classifier_on_weights_that_were_learnt_is_trained(fields):
  path = pathlib.Path(__file__).parents[2] / "configs/train_cifar.py"
  config = runpy.run_path(str(path))["get_config"]("tiny")
  config.data.update({**fields, "num_valid": 0})
  config.train.batch_size = 8
  config.train.freeze = True
  with pytest.raises(ValueError, match=r"train\.freeze .*model\.checkpoint"):
    train.prepare(config)
