"""Writes a trained network as files of another framework:

  python launch/export.py --checkpoint=runs/search_digits --format=onnx

Of any finished run. Formats: see --format; several are separated by commas.
Each gets a folder under --out with the network, a model card (README.md) that
says how to load it, config.json and examples. It is loaded there by its own
runtime, and its logits are compared with ours: if one differs by more than
--tolerance, nothing is written. docs/export.md says what each format holds.
"""

import pathlib

from absl import flags

from nasnet_jax.cli import entry, run_flags
from nasnet_jax.data import image_data, places
from nasnet_jax.training import mesh

_RUN = run_flags.define()
_FORMAT = flags.DEFINE_list(
  "format",
  None,
  "torch, keras, onnx, saved_model, tflite, stablehlo, safetensors",
)
_OUT = flags.DEFINE_string(
  "out", "", "folder for the formats' folders; exports/<name of the run>"
)
_PREPROCESS = flags.DEFINE_bool(
  "preprocess", False, "the exported network takes pixels and whitens them"
)
_SIDES = flags.DEFINE_list(
  "sides",
  [],
  "sides to compare at, as 32 or 32x48, beside that of the training",
)
_TOLERANCE = flags.DEFINE_float(
  "tolerance", 1e-4, "largest difference of a logit"
)
_PYTHON = flags.DEFINE_string(
  "python", "", "an interpreter with the format's packages, if not this one"
)
_VERIFY = flags.DEFINE_bool(
  "verify", True, "load the files again and compare; --noverify: do not"
)
_CALIBRATION = flags.DEFINE_string(
  "calibration", "", "folder of images; tflite gets an int8 file too"
)
_CALIBRATION_IMAGES = flags.DEFINE_integer(
  "calibration_images", 300, "at most so many of them, evenly picked", 1
)
_INT8_IO = flags.DEFINE_bool(
  "int8_io", False, "the int8 file takes and gives int8, not float32"
)
_STATIC = flags.DEFINE_string(
  "static",
  "",
  "the only shape of images, as 1x3x224x224 (batch, channels, height, width);"
  " onnx and tflite, else any",
)
_OPSET = flags.DEFINE_integer("opset", None, "of onnx: 13 to 21; else 18")
_IMAGES = flags.DEFINE_list(
  "images", [], "image files or folders to compare on; else test images"
)
_FEATURES = flags.DEFINE_bool(
  "features", False, "end with a detector's map, not with logits"
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "where the run's data lies now, if it was moved"
)


def main(argv: list[str]):
  given, _ = _RUN.take(argv[1:])
  if not given or not _FORMAT.value:
    raise entry.UsageError("give --checkpoint=runs/... and --format=onnx")
  mesh.prepare_host()
  from nasnet_jax.export import artifact, formats  # only now may JAX start

  unknown = [n for n in _FORMAT.value if n not in formats.FORMATS]
  if unknown:
    hint = image_data.nearest(unknown[0], formats.FORMATS)
    raise entry.UsageError(f"no format is called {unknown[0]!r}: {hint}")
  options = artifact.Options(
    preprocess=_PREPROCESS.value,
    sides=tuple(_side(text) for text in _SIDES.value),
    tolerance=_TOLERANCE.value,
    python=_PYTHON.value,
    verify=_VERIFY.value,
    calibration=_CALIBRATION.value,
    calibration_images=_CALIBRATION_IMAGES.value,
    int8_io=_INT8_IO.value,
    static=_shape(_STATIC.value),
    opset=_OPSET.value,
    data_dir=_DATA_DIR.value,
    images=tuple(_IMAGES.value),
    features=_FEATURES.value,
  )
  try:
    options.check(_FORMAT.value)
  except ValueError as error:
    raise entry.UsageError(str(error)) from None
  run = places.fetched(given)
  out = _OUT.value or pathlib.Path("exports") / run.name
  source = artifact.open_run(run, options)
  kinds = {name: formats.FORMATS[name] for name in _FORMAT.value}
  artifact.check_all(source, kinds, out)
  for name, kind in kinds.items():
    done = artifact.export(source, name, kind, places.inside(out, name))
    print(f"{done.folder}: {done.size:,} bytes, {_compared(done)}")
    for note in done.notes[1:]:
      print(f"  {note}")


def _side(text: str) -> tuple[int, int]:
  numbers = text.split("x")
  if not all(n.isdigit() and int(n) for n in numbers) or len(numbers) > 2:
    raise entry.UsageError(f"--sides={text} is no side: give 32 or 32x48")
  return int(numbers[0]), int(numbers[-1])


def _shape(text: str) -> tuple[int, ...]:
  if not text:
    return ()
  numbers = text.split("x")
  if len(numbers) != 4 or not all(n.isdigit() and int(n) for n in numbers):
    raise entry.UsageError(
      f"--static={text} is no shape: give batch, channels, height and width, as"
      " 1x3x224x224"
    )
  return tuple(map(int, numbers))


def _compared(done) -> str:
  if done.difference is None:
    return "not compared with our logits"
  return f"largest difference {done.difference:.2g} ({done.notes[0]})"


if __name__ == "__main__":
  entry.run(main)
