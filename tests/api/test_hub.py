"""Weights of Hugging Face's hub, out of a folder laid out as its cache."""

import hashlib
import json
import sys
import types

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from nasnet_jax.api import models
from nasnet_jax.export import lite, timm, torchvision
from nasnet_jax.training.checkpoint import CheckpointError

LITE, SIZES = "efficientnet_lite0", {"width": 0.1, "depth": 0.1}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREPARED = {
  "mean": [0.1, 0.2, 0.3],
  "std": [0.4, 0.5, 0.6],
  "input_size": [3, 200, 200],
  "crop_pct": 0.9,
}


class _Missing(Exception):
  pass


class _NotHere(_Missing):
  """huggingface_hub's LocalEntryNotFoundError is an EntryNotFoundError, too."""


class Cache:
  """A stand-in for the package, with the files of one repository."""

  def __init__(self, folder, repo):
    self.repo, self.asked = repo, []
    top = folder / f"models--{repo.replace('/', '--')}"
    self.blobs, self.snapshot = top / "blobs", top / "snapshots" / COMMIT
    self.blobs.mkdir(parents=True)
    self.snapshot.mkdir(parents=True)

  def put(self, name: str, content: bytes, blob: str = ""):
    """blob: its name in the cache; "": its SHA-256, as of large files."""
    blob = blob or hashlib.sha256(content).hexdigest()
    (self.blobs / blob).write_bytes(content)
    path = self.snapshot / name
    path.unlink(missing_ok=True)
    path.symlink_to(self.blobs / blob)
    return blob

  def download(self, repo, name, revision=None):
    self.asked.append((repo, name, revision))
    if repo != self.repo:
      raise _NotHere("An error happened\nand a long story")
    path = self.snapshot / name
    if not path.exists():
      raise _Missing(f"404: {name}")
    return str(path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  made = Cache(tmp_path, "timm/tf_efficientnet_lite0.in1k")
  package = types.ModuleType("huggingface_hub")
  errors = types.ModuleType("huggingface_hub.errors")
  errors.EntryNotFoundError = _Missing
  errors.LocalEntryNotFoundError = _NotHere
  package.hf_hub_download = made.download
  package.try_to_load_from_cache = lambda *_, **__: None
  monkeypatch.setitem(sys.modules, "huggingface_hub", package)
  monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
  return made


@pytest.fixture(scope="module")
def variables(random_variables):
  return random_variables(lite.network(LITE, num_classes=3, **SIZES), 32)


@pytest.fixture(scope="module")
def content(variables):
  """Of model.safetensors, by timm's names."""
  network = lite.network(LITE, num_classes=3, **SIZES)
  return _file(timm.to_timm(variables, network))


def _file(arrays) -> bytes:
  made = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
  return safetensors.save(made)


def _config(architecture="tf_efficientnet_lite0", **fields):
  return json.dumps({"architecture": architecture, **fields}).encode()


def _create(weights, name=LITE):
  return models.create_model(name, weights=weights, **SIZES)


def _same(one, two):
  jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("old", [False, True])
def test_weights_come_with_their_preparation_and_an_exact_address(
  cache, content, variables, caplog, old
):
  sha256 = cache.put("model.safetensors", content)
  fields = PREPARED if old else {"pretrained_cfg": PREPARED}
  cache.put("config.json", _config(**fields), blob="a" * 40)
  exact = f"hub:timm/tf_efficientnet_lite0.in1k@{COMMIT}#{sha256}"
  net = _create("hub:timm/tf_efficientnet_lite0.in1k")
  _same(net.variables, variables)
  assert net.num_classes == 3
  assert net.augmentation.mean == (0.1, 0.2, 0.3)
  assert net.augmentation.std == (0.4, 0.5, 0.6)
  assert net.result["data"]["image_shape"] == [200, 200, 3]
  assert net.result["source"] == exact
  assert exact in caplog.text  # a branch may move
  # The rest is of the commit that the weights are of.
  assert cache.asked[-1][1:] == ("config.json", COMMIT)
  caplog.clear()
  _same(_create(exact).variables, variables)
  assert not caplog.records


def test_a_repository_without_configuration_is_read_by_its_names(
  cache, random_variables
):
  network = torchvision.network("mobilenet_v2", num_classes=3, **SIZES)
  variables = random_variables(network, 33)
  arrays = torchvision.to_torchvision(variables, network)
  cache.put("model.safetensors", _file(arrays))
  net = _create("hub:timm/tf_efficientnet_lite0.in1k@main", "mobilenet_v2")
  _same(net.variables, variables)
  assert COMMIT in net.result["source"]


def test_offline_a_file_that_is_known_not_to_be_there_is_not_missed(
  cache, content, monkeypatch
):
  """The first of the two names is no file of the repository."""
  cache.put("pytorch_model.bin", b"")
  cache.put("model.safetensors", content)
  download, missing = cache.download, "config.json"

  def offline(repo, name, revision=None):
    if name == missing:
      raise _NotHere(name)
    return download(repo, name, revision)

  package = sys.modules["huggingface_hub"]
  package.hf_hub_download = offline
  weights = f"hub:timm/tf_efficientnet_lite0.in1k@{COMMIT}"
  with pytest.raises(CheckpointError, match="is not on this machine"):
    _create(weights)
  package.try_to_load_from_cache = lambda *_, **__: object()
  assert _create(weights).num_classes == 3
  missing = "model.safetensors"
  with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
    _create(weights)


def test_a_body_without_classifier_gives_pooled_features(cache, variables):
  network = lite.network(LITE, num_classes=3, **SIZES)
  arrays = timm.to_timm(variables, network)
  body = {k: v for k, v in arrays.items() if not k.startswith("classifier.")}
  assert len(body) < len(arrays)
  cache.put("model.safetensors", _file(body))
  cache.put("config.json", _config(pretrained_cfg=PREPARED), blob="a" * 40)
  weights = f"hub:timm/tf_efficientnet_lite0.in1k@{COMMIT}"
  with pytest.raises(CheckpointError, match="has no classifier"):
    _create(weights)
  net = models.create_model(LITE, 0, weights, **SIZES)
  _same(net.variables["batch_stats"], variables["batch_stats"])


def test_damaged_and_other_weights_are_refused(cache, content):
  cache.put("model.safetensors", content[:-1], blob="b" * 64)
  address = f"hub:timm/tf_efficientnet_lite0.in1k@{COMMIT}"
  with pytest.raises(CheckpointError, match=f"and {'b' * 64} was to come"):
    _create(address)
  cache.put("model.safetensors", content)
  with pytest.raises(CheckpointError, match=f"and {'c' * 64} was to come"):
    _create(f"{address}#{'c' * 64}")


@pytest.mark.parametrize(
  ("weights", "words"),
  [
    ("hub:lite0", "write hub:OWNER/NAME@COMMIT"),
    ("hub:timm/x#12", "behind # stands the SHA-256"),
    (
      "hub:timm/other",
      "model.safetensors of timm/other is not on this machine",
    ),
    ("hub:timm/tf_efficientnet_lite0.in1k", "has neither of model.safetensors"),
  ],
)
def test_what_cannot_be_had_is_told_in_a_line(cache, weights, words):
  with pytest.raises((ValueError, CheckpointError), match=words) as error:
    _create(weights)
  assert "\n" not in str(error.value)


def test_another_network_and_a_configuration_that_says_too_little(
  cache, content
):
  cache.put("model.safetensors", content)
  weights = f"hub:timm/tf_efficientnet_lite0.in1k@{COMMIT}"
  cache.put("config.json", _config("mobilenetv2_100"), blob="a" * 40)
  with pytest.raises(ValueError, match="another network than efficient"):
    _create(weights)
  cache.put("config.json", _config(mean=[0.5]), blob="a" * 40)
  with pytest.raises(CheckpointError, match="not say input_size, std, crop"):
    _create(weights)
  cache.put("config.json", b"{", blob="a" * 40)
  with pytest.raises(CheckpointError, match=r"config\.json is no JSON"):
    _create(weights)


def test_the_package_is_asked_for_in_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(CheckpointError, match=r"nasnet_jax\[hub\]"):
    _create("hub:timm/tf_efficientnet_lite0.in1k")
