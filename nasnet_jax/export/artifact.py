"""A trained network as files of another framework, in a folder of their own.

`export` makes the folder: the network in the format asked for, a README.md
that says what it is and how to load it, config.json (architecture, training,
classes, whitening) and examples.npz (images, our answers). Then a process
without this package runs the lines of that README, and its logits are compared
with ours. What differs, or was not compared, is not kept.
"""

import json
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
from nasnet_jax.data import buckets, places
from nasnet_jax.detection import backbone
from nasnet_jax.export import (
  card,
  check,
  graph,
  outline,
  private,
  samples,
)
from nasnet_jax.export.check import ExportError
from nasnet_jax.export.options import Options
from nasnet_jax.jobs import predict_boxes, results
from nasnet_jax.training import workdir

CONFIG, CARD, EXAMPLES = "config.json", "README.md", "examples.npz"
METADATA = "nasnet_jax"  # key of config.json inside of a file


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
  def fixed(self) -> tuple[int, int, int] | None:
    """(N, H, W) if the network is exported for this shape alone."""
    if not self.options.static:
      return None
    size, _, *side = self.options.static
    return (size, *side)

  @property
  def config(self) -> str:
    """config.json in one line, for files that can hold a text."""
    return json.dumps(self.metadata)

  def trace(self) -> graph.Graph:
    """The network as a graph, at the one side or else the trained one."""
    shape = (*self.fixed[1:], self.image_shape[2]) if self.fixed else None
    return graph.trace(
      self.network, self.variables, shape or self.image_shape, self.answer
    )

  def docstring(self, framework: str, call: str) -> str:
    """Of a module that is written."""
    return (
      f"{self.about}.\n\nWritten by nasnet_jax for {framework}; {call} gives"
      " the trained network.\nHow it was trained stands in config.json.\n"
    )

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
    also: source -> what else works with it, in the words of the card.
    ours: whether these lines are run by our own package.
    after: (source, folder) -> lines on what else was compared.
  """

  write: Callable[[Source, pathlib.Path], None]
  needs: tuple[str, ...]
  channels_first: bool
  snippet: str
  made_with: tuple[str, ...] = ()
  also: Callable[[Source], str] | None = None
  ours: bool = False
  after: Callable[[Source, pathlib.Path], tuple[str, ...]] | None = None


class Exported(NamedTuple):
  """What came out.

  Attributes:
    folder: of the files; the address, if they were sent to one.
    difference: the largest of a logit on all cases; None: not compared.
    seconds: of one call with the examples, in the format's runtime.
    size: bytes of the network's files, without card and examples.
    notes: lines on what else was found.
  """

  folder: pathlib.Path | str
  difference: float | None
  seconds: float | None
  size: int
  notes: tuple[str, ...] = ()


def open_run(run_dir, options: Options) -> Source:
  """What is exported of a finished run, of classification or detection.

  Raises:
    WorkdirError, CheckpointError: as `results.load`.
    ValueError: for features of a network that cannot be cut, or a shape of
      other images than its own.
  """
  result = results.read_result(run_dir)
  image_shape = tuple(result["data"]["image_shape"])
  _check_static(options.static, image_shape[2])
  detector = samples.is_detector(result)
  found = (_backbone if detector else results.load)(run_dir)
  features = options.features or detector
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
    private.without_paths(_metadata(run_dir, result, options)),
    private.without_paths(card.about(result)),
    backbone.halves(found.network) if features else None,
  )


def _check_static(static: tuple[int, ...], channels: int):
  if not static:
    return
  given = "x".join(map(str, static))
  size, found, *side = static if len(static) == 4 else (0, 0)
  if min(size, *side, 1) < 1 or len(side) != 2:
    raise ValueError(
      f"--static={given} is no shape of images: give batch, channels, height"
      f" and width, such as 1x{channels}x224x224"
    )
  if found != channels:
    if side[1] == channels:  # channels last
      side = found, side[0]
    wanted = "x".join(map(str, (size, channels, *side)))
    raise ValueError(
      f"--static={given} has {found} channels, the network takes {channels}:"
      f" give batch, channels, height and width, such as {wanted}"
    )


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
    network,
    variables,
    found.augmentation,
    found.result,
    places.fetched(run_dir),
  )


def _metadata(run_dir, result, options: Options) -> dict[str, Any]:
  """What config.json holds."""
  config = places.fetched(run_dir) / CONFIG
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
      An address such as gs://bucket/onnx must have nothing there either.

  Raises:
    ExportError: one line: the folder is there, a package is missing, or the
      logits differ.
  """
  with places.sent(out) as place:
    done = _export(source, name, kind, place.absolute())
  if buckets.is_address(out):  # where the files of `place` are now
    return done._replace(folder=str(out))
  return done


def check_all(source: Source, kinds: dict[str, Format], out):
  """Raises ExportError if one of several formats cannot be written, so that
  none is: the same command works once that is mended."""
  for name, kind in kinds.items():
    _check(source, name, kind, places.inside(out, name))


def _check(source: Source, name: str, kind: Format, out):
  if not buckets.is_address(out):
    _check_free(out)
  if kind.ours and (source.cut or source.options.preprocess):
    raise ExportError(
      f"{name} holds weights and no program, so it cannot end with features or"
      " take pixels: leave out --features and --preprocess, or take another"
      " format"
    )
  source.options.check([name])
  check.require(sys.executable, kind.made_with)
  if source.options.verify:
    check.require(source.options.interpreter, kind.needs)


def _check_free(out: pathlib.Path):
  if out.exists():
    raise ExportError(
      f"{out} is there already: remove it or give another --out"
    )
  above = next((p for p in out.parents if p.exists()), None)
  if above is not None and not above.is_dir():
    raise ExportError(f"{above} is a file: give --out= a folder")


def _export(source: Source, name: str, kind: Format, out) -> Exported:
  _check(source, name, kind, out)
  out.parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
  part.chmod(0o755)
  try:
    kind.write(source, part)
    size = sum(f.stat().st_size for f in part.rglob("*") if f.is_file())
    workdir.write_json(part / CONFIG, source.metadata)
    images, _, what = samples.labelled(source, samples.NUM_EXAMPLES)
    note = f"{len(images)} {what}"
    _write_examples(source, kind, part, samples.examples(source, images))
    text = card.text(source, name, kind, part, note)
    workdir.write_text(part / CARD, private.without_paths(text))
    found, notes = None, (note,)
    if source.options.verify:
      found = _compare(source, kind, part, images)
      notes += kind.after(source, part) if kind.after else ()
      text = card.with_check(source, text, found.difference, notes, kind.needs)
      workdir.write_text(part / CARD, private.without_paths(text))
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


def _write_examples(source: Source, kind: Format, folder, pixels):
  ours = samples.as_output(source.ours()(pixels), kind.channels_first)
  answers = {source.output: ours}
  images = samples.as_input(source, pixels, kind.channels_first)
  np.savez(folder / EXAMPLES, images=images, **answers)


def _compare(source, kind: Format, folder, pixels) -> check.Answers:
  """Their answers against ours on all cases.

  Raises:
    ExportError: if they differ, or their process fails.
  """
  every = samples.cases(source, pixels)
  run = source.ours()
  ours = {
    name: samples.as_output(run(x), kind.channels_first)
    for name, x in every.items()
  }
  inputs = {
    name: samples.as_input(source, x, kind.channels_first)
    for name, x in every.items()
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
