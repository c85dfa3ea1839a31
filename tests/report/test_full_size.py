"""Commands for training at full size fit the configs that they name."""

import json
import pathlib
import runpy
import shlex

import pytest

from nasnet_jax.models import block_network, stacked_plan
from nasnet_jax.report import full_size, next_steps, runs
from nasnet_jax.spaces import compound_scaling

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def _flags(command: str) -> dict[str, str]:
  """The fields that a command sets, each of which its config must have."""
  words = dict(w.split("=", 1) for w in shlex.split(command) if "=" in w)
  file, colon, variant = words["--config"].partition(":")
  name = pathlib.Path(file).stem
  config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)
  found = {}
  for word, value in words.items():
    if word.startswith("--config."):
      field = word.removeprefix("--config.")
      *groups, last = field.split(".")
      node = config
      for group in groups:
        node = node[group]
      assert last in node, word
      found[field] = value
  return {"config": f"{name}{colon}{variant}", **found}


def _run_of(folder, **fields):
  path = folder / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
  return runs.read_run(folder)


CIFAR = {"source": "cifar10", "options": {"path": None}, "num_valid": 5000}
OWN = {"source": "folder", "options": {"path": "mine"}, "num_valid": 100}


@pytest.mark.parametrize(
  ("space", "data", "wanted"),
  [
    ("nasnet", CIFAR, {"config": "train_cifar"}),
    ("pnas", CIFAR, {"config": "train_cifar:pnasnet_5"}),
    (
      "mnasnet",
      CIFAR,
      {"config": "train_efficientnet", "data.options.path": "FOLDER"},
    ),
    (
      "mnasnet",
      OWN,
      {
        "config": "train_efficientnet",
        "data.options.path": "mine",
        "data.valid_fraction": "0.1",
      },
    ),
  ],
)
def test_a_winner_has_a_command_that_its_config_takes(
  make_run, space, data, wanted
):
  folder = make_run(name=space)
  network = {"num_reductions": 2, "aux": True}
  run = _run_of(folder, data=data, final={"network": network})
  found = _flags(full_size.train(run))
  assert found.items() >= wanted.items()
  assert found["model.genotype"] == str(folder)
  child = _flags(full_size.train(run, 3))
  assert child["model.genotype"] == f"{folder}#3"
  words = [command for _, command in next_steps.commands(run)]
  assert full_size.train(run) in words


def test_what_no_config_trains_has_no_command(make_run):
  run = _run_of(make_run(name="genetic_cnn"), data=CIFAR)
  assert full_size.train(run) == ""
  assert next_steps.commands(run)


def _scaled(folder, network, data):
  point = compound_scaling.Coefficients(1.2, 1.1, 1.15)
  rows = [
    {"coefficients": list(c), "phi": phi, "side": side}
    for c, phi, side in (
      ((1.0, 1.0, 1.0), 0.0, 32),
      ((2.0, 1.0, 1.0), 1.0, 32),
      (point, 1.0, 36),
      (point, 3.0, 48),
      (point, 2.0, 42),
    )
  ]
  result = {
    "job": "scale",
    "network": network,
    "rows": rows,
    "winner": {"coefficients": point._asdict()},
  }
  config = {"model": {"genotype": "x"}, "network": network, "data": data}
  (folder / "result.json").write_text(json.dumps(result))
  (folder / "config.json").write_text(json.dumps(config))
  factors = compound_scaling.factors(point, 3.0)
  return runs.read_run(folder), factors


def test_the_largest_network_of_a_scaling_is_the_one_that_is_trained(tmp_path):
  run, factors = _scaled(tmp_path, {"num_cells": 2, "features": 10}, OWN)
  found = _flags(full_size.scaled(run))
  sizes = stacked_plan.scaled(
    stacked_plan.NetworkConfig(num_cells=2, features=10), factors
  )
  assert found["network.num_cells"] == str(sizes.num_cells)
  assert found["network.features"] == str(sizes.features)
  assert found["data.options.image_size"] == "48"
  run, factors = _scaled(tmp_path, {"width": 0.5, "depth": 1.0}, CIFAR)
  found = _flags(full_size.scaled(run))
  sizes = block_network.scaled(
    block_network.BlockConfig(width=0.5, depth=1.0), factors
  )
  assert float(found["network.width"]) == pytest.approx(sizes.width, 1e-5)
  assert float(found["network.depth"]) == pytest.approx(sizes.depth, 1e-5)
  assert found["data.stream.image_size"] == "48"
  assert found["config"] == "train_efficientnet"
  ((words, _),) = next_steps.commands(run)
  assert "coefficients" in words
