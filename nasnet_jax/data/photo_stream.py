"""Batches from photographs on disk, decoded in other processes.

The batch of a step is a pure function of (seed, step): its examples, their
crops, and what stands in for a broken file. So nothing but the step is saved,
and any number of workers or hosts goes on exactly where others stopped. Each
host decodes its own rows of the batch.

    stream = Stream(photographs.train, Crops(224), num_classes=1000)
    for batch in stream.training_batches(256, seed=0, first_step=0): ...

Crops are cut and scaled here; mirrored, coloured and whitened on the device
(`data.augment`), which so receives bytes and no floats.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import image_data, photographs, pixels
from nasnet_jax.data.image_data import DataError

_log = logging.getLogger(__name__)

# Broken files in a row, after which the storage is to blame and not a file.
_MAX_IN_A_ROW = 16
_MAX_TRIES = 10  # at a random crop that fits; then the centre


@dataclasses.dataclass(frozen=True)
class Crops:
  """How a photograph of any size becomes image_size x image_size pixels.

  Attributes:
    image_size: side in pixels.
    min_area: smallest random crop, as a share of the image (Szegedy et al.
      2015: 0.08); the largest is the whole image.
    max_aspect: of width to height of a random crop, and of height to width
      (the same: 4/3).
    center: share of the shorter side that the square for evaluation takes
      (slim: 0.875).
  """

  image_size: int
  min_area: float = 0.08
  max_aspect: float = 4 / 3
  center: float = 0.875

  def __post_init__(self):
    if self.image_size < 1:
      raise DataError(f"image_size is {self.image_size}: give 1 or more")
    if not (0 < self.min_area <= 1 <= self.max_aspect and 0 < self.center <= 1):
      raise DataError(
        f"min_area {self.min_area} and center {self.center} must be in (0, 1],"
        f" max_aspect {self.max_aspect} at least 1"
      )


class Box(NamedTuple):
  """Part of an image, in pixels."""

  left: float
  top: float
  width: float
  height: float


def training_crop(uniform, width: int, height: int, crops: Crops) -> Box:
  """A random part: area, then aspect ratio, then place, each uniform.

  The aspect ratio is uniform in its logarithm, so that wide and high crops
  are as likely. What does not fit is drawn again.

  Args:
    uniform: float64[30], in [0, 1).
    width, height: of the image.
  """
  area = width * height
  for draw in np.reshape(uniform, (-1, 3))[:_MAX_TRIES]:
    share = crops.min_area + draw[0] * (1 - crops.min_area)
    aspect = crops.max_aspect ** (2 * draw[1] - 1)
    w = round(math.sqrt(area * share * aspect))
    h = round(math.sqrt(area * share / aspect))
    if 0 < w <= width and 0 < h <= height:
      # One number gives both places: its high and its low half.
      places = draw[2] * (width - w + 1)
      left = int(places)
      top = int((places - left) * (height - h + 1))
      return Box(left, top, w, h)
  w = min(width, round(height * crops.max_aspect))
  h = min(height, round(width * crops.max_aspect))
  return Box((width - w) // 2, (height - h) // 2, w, h)


def central_crop(width: int, height: int, crops: Crops) -> Box:
  """The square for evaluation."""
  side = crops.center * min(width, height)
  return Box((width - side) / 2, (height - side) / 2, side, side)


def decode(name, content: bytes, crops: Crops, uniform=None) -> np.ndarray:
  """bytes of an image file -> uint8[S, S, 3], scaled bicubically.

  Args:
    name: for the message if it fails.
    uniform: for `training_crop`; None: the central crop.

  Raises:
    DataError: if the file is broken.
  """
  from PIL import Image

  with pixels.opened(name, content) as image:
    kind = image.format
    if uniform is None:
      image = pixels.upright(name, image)
      box = central_crop(*image.size, crops)
    elif pixels.orientation(name, image) == 1:  # as stored
      box = training_crop(uniform, *image.size, crops)
      box = _draft(image, box, crops.image_size)
    else:
      image = pixels.upright(name, image)
      box = training_crop(uniform, *image.size, crops)
    image = pixels.to_mode(name, image, 3, kind=kind)
    left, top, width, height = box
    size = (crops.image_size, crops.image_size)
    corners = (left, top, left + width, top + height)
    result = image.resize(size, Image.Resampling.BICUBIC, corners)
    return np.asarray(result, np.uint8)


def _draft(image, box: Box, image_size: int) -> Box:
  """Lets a JPEG be decoded at a half, a quarter or an eighth of its size,
  where the crop still has at least the pixels wanted. Returns the box there.
  """
  scale = min(box.width, box.height) / image_size
  if scale < 2:
    return box
  old = image.size
  image.draft("RGB", (int(old[0] / scale), int(old[1] / scale)))
  x, y = image.size[0] / old[0], image.size[1] / old[1]
  return Box(box.left * x, box.top * y, box.width * x, box.height * y)


class Batch(NamedTuple):
  """A host's rows of a step's batch.

  Attributes:
    images: uint8[B, S, S, 3].
    labels: int32[B].
    counts: bool[B]; false: an image of an evaluation batch that is only there
      to fill it up, or whose file is broken.
    broken: a line for each file that was broken; where training met it,
      another image stands in.
  """

  images: np.ndarray
  labels: np.ndarray
  counts: np.ndarray
  broken: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _TrainingRows:
  """step -> Batch, on whichever process."""

  records: photographs.Records
  crops: Crops
  num_classes: int
  batch_size: int
  seed: int
  rows: range

  def __call__(self, step: int) -> Batch:
    n = len(self.records)
    steps = n // self.batch_size
    epoch, in_epoch = divmod(step, steps)
    order = _order(n, self.seed, epoch)
    images, labels, broken = [], [], []
    for row in self.rows:
      uniform = _uniform(self.seed, step, row, 3 * _MAX_TRIES)
      place = in_epoch * self.batch_size + row
      # In place of a broken image: the next one of the epoch's order.
      for index in order[(place + np.arange(min(n, _MAX_IN_A_ROW))) % n]:
        try:
          image, label = _read(self, int(index), uniform)
          break
        except DataError as error:
          broken.append(str(error))
      else:
        raise DataError(
          f"{len(broken)} images in a row cannot be read, the last:"
          f" {broken[-1]}: is the storage still there?"
        )
      images.append(image)
      labels.append(label)
    return Batch(
      np.stack(images),
      np.array(labels, np.int32),
      np.ones(len(labels), bool),
      tuple(broken),
    )


@dataclasses.dataclass(frozen=True)
class _EvaluationRows:
  """step -> Batch of the images in order, the last one filled up."""

  records: photographs.Records
  crops: Crops
  num_classes: int
  batch_size: int
  rows: range

  def __call__(self, step: int) -> Batch:
    size = self.crops.image_size
    images = np.zeros((len(self.rows), size, size, 3), np.uint8)
    labels = np.zeros(len(self.rows), np.int32)
    counts = np.zeros(len(self.rows), bool)
    broken = []
    for i, row in enumerate(self.rows):
      index = step * self.batch_size + row
      if index >= len(self.records):
        break
      try:
        images[i], labels[i] = _read(self, index, None)
        counts[i] = True
      except DataError as error:
        broken.append(str(error))
    return Batch(images, labels, counts, tuple(broken))


def _read(source, index: int, uniform) -> tuple[np.ndarray, int]:
  name = source.records.name(index)
  try:
    content, label = source.records.read(index)
  except OSError as error:
    raise DataError(f"image {name} cannot be read ({error})") from error
  if not 0 <= label < source.num_classes:
    raise DataError(
      f"image {name} has label {label}, outside 0..{source.num_classes - 1}"
    )
  return decode(name, content, source.crops, uniform), label


@functools.lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
  return image_data.seeded_order(n, (seed, epoch))


def _uniform(seed: int, step: int, row: int, n: int) -> np.ndarray:
  """float64[n] in [0, 1), the same on every version of NumPy."""
  raw = np.random.PCG64((seed, step, row)).random_raw(n)
  return (raw >> np.uint64(11)) * 2.0**-53


class Batches:
  """What streams share: a host's rows of batches, made by other processes.

  Attributes:
    num_images: in the set.
    image_shape: (H, W, 3), of the largest batches.
    broken: lines on the files found broken so far, by this process.
  """

  def __init__(
    self,
    num_images: int,
    image_shape: tuple[int, int, int],
    *,
    workers: int = 0,
    max_broken: int = 0,
    host: int = 0,
    num_hosts: int = 1,
  ):
    """
    Args:
      workers: processes that decode; 0: threads of this one.
      max_broken: broken files that are replaced; one more stops the run.
      host, num_hosts: this host reads its rows of every batch, the others
        theirs.

    Raises:
      DataError: for numbers below 0.
    """
    if workers < 0 or max_broken < 0:
      raise DataError(
        f"data.stream.workers is {workers} and max_broken {max_broken}: give 0"
        " or more"
      )
    self.num_images = num_images
    self.image_shape = image_shape
    self.broken: set[str] = set()
    self._workers = workers
    self._max_broken = max_broken
    self._host, self._num_hosts = host, num_hosts

  def rows(self, batch_size: int) -> range:
    """This host's rows of a batch.

    Raises:
      DataError: if a batch does not divide over the hosts.
    """
    if batch_size % self._num_hosts:
      raise DataError(
        f"a batch of {batch_size} does not divide over {self._num_hosts} hosts"
      )
    share = batch_size // self._num_hosts
    return range(self._host * share, (self._host + 1) * share)

  def check(self, batch_size: int):
    """Raises DataError if there are fewer images than a batch."""
    if self.num_images < batch_size:
      raise DataError(
        f"{self.num_images} images are fewer than one batch of {batch_size}:"
        " lower train.batch_size or take more images"
      )

  def run(self, function, steps: range) -> Iterator[Batch]:
    """function(step) of each step, in order, and what was broken noted."""
    with contextlib.closing(_open(function, steps, self._workers)) as batches:
      for _ in steps:
        batch = next(batches)
        self._note(batch.broken)
        yield batch

  def _note(self, lines: tuple[str, ...]):
    for line in lines:
      if line in self.broken:
        continue
      self.broken.add(line)
      if len(self.broken) > self._max_broken:
        raise DataError(
          f"{line}; or raise data.stream.max_broken, which allows"
          f" {self._max_broken} such file(s): this is number"
          f" {len(self.broken)}"
        )
      _log.warning(
        "%s: replaced (%d of %d allowed)",
        line,
        len(self.broken),
        self._max_broken,
      )


class Stream(Batches):
  """A set of photographs as batches of one size of image."""

  def __init__(
    self,
    records: photographs.Records,
    crops: Crops,
    num_classes: int,
    **options,
  ):
    """options: of `Batches`."""
    shape = (crops.image_size, crops.image_size, 3)
    super().__init__(len(records), shape, **options)
    self._records = records
    self._crops = crops
    self._num_classes = num_classes

  def training_batches(
    self, batch_size: int, seed: int, first_step: int, end_step: int
  ) -> Iterator[Batch]:
    """The batches of steps first_step..end_step-1, this host's rows.

    Args:
      batch_size: over all hosts.

    Raises:
      DataError: if more files than allowed are broken, or there are fewer
        images than a batch.
    """
    self.check(batch_size)
    function = _TrainingRows(
      self._records,
      self._crops,
      self._num_classes,
      batch_size,
      seed,
      self.rows(batch_size),
    )
    return self.run(function, range(first_step, end_step))

  def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
    """Every image once, its centre. A broken one counts as a wrong answer:
    it is among the images, and `Batch.counts` is false."""
    function = _EvaluationRows(
      self._records,
      self._crops,
      self._num_classes,
      batch_size,
      self.rows(batch_size),
    )
    return self.run(function, range(-(-self.num_images // batch_size)))

  def evenly(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8[N, H, W, 3], int32[N]) of `count` images, evenly picked of all, as
    evaluation reads them. A broken one is said and skipped.

    Raises:
      DataError: if none can be read.
    """
    read = _EvaluationRows(
      self._records, self._crops, self._num_classes, 1, range(1)
    )
    picked = image_data.evenly(self.num_images, count)
    found = [read(int(index)) for index in picked]
    for line in (line for batch in found for line in batch.broken):
      _log.warning("%s: skipped", line)
    found = [batch for batch in found if batch.counts.all()]
    if not found:
      raise DataError(f"none of the {len(picked)} images picked can be read")
    return tuple(np.concatenate([part[i] for part in found]) for i in range(2))


def _open(function, steps: range, workers: int):
  """Grain's iterator over function(step)."""
  import grain
  from absl import flags

  if not flags.FLAGS.is_parsed():  # no command line: a notebook, a test
    flags.FLAGS.mark_as_parsed()
  dataset = grain.MapDataset.range(steps.start, steps.stop).map(function)
  if workers:
    _check_script()
  threads = 1 if workers else 4
  dataset = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
  )
  if workers:
    # Batches come through pipes: that costs a hundredth of the decoding, and
    # Docker gives 64 MB of the shared memory that Grain would take.
    dataset = grain.experimental.WithOptionsIterDataset(
      dataset, grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    )
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=2
      ),
      worker_init_fn=_start_worker,
    )
  return iter(dataset)


def _check_script():
  """Raises DataError for a script that would begin anew in each worker: Python
  starts them with a copy of the script, which runs as it is read."""
  path = getattr(sys.modules.get("__main__"), "__file__", None)
  try:
    text = pathlib.Path(path).read_text() if path else ""
  except (OSError, UnicodeError):
    return
  # Whoever writes either knows of it.
  if not text or "__main__" in text or "parent_process" in text:
    return
  raise DataError(
    f"{path} starts worker processes, and each would run it again: put what it"
    ' does below `if __name__ == "__main__":`, or set data.stream.workers to 0'
  )


def _start_worker(*_):
  """A worker leaves Ctrl-C to its parent, and does not outlive it."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = os.getppid()

  def watch():
    while os.getppid() == parent:
      time.sleep(1)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
