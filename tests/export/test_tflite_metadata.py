"""What libraries of phones read in a TFLite file: read here slot by slot, and
by MediaPipe, whose classifier takes the file, where it is installed."""

import json
import os
import subprocess
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

from nasnet_jax.data import augment
from nasnet_jax.export import artifact, formats, tables, tflite, tflite_metadata
from nasnet_jax.jobs import results

CLASSES = ["cat", "sea\nurchin", "Ähre", "dog"]
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.125)


@pytest.fixture(scope="module")
def run(random_variables, tmp_path_factory):
  """The folder of a run."""
  folder = tmp_path_factory.mktemp("runs") / "small"
  network = tables.published_blocks(
    "efficientnet_lite0", width=0.1, depth=0.3, num_classes=4
  )
  results.save(
    folder,
    "efficientnet_lite0",
    network,
    random_variables(network, 32),
    class_names=CLASSES,
    augmentation=augment.Augmentation(mean=MEAN, std=STD),
  )
  result = json.loads((folder / "result.json").read_text())
  result["data"]["image_shape"] = [32, 32, 3]
  (folder / "result.json").write_text(json.dumps(result))
  return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """A folder of pictures of the network's side, so that nobody scales them."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  for i in range(12):
    low, high = sorted(rng.integers(0, 256, 2))
    pixels = rng.integers(low, high + 1, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{i:02}.png")
  return folder


class _Table:
  """A flatbuffer's table, by the numbers of its fields."""

  def __init__(self, content, position):
    from flatbuffers.table import Table

    self._table = Table(content, position)

  def _at(self, field):
    return self._table.Offset(4 + 2 * field)

  def text(self, field) -> str:
    at = self._at(field)
    return self._table.String(at + self._table.Pos).decode() if at else ""

  def number(self, field, kind) -> int:
    from flatbuffers import number_types

    at = self._at(field)
    flags = getattr(number_types, f"{kind}Flags")
    return self._table.Get(flags, at + self._table.Pos) if at else 0

  def table(self, field) -> "_Table":
    position = self._at(field) + self._table.Pos
    return _Table(self._table.Bytes, self._table.Indirect(position))

  def tables(self, field) -> list["_Table"]:
    at = self._at(field)
    if not at:
      return []
    start = self._table.Vector(at)
    return [
      _Table(self._table.Bytes, self._table.Indirect(start + 4 * i))
      for i in range(self._table.VectorLen(at))
    ]

  def floats(self, field) -> np.ndarray:
    at, start = self._at(field), self._table.Vector(self._at(field))
    count = self._table.VectorLen(at)
    return np.frombuffer(self._table.Bytes, np.float32, count, start)


def _root(content: bytes) -> _Table:
  assert content[4:8] == b"M001"
  return _Table(content, int.from_bytes(content[:4], "little"))


def test_the_metadata_have_whitening_labels_and_the_side(run):
  pytest.importorskip("flatbuffers")
  source = artifact.open_run(run, artifact.Options(static=(1, 3, 40, 48)))
  root = _root(tflite_metadata.build(source))
  assert root.text(0) == "image classifier"
  assert root.text(7) == "1.0.0"
  (graph,) = root.tables(3)
  (image,), (logits,) = graph.tables(2), graph.tables(3)
  content = image.table(3)
  assert content.number(0, "Uint8") == 2  # ImageProperties
  shown = content.table(1)
  assert shown.number(0, "Int8") == 1  # RGB
  size = shown.table(1)
  assert [size.number(i, "Uint32") for i in (0, 1)] == [48, 40]  # width, height
  (unit,) = image.tables(4)
  assert unit.number(0, "Uint8") == 1  # NormalizationOptions
  mean, std = (unit.table(1).floats(i) for i in (0, 1))
  pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))
  whitened = pixels.astype(np.float32) * source.factor + source.offset
  np.testing.assert_allclose((pixels - mean) / std, whitened, atol=1e-5)
  assert content.number(0, "Uint8") == 2
  (labels,) = logits.tables(6)
  assert labels.text(0) == "labels.txt"
  assert labels.number(2, "Int8") == 2  # TENSOR_AXIS_LABELS
  text = tflite_metadata.labels(source)
  assert text.splitlines() == ["cat", "sea urchin", "Ähre", "dog"]


def test_of_a_network_that_takes_pixels_nothing_has_to_be_whitened(run):
  pytest.importorskip("flatbuffers")
  source = artifact.open_run(run, artifact.Options(preprocess=True))
  (graph,) = _root(tflite_metadata.build(source)).tables(3)
  (image,) = graph.tables(2)
  assert image.tables(4) == []
  stats = image.table(5)
  np.testing.assert_array_equal(stats.floats(0), [255] * 3)
  np.testing.assert_array_equal(stats.floats(1), [0] * 3)


def test_only_of_a_network_with_swish_its_loss_in_8_bits_is_said(run):
  lite0 = artifact.open_run(run, artifact.Options())
  assert "swish" not in tflite._advice(lite0, 0.5)
  nodes = [types.SimpleNamespace(op="swish")]
  other = types.SimpleNamespace(
    trace=lambda: types.SimpleNamespace(nodes=nodes)
  )
  for source in (lite0, other):
    assert "50% of the images only" in tflite._advice(source, 0.5)
  assert "swish and squeeze-excite lose" in tflite._advice(other, 0.5)


def _compared(run, monkeypatch, answers, **options):
  """The lines on int8, of files that answer so."""
  options = artifact.Options(calibration="x", **options)
  source = artifact.open_run(run, options)
  labelled = np.zeros((10, 32, 32, 3), np.uint8), None, "images of yours"
  monkeypatch.setattr(tflite.samples, "labelled", lambda *_: labelled)
  monkeypatch.setattr(
    tflite, "_answers", lambda source, folder, name, pixels: answers[name]
  )
  return tflite.compare_int8(source, None)


def test_int8_that_answers_otherwise_is_warned_of_with_the_way(
  run, monkeypatch, caplog
):
  same = np.zeros(10, int)
  other = np.arange(10) // 8
  answers = {tflite.FLOAT: same, tflite.INT8: other}
  line, advice = _compared(run, monkeypatch, answers)
  assert line.endswith("on 8 of 10 images of yours")
  assert "80% of the images only: more --calibration images" in advice
  assert advice in caplog.text
  caplog.clear()
  answers[tflite.INT8] = np.arange(10) // 9  # 90 %
  assert len(_compared(run, monkeypatch, answers)) == 1
  assert caplog.text == ""


def test_the_card_says_how_a_file_of_int8_is_run(run, monkeypatch):
  answers = dict.fromkeys((tflite.FLOAT, tflite.INT8), np.zeros(10, int))
  *_, how = _compared(run, monkeypatch, answers, int8_io=True)
  assert "np.int8" in how and "takes and gives int8" in how
  source = artifact.open_run(run, artifact.Options())
  text = formats.FORMATS["tflite"].also(source)
  assert "--static=1x3x32x32" in text
  assert "add `--preprocess`" in text  # its whitening differs by channel
  source = artifact.open_run(run, artifact.Options(preprocess=True))
  assert "--preprocess" not in formats.FORMATS["tflite"].also(source)
  source = artifact.open_run(run, artifact.Options(static=(1, 3, 32, 32)))
  assert "--static" not in formats.FORMATS["tflite"].also(source)


# --- files that TensorFlow writes ---------------------------------------------


@pytest.fixture(scope="module")
def exported(run, pictures, tmp_path_factory):
  """(options) -> the folder of an export; TensorFlow writes each once."""
  made = {}

  def export(python, **options):
    key = repr(sorted(options.items()))
    if key not in made:
      out = tmp_path_factory.mktemp("exports") / "out"
      given = artifact.Options(
        python=python, images=(str(pictures),), **options
      )
      source = artifact.open_run(run, given)
      kind = formats.FORMATS["tflite"]
      made[key] = artifact.export(source, "tflite", kind, out)
    return made[key]

  return export


_TF = ("keras", "tensorflow", "ai_edge_litert")
_DETAILS = """
import json, sys
from ai_edge_litert.interpreter import Interpreter
found = {}
for name in sys.argv[1:]:
  network = Interpreter(name)
  for part in (network.get_input_details()[0], network.get_output_details()[0]):
    shape = [int(n) for n in part["shape_signature"]]
    found.setdefault(name, []).append([part["dtype"].__name__, shape])
print(json.dumps(found))
"""


@pytest.mark.slow  # TensorFlow
def test_files_of_one_shape_and_in_int8_are_what_they_say(
  run, pictures, python_with, exported
):
  python = python_with(*_TF)
  done = exported(
    python, static=(1, 3, 32, 32), calibration=str(pictures), int8_io=True
  )
  assert done.difference < 1e-4
  assert "same answer as float32" in done.notes[1]
  ran = subprocess.run(
    [python, "-c", _DETAILS, tflite.FLOAT, tflite.INT8],
    cwd=done.folder,
    capture_output=True,
    text=True,
    check=True,
  )
  assert json.loads(ran.stdout.splitlines()[-1]) == {
    tflite.FLOAT: [["float32", [1, 32, 32, 3]], ["float32", [1, 4]]],
    tflite.INT8: [["int8", [1, 32, 32, 3]], ["int8", [1, 4]]],
  }
  for name in (tflite.FLOAT, tflite.INT8):
    with zipfile.ZipFile(done.folder / name) as file:
      assert file.namelist() == ["nasnet_jax.json", "labels.txt"]
    assert b"TFLITE_METADATA" in (done.folder / name).read_bytes()


_CLASSIFY = """
import json, pathlib, sys
import mediapipe as mp
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema
path, pictures = map(pathlib.Path, sys.argv[1:])
model = schema.ModelT.InitFromObj(
  schema.Model.GetRootAsModel(path.read_bytes(), 0))
(at,) = [m.buffer for m in model.metadata if m.name == b"TFLITE_METADATA"]
content = bytes(bytearray(model.buffers[at].data))
assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
about = metadata.ModelMetadataT.InitFromObj(
  metadata.ModelMetadata.GetRootAsModelMetadata(content, 0))
(graph,) = about.subgraphMetadata
(image,), (logits,) = graph.inputTensorMetadata, graph.outputTensorMetadata
color = image.content.contentProperties.colorSpace
units = [[list(map(float, u.options.mean)), list(map(float, u.options.std))]
         for u in image.processUnits or ()]
files = [[f.name.decode(), f.type] for f in logits.associatedFiles]
assert color == metadata.ColorSpaceType.RGB
assert files == [
  ["labels.txt", metadata.AssociatedFileType.TENSOR_AXIS_LABELS]]
options = mp.tasks.vision.ImageClassifierOptions(
  base_options=mp.tasks.BaseOptions(model_asset_path=str(path)))
answers = []
with mp.tasks.vision.ImageClassifier.create_from_options(options) as network:
  for file in sorted(pictures.iterdir()):
    image = mp.Image.create_from_file(str(file))
    found = network.classify(image).classifications[0].categories
    answers.append({c.category_name: c.score for c in found})
print(json.dumps({"units": units, "answers": answers}))
"""


@pytest.fixture
def mediapipe():
  """An interpreter that has MediaPipe."""
  python = os.environ.get("NASNET_JAX_MEDIAPIPE_PYTHON")
  if not python:
    pytest.skip(
      "needs MediaPipe: NASNET_JAX_MEDIAPIPE_PYTHON is an interpreter with it"
    )
  return python


@pytest.mark.slow  # TensorFlow and MediaPipe
@pytest.mark.parametrize("preprocess", [False, True])
def test_mediapipes_classifier_answers_as_we_do_or_refuses_as_the_card_says(
  preprocess, run, pictures, python_with, exported, mediapipe
):
  done = exported(
    python_with(*_TF), static=(1, 3, 32, 32), preprocess=preprocess
  )
  ran = subprocess.run(
    [mediapipe, "-c", _CLASSIFY, str(done.folder / tflite.FLOAT), pictures],
    capture_output=True,
    text=True,
    check=False,
  )
  if not preprocess:  # the card says so
    assert "Per-channel image normalization is not available" in ran.stderr
    return
  assert ran.returncode == 0, ran.stderr[-2000:]
  found = json.loads(ran.stdout.splitlines()[-1])
  assert found["units"] == []
  source = artifact.open_run(run, artifact.Options())
  pixels = [np.asarray(Image.open(f)) for f in sorted(pictures.iterdir())]
  logits = source.ours()(np.stack(pixels))
  names = tflite_metadata.labels(source).splitlines()
  for answer, ours in zip(found["answers"], logits, strict=True):
    theirs = [answer[name] for name in names]
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
