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
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import cropping, image_data, photographs
from nasnet_jax.data.cropping import Crops, decode
from nasnet_jax.data.image_data import DataError

_log = logging.getLogger(__name__)

# Broken files in a row, after which the storage is to blame and not a file.
_MAX_IN_A_ROW = 16


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
      uniform = _uniform(self.seed, step, row, 3 * cropping.MAX_TRIES)
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


# Of a broken file that is to be answered, not learnt from.
UNANSWERED = "not answered, which counts as wrong"


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

  def run(
    self, function, steps: range, instead: str = "another one stands in"
  ) -> Iterator[Batch]:
    """function(step) of each step, in order, and what was broken noted.

    Args:
      instead: what a broken file's line says of its place.
    """
    with contextlib.closing(_open(function, steps, self._workers)) as batches:
      for _ in steps:
        batch = next(batches)
        self._note(batch.broken, instead)
        yield batch

  def _note(self, lines: tuple[str, ...], instead: str):
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
        "%s: %s (%d of %d allowed)",
        line,
        instead,
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
    steps = range(-(-self.num_images // batch_size))
    return self.run(function, steps, UNANSWERED)

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
