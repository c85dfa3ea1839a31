"""Trainings of networks of blocks, as a user starts them."""

import dataclasses
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.costs import counting
from nasnet_jax.data import augment
from nasnet_jax.jobs import job_config, results, train
from nasnet_jax.models import families
from nasnet_jax.training import recipes

ROOT = pathlib.Path(__file__).parents[2]
TINY = "--config=configs/train_efficientnet.py:tiny"


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


@pytest.fixture(scope="module")
def run(launch, tmp_path_factory):
  """Folder of a finished tiny training."""
  folder = tmp_path_factory.mktemp("efficientnet") / "run"
  done = launch("main.py", TINY, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  return folder


def test_a_tiny_efficientnet_is_trained_and_kept(run):
  result = json.loads((run / "result.json").read_text())
  rows = [
    json.loads(line)
    for line in (run / "retrain.jsonl").read_text().split("\n")
    if line
  ]
  best = max(row["valid_accuracy"] for row in rows)
  assert result["valid_accuracy"] == best  # early stopping keeps the best
  assert result["space"] == "blocks"
  assert result["augmentation"]["policy"] == "randaugment"
  assert result["recipe"]["drop_path_version"] == "depth"
  found = results.load(run)
  assert found.network.architecture == zoo.blocks.EFFICIENTNET
  assert found.predict(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 3)
  assert (run / "figures" / "blocks.svg").stat().st_size > 1000


def test_it_is_tested_again_in_another_process(run, launch):
  done = launch("evaluate.py", f"--workdir={run}")
  assert done.returncode == 0, done.stdout + done.stderr
  mean = json.loads((run / "result.json").read_text())["test_mean_per_class"]
  words = f"mean accuracy per class {mean:.6f}; result.json says {mean:.6f}"
  assert words in done.stdout


@pytest.mark.slow
def test_a_killed_training_ends_like_one_that_was_not(
  run, launch, launch_and_kill, tmp_path
):
  folder = tmp_path / "killed"
  launch_and_kill("main.py", folder, TINY)
  done = launch("main.py", TINY, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  one, other = results.load(folder), results.load(run)
  for name in ("test_correct", "valid_accuracy", "winner"):
    assert one.result[name] == other.result[name]
  for collection in ("params", "batch_stats"):
    kept = [net.variables[collection]["head_norm"] for net in (one, other)]
    for leaf in kept[0]:
      np.testing.assert_array_equal(kept[0][leaf], kept[1][leaf])


@pytest.mark.slow
def test_it_is_fine_tuned_under_a_new_head(run, tmp_path):
  config = _config(
    "finetune",
    "photographs",
    model__checkpoint=str(run),
    train__epochs=1,
    train__batch_size=8,
    train__freeze=True,
    train__eval_batch_size=8,
    data__source="fake",
    data__stream__image_size=32,
    data__stream__workers=0,
  )
  with config.unlocked():
    config.data.options.update({"num_images": 16, "num_classes": 5})
  train.run(config, tmp_path / "tuned")
  old, new = (
    results.load(folder).variables["params"]
    for folder in (run, tmp_path / "tuned")
  )
  assert new["classifier"]["kernel"].shape[-1] == 5
  np.testing.assert_array_equal(
    new["stem_conv"]["kernel"], old["stem_conv"]["kernel"]
  )


@pytest.mark.parametrize(
  "variant",
  ["", "efficientnet_b2", "efficientnet_lite1", "mnasnet_a1", "resnet_50"],
)
def test_every_variant_is_the_network_it_says(variant):
  published = zoo.blocks.network(variant or "efficientnet_b0")
  config = _config("train_efficientnet", variant)
  space, genotype = results.find_cells(config.model.genotype)
  sizes = job_config.get_network(config.network, 1000, space)
  network = families.network(space, genotype, sizes)
  assert counting.count_module(network, (64, 64, 3))[0] == published.params
  assert config.data.stream.image_size == published.side
  recipe = recipes.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  # 0.016 per 256 examples: Tan & Le's code.
  assert recipe.learning_rate == 0.016 * recipe.batch_size / 256
  changes = {k: v for k, v in config.data.augmentation.items() if v is not None}
  aug = dataclasses.replace(augment.PHOTOGRAPHS, **changes)
  lite = variant == "efficientnet_lite1"
  wanted = augment.EFFICIENTNET_LITE if lite else augment.EFFICIENTNET
  assert (aug.mean, aug.std) == (wanted.mean, wanted.std)
  assert aug.policy == ("" if variant == "mnasnet_a1" else "autoaugment")


def test_what_cannot_be_trained_gets_one_clear_line(tmp_path):
  for changes, words in (
    ({"data__num_valid": 0}, "needs images to score: set data.num_valid"),
    ({"network__width": 0.0}, "network.width is 0.0: give a number above 0"),
    ({"data__augmentation__policy": "auto"}, "'auto' is not one of"),
    ({"model__genotype": "efficientnets"}, "neither a published cell"),
  ):
    config = _config("train_efficientnet", "tiny", **changes)
    with pytest.raises(ValueError, match=words) as error:
      train.run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="no variant 'b0', only: tiny"):
    _config("train_efficientnet", "b0")
