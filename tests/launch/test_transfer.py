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

from nasnet_jax import zoo
from nasnet_jax.jobs import job_config, results, train
from nasnet_jax.models import stacked_plan
from nasnet_jax.training import fit, recipes

ROOT = pathlib.Path(__file__).parents[2]
TINY = "--config=configs/transfer_imagenet.py:tiny"


def _config(variant, name="transfer_imagenet"):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


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


def _flags(cells, folder):
  return (
    TINY,
    "--config.network.num_reductions=0",  # the stem has two
    f"--config.model.genotype={cells}",
    f"--config.data.options.path={folder}",
    "--config.data.options.test_fraction=0.25",
    "--config.train.epochs=3",
    "--config.train.batch_size=8",
  )


@pytest.fixture(scope="module")
def run(launch, tmp_path_factory, cells, folder):
  workdir = tmp_path_factory.mktemp("transfer") / "run"
  done = launch("main.py", *_flags(cells, folder), f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  return workdir, done


def _weights(workdir):
  return jax.tree.leaves(results.load(workdir).variables)


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
  lines = done.stderr.splitlines()
  assert sum("red/3.jpeg is broken" in line for line in lines) == 1
  assert all(line.startswith("warning: ") for line in lines)


def test_the_test_photographs_are_read_and_answered_again(run, launch):
  done = launch("evaluate.py", f"--workdir={run[0]}")
  assert done.returncode == 0, done.stderr
  result = json.loads((run[0] / "result.json").read_text())
  assert f"{result['test_correct']} of 12" in done.stdout


def test_killed_on_photographs_it_ends_like_one_that_was_not(
  run, launch, launch_and_kill, tmp_path, cells, folder
):
  flags = _flags(cells, folder)
  workdir = tmp_path / "killed"
  launch_and_kill("main.py", workdir, *flags)
  done = launch(
    "main.py", *flags, f"--workdir={workdir}", "--config.data.stream.workers=0"
  )
  assert done.returncode == 0, done.stderr
  _assert_same(workdir, run[0])


def test_a_network_of_photographs_starts_on_a_set_of_tfds_with_its_weights(
  run, write_tfds, tmp_path
):
  rng = np.random.default_rng(0)

  def photograph():
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (70, 80, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()

  splits = {
    split: [(photograph(), i % 3) for i in range(n)]
    for split, n in (("train", 12), ("test", 6))
  }
  write_tfds(tmp_path, "flowers", splits, ("rose", "tulip", "poppy"))
  config = _config("photographs", "finetune")
  config.model.checkpoint = str(run[0])
  config.data.data_dir = str(tmp_path)
  config.data.options.name = "flowers"
  config.data.options.test_split = "test"
  config.data.stream.image_size = 64
  config.train.batch_size = 4
  config.network.bn_decay = 0.8
  parts = train.prepare(config)
  assert parts.images.class_names == ("rose", "tulip", "poppy")
  assert (parts.images.train.num_images, parts.images.test.num_images) == (
    12,
    6,
  )
  assert parts.network.config.stem == "imagenet"
  assert parts.network.config.numerics.bn_decay == 0.8
  state = fit.init_state(
    parts.network, parts.recipe, (64, 64, 3), 3, 0, parts.start
  )
  old, new = dict(results.load(run[0]).variables["params"]), dict(state.params)
  assert old.pop("classifier")["kernel"].shape[-1] == 2
  assert new.pop("classifier")["kernel"].shape[-1] == 3
  jax.tree.map(np.testing.assert_array_equal, old, new)


def test_what_cannot_be_trained_on_photographs_gets_one_clear_line(
  cells, folder, tmp_path
):
  for field, value, words in (
    ("data.stream.image_size", 16, "images of 16x16 are too small for 4"),
    ("data.stream.workers", -1, "data.stream.workers is -1"),
    ("train.batch_size", 100, "36 images are fewer than one batch of 100"),
    ("train.steps_per_call", 2, "steps_per_call is 2, and a stream"),
    ("train.bn_group", 3, "does not divide into groups of 3"),
    ("data.source", "cifar10", "no source of photographs 'cifar10'"),
    ("network.features", 3, "give 4 or more"),
  ):
    config = _config("tiny")
    config.model.genotype = str(cells)
    config.data.options.path = str(folder)
    config.data.options.test_fraction = 0.25
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=words) as error:
      train.run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_made_up_photographs_are_a_source_of_the_job():
  config = _config("tiny")
  config.data.source = "fake"
  config.data.options.num_images = 40
  config.data.options.num_classes = 7
  images = job_config.load_images(config.data, (16,))
  assert (images.train.num_images, images.num_classes) == (40, 7)
  assert images.image_shape == (64, 64, 3)


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
  [
    n
    for n, p in zoo.cells.NETWORKS.items()
    if p.config.get("stem") == "imagenet"
  ],
)
def test_every_variant_is_the_network_it_says(name):
  config = _config(name)
  published = zoo.cells.NETWORKS[name]
  assert config.model.genotype == published.cells
  assert config.data.stream.image_size == published.side
  sizes = job_config.get_network(
    config.network, 1000, zoo.cells.CELLS[published.cells][0]
  )
  wanted = stacked_plan.NetworkConfig(num_classes=1000, **published.config)
  rest = {"aux": True, "dropout": 0.5, "numerics": sizes.numerics}
  assert sizes == dataclasses.replace(wanted, **rest)  # counts: test_zoo.py


@pytest.mark.parametrize(
  ("name", "recipe"),
  [
    # slim, nasnet.py: mobile_imagenet_config, large_imagenet_config.
    (
      "nasnet_a_mobile",
      {"learning_rate": 2.0, "weight_decay": 4e-5, "drop_path_keep": 1.0},
    ),
    (
      "nasnet_a_large",
      {"learning_rate": 1.5, "weight_decay": 5e-5, "drop_path_keep": 0.7},
    ),
    # slim, pnasnet.py.
    (
      "pnasnet_5_large",
      {"learning_rate": 1.5, "weight_decay": 4e-5, "drop_path_keep": 0.6},
    ),
    # Real et al. 2019, "Methods".
    (
      "amoebanet_a_large",
      {"rms_epsilon": 0.1, "drop_path_keep": 0.7, "bn_group": 16},
    ),
    # tensorflow/tpu, models/official/amoeba_net.
    (
      "amoebanet_d",
      {"learning_rate": 0.64, "epochs": 48, "drop_path_version": "time"},
    ),
  ],
)
def test_every_family_has_its_own_recipe(name, recipe):
  config = _config(name)
  made = recipes.Recipe(
    epochs=config.train.epochs, **job_config.recipe_fields(config.train)
  )
  made.make_schedule()
  shared = {
    "optimizer": "rmsprop",
    "rms_decay": 0.9,
    "schedule": "exponential",
    "label_smoothing": 0.1,
    "aux_weight": 0.4,
    "ema_decay": 0.9999,
    "clip_norm": 10.0,
  }
  wanted = {**shared, **recipe}
  assert {key: getattr(made, key) for key in wanted} == wanted


def test_an_unknown_variant_is_named():
  with pytest.raises(ValueError, match="no variant 'nasnet_b'"):
    _config("nasnet_b")


@pytest.mark.parametrize(
  ("variant", "name", "sizes"),
  [
    ("flowers", "oxford_flowers102", {"train": 4, "validation": 3, "test": 2}),
    ("cars", "cars196", {"train": 4, "test": 2}),
    ("pets", "oxford_iiit_pet", {"train": 4, "test": 2}),
    ("food", "food101", {"train": 4, "validation": 2}),
    ("cifar10", "cifar10", {"train": 4, "test": 2}),
    ("cifar100", "cifar100", {"train": 4, "test": 2}),
  ],
)
def test_the_sets_of_the_transfer_table_are_read_as_tfds_has_them(
  write_tfds, tmp_path, variant, name, sizes
):
  splits = {
    split: [(_picture(i), i % 2) for i in range(n)]
    for split, n in sizes.items()
  }
  write_tfds(tmp_path, name, splits, ("one", "other"))
  config = _config(variant, "finetune")
  assert config.data.options.name == name
  config.data.options.name += ":1.0.0"  # the made-up one, not tfds's own
  config.data.data_dir = str(tmp_path)
  images = job_config.load_images(config.data, ())
  trained_on = 7 if variant == "flowers" else 4
  assert (images.train.num_images, images.test.num_images) == (trained_on, 2)
  assert images.class_names == ("one", "other")


@pytest.mark.parametrize("variant", ["birdsnap", "aircraft"])
def test_the_sets_that_tfds_lacks_are_folders(tmp_path, variant):
  for split, n in (("train", 3), ("test", 1)):
    for label in ("one", "other"):
      folder = tmp_path / variant / split / label
      folder.mkdir(parents=True)
      for i in range(n):
        (folder / f"{i}.png").write_bytes(_picture(i))
  config = _config(variant, "finetune")
  config.data.data_dir = str(tmp_path)
  images = job_config.load_images(config.data, ())
  assert (images.train.num_images, images.test.num_images) == (6, 2)


def _picture(seed: int) -> bytes:
  buffer = io.BytesIO()
  pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
  Image.fromarray(pixels).save(buffer, "png")
  return buffer.getvalue()
