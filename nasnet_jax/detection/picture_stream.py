"""Batches of pictures with boxes: scaled, mirrored, padded to a few sizes.

As in `data.photo_stream`, the batch of a step is a pure function of (seed,
step), decoded in other processes, each host its own rows. Sizes are known from
the annotations, so all hosts pad a batch alike without talking.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import image_data, photo_stream, pixels
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import pictures
from nasnet_jax.detection.targets import Truth

_MAX_IN_A_ROW = 16  # broken files, after which the storage is to blame


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How pictures of any size become batches of a few shapes.

  Attributes:
    buckets: (height, width) of the batches. A picture goes into the smallest
      that holds it, with others of its kind as far as they go; what is left of
      each kind is padded to the largest height and width.
    shorter, longer: a picture is scaled until its shorter side has so many
      pixels, or its longer side so many if that comes first.
    stretch: scaled to the bucket, the only one, whatever its shape was.
    jitter: least and largest factor by which a training picture is scaled
      beside that; what then reaches over the batch's shape is cut off at a
      random place, with the boxes whose centre it had.
    flip: whether half of the training pictures are mirrored left to right.
    max_boxes: rows for boxes; a picture may have so many.
  """

  buckets: tuple[tuple[int, int], ...]
  shorter: int = 600
  longer: int = 1000
  stretch: bool = False
  jitter: tuple[float, float] = (1.0, 1.0)
  flip: bool = True
  max_boxes: int = 100

  def __post_init__(self):
    if not self.buckets or min(min(b) for b in self.buckets) < 1:
      raise DataError(f"buckets are {self.buckets}: give (height, width) pairs")
    if self.stretch and len(self.buckets) != 1:
      raise DataError("stretch takes one bucket, to whose shape it stretches")
    if not 0 < self.jitter[0] <= self.jitter[1]:
      raise DataError(f"jitter is {self.jitter}: give two factors, ascending")
    if min(self.shorter, self.longer, self.max_boxes) < 1:
      raise DataError(
        f"shorter {self.shorter}, longer {self.longer} and max_boxes"
        f" {self.max_boxes}: give 1 or more"
      )

  @property
  def largest(self) -> tuple[int, int]:
    """The shape that holds every picture."""
    return tuple(max(sides) for sides in zip(*self.buckets))

  def scaled(self, side, factor: float = 1.0) -> tuple[int, int]:
    """(height, width) that a picture of such a side is scaled to."""
    if self.stretch:
      scales = [to / have for to, have in zip(self.buckets[0], side)]
    else:
      scales = [min(self.shorter / min(side), self.longer / max(side))] * 2
    return tuple(
      max(1, round(have * scale * factor)) for have, scale in zip(side, scales)
    )

  def bucket(self, side) -> int | None:
    """The smallest bucket that holds a picture of such a side, scaled."""
    height, width = self.scaled(side)
    fit = [
      (h * w, i)
      for i, (h, w) in enumerate(self.buckets)
      if height <= h and width <= w
    ]
    return min(fit)[1] if fit else None


class Labels(NamedTuple):
  """What a batch says beside its pixels.

  Attributes:
    truth: its boxes, in pixels of the padded images.
    side: int32[B, 2], height and width of the picture inside its image.
  """

  truth: Truth
  side: np.ndarray


class Batch(NamedTuple):
  """A host's rows of a step's batch.

  Attributes:
    images: uint8[B, H, W, 3], pictures in the upper left corner of black.
    labels: Labels.
    index: int32[B], of each picture in its set.
    counts: bool[B]; false: a row that only fills up, or a broken file.
    broken: a line for each file that was broken.
  """

  images: np.ndarray
  labels: Labels
  index: np.ndarray
  counts: np.ndarray
  broken: tuple[str, ...] = ()


class Change(NamedTuple):
  """How one picture becomes its part of a batch.

  Attributes:
    scaled: (height, width) it is scaled to.
    offset: (y, x) there, where the part that is taken begins.
    side: (height, width) of that part.
    flip: whether it is then mirrored left to right.
  """

  scaled: tuple[int, int]
  offset: tuple[int, int]
  side: tuple[int, int]
  flip: bool

  def move(self, boxes: np.ndarray, side) -> tuple[np.ndarray, np.ndarray]:
    """(f32[G, 4] in pixels of the part, bool[G] which of them are there).

    Args:
      boxes: f32[G, 4] in pixels of the picture.
      side: (height, width) of the picture.
    """
    scale = np.tile(np.divide(self.scaled, side), 2)
    moved = boxes * scale - np.tile(self.offset, 2)
    centre = (moved[:, :2] + moved[:, 2:]) / 2
    there = ((centre >= 0) & (centre <= self.side)).all(1)
    moved = np.clip(moved, 0, np.tile(self.side, 2))
    if self.flip:
      width = self.side[1]
      moved = np.stack(
        [moved[:, 0], width - moved[:, 3], moved[:, 2], width - moved[:, 1]], 1
      )
    there &= (moved[:, 2:] > moved[:, :2]).all(1)
    return moved.astype(np.float32), there

  def apply(self, picture) -> np.ndarray:
    """uint8[h, w, 3] of a Pillow image."""
    from PIL import Image

    height, width = self.scaled
    if (width, height) != picture.size:
      picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    (y, x), (h, w) = self.offset, self.side
    part = np.asarray(picture, np.uint8)[y : y + h, x : x + w]
    return part[:, ::-1] if self.flip else part


def whole(side, sizes: Sizes) -> Change:
  """What evaluation takes: all of a picture."""
  scaled = sizes.scaled(side)
  return Change(scaled, (0, 0), scaled, False)


def varied(side, shape, sizes: Sizes, uniform) -> Change:
  """What training takes of a picture of `side` in a batch of `shape`.

  Args:
    uniform: float64[4] in [0, 1).
  """
  low, high = sizes.jitter
  scaled = sizes.scaled(side, low * (high / low) ** uniform[0])
  part = tuple(min(have, room) for have, room in zip(scaled, shape))
  offset = tuple(
    int(u * (have - taken + 1))
    for u, have, taken in zip(uniform[1:3], scaled, part)
  )
  return Change(scaled, offset, part, bool(sizes.flip and uniform[3] < 0.5))


def decode(name: str, content: bytes, side=None):
  """bytes of an image file -> a Pillow image of mode RGB.

  Args:
    side: (height, width) that its annotation gives; None: any. Cameras store
      a turned picture upright and say so in a tag, which not all annotations
      heed: whichever of the two fits is taken.

  Raises:
    DataError: if it is broken, or fits in neither way.
  """
  with pixels.opened(name, content) as image:
    kind = image.format
    if side is None or image.size != tuple(side[::-1]):
      image = pixels.upright(name, image)
    picture = pixels.to_mode(name, image, 3, kind=kind)
  if side is not None and picture.size != tuple(side[::-1]):
    raise DataError(
      f"image {name} is {picture.height}x{picture.width}, its annotation says"
      f" {side[0]}x{side[1]}: mend one of them"
    )
  return picture


def rows_of_truth(boxes, classes, crowd, size: int) -> Truth:
  """The boxes of one image in `size` rows."""
  n, empty = len(boxes), (0, size - len(boxes))
  return Truth(
    np.pad(np.asarray(boxes, np.float32), (empty, (0, 0))),
    np.pad(np.asarray(classes, np.int32), (empty,)),
    np.arange(size) < n,
    np.pad(np.asarray(crowd, bool), (empty,)),
  )


def no_labels(size: int) -> Labels:
  """Of an image without boxes, without the batch's axis; `size` rows."""
  none = np.zeros(0)
  truth = rows_of_truth(none.reshape(0, 4), none, none, size)
  return Labels(truth, np.ones(2, np.int32))


@dataclasses.dataclass(frozen=True)
class _Rows:
  """What batches of both kinds are made with.

  Attributes:
    kinds: int32[N], the bucket of each picture.
  """

  split: pictures.Pictures
  sizes: Sizes
  kinds: np.ndarray
  batch_size: int
  rows: range

  def _shape(self, index) -> tuple[int, int]:
    """(height, width) of the batch that holds these pictures."""
    kinds = self.kinds[index]
    if (kinds == kinds[0]).all():
      return self.sizes.buckets[kinds[0]]
    return self.sizes.largest

  def _row(self, index: int, change: Change, shape):
    """(uint8[H, W, 3], Labels without the batch's axis) of a picture."""
    one = self.split.annotations[index]
    try:
      content = self.split.contents.read(index)
    except OSError as error:
      raise DataError(f"image {one.name} cannot be read ({error})") from error
    part = change.apply(decode(one.name, content, one.side))
    image = np.zeros((*shape, 3), np.uint8)
    image[: part.shape[0], : part.shape[1]] = part
    boxes, there = change.move(one.boxes, one.side)
    truth = rows_of_truth(
      boxes[there], one.classes[there], one.crowd[there], self.sizes.max_boxes
    )
    return image, Labels(truth, np.array(change.side, np.int32))

  def _empty(self, shape):
    return np.zeros((*shape, 3), np.uint8), no_labels(self.sizes.max_boxes)


def _stack(rows, index, counts, broken) -> Batch:
  import jax

  images, labels = zip(*rows)
  return Batch(
    np.stack(images),
    jax.tree.map(lambda *leaves: np.stack(leaves), *labels),
    np.array(index, np.int32),
    np.array(counts, bool),
    tuple(broken),
  )


@dataclasses.dataclass(frozen=True)
class _TrainingRows(_Rows):
  """step -> Batch, on whichever process."""

  seed: int = 0

  def __call__(self, step: int) -> Batch:
    n = self.split.num_images
    epoch, in_epoch = divmod(step, n // self.batch_size)
    order = _order(self.kinds.tobytes(), self.batch_size, self.seed, epoch)
    start = in_epoch * self.batch_size
    shape = self._shape(order[start : start + self.batch_size])
    rows, taken, broken = [], [], []
    for row in self.rows:
      raw = np.random.PCG64((self.seed, step, row)).random_raw(4)
      uniform = (raw >> np.uint64(11)) * 2.0**-53
      # In place of a broken image: the next one of the epoch's order.
      near = (start + row + np.arange(min(n, _MAX_IN_A_ROW))) % len(order)
      for index in order[near]:
        side = self.split.annotations[index].side
        change = varied(side, shape, self.sizes, uniform)
        try:
          rows.append(self._row(int(index), change, shape))
          break
        except DataError as error:
          broken.append(str(error))
      else:
        raise DataError(
          f"{len(broken)} images in a row cannot be read, the last:"
          f" {broken[-1]}: is the storage still there?"
        )
      taken.append(index)
    return _stack(rows, taken, np.ones(len(taken), bool), broken)


@functools.lru_cache(maxsize=2)
def _order(kinds: bytes, batch_size: int, seed: int, epoch: int) -> np.ndarray:
  """int64[N]: an epoch's order, pictures of one bucket side by side.

  Args:
    kinds: int32[N], the bucket of each picture.
  """
  kinds = np.frombuffer(kinds, np.int32)
  order = image_data.seeded_order(len(kinds), (seed, epoch))
  steps = len(order) // batch_size
  order = order[: steps * batch_size]  # others are left out in each epoch
  order = order[np.argsort(kinds[order], kind="stable")]
  # Or an epoch would begin with all that is high and end with all that is wide.
  turns = image_data.seeded_order(steps, (seed, epoch, 1))
  return order.reshape(steps, batch_size)[turns].ravel()


@dataclasses.dataclass(frozen=True)
class _EvaluationRows(_Rows):
  """step -> Batch: every picture once, by bucket, the last batch filled up."""

  def __call__(self, step: int) -> Batch:
    order = np.argsort(self.kinds, kind="stable")
    start = step * self.batch_size
    shape = self._shape(order[start : start + self.batch_size])
    rows, taken, counts, broken = [], [], [], []
    for place in range(start + self.rows.start, start + self.rows.stop):
      index = int(order[place]) if place < len(order) else 0
      rows.append(self._empty(shape))
      taken.append(index)
      counts.append(False)
      if place >= len(order):
        continue
      change = whole(self.split.annotations[index].side, self.sizes)
      try:
        rows[-1] = self._row(index, change, shape)
        counts[-1] = True
      except DataError as error:
        broken.append(str(error))
    return _stack(rows, taken, counts, broken)


class Stream(photo_stream.Batches):
  """A split as batches; see `data.photo_stream.Batches`."""

  def __init__(self, split: pictures.Pictures, sizes: Sizes, **options):
    """options: of `data.photo_stream.Batches`.

    Raises:
      DataError: for a picture that no bucket holds, or one with more boxes
        than there are rows.
    """
    super().__init__(split.num_images, (*sizes.largest, 3), **options)
    self.split = split
    self.sizes = sizes
    buckets = [sizes.bucket(one.side) for one in split.annotations]
    for one, bucket in zip(split.annotations, buckets):
      if bucket is None:
        scaled = "x".join(map(str, sizes.scaled(one.side)))
        raise DataError(
          f"{one.name} is scaled to {scaled}, which none of the buckets"
          f" {sizes.buckets} holds: add one to data.sizes.buckets, or lower"
          " data.sizes.shorter and longer"
        )
      if len(one.boxes) > sizes.max_boxes:
        raise DataError(
          f"{one.name} has {len(one.boxes)} boxes: raise data.sizes.max_boxes,"
          f" which is {sizes.max_boxes}"
        )
    self._kinds = np.array(buckets, np.int32)

  def training_batches(
    self, batch_size: int, seed: int, first_step: int, end_step: int
  ) -> Iterator[Batch]:
    """The batches of steps first_step..end_step-1, this host's rows.

    Args:
      batch_size: over all hosts.

    Raises:
      DataError: if more files than allowed are broken, or there are fewer
        pictures than a batch.
    """
    self.check(batch_size)
    function = _TrainingRows(
      self.split,
      self.sizes,
      self._kinds,
      batch_size,
      self.rows(batch_size),
      seed,
    )
    return self.run(function, range(first_step, end_step))

  def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
    """Every picture once, whole. Of a broken one `Batch.counts` is false."""
    function = _EvaluationRows(
      self.split, self.sizes, self._kinds, batch_size, self.rows(batch_size)
    )
    steps = range(-(-self.num_images // batch_size))
    return self.run(function, steps, photo_stream.UNANSWERED)
