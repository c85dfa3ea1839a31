"""TFLite files (LiteRT's), in float32 and in int8, with what phones read."""

import logging
import math
import pathlib

import numpy as np

from nasnet_jax.export import check, keras_files, samples, tflite_metadata
from nasnet_jax.export.artifact import Source

_log = logging.getLogger(__name__)
_MAX_NUMBERS = 50_000_000  # of the test images, all at once: 200 MB
FLOAT, INT8 = "network.tflite", "network_int8.tflite"
_SMOOTH = ("swish", "sigmoid")  # operations that lose much in 8 bits
_ENOUGH = 0.9  # share of equal answers below which int8 is warned of

SNIPPET = """
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
"""
# Of a file that takes and gives int8.
_QUANTIZE = """\
scale, zero = image["quantization"]
whole = np.round(images / scale + zero).clip(-128, 127).astype(np.int8)
network.set_tensor(image["index"], whole)
network.invoke()
scale, zero = logit["quantization"]
logits = (network.get_tensor(logit["index"]).astype(np.float32) - zero) * scale
"""


def also(source: Source) -> str:
  """What the card says of the libraries of phones."""
  if source.cut:
    return ""
  h, w, channels = source.image_shape
  lines = [
    "The file has the metadata that ML Kit, MediaPipe and the Task Library"
    " read, and labels.txt at its end; their scores are the logits."
  ]
  if not source.fixed:
    lines.append(
      "They take files of one shape only: export with"
      f" `--static=1x{channels}x{h}x{w}` for them."
    )
  by_channel = any(len(set(array.tolist())) > 1 for array in source.mean_std)
  if by_channel and not source.options.preprocess:
    lines.append(
      "MediaPipe refuses a whitening that differs by channel, as this one does:"
      " add `--preprocess` for it."
    )
  return " ".join(lines)


def write_tflite(source: Source, folder: pathlib.Path):
  """network.tflite; network_int8.tflite too, if there are images to calibrate
  its ranges with."""
  _write(source, folder, FLOAT, "tflite")
  options = source.options
  if options.calibration:
    pixels = samples.read_images(
      source, [options.calibration], options.calibration_images
    )
    if source.fixed:
      pixels = samples.resized(pixels, source.fixed[1:])
    images = samples.as_input(source, pixels)
    _write(source, folder, INT8, "int8", images=images)
  (folder / keras_files.MODULE).unlink()


def _write(source: Source, folder: pathlib.Path, name: str, kind: str, **given):
  shape = None
  if source.fixed:
    shape = [*source.fixed, source.image_shape[2]]
  keras_files.build(
    source,
    folder,
    kind,
    metadata=tflite_metadata.build(source),
    shape=shape,
    int8_io=source.options.int8_io,
    **given,
  )
  labels = {} if source.cut else {"labels": tflite_metadata.labels(source)}
  keras_files.put(source, folder / name, **labels)


def _snippet(source: Source, name: str) -> str:
  """The lines that run one of the two files."""
  text = SNIPPET.replace(FLOAT, name)
  if name == INT8 and source.options.int8_io:
    text = text.partition("network.set_tensor")[0] + _QUANTIZE
  return text


def compare_int8(source: Source, folder: pathlib.Path) -> tuple[str, ...]:
  """Lines on the accuracy that 8 bits cost, on test images, and on how to run
  a file that takes int8."""
  if not source.options.calibration:
    return ()
  if source.cut:
    return ("int8: its features were not compared",)
  count = min(1000, _MAX_NUMBERS // math.prod(source.image_shape))
  pixels, labels, what = samples.labelled(source, max(count, 8))
  answers = [_answers(source, folder, n, pixels) for n in (FLOAT, INT8)]
  same = int((answers[0] == answers[1]).sum())
  line = (
    f"int8: the same answer as float32 on {same:,} of {len(pixels):,} {what}"
  )
  if labels is not None:
    before, after = (int((answer == labels).sum()) for answer in answers)
    line += f"; {after:,} right, float32 {before:,}"
  lines = [line]
  if same < _ENOUGH * len(pixels):
    lines.append(_advice(source, same / len(pixels)))
    _log.warning("%s", lines[-1])
  if source.options.int8_io:
    lines.append(_how_to_run(source))
  return tuple(lines)


def _answers(source: Source, folder, name: str, pixels) -> np.ndarray:
  """int[N]: the class that a file answers each image with."""
  inputs = {"all": pixels}
  if source.fixed:
    inputs = samples.cases(source, pixels)
  found = check.run_snippet(
    source.options.interpreter,
    _snippet(source, name),
    folder,
    {case: samples.as_input(source, some) for case, some in inputs.items()},
  )
  every = np.concatenate([found.logits[case] for case in inputs])
  return every.argmax(-1)[: len(pixels)]


def _advice(source: Source, share: float) -> str:
  """A line on a small share of equal answers. What does not hold of this
  network is not said of it."""
  line = f"int8 answers as float32 does on {share:.0%} of the images only"
  more = (
    "more --calibration images, of the kind that it was trained on, may help"
  )
  if any(node.op in _SMOOTH for node in source.trace().nodes):
    return (
      f"{line}: swish and squeeze-excite lose much in 8 bits, and {more}; an"
      " EfficientNet-Lite (relu6, no squeeze-excite) is made for it"
    )
  return f"{line}: {more}"


def _how_to_run(source: Source) -> str:
  text = _snippet(source, INT8).partition("network.allocate_tensors()\n")[2]
  lines = "\n".join(f"    {line}" for line in text.strip().splitlines())
  return (
    f"`{INT8}` takes and gives int8; after `allocate_tensors()` it is run"
    f" by\n\n{lines}"
  )
