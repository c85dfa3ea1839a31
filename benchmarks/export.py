"""Trained networks in every format: differences, sizes, latencies.

  python benchmarks/export.py --runs=runs/digits,runs/lite0 \\
    --torch_python=... --tf_python=... --out=export.json

Each run is exported in each format as launch/export.py does it, which compares
the logits; kept are the largest difference, the bytes of the network's files
and the seconds of one call with the examples (batch of 8, the shortest of
five), and as many of our own network, jitted. Formats whose packages are in no
interpreter are left out, with a line.
"""

import datetime
import json
import pathlib
import platform
import tempfile
import time

from absl import app, flags

_RUNS = flags.DEFINE_list("runs", None, "folders of finished runs")
_FORMATS = flags.DEFINE_list("formats", [], "which; all")
_IMAGES = flags.DEFINE_list(
  "images", [], "images for runs without test images of their own"
)
_TORCH = flags.DEFINE_string("torch_python", "", "an interpreter with PyTorch")
_TF = flags.DEFINE_string("tf_python", "", "one with TensorFlow and LiteRT")
_OUT = flags.DEFINE_string("out", "", "JSON to write")

OF_TF = ("saved_model", "tflite")


def interpreter(name: str) -> str:
  """Where a format is made and checked; "": here."""
  if name in OF_TF:
    return _TF.value
  return _TORCH.value if name == "torch" else ""


def measure(run: str, name: str) -> dict:
  """A row: one run in one format."""
  from nasnet_jax.export import artifact, formats

  options = artifact.Options(
    python=interpreter(name), images=tuple(_IMAGES.value)
  )
  source = artifact.open_run(run, options)
  with tempfile.TemporaryDirectory() as scratch:
    out = pathlib.Path(scratch) / name
    done = artifact.export(source, name, formats.FORMATS[name], out)
  return {
    "run": pathlib.Path(run).name,
    "format": name,
    "difference": done.difference,
    "bytes": done.size,
    "seconds": done.seconds,
    "images": done.notes[0],
  }


def ours(run: str) -> dict:
  """The row of our own network, jitted."""
  from nasnet_jax.export import artifact

  options = artifact.Options(images=tuple(_IMAGES.value))
  source = artifact.open_run(run, options)
  pixels, _, _ = artifact.labelled(source, artifact.NUM_EXAMPLES)
  network = source.ours()
  seconds = []
  for _ in range(6):  # the first one compiles
    start = time.perf_counter()
    network(pixels)
    seconds.append(time.perf_counter() - start)
  return {
    "run": pathlib.Path(run).name,
    "format": "ours",
    "image_shape": list(source.image_shape),
    "params": source.result["winner"].get("params"),
    "seconds": min(seconds[1:]),
  }


def main(argv):
  del argv
  from nasnet_jax.training import mesh

  mesh.prepare_host()
  from nasnet_jax.export import check, formats

  rows = []
  for run in _RUNS.value:
    rows.append(ours(run))
    print(json.dumps(rows[-1]), flush=True)
    for name in _FORMATS.value or formats.FORMATS:
      try:
        rows.append(measure(run, name))
      except check.ExportError as error:
        print(f"{run}, {name}: {error}", flush=True)
        continue
      print(json.dumps(rows[-1]), flush=True)
  result = {
    "date": datetime.date.today().isoformat(),
    "machine": platform.platform(),
    "processor": platform.processor() or platform.machine(),
    "rows": rows,
  }
  if _OUT.value:
    pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
