"""A run's folder of weights that were trained elsewhere."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.data.image_data import DataError
from nasnet_jax.export import slim, tables
from nasnet_jax.jobs import predict_boxes, published, results, train
from nasnet_jax.models import block_network
from nasnet_jax.training import workdir
from nasnet_jax.training.checkpoint import CheckpointError

ROOT = pathlib.Path(__file__).parents[2]
NAME = "nasnet_a_cifar"
SLIM = augment.PHOTOGRAPHS  # pixels from -1 to 1


@pytest.fixture(scope="module")
def network():
  return slim.network(NAME, num_cells=1, features=4, num_classes=3)


@pytest.fixture(scope="module")
def imported(network, random_variables, tmp_path_factory):
  """(folder, the variables in it)."""
  folder = tmp_path_factory.mktemp("imported") / "run"
  variables = random_variables(network, 32)
  arrays = slim.to_slim(variables, network)
  found = slim.from_slim(arrays, network)
  results.save(folder, NAME, network, found, augmentation=SLIM)
  return folder, variables


def test_imported_weights_load_as_a_run(imported, network):
  folder, variables = imported
  found = results.load(folder)
  assert found.network == network
  for one, two in zip(
    jax.tree.leaves(found.variables), jax.tree.leaves(variables), strict=True
  ):
    np.testing.assert_array_equal(one, two)
  white = np.full((1, 2, 2, 3), 255, np.uint8)
  whitened = results.augment.normalise(white, found.augmentation)
  np.testing.assert_allclose(whitened, 1, rtol=1e-6)
  np.testing.assert_allclose(
    results.augment.normalise(0 * white, found.augmentation), -1, rtol=1e-6
  )


def test_a_loaded_run_is_shown_in_a_line_without_its_weights(imported):
  text = repr(results.load(imported[0]))
  assert "\n" not in text
  assert "32x32x3, 3 classes" in text


def test_a_network_of_blocks_is_a_run_too(random_variables, tmp_path):
  config = block_network.BlockConfig(width=0.25, depth=0.5, num_classes=3)
  literal = zoo.blocks.architecture("efficientnet")
  network = block_network.BlockNetwork(config, literal)
  variables = random_variables(network, 32)
  results.save(tmp_path, "efficientnet_b0", network, variables)
  found = results.load(tmp_path)
  assert found.network == network
  assert found.result["data"]["image_shape"] == [224, 224, 3]
  for one, two in zip(
    jax.tree.leaves(found.variables), jax.tree.leaves(variables), strict=True
  ):
    np.testing.assert_array_equal(one, two)
  other = tmp_path / "other"
  with pytest.raises(ValueError, match="are not those of efficientnet_lite0"):
    results.save(other, "efficientnet_lite0", network, variables)
  with pytest.raises(ValueError, match="are not those of nasnet_a_cifar"):
    results.save(other, NAME, network, variables)


# (whitened black and white, side, center): tensorflow/models, slim's Inception
# preprocessing; tensorflow/tpu, efficientnet, its lite/ and mnasnet;
# torchvision and tensorflow/tpu for ResNets.
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_TPU = (-_MEAN / _STD, (1 - _MEAN) / _STD)
PREPARED = {
  "nasnet_a_large": ((-1, 1), 331, 0.875),
  "pnasnet_5_mobile": ((-1, 1), 224, 0.875),
  "amoebanet_d": ((-1, 1), 299, 0.875),
  "mobilenet_v1": ((-1, 1), 224, 0.875),
  "mobilenet_v2": ((-1, 1), 224, 0.875),
  "mnasnet_a1": (_TPU, 224, 224 / 256),
  "resnet_50": (_TPU, 224, 224 / 256),
  "efficientnet_b0": (_TPU, 224, 224 / 256),
  "efficientnet_b7": (_TPU, 600, 600 / 632),
  "efficientnet_lite2": ((-127 / 128, 1), 260, 260 / 292),
}


@pytest.mark.parametrize("name", PREPARED)
def test_pictures_are_prepared_as_for_the_released_weights(name):
  (black, white), side, center = PREPARED[name]
  found = published.of(name)
  pixels = np.array([[[0] * 3], [[255] * 3]], np.uint8)
  whitened = results.augment.normalise(pixels, found.augmentation)
  np.testing.assert_allclose(whitened[0, 0], np.broadcast_to(black, 3), 1e-6)
  np.testing.assert_allclose(whitened[1, 0], np.broadcast_to(white, 3), 1e-6)
  assert (found.side, found.center) == (side, pytest.approx(center))


def test_every_published_network_has_a_preparation_or_says_why_not():
  for name in (*zoo.cells.NETWORKS, *zoo.blocks.NETWORKS):
    if name.endswith("_cifar"):
      with pytest.raises(ValueError, match="pass augmentation="):
        published.of(name)
      assert published.of(name, SLIM).center is None  # the whole picture
    else:
      assert published.of(name).center < 1
  other = published.of("efficientnet_b0", side=225)
  assert other.center == pytest.approx(225 / 257)


def _finetune(folder, **model):
  path = ROOT / "configs" / "finetune.py"
  spec = importlib.util.spec_from_file_location("finetune", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("tiny")
  config.model.update({"checkpoint": str(folder), **model})
  return config


def test_imported_weights_start_another_network(imported, random_variables):
  folder, variables = imported
  network = slim.network(NAME, num_cells=1, features=4, num_classes=7)
  start = results.transfer(results.load(folder), keep_head=False)
  params = start(random_variables(network, 32, seed=1))["params"]
  assert params["classifier"]["kernel"].shape[-1] == 7
  np.testing.assert_array_equal(
    params["stem"]["conv"]["kernel"],
    variables["params"]["stem"]["conv"]["kernel"],
  )


@pytest.mark.slow
def test_fine_tuning_starts_from_imported_weights(imported, tmp_path):
  folder, variables = imported
  images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
  labels = np.arange(40) % 2
  path = tmp_path / "two.npz"
  np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
  config = _finetune(folder)
  config.data.source, config.data.options.path = "folder", str(path)
  config.data.num_valid = 5
  config.train.update({"batch_size": 8, "epochs": 1, "freeze": True})
  train.run(config, tmp_path / "run")
  tuned = results.load(tmp_path / "run").variables["params"]
  assert tuned["classifier"]["kernel"].shape[-1] == 2
  np.testing.assert_array_equal(
    tuned["cell_2"]["project"]["conv"]["kernel"],
    variables["params"]["cell_2"]["project"]["conv"]["kernel"],
  )


def test_a_kept_head_needs_the_names_of_the_classes(imported, tmp_path):
  config = _finetune(imported[0], keep_head=True)
  images, labels = np.zeros((40, 32, 32, 3), np.uint8), np.arange(40) % 2
  path = tmp_path / "two.npz"
  np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
  config.data.source, config.data.options.path = "folder", str(path)
  config.data.num_valid = 5
  config.train.batch_size = 8
  with pytest.raises(ValueError, match="tells 3 classes apart, not the 2"):
    train.run(config, tmp_path / "run")


def test_imported_weights_have_no_test_of_their_own(imported):
  result = results.read_result(imported[0])
  assert result["data"]["classes"] == ["0", "1", "2"]
  with pytest.raises(DataError, match="trained elsewhere"):
    results.test_images(result)


def test_class_names_are_kept(imported, network, tmp_path):
  names = ["ant", "bee", "cat"]
  results.save(
    tmp_path,
    NAME,
    network,
    imported[1],
    class_names=names,
    augmentation=SLIM,
  )
  result = json.loads((tmp_path / "result.json").read_text())
  assert result["data"]["classes"] == names


def test_what_cannot_be_imported_gets_one_clear_line(
  imported, network, tmp_path
):
  folder, variables = imported
  with pytest.raises(ValueError, match="has a run already"):
    results.save(folder, NAME, network, variables)
  with pytest.raises(ValueError, match="cells are not those of pnasnet_5"):
    results.save(tmp_path, "pnasnet_5_cifar", network, variables)
  with pytest.raises(ValueError, match=r"2 class_names .* of 3 classes"):
    results.save(tmp_path, NAME, network, variables, class_names=["a", "b"])
  other = tables.published(NAME, num_cells=2, features=4, num_classes=3)
  with pytest.raises(CheckpointError, match="weights does not fit; missing"):
    results.save(tmp_path, NAME, other, variables, augmentation=SLIM)
  assert not list(tmp_path.iterdir())


def _a_run(folder, result=None, config=None):
  folder.mkdir()
  for name, content in (("result.json", result), ("config.json", config)):
    if content is not None:
      (folder / name).write_text(json.dumps(content))
  return folder


def test_a_folder_of_another_kind_is_told_with_what_fits(tmp_path):
  missing = tmp_path / "missing"
  unfinished = _a_run(tmp_path / "unfinished", config={"job": "train"})
  empty = _a_run(tmp_path / "empty")
  detector = _a_run(tmp_path / "detector", {"job": "detect"})
  scaled = _a_run(tmp_path / "scaled", {"job": "scale"})
  for load in (results.load, predict_boxes.load):
    for folder, words in (
      (missing, f"no such folder: {missing}"),
      (detector / "result.json", "is a file: give the folder of a run"),
      (unfinished, "has not finished.* goes on with it"),
      (empty, "has no run in it: there is no result.json"),
    ):
      with pytest.raises(workdir.WorkdirError, match=words) as error:
        load(folder)
      assert "\n" not in str(error.value)
  with pytest.raises(
    workdir.WorkdirError, match=f"detect --checkpoint={detector}"
  ):
    results.load(detector)
  with pytest.raises(workdir.WorkdirError, match="keeps no weights"):
    results.load(scaled)
  for job in ({}, {"job": "train"}, {"job": "import"}):
    other = _a_run(tmp_path / f"{len(job)}{job.get('job')}", job)
    with pytest.raises(
      workdir.WorkdirError, match=f"predict --checkpoint={other}"
    ):
      predict_boxes.load(other)


def test_a_thousand_classes_have_imagenets_names(random_variables, tmp_path):
  config = block_network.BlockConfig(width=0.125)
  literal = zoo.blocks.architecture("mobilenet_v1")
  network = block_network.BlockNetwork(config, literal)
  variables = random_variables(network, 32)
  results.save(tmp_path, "mobilenet_v1", network, variables)
  names = results.read_result(tmp_path)["data"]["classes"]
  assert (len(names), len(set(names))) == (1000, 1000)
  # Known places: scikit-image's coffee.png is 967, chelsea.png 281 to 285.
  assert (names[0], names[967]) == ("tench", "espresso")
  assert names[281] == "tabby"
  assert [*zoo.imagenet.classes()] == sorted(zoo.imagenet.classes())


def test_images_of_other_channels_are_named_before_weights_are_compared(
  imported,
):
  found = results.load(imported[0])
  results.check_channels(found, "photographs", 3)
  with pytest.raises(ValueError, match=r"3 channel\(s\), and those of digits"):
    results.check_channels(found, "digits", 1)


@pytest.mark.parametrize(
  ("classes", "words"), [(5, "10)"), (6, "10; top five")]
)
def test_the_five_likeliest_of_five_classes_are_no_figure(classes, words):
  result = {
    "test_examples": 10,
    "test_top_5": 10,
    "test_accuracy": 0.5,
    "test_correct": 5,
    "winner": {"params": 1, "macs": 1},
    "data": {"classes": ["x"] * classes},
  }
  assert f"5 of {words}" in train.summary(result)
