"""Runs in an environment with Keras, in the folder of a generated network.py:
gives the network its weights and saves it.

  python build_keras.py weights.npz keras|saved_model
  python build_keras.py weights.npz tflite
  python build_keras.py weights.npz int8 pixels.npz
"""

import pathlib
import shutil
import sys

import numpy as np

sys.path.insert(0, "")
import network


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


def _converter(model):
  import tensorflow as tf

  model.export("exported", format="tf_saved_model", verbose=False)
  return tf, tf.lite.TFLiteConverter.from_saved_model("exported")


def save_tflite(model):
  """Float32; any batch and side."""
  _, converter = _converter(model)
  pathlib.Path("network.tflite").write_bytes(converter.convert())
  shutil.rmtree("exported")


def save_int8(model):
  """Weights and activations of 8 bits, their ranges from sys.argv[3]; images
  and logits stay float32, the side is that of these images."""
  images = np.load(sys.argv[3])["images"]
  tf, converter = _converter(model)
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: ([image[None]] for image in images)
  converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
  pathlib.Path("network_int8.tflite").write_bytes(converter.convert())
  shutil.rmtree("exported")


SAVE = {
  "keras": save_keras,
  "saved_model": save_saved_model,
  "tflite": save_tflite,
  "int8": save_int8,
}

if __name__ == "__main__":
  SAVE[sys.argv[2]](load(sys.argv[1]))
