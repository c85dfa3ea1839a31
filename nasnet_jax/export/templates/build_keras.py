"""Runs in an environment with Keras, in the folder of a generated network.py:
gives the network its weights and saves it.

  python build_keras.py keras|saved_model|tflite|int8 SCRATCH

SCRATCH is a folder of weights.npz; of images.npy for int8; of metadata.bin and
given.json, with the one shape (or null) and int8_io, for tflite and int8.
"""

import json
import pathlib
import shutil
import sys

import numpy as np

sys.path.insert(0, "")
import network

SCRATCH = pathlib.Path(sys.argv[2])


def load(path):
  """The model with the weights of a file: {"layer/weight": array}."""
  model = network.make_network()
  found = dict(np.load(path))
  variables = {
    f"{layer.name}/{variable.name}": variable
    for layer in model.layers
    for variable in layer.weights
  }
  if variables.keys() != found.keys():
    names = sorted(variables.keys() ^ found.keys())
    raise ValueError(f"these weights are missing or left over: {names[:8]}")
  for name, variable in variables.items():
    variable.assign(found[name])
  return model


def save_keras(model):
  model.save("network.keras")


def save_saved_model(model):
  model.export("saved_model", format="tf_saved_model", verbose=False)


def _converter(model, shape):
  """shape: [N, H, W, C]; None: any batch and side."""
  import tensorflow as tf

  signature = None
  if shape:
    signature = [tf.TensorSpec(shape, model.inputs[0].dtype, "images")]
  model.export(
    "exported",
    format="tf_saved_model",
    verbose=False,
    input_signature=signature,
  )
  return tf, tf.lite.TFLiteConverter.from_saved_model("exported")


def _with_metadata(content):
  """A TFLite file with metadata.bin as its buffer TFLITE_METADATA."""
  import flatbuffers
  from tensorflow.lite.python import schema_py_generated as schema

  metadata = np.fromfile(SCRATCH / "metadata.bin", np.uint8)
  model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
  buffer, entry = schema.BufferT(), schema.MetadataT()
  buffer.data = metadata
  entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
  model.buffers.append(buffer)
  model.metadata = [*(model.metadata or []), entry]
  builder = flatbuffers.Builder(len(content) + len(metadata) + 1024)
  builder.Finish(model.Pack(builder), b"TFL3")
  return bytes(builder.Output())


def _write(name, converter):
  content = _with_metadata(converter.convert())
  pathlib.Path(name).write_bytes(content)
  shutil.rmtree("exported")


def save_tflite(model):
  """Float32; any batch and side, or the one."""
  _, converter = _converter(model, _given()["shape"])
  _write("network.tflite", converter)


def save_int8(model):
  """Weights and activations of 8 bits, their ranges from images.npy. Images
  and logits stay float32 unless int8_io; the side may be that of these images
  only."""
  given, images = _given(), np.load(SCRATCH / "images.npy")
  tf, converter = _converter(model, given["shape"])
  size = given["shape"][0] if given["shape"] else 1
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: (
    [np.resize(images[i : i + size], (size, *images.shape[1:]))]
    for i in range(0, len(images), size)
  )
  converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
  if given["int8_io"]:
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
  _write("network_int8.tflite", converter)


def _given():
  return json.loads((SCRATCH / "given.json").read_text())


SAVE = {
  "keras": save_keras,
  "saved_model": save_saved_model,
  "tflite": save_tflite,
  "int8": save_int8,
}

if __name__ == "__main__":
  SAVE[sys.argv[1]](load(SCRATCH / "weights.npz"))
