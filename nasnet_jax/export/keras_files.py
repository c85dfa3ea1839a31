"""Files that Keras writes, in a process of an interpreter that has it."""

import json
import pathlib
import tempfile
import zipfile
from typing import Any

import numpy as np

from nasnet_jax.export import check, keras_module, outline
from nasnet_jax.export.artifact import CONFIG, METADATA, Source

MODULE = "network.py"


def build(
  source: Source,
  folder: pathlib.Path,
  kind: str,
  images: np.ndarray | None = None,
  metadata: bytes = b"",
  **given: Any,
):
  """Has Keras save the generated network.

  Args:
    kind: a function of `templates/build_keras.py`.
    images: that it calibrates with.
    metadata: that a TFLite file gets.
    given: what else it reads, as JSON.
  """
  text = keras_module.source(
    source.network,
    source.image_shape[2],
    about=source.docstring("Keras 3", "of network.keras, `load_model`"),
    whiten=source.whiten,
    cut=source.cut,
  )
  (folder / MODULE).write_text(text)
  script = (outline.TEMPLATES / "build_keras.py").read_text()
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    layers = {node.name for node in source.trace().nodes}
    np.savez(
      scratch / "weights.npz", **keras_module.weights(source.kept, layers)
    )
    if images is not None:
      np.save(scratch / "images.npy", images)
    (scratch / "metadata.bin").write_bytes(metadata)
    (scratch / "given.json").write_text(json.dumps(given))
    backend = {} if kind == "keras" else {"KERAS_BACKEND": "tensorflow"}
    interpreter = source.options.interpreter
    check.run_script(interpreter, script, folder, kind, scratch, **backend)


def put(source: Source, path: pathlib.Path, **texts: str):
  """Adds config.json and other files to a zip file, or to the end of a TFLite
  one, which is where its metadata have associated files: uncompressed."""
  with zipfile.ZipFile(path, "a") as file:
    file.writestr(f"{METADATA}.json", source.config)
    for name, text in texts.items():
      file.writestr(f"{name}.txt", text)


def write_keras(source: Source, folder: pathlib.Path):
  """network.keras and the code that made it."""
  build(source, folder, "keras")
  put(source, folder / "network.keras")


def write_saved_model(source: Source, folder: pathlib.Path):
  """saved_model, with config.json among its extra assets."""
  build(source, folder, "saved_model")
  (folder / MODULE).unlink()  # Keras is not needed any more
  extra = folder / "saved_model" / "assets.extra"
  extra.mkdir()
  (extra / CONFIG).write_text(source.config)
