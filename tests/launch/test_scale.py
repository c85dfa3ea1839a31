"""The scaling job, as a user starts it."""

import dataclasses
import importlib.util
import json
import pathlib

import pytest

from nasnet_jax import zoo
from nasnet_jax.costs import counting
from nasnet_jax.jobs import job_config, results, scale
from nasnet_jax.models import families
from nasnet_jax.spaces import compound_scaling

ROOT = pathlib.Path(__file__).parents[2]
TINY = (
  "--config=configs/scale_grid.py:tiny",
  "--config.network.num_reductions=0",
)


def _config(variant, **changes):
  path = ROOT / "configs" / "scale_grid.py"
  spec = importlib.util.spec_from_file_location("scale_grid", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(variant)
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


@pytest.fixture(scope="module")
def run(launch, tmp_path_factory, cells):
  """(folder of a finished tiny search, what it printed)."""
  folder = tmp_path_factory.mktemp("scale") / "run"
  done = launch(
    "main.py",
    *TINY,
    f"--config.model.genotype={cells}",
    f"--workdir={folder}",
  )
  assert done.returncode == 0, done.stderr
  return folder, done.stdout


def _rows(folder):
  return json.loads((folder / "result.json").read_text())["rows"]


def test_every_point_is_trained_and_the_best_is_raised(run):
  folder, text = run
  rows = _rows(folder)
  stages = [row["stage"] for row in rows]
  assert stages == ["baseline", "grid", "grid", "grid", "phi"]
  grid = rows[1:4]
  best = min(grid, key=lambda row: (-row["valid_accuracy"], row["macs"]))
  result = json.loads((folder / "result.json").read_text())
  coefficients = [*result["winner"]["coefficients"].values()]
  assert coefficients == best["coefficients"]
  assert rows[-1]["coefficients"] == coefficients
  assert rows[-1]["phi"] == 2.0
  assert "grid, phi 1" in text
  page = (folder / "report.html").read_text()
  assert "Accuracy against multiply-adds" in page
  assert (folder / "figures" / "scaling.png").stat().st_size > 1000


def test_each_row_is_the_network_that_its_factors_make(run, cells):
  space, genotype = results.find_cells(str(cells))
  config = _config("tiny", network__num_reductions=0)
  sizes = job_config.get_network(config.network, 10, space)
  changes = {  # by coefficients: N, F, side
    (1.0, 1.0, 1.0): (1, 4, 8),
    (2.0, 1.0, 1.0): (2, 4, 8),
    (1.0, 1.4, 1.0): (1, 6, 8),
    (1.0, 1.0, 1.4): (1, 4, 12),  # 11.2
  }
  for row in _rows(run[0])[:4]:
    n, f, side = changes[tuple(row["coefficients"])]
    grown = dataclasses.replace(sizes, num_cells=n, features=f)
    network = families.network(space, genotype, grown)
    counted = counting.count_module(network, (side, side, 1))
    assert (row["params"], row["macs"]) == counted
    assert row["side"] == side


def test_a_member_of_several_seeds_is_chosen_by_its_mean(monkeypatch):
  accuracies = iter([0.1, 0.1, 0.9, 0.2, 0.6, 0.6, 0.5, 0.5, 0.7, 0.7])
  seen = []

  def trained_row(folder, config, parts, console, member):
    seen.append(member)
    return {"valid_accuracy": next(accuracies), "macs": 1}

  monkeypatch.setattr(scale, "_train", trained_row)
  config = _config("tiny", scale__seeds=2)
  points = (*map(compound_scaling.Coefficients._make, config.scale.points),)
  parts = scale.Parts(*[None] * 8, points)
  rows, chosen = scale._search(None, config, parts, None)
  assert chosen == 1 and len(rows) == 10
  assert [member.id for member in seen] == [*range(10)]
  assert [member.seed for member in seen] == [0, 1] * 5
  assert {member.coefficients for member in seen[8:]} == {points[1]}


@pytest.mark.slow
def test_a_killed_search_ends_like_one_that_was_not(
  run, launch, launch_and_kill, cells, tmp_path
):
  folder = tmp_path / "killed"
  flags = (*TINY, f"--config.model.genotype={cells}")
  launch_and_kill("main.py", folder, *flags, after="scaled.jsonl")
  done = launch("main.py", *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  assert _rows(folder) == _rows(run[0])


def test_blocks_are_scaled_from_the_baseline_of_the_paper():
  config = _config("")
  space, genotype = results.find_cells(config.model.genotype)
  sizes = job_config.get_network(config.network, 1000, space)
  network = families.network(space, genotype, sizes)
  params, _ = counting.count_module(network, (64, 64, 3))
  assert params == zoo.blocks.network("efficientnet_b0").params
  assert config.data.stream.image_size == 224


# Multiply-adds of the points over those of the baseline, after rounding.
SMALL = {
  "small_mbconv": [1.56, 2.50, 2.04, 2.12, 1.93],
  "small_resnet": [2.04, 2.13, 2.01, 2.01],
  "small_cell": [1.97, 2.06, 1.97, 2.18],
}


@pytest.mark.parametrize("variant", SMALL)
def test_small_variants_compare_about_twice_the_cost(variant):
  config = _config(variant)
  space, genotype = results.find_cells(config.model.genotype)
  sizes = job_config.get_network(config.network, 10, space)
  points = [(1.0, 1.0, 1.0), *config.scale.points]
  macs = []
  for point in points:
    factors = compound_scaling.factors(compound_scaling.Coefficients(*point), 1)
    grown = families.of(space).scaled(sizes, factors)
    side = compound_scaling.round_side(16, factors.resolution)
    network = families.network(space, genotype, grown)
    macs.append(counting.count_module(network, (side, side, 3))[1])
  assert [round(m / macs[0], 2) for m in macs[1:]] == SMALL[variant]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"data__num_valid": 0}, "are chosen by a score: set data.num_valid"),
    ({"scale__seeds": 0}, "scale.seeds is 0: give 1 or more"),
    ({"scale__points": (), "scale__step": 0.7}, "no coefficients in steps"),
    ({"model__genotype": "nasnets"}, "neither a published cell"),
    ({"mesh__data": 3}, "does not divide|must divide"),
  ],
)
def test_what_cannot_be_scaled_gets_one_clear_line(tmp_path, changes, words):
  config = _config("tiny", **changes)
  with pytest.raises(ValueError, match=words) as error:
    scale.run(config, tmp_path / "run")
  assert "\n" not in str(error.value)
  assert not (tmp_path / "run" / "config.json").exists()
