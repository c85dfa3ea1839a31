"""Fields of the command line that nothing reads."""

import importlib.util
import pathlib

import pytest

from nasnet_jax.cli import unused

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def _config(name: str, **changes):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.parametrize(
  ("name", "field", "ruler", "value"),
  [
    (
      "search_digits",
      "search.controller_options.genetic.population",
      "search.controller",
      "genetic",
    ),
    (
      "search_digits",
      "search.reward.target",
      "search.reward.kind",
      "mnasnet_soft",
    ),
    ("search_digits", "search.halving.min_epochs", "search.halving.eta", 3),
    ("search_digits", "child.drop_path_version", "child.drop_path_keep", 0.9),
    ("search_digits", "final.aux_weight", "final.network.aux", True),
    ("train_cifar", "train.decay_epochs", "train.schedule", "exponential"),
    ("train_cifar", "train.decay_factor", "train.schedule", "piecewise"),
    ("train_cifar", "train.rms_decay", "train.optimizer", "rmsprop"),
    ("finetune", "train.aux_weight", "network.aux", True),
    ("finetune", "model.keep_head", "model.checkpoint", "runs/a"),
    (
      "scale_grid",
      "data.augmentation.layers",
      "data.augmentation.policy",
      "randaugment",
    ),
    ("detect_coco", "data.sizes.shorter", "data.sizes.stretch", False),
  ],
)
def test_a_field_is_told_unless_what_it_belongs_to_is_chosen(
  name, field, ruler, value
):
  (line,) = unused.lines(_config(name), [field, "log.seconds"])
  assert line.startswith(f"{field} is not used: {ruler} is ")
  assert not unused.lines(_config(name, **{ruler: value}), [field])


def test_a_detector_has_the_sizes_of_its_checkpoint():
  given = ["network.features", "network.remat", "train.epochs"]
  config = _config("detect_coco", **{"model.checkpoint": "runs/a"})
  (line,) = unused.lines(config, given)
  assert line == "network.features is not used: model.checkpoint is 'runs/a'"
  assert not unused.lines(_config("detect_coco"), given)


def test_every_field_of_the_rules_is_one_of_the_configs():
  known = {
    field
    for path in CONFIGS.glob("*.py")
    for field, _ in unused._leaves(_config(path.stem))
  }
  for names, ruler, _ in unused._RULES:
    for field in (*names, ruler):
      parts = [field.format(part) for part in ("train", "child", "final")]
      assert known & set(parts), field
