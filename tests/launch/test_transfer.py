"""From CIFAR cells to photographs: the ImageNet job, on small folders."""

import dataclasses
import importlib.util
import io
import json
import pathlib
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from nasnet_jax import inputs, spaces, trained, zoo
from nasnet_jax.models import stacked

ROOT = pathlib.Path(__file__).parents[2]
TINY = "--config=configs/transfer_imagenet.py:tiny"


def _config(variant):
  path = ROOT / "configs" / "transfer_imagenet.py"
  spec = importlib.util.spec_from_file_location("transfer_imagenet", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """A result.json as a search leaves it, with cells of one block."""
  space = spaces.get("nasnet", 1, ("identity", "avg_pool_3x3"))
  genotype = space.decode(np.array([0, 1, 1, 1, 0, 1, 1, 0]))
  result = {
    "space": "nasnet",
    "space_options": {
      "num_blocks": 1,
      "operations": ["identity", "avg_pool_3x3"],
    },
    "winner": {"genotype": space.to_json(genotype)},
  }
  path = tmp_path_factory.mktemp("search") / "result.json"
  path.write_text(json.dumps(result))
  return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Red and blue photographs of several sizes, one of them broken."""
  top = tmp_path_factory.mktemp("photographs")
  rng = np.random.default_rng(0)
  for channel, name in ((0, "red"), (2, "blue")):
    (top / name).mkdir()
    for i in range(24):
      height, width = rng.integers(40, 90, 2)
      pixels = rng.integers(0, 120, (height, width, 3), np.uint8)
      pixels[..., channel] += 120
      Image.fromarray(pixels).save(top / name / f"{i}.jpeg")
  (top / "red" / "3.jpeg").write_bytes(b"no image")
  return top


def _flags(found, folder):
  return (
    TINY,
    f"--config.model.genotype={found}",
    f"--config.data.options.path={folder}",
    "--config.data.options.test_fraction=0.25",
    "--config.train.epochs=3",
    "--config.train.batch_size=8",
  )


@pytest.fixture(scope="module")
def run(launch, tmp_path_factory, found, folder):
  workdir = tmp_path_factory.mktemp("transfer") / "run"
  done = launch("main.py", *_flags(found, folder), f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  return workdir, done


def _weights(workdir):
  return jax.tree.leaves(trained.load(workdir).variables)


def _assert_same(one, other):
  for a, b in zip(_weights(one), _weights(other), strict=True):
    np.testing.assert_array_equal(a, b)
  results = [json.loads((w / "result.json").read_text()) for w in (one, other)]
  assert results[0]["test_correct"] == results[1]["test_correct"]


def test_found_cells_are_trained_on_photographs(run):
  workdir, done = run
  result = json.loads((workdir / "result.json").read_text())
  assert result["data"]["classes"] == ["blue", "red"]
  assert result["data"]["image_shape"] == [64, 64, 3]
  assert (result["data"]["train"], result["test_examples"]) == (36, 12)
  assert result["network"]["stem"] == "imagenet"
  assert "red/3.jpeg is broken" in done.stderr  # and so named, once
  assert done.stderr.count("\n") == 1


def test_the_test_photographs_are_read_and_answered_again(run, launch):
  done = launch("evaluate.py", f"--workdir={run[0]}")
  assert done.returncode == 0, done.stderr
  result = json.loads((run[0] / "result.json").read_text())
  assert f"{result['test_correct']} of 12" in done.stdout


def test_killed_on_photographs_it_ends_like_one_that_was_not(
  run, launch, launch_and_kill, tmp_path, found, folder
):
  flags = _flags(found, folder)
  workdir = tmp_path / "killed"
  launch_and_kill("main.py", workdir, *flags)
  done = launch(
    "main.py", *flags, f"--workdir={workdir}", "--config.data.stream.workers=0"
  )
  assert done.returncode == 0, done.stderr
  _assert_same(workdir, run[0])


@pytest.mark.slow
def test_nasnet_a_on_real_photographs_killed_and_resumed(
  launch, launch_and_kill, tmp_path, data_dir
):
  """Animals and things among 100 photographs of ImageNet."""
  top = tmp_path / "photographs"
  with tarfile.open(data_dir / "imagenet_samples_100.tar") as tar:
    for member in tar:
      if not member.name.endswith(".JPEG"):
        continue
      name = pathlib.Path(member.name).name
      # WordNet counts animals before things.
      label = "animal" if int(name[1:9]) < 2_600_000 else "thing"
      (top / label).mkdir(parents=True, exist_ok=True)
      content = tar.extractfile(member).read()
      Image.open(io.BytesIO(content)).verify()
      (top / label / name).write_bytes(content)
  flags = (TINY, f"--config.data.options.path={top}")
  for name in ("whole", "killed"):
    if name == "killed":
      launch_and_kill("main.py", tmp_path / name, *flags)
    done = launch("main.py", *flags, f"--workdir={tmp_path / name}")
    assert done.returncode == 0, done.stderr
  _assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
  "name",
  [n for n, p in zoo.NETWORKS.items() if p.config.get("stem") == "imagenet"],
)
def test_every_variant_is_the_network_it_says(name):
  config = _config(name)
  published = zoo.NETWORKS[name]
  assert config.model.genotype == published.cells
  assert config.data.stream.image_size == published.side
  sizes = inputs.get_network(
    config.network, 1000, zoo.CELLS[published.cells][0]
  )
  wanted = stacked.NetworkConfig(num_classes=1000, **published.config)
  rest = {"aux": True, "dropout": 0.5, "numerics": sizes.numerics}
  assert sizes == dataclasses.replace(wanted, **rest)  # counts: test_zoo.py


def test_an_unknown_variant_is_named():
  with pytest.raises(ValueError, match="no variant 'nasnet_b'"):
    _config("nasnet_b")
