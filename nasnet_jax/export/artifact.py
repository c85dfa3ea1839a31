"""A trained network as files of another framework, in a folder of their own.

`export` makes the folder: the network in the format asked for, a README.md
that says what it is and how to load it, config.json (architecture, training,
classes, whitening) and examples.npz (images, our answers). Then a process
without this package runs the lines of that README, and its logits are compared
with ours. What differs, or was not compared, is not kept.
"""

import dataclasses
import logging
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from nasnet_jax import __version__
from nasnet_jax.data import paths
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import backbone, picture_stream
from nasnet_jax.export import card, check, outline
from nasnet_jax.export.check import ExportError
from nasnet_jax.jobs import detect, predict_boxes, preparation, results
from nasnet_jax.training import datasets, workdir

_log = logging.getLogger(__name__)
CONFIG, CARD, EXAMPLES = "config.json", "README.md", "examples.npz"
NUM_EXAMPLES = 8
BATCHES = (1, 3, 8)  # in one of which a fixed batch would fail


@dataclasses.dataclass(frozen=True)
class Options:
  """How a network is exported.

  Attributes:
    preprocess: whether the exported network takes pixels, uint8, and whitens
      them; else whitened images, float32.
    sides: (H, W) to compare at, beside the one that the network was trained
      with; (): one that is a little larger.
    tolerance: of the largest difference of a logit.
    python: that has the format's packages; "": this one.
    verify: whether to load the files again and compare.
    calibration: folder of images; of format tflite only: int8 beside float32.
    calibration_images: at most so many of them are read, evenly picked.
    data_dir: where the run's data lies now; None: where it lay.
    images: files or folders to compare on; (): the run's test images.
    features: whether the network ends with the map that a detector proposes
      regions on (`detection.backbone`), in place of logits. Of a detector's
      run it always does.
  """

  preprocess: bool = False
  sides: tuple[tuple[int, int], ...] = ()
  tolerance: float = 1e-4
  python: str = ""
  verify: bool = True
  calibration: str = ""
  calibration_images: int = 300
  data_dir: str | None = None
  images: tuple[str, ...] = ()
  features: bool = False

  @property
  def interpreter(self) -> str:
    return paths.expanded(self.python or sys.executable)


class Source(NamedTuple):
  """What a format's writer gets.

  Attributes:
    network, variables, result: of the run.
    image_shape: (H, W, C) that it was trained with.
    factor, offset: f32[C]; pixels times factor plus offset are whitened.
    options: see `Options`.
    metadata: all that config.json holds.
    about: what the network is, in a few words.
    cut: where the network ends, if its output is features; else None.
  """

  network: nn.Module
  variables: dict[str, Any]
  result: dict[str, Any]
  image_shape: tuple[int, int, int]
  factor: np.ndarray
  offset: np.ndarray
  options: Options
  metadata: dict[str, Any]
  about: str
  cut: backbone.Halves | None

  @property
  def output(self) -> str:
    """What the network answers with."""
    return "features" if self.cut else "logits"

  @property
  def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
    """Of pixels scaled to 0..1, f[C] each."""
    aug, channels = self.result["augmentation"], self.image_shape[2]
    return tuple(np.broadcast_to(aug[k], channels) for k in ("mean", "std"))

  @property
  def whiten(self) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, offset) if the exported network whitens by itself."""
    return (self.factor, self.offset) if self.options.preprocess else None

  @property
  def kept(self) -> dict[str, Any]:
    """The variables of what is exported."""
    return outline.kept(self.network, self.variables, self.cut)

  def answer(self, network: nn.Module, images) -> dict[str, jax.Array]:
    """{output: array} of a bound network for whitened images."""
    if self.cut is None:
      return {self.output: network(images, train=False)[0]}
    map_ = backbone.first_half(network, self.cut, images, False, None)
    return {self.output: map_}

  def ours(self) -> Callable[[np.ndarray], np.ndarray]:
    """pixels uint8[N, H, W, C] -> what our network answers, jitted."""
    variables = jax.device_put(self.variables)  # once, and not at each call

    @jax.jit
    def run(pixels):
      whitened = pixels.astype(np.float32) * self.factor + self.offset
      bound = self.network.bind(variables)
      return self.answer(bound, whitened)[self.output]

    return lambda pixels: np.asarray(run(pixels))


class Format(NamedTuple):
  """One kind of files.

  Attributes:
    write: (source, folder) -> None.
    needs: packages of its runtime, as pip calls them.
    channels_first: whether images are [N, C, H, W] there.
    snippet: the lines of the model card that load and run it, with one line
      `images = ...` between the two.
    made_with: packages that its writer imports here.
    ours: whether these lines are run by our own package.
    after: (source, folder) -> lines on what else was compared.
  """

  write: Callable[[Source, pathlib.Path], None]
  needs: tuple[str, ...]
  channels_first: bool
  snippet: str
  made_with: tuple[str, ...] = ()
  ours: bool = False
  after: Callable[[Source, pathlib.Path], tuple[str, ...]] | None = None


class Exported(NamedTuple):
  """What came out.

  Attributes:
    folder: of the files.
    difference: the largest of a logit on all cases; None: not compared.
    seconds: of one call with the examples, in the format's runtime.
    size: bytes of the network's files, without card and examples.
    notes: lines on what else was found.
  """

  folder: pathlib.Path
  difference: float | None
  seconds: float | None
  size: int
  notes: tuple[str, ...] = ()


def open_run(run_dir, options: Options) -> Source:
  """What is exported of a finished run, of classification or detection.

  Raises:
    WorkdirError, CheckpointError: as `results.load`.
    ValueError: for features of a network that cannot be cut.
  """
  result = results.read_result(run_dir)
  found = (_backbone if _is_detector(result) else results.load)(run_dir)
  features = options.features or _is_detector(result)
  image_shape = tuple(result["data"]["image_shape"])
  augmentation, channels = found.augmentation, image_shape[2]
  std = np.broadcast_to(np.asarray(augmentation.std), channels)
  mean = np.broadcast_to(np.asarray(augmentation.mean), channels)
  return Source(
    found.network,
    jax.tree.map(np.asarray, found.variables),
    result,
    image_shape,
    (1 / (255 * std)).astype(np.float32),
    (-mean / std).astype(np.float32),
    options,
    _metadata(run_dir, result, options),
    card.about(result),
    backbone.halves(found.network) if features else None,
  )


def _is_detector(result: dict[str, Any]) -> bool:
  return result.get("job") == "detect"


def _backbone(run_dir) -> results.Trained:
  """The network inside of a detector."""
  found = predict_boxes.load(run_dir)
  detector = found.network
  network = detector.body.build(detector.config.numerics, parent=None)
  variables = {
    name: tree["backbone"]
    for name, tree in found.variables.items()
    if "backbone" in tree
  }
  return results.Trained(
    network, variables, found.augmentation, found.result, paths.local(run_dir)
  )


def _metadata(run_dir, result, options: Options) -> dict[str, Any]:
  """What config.json holds."""
  config = paths.local(run_dir) / CONFIG
  return {
    "nasnet_jax": __version__,
    "classes": result["data"]["classes"],
    "genotype": result["winner"]["genotype"],
    "input": "uint8 pixels" if options.preprocess else "float32, whitened",
    "whitening": card.whitening(result),
    "result": result,
    "training": workdir.read_json(config) if config.exists() else None,
  }


def export(source: Source, name: str, kind: Format, out) -> Exported:
  """Writes and checks one format.

  Args:
    name: of the format.
    out: the folder, which must not be there; it appears whole or not at all.

  Raises:
    ExportError: one line: the folder is there, a package is missing, or the
      logits differ.
  """
  out = paths.local(out).absolute()
  if out.exists():
    raise ExportError(
      f"{out} is there already: remove it or give another --out"
    )
  if kind.ours and (source.cut or source.options.preprocess):
    raise ExportError(
      f"{name} holds weights and no program, so it cannot end with features or"
      " take pixels: leave out --features and --preprocess, or take another"
      " format"
    )
  check.require(sys.executable, kind.made_with)
  if source.options.verify:
    check.require(source.options.interpreter, kind.needs)
  out.parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
  part.chmod(0o755)
  try:
    kind.write(source, part)
    size = sum(f.stat().st_size for f in part.rglob("*") if f.is_file())
    workdir.write_json(part / CONFIG, source.metadata)
    examples, _, what = labelled(source, NUM_EXAMPLES)
    note = f"{len(examples)} {what}"
    _write_examples(source, kind, part, examples)
    snippet = kind.snippet.replace("logits", source.output)
    text = card.text(source, name, snippet, part, note)
    workdir.write_text(part / CARD, text)
    found, notes = None, (note,)
    if source.options.verify:
      found = _compare(source, kind, part, examples)
      notes += kind.after(source, part) if kind.after else ()
      text = card.with_check(text, found.difference, notes, kind.needs)
      workdir.write_text(part / CARD, text)
    os.replace(part, out)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise
  return Exported(
    out,
    found.difference if found else None,
    found.seconds if found else None,
    size,
    notes,
  )


def read_images(source: Source, paths, count: int) -> np.ndarray:
  """uint8[N, H, W, C] of `count` of the image files and folders, or of all,
  evenly picked, as evaluation reads them; a detector's, whose sides differ, at
  the largest side that it was trained at. A broken one is said and skipped.

  Raises:
    DataError: if none can be read.
  """
  files = preparation.find_images(paths)
  read = _detectors_reader(source) if _is_detector(source.result) else None
  found = []
  picked = np.linspace(0, len(files) - 1, min(count, len(files))).round()
  for index in picked.astype(int):
    try:
      if read is None:
        found.append(preparation.read(source.result, files[index]))
      else:
        found.append(read(files[index]))
    except DataError as error:
      _log.warning("%s: skipped", error)
  if not found:
    raise DataError(
      f"none of the {len(picked)} images picked of {', '.join(map(str, paths))}"
      " can be read: give others"
    )
  if len(files) > len(picked):
    _log.info("%d of %d images are taken, evenly", len(found), len(files))
  return np.stack(found)


def _detectors_reader(source: Source):
  """path -> uint8[H, W, 3] at the largest side of a detector's training."""
  sizes = detect.make_sizes(source.result["data"]["load"]["sizes"])

  def read(path) -> np.ndarray:
    content = preparation.content_of(path)
    picture = picture_stream.decode(str(path), content)
    return predict_boxes.padded(picture, sizes, 1, source.image_shape[:2])[0]

  return read


def labelled(
  source: Source, count: int = 1000
) -> tuple[np.ndarray, np.ndarray | None, str]:
  """(pixels uint8[N, H, W, C], labels int[N], what they are): images of the
  user's, or the run's test images, else random ones; the former and the latter
  without labels."""
  options, result = source.options, source.result
  if options.images:
    found = read_images(source, options.images, count)
    return found, None, "images of yours"
  try:
    if _is_detector(result):
      raise DataError("a detector's pictures are of many sides: give --images")
    data = results.test_images(result, options.data_dir)
  except (DataError, OSError) as error:
    if options.data_dir is not None:  # asked for, so nothing else will do
      raise
    shape = (min(count, NUM_EXAMPLES), *source.image_shape)
    made = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return made, None, f"images of random pixels, because {error}"
  what = f"test images of {result['data']['name']}"
  if not isinstance(data, datasets.Images):
    batch = next(data.evaluation_batches(min(count, data.num_images)))
    data = datasets.Images(batch.images, batch.labels)
  pixels, labels = (np.asarray(part[:count]) for part in data)
  return pixels, labels, what


def _write_examples(source: Source, kind: Format, folder, pixels):
  ours = _as_output(source.ours()(pixels), kind.channels_first)
  answers = {source.output: ours}
  images = as_input(source, pixels, kind.channels_first)
  np.savez(folder / EXAMPLES, images=images, **answers)


def as_input(
  source: Source, pixels: np.ndarray, channels_first: bool = False
) -> np.ndarray:
  """Pixels as the exported network takes them."""
  if not source.options.preprocess:
    pixels = pixels.astype(np.float32) * source.factor + source.offset
  if channels_first:
    pixels = pixels.transpose(0, 3, 1, 2)
  return np.ascontiguousarray(pixels)


def _as_output(answer: np.ndarray, channels_first: bool) -> np.ndarray:
  """Our answer as the exported network gives it: maps have channels, too."""
  if channels_first and answer.ndim == 4:
    return np.ascontiguousarray(answer.transpose(0, 3, 1, 2))
  return answer


def cases(source: Source, pixels: np.ndarray) -> dict[str, np.ndarray]:
  """{name: uint8[N, H, W, C]}: several batches, at two sides."""
  count = len(pixels)
  found = {f"batch {n}": pixels[np.arange(n) % count] for n in BATCHES}
  h, w, _ = source.image_shape
  for side in source.options.sides or ((h + 3, w + 6),):
    if side != (h, w):
      found[f"{side[0]}x{side[1]}"] = _resized(pixels[:2], side)
  return found


def _resized(pixels: np.ndarray, side: tuple[int, int]) -> np.ndarray:
  """The images at another side, each pixel the nearest one."""
  rows, columns = (
    np.arange(new) * old // new for new, old in zip(side, pixels.shape[1:3])
  )
  return pixels[:, rows][:, :, columns]


def _compare(source, kind: Format, folder, pixels) -> check.Answers:
  """Their answers against ours on all cases.

  Raises:
    ExportError: if they differ, or their process fails.
  """
  every = cases(source, pixels)
  run = source.ours()
  ours = {
    name: _as_output(run(x), kind.channels_first) for name, x in every.items()
  }
  inputs = {
    name: as_input(source, x, kind.channels_first) for name, x in every.items()
  }
  snippet = card.snippet_of((folder / CARD).read_text())
  interpreter = source.options.interpreter
  if kind.ours:
    interpreter = sys.executable
  found = check.run_snippet(
    interpreter,
    snippet,
    folder,
    inputs,
    alone=not kind.ours,
    output=source.output,
  )
  return check.compare(ours, found, source.options.tolerance)
