"""More epochs in the same folder, where that is defined."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from nasnet_jax.jobs import longer, results, train
from nasnet_jax.training import recipes, workdir

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = recipes.Recipe(
  epochs=6, schedule="constant", drop_path_keep=1.0, batch_size=10
)


@pytest.mark.parametrize(
  ("fields", "old", "words"),
  [
    ({}, 4, ""),
    ({}, 8, "what was trained is not taken back"),
    ({"schedule": "cosine"}, 4, "the schedule 'cosine' follows the number of"),
    ({"schedule": "exponential", "warmup_epochs": 2.0}, 4, ""),
    ({"drop_path_keep": 0.8}, 4, "the drop_path_version 'both' follows"),
    ({"drop_path_keep": 0.8, "drop_path_version": "layer"}, 4, ""),
    ({"report_epochs": 3.0}, 4, "its last point lies between two of"),
    ({"report_epochs": 2.0}, 4, ""),
  ],
)
def test_more_epochs_are_refused_where_they_would_be_another_training(
  tmp_path, fields, old, words
):
  recipe = dataclasses.replace(RECIPE, **fields)
  why = longer.why_not(tmp_path, recipe, old, 100)
  assert why.startswith(words) and bool(why) == bool(words)


def test_a_training_that_was_stopped_early_has_an_end(tmp_path):
  (tmp_path / "result.json").write_text("{}")
  lines = "".join(json.dumps({"epoch": e}) + "\n" for e in (1.0, 2.0, 3.0))
  (tmp_path / "retrain.jsonl").write_text(lines)
  assert longer.why_not(tmp_path, RECIPE, 3, 100) == ""
  assert longer.why_not(tmp_path, RECIPE, 4, 100) == (
    "early stopping ended it after epoch 3"
  )


def _config(epochs):
  path = ROOT / "configs" / "train_cifar.py"
  spec = importlib.util.spec_from_file_location("train_cifar", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny")
  config.train.schedule, config.train.drop_path_keep = "exponential", 1.0
  config.train.decay_factor, config.train.decay_epochs = 0.5, 1.0
  config.train.epochs = epochs
  return config


def _curve(folder):
  lines = (folder / "retrain.jsonl").read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


@pytest.mark.slow
def test_two_epochs_and_two_more_are_four(tmp_path, caplog):
  whole, raised = tmp_path / "whole", tmp_path / "raised"
  train.run(_config(4), whole)
  train.run(_config(2), raised)
  train.run(_config(4), raised)
  assert _curve(raised) == _curve(whole)
  trees = [results.load(folder).variables for folder in (raised, whole)]
  jax.tree.map(np.testing.assert_array_equal, *trees)
  assert len(_curve_of_before(raised)) == 2
  # Of a run that kept none, it is repeated: to the same end.
  old = tmp_path / "old"
  train.run(_config(2), old)
  shutil.rmtree(old / "checkpoints")
  train.run(_config(4), old)
  assert "kept no checkpoint" in caplog.text
  assert _curve(old) == _curve(whole)


def _curve_of_before(folder):
  return (folder / "retrain.1.jsonl").read_text().splitlines()


def test_fewer_epochs_or_another_schedule_say_why_in_a_line(tmp_path):
  parts = type("P", (), {"recipe": RECIPE})
  parts.images = type("S", (), {"train": type("T", (), {"num_images": 100})})
  claim = longer.claim
  claim(tmp_path, {"train": {"epochs": 8, "seed": 0}}, parts, ())
  with pytest.raises(workdir.WorkdirError) as error:
    claim(tmp_path, {"train": {"epochs": 6, "seed": 0}}, parts, ())
  assert "train.epochs was 8 and is now 6 (what was trained is not" in str(
    error.value
  )
  assert "\n" not in str(error.value)
  with pytest.raises(workdir.WorkdirError, match=r"train\.seed was 0"):
    claim(tmp_path, {"train": {"epochs": 8, "seed": 1}}, parts, ())
