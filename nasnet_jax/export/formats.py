"""The formats that a network is exported in, each with the lines that load it.

To add one, write its files in a function of (source, folder) and put it into
FORMATS with the lines that a user would write.
"""

import pathlib

import jax
import numpy as np

from nasnet_jax.export import graph, onnx_model, torch_module
from nasnet_jax.export.artifact import Format, Source, metadata_text

WEIGHTS = "weights.safetensors"


def _trace(source: Source) -> graph.Graph:
  return graph.trace(source.network, source.variables, source.image_shape)


def write_safetensors(source: Source, folder: pathlib.Path):
  """Our weights by our names, channels last; config.json as metadata."""
  from safetensors.numpy import save_file

  flat = {
    "/".join(key.key for key in path): np.ascontiguousarray(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(source.variables)[0]
  }
  metadata = {"nasnet_jax": metadata_text(source), "names": "nasnet_jax"}
  save_file(flat, folder / WEIGHTS, metadata)


def write_torch(source: Source, folder: pathlib.Path):
  """network.py, and its state dict."""
  from safetensors.numpy import save_file

  text = torch_module.source(
    source.network,
    source.image_shape,
    *source.mean_std,
    about=_docstring(source, "PyTorch", "load()"),
    whitened=not source.options.preprocess,
  )
  (folder / "network.py").write_text(text)
  weights = torch_module.weights(source.variables)
  metadata = {"nasnet_jax": metadata_text(source), "names": "torch"}
  save_file(weights, folder / WEIGHTS, metadata)


def _docstring(source: Source, framework: str, call: str) -> str:
  return (
    f"{source.about}.\n\nWritten by nasnet_jax for {framework};"
    f" `network.{call}` gives the trained network.\nWhat it was trained with"
    " stands in config.json.\n"
  )


def write_onnx(source: Source, folder: pathlib.Path):
  """network.onnx, config.json as its metadata."""
  import onnx

  metadata = {"nasnet_jax": metadata_text(source)}
  model = onnx_model.make_model(_trace(source), metadata, source.whiten)
  onnx.save(model, folder / "network.onnx")


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
  ),
}
