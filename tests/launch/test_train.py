"""Whole trainings, as a user starts them."""

import importlib.util
import io
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from nasnet_jax.costs import counting
from nasnet_jax.jobs import job_config, results, resumable, train
from nasnet_jax.models import stacked
from nasnet_jax.training import checkpoint, recipes

ROOT = pathlib.Path(__file__).parents[2]

TINY = "--config=configs/train_cifar.py:tiny"


@pytest.fixture(scope="module")
def flags(cells):
  return TINY, f"--config.model.genotype={cells}"


@pytest.fixture(scope="module")
def run(launch, flags, tmp_path_factory):
  """(folder of a finished tiny training, what it printed)."""
  folder = tmp_path_factory.mktemp("train") / "run"
  traced = "--config.profile=steps"
  done = launch("main.py", *flags, traced, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  return folder, done.stdout


def test_a_trace_of_a_few_steps_is_there_if_asked_for(run):
  assert len(list((run[0] / "profile").rglob("*.xplane.pb"))) == 1
  lines = (run[0] / "metrics.jsonl").read_text().splitlines()
  assert all(json.loads(line)["compilations"] > 0 for line in lines)


def _result(folder):
  return json.loads((folder / "result.json").read_text())


def _curve(folder):
  """Lines of the curve, times apart."""
  lines = (folder / "retrain.jsonl").read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


def _weights(folder):
  return jax.tree.leaves(results.load(folder).variables)


def test_a_training_writes_a_network_that_loads_again(run):
  folder, text = run
  result = _result(folder)
  assert "epoch 2, loss" in text
  assert "test accuracy" in text
  assert len(_curve(folder)) == 2
  assert result["winner"]["params"] == 702
  assert result["test_top_5"] >= result["test_correct"]
  found = results.load(folder)
  images = results.test_images(result)
  logits = np.asarray(found.predict(images.images))
  right = (logits.argmax(-1) == np.asarray(images.labels)).sum()
  assert right == result["test_correct"]
  kept = json.loads((folder / "test_answers.json").read_text())
  assert kept["correct"] == result["test_correct"]
  assert sum(map(sum, kept["confusion"])) == result["test_examples"]
  assert "report: " in text
  page = (folder / "report.html").read_text()
  assert "what is wrong" in page and "child -1" not in page
  for name in ("training", "cells"):
    for ending in ("png", "svg"):
      assert (folder / "figures" / f"{name}.{ending}").stat().st_size > 1000


def test_the_network_is_tested_again_in_another_process(run, launch):
  done = launch("evaluate.py", f"--workdir={run[0]}")
  assert done.returncode == 0, done.stderr
  assert "of 200" in done.stdout


def test_a_finished_training_is_not_repeated(run, launch, flags):
  done = launch("main.py", *flags, f"--workdir={run[0]}")
  assert done.returncode == 0
  assert "epoch" not in done.stdout
  assert "test accuracy" in done.stdout


def test_a_killed_training_ends_like_one_that_was_not(
  run, launch, flags, launch_and_kill, tmp_path
):
  folder = tmp_path / "killed"
  launch_and_kill("main.py", folder, *flags)
  done = launch("main.py", *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  assert _curve(folder) == _curve(run[0])
  for one, other in zip(_weights(folder), _weights(run[0]), strict=True):
    np.testing.assert_array_equal(one, other)
  assert _result(folder)["test_correct"] == _result(run[0])["test_correct"]


def test_trained_weights_are_fine_tuned_under_a_new_head(run, launch, tmp_path):
  done = launch(
    "main.py",
    "--config=configs/finetune.py:tiny",
    f"--config.model.checkpoint={run[0]}",
    "--config.train.freeze=True",
    f"--workdir={tmp_path / 'tuned'}",
  )
  assert done.returncode == 0, done.stderr
  old, new = (
    results.load(folder).variables["params"]
    for folder in (run[0], tmp_path / "tuned")
  )
  heads = [params["classifier"]["kernel"] for params in (old, new)]
  assert np.abs(heads[0] - heads[1]).max() > 1e-3
  for name in old:
    if name != "classifier":
      for one, other in zip(
        jax.tree.leaves(old[name]), jax.tree.leaves(new[name]), strict=True
      ):
        np.testing.assert_array_equal(one, other)


def _config(name, variant, **changes):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(variant)
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model__genotype": "nasnet_b"}, "neither a published cell"),
    ({"train__batch_size": 1000}, "fewer than one batch of 1000"),
    ({"train__micro_batches": 3}, "does not divide into 3"),
    ({"train__bn_group": 5}, "does not divide into groups of 5"),
    ({"network__num_reductions": 4}, "too small for 4 reductions"),
    ({"train__schedule": "cosin"}, "not one of: cosine"),
    ({"train__optimizer": "adam"}, "not one of: momentum"),
    ({"model__checkpoint": "nowhere"}, "no such folder: nowhere"),
    ({"network__stem": "none"}, "not one of: cifar, imagenet"),
    ({"mesh__data": 3}, "must divide"),
    ({"train__epochs": 0}, "epochs is 0: give 1 or more"),
    ({"train__seed": -1}, "train.seed is -1: give 0 or more"),
    ({"train__ema_decay": 1.0}, "ema_decay is 1.0: give 0 or more, below 1"),
    ({"network__num_cells": 0}, "network.num_cells is 0: give 1 or more"),
    ({"network__dropout": 1.0}, "network.dropout is 1.0: give 0 or more"),
    ({"network__init": "fanout"}, "'fanout', not one of: fan_out, fan_in"),
    ({"network__bn_decay": 9.0}, "bn_decay is 9.0"),
  ],
)
def test_what_cannot_be_trained_gets_one_clear_line(tmp_path, changes, words):
  config = _config("train_cifar", "tiny", **changes)
  with pytest.raises(ValueError, match=words) as error:
    train.run(config, tmp_path / "run")
  assert "\n" not in str(error.value)
  assert not (tmp_path / "run" / "config.json").exists()


def test_a_kept_head_must_know_the_same_classes(run, tmp_path):
  config = _config(
    "finetune",
    "tiny",
    model__checkpoint=str(run[0]),
    model__keep_head=True,
    data__source="folder",
  )
  path = tmp_path / "two.npz"
  images = np.zeros((40, 8, 8, 1), np.uint8)
  labels = np.arange(40) % 2
  np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
  config.data.options.path = str(path)
  config.data.num_valid = 5
  config.train.batch_size = 8
  with pytest.raises(ValueError, match="tells 10 classes apart, not the 2"):
    train.run(config, tmp_path / "run")


def test_nothing_to_start_from_gets_one_clear_line(tmp_path):
  for changes, words in (
    ({}, r"give config\.model\.checkpoint"),
    ({"model__genotype": "nasnet_a"}, r"leave out config\.model\.genotype"),
  ):
    with pytest.raises(ValueError, match=words):
      train.run(_config("finetune", "tiny", **changes), tmp_path / "run")


def test_weights_of_another_model_are_listed_before_anything_is_written(
  run, cells, tmp_path
):
  for changes, words in (
    (
      {"network__features": 8},
      r"of another shape: .* \(4,\) instead of \(8,\)",
    ),
    ({"network__num_cells": 2}, r"missing: .*cell_2\..*; unexpected: "),
  ):
    config = _config(
      "train_cifar",
      "tiny",
      model__genotype=str(cells),
      model__checkpoint=str(run[0]),
      **changes,
    )
    with pytest.raises(checkpoint.CheckpointError, match=words) as error:
      train.run(config, tmp_path / "run")
    assert str(run[0]) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.fixture(scope="module")
def averaged(tmp_path_factory, cells, write_tfds):
  """(folder, moving averages) of a training on a set of tfds, in its own
  process here, with cells of one block."""
  top = tmp_path_factory.mktemp("averaged")

  def picture(value):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8), (value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()

  rows = [(picture(10 * i), i % 2) for i in range(24)]
  splits = {"train": rows[:16], "holdout": rows[16:]}
  write_tfds(top, "stripes", splits, ("even", "odd"))
  config = _config(
    "train_cifar",
    "tiny",
    model__genotype=str(cells),
    network__num_reductions=0,
    train__batch_size=4,
    train__ema_decay=0.9,
    data__source="tfds",
    data__data_dir=str(top),
    data__num_valid=4,
    data__max_per_class=None,
  )
  config.data.options.name = "stripes"
  config.data.options.test_split = "holdout"
  config.data.options.image_size = 8
  kept = []
  with pytest.MonkeyPatch.context() as patch:

    def watched(*args, **options):
      state, score = real(*args, **options)
      kept.append(jax.device_get((state.ema, state.params)))
      return state, score

    real = resumable.train
    patch.setattr(resumable, "train", watched)
    train.run(config, top / "run")
  return top / "run", *kept[0]


def test_the_moving_average_is_what_is_tested_and_kept(averaged):
  folder, (params, batch_stats), last = averaged
  found = results.load(folder)
  for one, other in zip(
    jax.tree.leaves(found.variables),
    jax.tree.leaves({"batch_stats": batch_stats, "params": params}),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)
  kernels = [p["classifier"]["kernel"] for p in (params, last)]
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-4
  images = results.test_images(found.result)
  right = found.predict(images.images).argmax(-1) == images.labels
  assert int(right.sum()) == found.result["test_correct"]


def test_a_set_of_tfds_is_trained_on(averaged):
  data = _result(averaged[0])["data"]
  assert data["name"] == "tfds stripes"
  assert data["classes"] == ["even", "odd"]
  assert (data["train"], data["valid"]) == (12, 4)
  assert _result(averaged[0])["test_examples"] == 8


@pytest.mark.parametrize("variant", ["", "pnasnet_5", "amoebanet_a", "small"])
def test_every_variant_is_the_network_it_says(variant):
  config = _config("train_cifar", variant)
  space, genotype = results.find_cells(config.model.genotype)
  sizes = job_config.get_network(config.network, 10, space)
  network = stacked.StackedNetwork(sizes, stacked.as_cells(space, genotype))
  params = {
    "": 3_346_538,
    "pnasnet_5": 3_189_082,
    "amoebanet_a": 3_218_266,
    "small": 110_562,
  }
  assert counting.count_module(network, (32, 32, 3))[0] == params[variant]
  recipe = recipes.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  if not variant:
    assert recipe == recipes.Recipe()  # the defaults are the paper's
  if variant == "amoebanet_a":  # Real et al. 2019; tensorflow/tpu
    assert (recipe.batch_size, recipe.learning_rate) == (128, 0.024)
    assert (recipe.drop_path_keep, recipe.drop_path_version) == (0.7, "time")


def test_weights_of_another_network_are_listed(run):
  found = results.load(run[0])
  variables = jax.tree.map(np.asarray, found.variables)
  params = dict(variables["params"])
  params["cell_9"] = params.pop("cell_0")
  start = results.transfer(found, keep_head=True)
  with pytest.raises(checkpoint.CheckpointError) as error:
    start({**variables, "params": params})
  assert "missing: cell_9" in str(error.value)
  assert "unexpected: cell_0" in str(error.value)
