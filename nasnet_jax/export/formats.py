"""The formats that a network is exported in, each with the lines that load it.

To add one, write its files in a function of (source, folder) and put it into
FORMATS with the lines that a user would write.
"""

import json
import math
import pathlib
import tempfile
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.export import (
  artifact,
  check,
  graph,
  jax_function,
  keras_module,
  onnx_model,
  outline,
  torch_module,
)
from nasnet_jax.export.artifact import CONFIG, Format, Source

WEIGHTS = "weights.safetensors"
MODULE = "network.py"
METADATA = "nasnet_jax"  # key of config.json inside of a file


def _config(source: Source) -> str:
  """config.json in one line, for files that can hold a text."""
  return json.dumps(source.metadata)


def _trace(source: Source) -> graph.Graph:
  return graph.trace(
    source.network, source.variables, source.image_shape, source.answer
  )


def _docstring(source: Source, framework: str, call: str) -> str:
  return (
    f"{source.about}.\n\nWritten by nasnet_jax for {framework}; {call} gives"
    " the trained network.\nHow it was trained stands in config.json.\n"
  )


# --- files that are written here ---------------------------------------------


def write_safetensors(source: Source, folder: pathlib.Path):
  """Our weights by our names, channels last; config.json as metadata."""
  from safetensors.numpy import save_file

  flat = {
    "/".join(key.key for key in path): np.ascontiguousarray(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(source.variables)[0]
  }
  metadata = {METADATA: _config(source), "names": "nasnet_jax"}
  save_file(flat, folder / WEIGHTS, metadata)


def write_torch(source: Source, folder: pathlib.Path):
  """network.py, and its state dict."""
  from safetensors.numpy import save_file

  text = torch_module.source(
    source.network,
    source.image_shape,
    *source.mean_std,
    about=_docstring(source, "PyTorch", "`network.load()`"),
    whitened=not source.options.preprocess,
    cut=source.cut,
  )
  (folder / MODULE).write_text(text)
  weights = torch_module.weights(source.kept)
  metadata = {METADATA: _config(source), "names": "torch"}
  save_file(weights, folder / WEIGHTS, metadata)


def write_onnx(source: Source, folder: pathlib.Path):
  """network.onnx, config.json as its metadata."""
  import onnx

  metadata = {METADATA: _config(source)}
  model = onnx_model.make_model(_trace(source), metadata, source.whiten)
  onnx.save(model, folder / "network.onnx")


_PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(source: Source, folder: pathlib.Path):
  """network.stablehlo, as `jax.export` serialises it: batch and side are free,
  from half of the trained side on."""
  run = jax_function.make(_trace(source))
  whiten = source.whiten

  @jax.jit
  def network(images):
    if whiten is not None:
      images = images.astype(jnp.float32) * whiten[0] + whiten[1]
    return run(images)[source.output]

  h, w, channels = source.image_shape
  shape = jax.export.symbolic_shape(
    f"batch, height, width, {channels}",
    constraints=[f"height >= {(h + 1) // 2}", f"width >= {(w + 1) // 2}"],
  )
  kind = jnp.float32 if whiten is None else jnp.uint8
  exported = jax.export.export(network, platforms=_PLATFORMS)(
    jax.ShapeDtypeStruct(shape, kind)
  )
  (folder / "network.stablehlo").write_bytes(exported.serialize())


# --- files that Keras writes, in a process that has it -----------------------


def _build(source: Source, folder: pathlib.Path, kind: str, **images):
  """Has Keras save the generated network. kind: see `build_keras.py`."""
  text = keras_module.source(
    source.network,
    source.image_shape[2],
    about=_docstring(source, "Keras 3", "of network.keras, `load_model`"),
    whiten=source.whiten,
    cut=source.cut,
  )
  (folder / MODULE).write_text(text)
  script = (outline.TEMPLATES / "build_keras.py").read_text()
  with tempfile.TemporaryDirectory() as scratch:
    weights = pathlib.Path(scratch) / "weights.npz"
    layers = {node.name for node in _trace(source).nodes}
    np.savez(weights, **keras_module.weights(source.kept, layers))
    files = [weights, kind]
    if images:
      files.append(pathlib.Path(scratch) / "images.npz")
      np.savez(files[-1], **images)
    backend = {} if kind == "keras" else {"KERAS_BACKEND": "tensorflow"}
    interpreter = source.options.interpreter
    check.run_script(interpreter, script, folder, *files, **backend)


def _put_config(source: Source, path: pathlib.Path):
  """Adds config.json to a zip file, or to the end of a TFLite one, which is
  where its metadata have associated files."""
  with zipfile.ZipFile(path, "a") as file:
    file.writestr(f"{METADATA}.json", _config(source))


def write_keras(source: Source, folder: pathlib.Path):
  """network.keras and the code that made it."""
  _build(source, folder, "keras")
  _put_config(source, folder / "network.keras")


def write_saved_model(source: Source, folder: pathlib.Path):
  """saved_model, with config.json among its extra assets."""
  _build(source, folder, "saved_model")
  (folder / MODULE).unlink()  # Keras is not needed any more
  extra = folder / "saved_model" / "assets.extra"
  extra.mkdir()
  (extra / CONFIG).write_text(_config(source))


_MAX_NUMBERS = 50_000_000  # of the test images, all at once: 200 MB
TFLITE, INT8 = "network.tflite", "network_int8.tflite"


def write_tflite(source: Source, folder: pathlib.Path):
  """network.tflite; network_int8.tflite too, if there are images to calibrate
  its ranges with."""
  _build(source, folder, "tflite")
  _put_config(source, folder / TFLITE)
  if source.options.calibration:
    options = source.options
    pixels = artifact.read_images(
      source, [options.calibration], options.calibration_images
    )
    _build(source, folder, "int8", images=artifact.as_input(source, pixels))
    _put_config(source, folder / INT8)
  (folder / MODULE).unlink()


def compare_int8(source: Source, folder: pathlib.Path) -> tuple[str, ...]:
  """Lines on the accuracy that 8 bits cost, on test images."""
  if not source.options.calibration or source.cut:
    return ()
  count = min(1000, _MAX_NUMBERS // math.prod(source.image_shape))
  pixels, labels, what = artifact.labelled(source, max(count, 8))
  images = {"test": artifact.as_input(source, pixels)}
  answers = []
  for name in (TFLITE, INT8):
    snippet = FORMATS["tflite"].snippet.replace(TFLITE, name)
    found = check.run_snippet(
      source.options.interpreter, snippet, folder, images
    )
    answers.append(found.logits["test"].argmax(-1))
  same = int((answers[0] == answers[1]).sum())
  line = (
    f"int8: the same answer as float32 on {same:,} of {len(pixels):,} {what}"
  )
  if labels is not None:
    before, after = (int((answer == labels).sum()) for answer in answers)
    line += f"; {after:,} right, float32 {before:,}"
  return (line,)


FORMATS: dict[str, Format] = {
  "torch": Format(
    write_torch,
    ("torch", "safetensors"),
    True,
    """
import numpy as np
import torch

import network  # network.py of this folder

model = network.load()  # a torch.nn.Module
images = np.load("examples.npz")["images"]  # [N, C, H, W]
with torch.no_grad():
  logits = model(torch.from_numpy(images)).numpy()
""",
    made_with=("safetensors",),
  ),
  "keras": Format(
    write_keras,
    ("keras",),
    False,
    """
import keras  # 3, on any backend
import numpy as np

model = keras.saving.load_model("network.keras")
images = np.load("examples.npz")["images"]  # [N, H, W, C]
logits = keras.ops.convert_to_numpy(model(images, training=False))
""",
  ),
  "onnx": Format(
    write_onnx,
    ("onnxruntime",),
    True,
    """
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx")
images = np.load("examples.npz")["images"]  # [N, C, H, W]
logits = session.run(["logits"], {"images": images})[0]
""",
    made_with=("onnx",),
  ),
  "saved_model": Format(
    write_saved_model,
    ("keras", "tensorflow"),
    False,
    """
import numpy as np
import tensorflow as tf

network = tf.saved_model.load("saved_model")
images = np.load("examples.npz")["images"]  # [N, H, W, C]
logits = network.serve(images).numpy()
""",
  ),
  "tflite": Format(
    write_tflite,
    ("keras", "tensorflow", "ai-edge-litert"),
    False,
    """
import numpy as np
from ai_edge_litert.interpreter import Interpreter

network = Interpreter("network.tflite")
image, logit = network.get_input_details()[0], network.get_output_details()[0]
images = np.load("examples.npz")["images"]  # [N, H, W, C]
network.resize_tensor_input(image["index"], images.shape)
network.allocate_tensors()
network.set_tensor(image["index"], images)
network.invoke()
logits = network.get_tensor(logit["index"])
""",
    after=compare_int8,
  ),
  "stablehlo": Format(
    write_stablehlo,
    ("jax", "flatbuffers"),
    False,
    """
import jax
import numpy as np

with open("network.stablehlo", "rb") as file:
  network = jax.export.deserialize(bytearray(file.read()))
images = np.load("examples.npz")["images"]  # [N, H, W, C]
logits = np.asarray(network.call(images))
""",
    made_with=("flatbuffers",),
  ),
  "safetensors": Format(
    write_safetensors,
    ("safetensors",),
    False,
    """
import jax
import numpy as np

from nasnet_jax.export import importing

found = importing.read("weights.safetensors")
run = jax.jit(found.network.apply)
images = np.load("examples.npz")["images"]  # [N, H, W, C]
logits = run(found.variables, images)[0]
""",
    made_with=("safetensors",),
    ours=True,
  ),
}
