"""Exports whole: they load by themselves, agree with us, or are not there."""

import functools
import json
import sys
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from nasnet_jax.data import augment
from nasnet_jax.export import (
  artifact,
  card,
  check,
  formats,
  importing,
  samples,
  tables,
)
from nasnet_jax.jobs import results
from nasnet_jax.training.checkpoint import CheckpointError

NAME = "nasnet_a_cifar"
CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
  """A folder's network is traced once and not for each test: seconds."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(results, "load", functools.cache(results.load))
    yield


@pytest.fixture(scope="module")
def run(random_variables, tmp_path_factory):
  """The folder of a run."""
  folder = tmp_path_factory.mktemp("runs") / "small"
  network = tables.published(NAME, num_cells=1, features=4, num_classes=3)
  network = network.clone()
  variables = random_variables(network, 16)
  results.save(
    folder,
    NAME,
    network,
    variables,
    class_names=CLASSES,
    augmentation=augment.PHOTOGRAPHS,
  )
  result = json.loads((folder / "result.json").read_text())
  result["data"]["image_shape"] = [16, 16, 3]
  (folder / "result.json").write_text(json.dumps(result))
  (folder / "config.json").write_text('{"train": {"epochs": 7}}')
  return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """A folder of image files."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  for i in range(9):
    pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
  return folder


def _export(run, name, out, **options):
  source = artifact.open_run(run, artifact.Options(**options))
  return artifact.export(source, name, formats.FORMATS[name], out)


NEEDS = {
  "torch": ("torch", "safetensors"),
  "keras": ("keras",),
  "onnx": ("onnx", "onnxruntime"),
  "saved_model": ("keras", "tensorflow"),
  "tflite": ("keras", "tensorflow", "ai_edge_litert"),
  "stablehlo": ("flatbuffers",),
  "safetensors": ("safetensors",),
}
# Compiled, or started, for half a minute and more.
_SLOW = ("keras", "saved_model", "tflite", "stablehlo", "safetensors")


def test_every_format_is_tried_here():
  assert NEEDS.keys() == formats.FORMATS.keys()


@pytest.mark.parametrize(
  ("name", "preprocess"),
  [
    pytest.param(name, pre, marks=pytest.mark.slow if slow else ())
    for name in NEEDS
    for pre in (False, True)
    for slow in [name in _SLOW or (pre and name != "onnx")]
    if not (pre and name == "safetensors")  # it holds no program
  ],
)
def test_a_format_is_loaded_by_its_own_runtime_and_agrees(
  name, preprocess, run, pictures, python_with, tmp_path
):
  pytest.importorskip("safetensors")  # which writers use here
  if name == "onnx":
    pytest.importorskip("onnx")
  done = _export(
    run,
    name,
    tmp_path / "out",
    python=python_with(*NEEDS[name]),
    images=(str(pictures),),
    preprocess=preprocess,
  )
  assert done.difference < 1e-4
  assert "8 images of yours" in done.notes[0]
  text = (done.folder / "README.md").read_text()
  assert f"{done.difference:.2g}" in text
  assert "cat, dog, eel" in text
  stored = json.loads((done.folder / "config.json").read_text())
  assert stored["classes"] == CLASSES
  assert stored["training"] == {"train": {"epochs": 7}}
  assert stored["genotype"]["space"] == "nasnet"
  with np.load(done.folder / "examples.npz") as examples:
    kind = np.uint8 if preprocess else np.float32
    assert examples["images"].dtype == kind
    assert examples["logits"].shape == (8, 3)
  assert json.loads(_inside(done.folder, name)) == stored
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
  ("preprocess", "out", "words"),
  [
    (True, "out", "safetensors holds weights and no program"),
    (False, "taken", "safetensors is there already"),
    (False, "file/out", "file is a file: give --out= a folder"),
  ],
)
def test_of_several_formats_none_is_written_if_one_cannot_be(
  preprocess, out, words, run, tmp_path
):
  (tmp_path / "taken" / "safetensors").mkdir(parents=True)
  (tmp_path / "file").write_text("")
  options = artifact.Options(preprocess=preprocess, verify=False)
  source = artifact.open_run(run, options)
  # A format that needs nothing comes first.
  first = formats.FORMATS["onnx"]._replace(made_with=())
  kinds = {"onnx": first, "safetensors": formats.FORMATS["safetensors"]}
  with pytest.raises(check.ExportError, match=words):
    artifact.check_all(source, kinds, tmp_path / out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "torch", "stablehlo"])
def test_features_are_a_map_with_the_channels_where_the_format_has_them(
  name, run, python_with, tmp_path
):
  pytest.importorskip("safetensors")
  if name == "onnx":
    pytest.importorskip("onnx")
  options = {"features": True, "preprocess": True}
  python = python_with(*NEEDS[name])
  done = _export(run, name, tmp_path / "out", python=python, **options)
  assert done.difference < 1e-4
  with np.load(done.folder / "examples.npz") as examples:
    shape = examples["features"].shape
  ours = artifact.open_run(run, artifact.Options(**options)).ours()
  n, h, w, f = ours(np.zeros((8, 16, 16, 3), np.uint8)).shape
  assert shape == ((n, h, w, f) if name == "stablehlo" else (n, f, h, w))
  assert (h, w) == (8, 8) != (n, f)


def test_pictures_of_any_side_are_compared_at_the_trained_one(run, pictures):
  source = artifact.open_run(run, artifact.Options())
  assert samples.read_images(source, [pictures], 99).shape == (9, 16, 16, 3)
  data = {**source.result["data"], "image_shape": [16, 22, 3]}
  del data["center"]
  wide = source._replace(result={**source.result, "data": data})
  assert samples.read_images(wide, [pictures], 5).shape == (5, 16, 22, 3)


def _inside(folder, name) -> str:
  """What the artifact's own file says of the network."""
  if name in ("torch", "safetensors"):
    from safetensors import safe_open

    with safe_open(folder / "weights.safetensors", "numpy") as file:
      return file.metadata()["nasnet_jax"]
  if name == "onnx":
    import onnx

    model = onnx.load(folder / "network.onnx")
    return {p.key: p.value for p in model.metadata_props}["nasnet_jax"]
  if name in ("keras", "tflite"):
    with zipfile.ZipFile(folder / f"network.{name}") as file:
      return file.read("nasnet_jax.json").decode()
  if name == "saved_model":
    extra = folder / "saved_model" / "assets.extra"
    return (extra / "config.json").read_text()
  return (folder / "config.json").read_text()  # beside, with StableHLO


def test_an_export_that_differs_leaves_nothing(run, tmp_path, monkeypatch):
  pytest.importorskip("onnx")
  pytest.importorskip("onnxruntime")
  right = artifact.Source.ours
  monkeypatch.setattr(
    artifact.Source,
    "ours",
    lambda self: lambda pixels: right(self)(pixels) + 2e-4,
  )
  with pytest.raises(check.ExportError, match=r"differ from ours by 0\.0002"):
    _export(run, "onnx", tmp_path / "out")
  assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
  pytest.importorskip("onnx")
  pytest.importorskip("onnxruntime")
  kind = formats.FORMATS["onnx"]
  broken = kind._replace(snippet="import numpy\nimages = 1\nlogits = 1 / 0\n")
  monkeypatch.setitem(formats.FORMATS, "onnx", broken)
  with pytest.raises(check.ExportError, match="ZeroDivisionError: division"):
    _export(run, "onnx", tmp_path / "out")
  assert list(tmp_path.iterdir()) == []


def test_logits_that_are_no_numbers_are_a_difference():
  ours = {"batch 1": np.zeros((1, 3), np.float32)}
  theirs = check.Answers({"batch 1": np.full((1, 3), np.nan)}, 0.1)
  with pytest.raises(check.ExportError, match=r"differ .* \(batch 1\)"):
    check.compare(ours, theirs, 1e-4)
  other = check.Answers({"batch 1": np.zeros((3, 1))}, 0.1)
  with pytest.raises(check.ExportError, match="shape"):
    check.compare(ours, other, 1e-4)


def test_the_largest_difference_of_all_cases_is_told():
  ours = {n: np.zeros((1, 2), np.float32) for n in ("one", "two", "three")}
  found = {"one": [[0, 1e-6]], "two": [[-3e-5, 0]], "three": [[0, 0]]}
  theirs = check.Answers({n: np.array(a) for n, a in found.items()}, 0.1)
  assert check.compare(ours, theirs, 1e-4).difference == pytest.approx(3e-5)


def test_a_folder_that_is_there_is_left_alone(run, tmp_path):
  (tmp_path / "out").mkdir()
  with pytest.raises(check.ExportError, match="is there already"):
    _export(run, "safetensors", tmp_path / "out")
  assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_written(tmp_path):
  with pytest.raises(check.ExportError, match="pip install no-such-package"):
    check.require(sys.executable, ("numpy", "no-such-package"))
  with pytest.raises(check.ExportError, match="is no Python interpreter"):
    check.require(str(tmp_path / "python"), ("numpy",))
  check.require(sys.executable, ("numpy",))


def test_cases_are_several_batches_and_another_side(run):
  source = artifact.open_run(run, artifact.Options())
  pixels = np.arange(8 * 16 * 16 * 3).astype(np.uint8).reshape(8, 16, 16, 3)
  found = {n: x.shape for n, x in samples.cases(source, pixels).items()}
  assert found == {
    "batch 1": (1, 16, 16, 3),
    "batch 3": (3, 16, 16, 3),
    "batch 8": (8, 16, 16, 3),
    "19x22": (2, 19, 22, 3),
  }


@pytest.mark.parametrize(
  ("static", "words"),
  [
    ((1, 16, 16, 3), "has 16 channels, the network takes 3: .* as 1x3x16x16"),
    ((1, 4, 9, 8), "has 4 channels, the network takes 3: .* as 1x3x9x8"),
    ((3, 16, 16), "is no shape of images: give batch, .* as 1x3x224x224"),
    ((0, 3, 16, 16), "is no shape of images"),
  ],
)
def test_a_shape_of_other_images_is_refused(static, words, run):
  with pytest.raises(ValueError, match=words):
    artifact.open_run(run, artifact.Options(static=static))


@pytest.mark.slow  # compiles
def test_an_onnx_file_of_one_shape_is_compared_in_it(run, pictures, tmp_path):
  onnx = pytest.importorskip("onnx")
  pytest.importorskip("onnxruntime")
  options = {"images": (str(pictures),), "opset": 13}
  done = _export(
    run, "onnx", tmp_path / "out", static=(3, 3, 20, 17), **options
  )
  assert done.difference < 1e-4
  card = (done.folder / "README.md").read_text()
  assert "in batches of 3 at 20 x 17" in card
  assert "- Batches of 3 of 20 x 17 pixels and no others" in card
  with np.load(done.folder / "examples.npz") as examples:
    assert examples["images"].shape == (3, 3, 20, 17)
  model = onnx.load(done.folder / "network.onnx")
  assert (model.ir_version, model.opset_import[0].version) == (8, 13)
  dims = model.graph.input[0].type.tensor_type.shape.dim
  assert [dim.dim_value for dim in dims] == [3, 3, 20, 17]


def test_whitening_is_that_of_evaluation(run):
  source = artifact.open_run(run, artifact.Options())
  pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  pixels = np.repeat(pixels, 3, -1)
  found = samples.as_input(source, pixels)
  augmentation = results.load(run).augmentation
  wanted = results.augment.normalise(pixels, augmentation)
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  first = samples.as_input(source, pixels, channels_first=True)
  np.testing.assert_array_equal(first, found.transpose(0, 3, 1, 2))


def test_a_card_without_lines_to_run_is_an_error():
  with pytest.raises(ValueError, match="no lines that set `images`"):
    card.snippet_of("# A card\n\n```python\nimport numpy\n```\n")


# --- and back ---


@pytest.mark.parametrize("name", ["torch", "safetensors"])
def test_exported_weights_come_back_as_a_run(run, name, tmp_path):
  pytest.importorskip("safetensors")
  _export(run, name, tmp_path / "out", verify=False)
  importing.to_run(tmp_path / "out", tmp_path / "run")
  before, after = results.load(run), results.load(tmp_path / "run")
  assert after.network == before.network
  assert after.result["data"]["classes"] == CLASSES
  assert after.augmentation == before.augmentation
  jax.tree.map(np.testing.assert_array_equal, after.variables, before.variables)
  with pytest.raises(ValueError, match="has a run already"):
    importing.to_run(tmp_path / "out", tmp_path / "run")


def test_weights_trained_on_in_torch_come_back(run, tmp_path):
  torch = pytest.importorskip("torch")
  pytest.importorskip("safetensors")
  _export(run, "torch", tmp_path / "out", verify=False)
  scope = {"__file__": str(tmp_path / "out" / "network.py")}
  exec((tmp_path / "out" / "network.py").read_text(), scope)
  model = scope["load"]()
  with torch.no_grad():
    model.classifier.bias += 1
  torch.save(model.state_dict(), tmp_path / "out" / "further.pt")
  found = importing.read(tmp_path / "out" / "further.pt")
  before = results.load(run).variables["params"]["classifier"]["bias"]
  after = found.variables["params"]["classifier"]["bias"]
  np.testing.assert_allclose(after, before + 1, rtol=1e-6)


def test_weights_that_do_not_fit_are_listed(run, tmp_path):
  pytest.importorskip("safetensors")
  from safetensors.numpy import load_file, save_file

  _export(run, "torch", tmp_path / "out", verify=False)
  path = tmp_path / "out" / "weights.safetensors"
  arrays = load_file(path)
  arrays["stem.conv.wieght"] = arrays.pop("stem.conv.weight")
  save_file(arrays, path)  # without metadata: config.json says what it is
  with pytest.raises(CheckpointError, match=r"missing: stem\.conv\.weight"):
    importing.read(path)
  config = tmp_path / "out" / "config.json"
  config.write_text('{"architecture": "resnet18"}')  # as hubs have them
  with pytest.raises(CheckpointError, match=r"put the config\.json"):
    importing.read(path)
  config.unlink()
  with pytest.raises(CheckpointError, match=r"put the config\.json"):
    importing.read(path)
  (tmp_path / "page.pt").write_text("<html>")  # told without PyTorch
  with pytest.raises(CheckpointError, match=r"page\.pt is no PyTorch file"):
    importing.read(tmp_path / "page.pt")
  with pytest.raises(CheckpointError, match="is not there"):
    importing.read(tmp_path / "none")
