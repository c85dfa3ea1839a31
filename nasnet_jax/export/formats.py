"""The formats that a network is exported in, each with the lines that load it.

To add one, write its files in a function of (source, folder) and put it into
FORMATS with the lines that a user would write.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.export import (
  jax_function,
  keras_files,
  onnx_model,
  tflite,
  torch_module,
)
from nasnet_jax.export.artifact import METADATA, Format, Source

WEIGHTS = "weights.safetensors"


def write_safetensors(source: Source, folder: pathlib.Path):
  """Our weights by our names, channels last; config.json as metadata."""
  from safetensors.numpy import save_file

  flat = {
    "/".join(key.key for key in path): np.ascontiguousarray(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(source.variables)[0]
  }
  metadata = {METADATA: source.config, "names": "nasnet_jax"}
  save_file(flat, folder / WEIGHTS, metadata)


def write_torch(source: Source, folder: pathlib.Path):
  """network.py, and its state dict."""
  from safetensors.numpy import save_file

  text = torch_module.source(
    source.network,
    source.image_shape,
    *source.mean_std,
    about=source.docstring("PyTorch", "`network.load()`"),
    whitened=not source.options.preprocess,
    cut=source.cut,
  )
  (folder / keras_files.MODULE).write_text(text)
  weights = torch_module.weights(source.kept)
  metadata = {METADATA: source.config, "names": "torch"}
  save_file(weights, folder / WEIGHTS, metadata)


def write_onnx(source: Source, folder: pathlib.Path):
  """network.onnx, config.json as its metadata."""
  import onnx

  metadata = {METADATA: source.config}
  model = onnx_model.make_model(
    source.trace(),
    metadata,
    source.whiten,
    opset=source.options.opset or onnx_model.OPSET,
    batch=source.fixed[0] if source.fixed else None,
  )
  onnx.save(model, folder / "network.onnx")


_PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(source: Source, folder: pathlib.Path):
  """network.stablehlo, as `jax.export` serialises it: batch and side are free,
  from half of the trained side on."""
  run = jax_function.make(source.trace())
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


def _torch_also(source: Source) -> str:
  """What else the PyTorch module does; tests/export/test_torch_module.py."""
  kind = "float32" if source.whiten is None else "uint8"
  h, w, _ = source.image_shape
  return f"""\
`network.load()` gives a plain module: `.half()`, `.bfloat16()` and `.double()`,
`torch.jit.script`, `torch.jit.trace` (which serves other batches and sides),
`torch.compile`, and `torch.export` with a free batch and free sides work:

    dim = torch.export.Dim
    free = {{0: dim("n"), 2: dim("h", min={h}), 3: dim("w", min={w})}}
    torch.export.export(model, (batch,), dynamic_shapes=(free,))

`batch` has two or more images, {kind}; at the smallest sides no map of the
network may be a single pixel."""


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
    also=_torch_also,
  ),
  "keras": Format(
    keras_files.write_keras,
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
    keras_files.write_saved_model,
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
    tflite.write_tflite,
    ("keras", "tensorflow", "ai-edge-litert"),
    False,
    tflite.SNIPPET,
    made_with=("flatbuffers",),
    also=tflite.also,
    after=tflite.compare_int8,
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
