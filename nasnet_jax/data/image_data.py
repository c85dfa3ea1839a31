"""What every source returns, the checks it has passed, and seeded splits."""

import collections
import difflib
import hashlib
import logging
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

_log = logging.getLogger(__name__)


def printable(name) -> str:
  """A file's name, or words about it, in one line that any console prints:
  what is no letter or sign of its own is escaped."""
  return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))


class DataError(ValueError):
  """Data that cannot be used; the message is one line that names the fix."""

  def __init__(self, message: str):
    super().__init__(printable(message))


class ImageData(NamedTuple):
  """An image classification set in memory.

  Attributes:
    train_images: uint8[N, H, W, C].
    train_labels: int32[N], 0..K-1.
    test_images: uint8[M, H, W, C], to be looked at once, by the winner.
    test_labels: int32[M].
    class_names: K names.
    name: the source, and for users' own data the file.
    note: what a report must say beside a figure from this data; may be empty.
    fingerprint: 16 hexadecimal digits of the SHA-256 of all of the above but
      name and note: equal data, equal fingerprint.
  """

  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray
  class_names: tuple[str, ...]
  name: str
  note: str = ""
  fingerprint: str = ""

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.train_images.shape[1:]


def listed(names, most: int = 10) -> str:
  """The first names, and how many more there are."""
  names = [printable(name) for name in names]
  more = f" and {len(names) - most:,} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more


def nearest(word: str, known: Iterable[str]) -> str:
  """A hint for an unknown word: "did you mean ...? known: ..."."""
  known = list(known)
  lower = word.lower()
  close = difflib.get_close_matches(lower, [k.lower() for k in known], 1, 0.5)
  close = [name for name in known if name.lower() in close]
  hint = f"did you mean {close[0]!r}? " if close else ""
  return f"{hint}known: {', '.join(known)}"


def evenly(total: int, count: int) -> np.ndarray:
  """`count` of the indices 0..total-1 from first to last at even distances, in
  order; all if there are fewer. One is the first."""
  return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def seeded_order(n: int, seed) -> np.ndarray:
  """int64[n], a random permutation that no version of NumPy changes.

  NumPy promises the raw numbers of a bit generator, not the way in which
  `Generator.permutation` uses them; so the raw numbers are sorted here.
  """
  raw = np.random.PCG64(seed).random_raw(n)
  return np.argsort(raw, kind="stable")


def split(labels, num_valid: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Divides a training set at random, as a search does.

  Not stratified: the paper takes "a random 5,000" of CIFAR-10's 50,000
  (Zoph et al. 2018, appendix A).

  Args:
    labels: [N]; only its length counts.
    num_valid: examples to set aside, 1..N-1.
    seed: equal seeds give equal splits, on any version of NumPy.

  Returns:
    (train_index int64[N - num_valid], valid_index int64[num_valid]), both
    ascending.

  Raises:
    DataError: if nothing would be left on one side.
  """
  n = len(labels)
  if not 0 < num_valid < n:
    raise DataError(
      f"{num_valid} validation images asked of {n}: ask for 1 to {n - 1} with"
      " data.num_valid"
    )
  order = seeded_order(n, seed)
  return np.sort(order[num_valid:]), np.sort(order[:num_valid])


def stratified_split(
  labels, num_test: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Like `split`, every class giving the same share, to one image.

  Returns:
    (train_index int64[N - num_test], test_index int64[num_test]), ascending.
    Every class keeps an image for training.

  Raises:
    DataError: if the classes are too small for that.
  """
  labels = np.asarray(labels)
  n = len(labels)
  counts = np.bincount(labels)
  spare = np.maximum(counts - 1, 0)
  if not 0 < num_test <= spare.sum():
    raise DataError(
      f"{num_test} test images asked of {n} in {np.count_nonzero(counts)}"
      f" classes: ask for 1 to {spare.sum()}, each class keeps one"
    )
  share = counts * num_test // n
  # What rounding left over goes to the classes that lost most by it.
  while missing := num_test - share.sum():
    debt = np.where(share < spare, counts * num_test / n - share, -np.inf)
    share[np.argsort(-debt, kind="stable")[:missing]] += 1
    share = np.minimum(share, spare)
  order = seeded_order(n, seed)
  rank = _rank_in_class(labels, order)
  test = rank < share[labels]
  return np.flatnonzero(~test), np.flatnonzero(test)


def set_aside(
  name, labels, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """(train_index, test_index) of a set without test images: a share of each
  class, to one image.

  Raises:
    DataError: naming the set, if there is no such share.
  """
  if not 0 < test_fraction < 1:
    raise DataError(
      f"{name} has no test split and test_fraction is {test_fraction}: give a"
      " number between 0 and 1"
    )
  num_test = max(1, round(len(labels) * test_fraction))
  try:
    train, test = stratified_split(labels, num_test, seed)
  except DataError as error:
    raise DataError(
      f"{name} has no test split: {error}; add images or change test_fraction"
      f" ({test_fraction:g})"
    ) from None
  labels = np.asarray(labels)
  classes = len(np.unique(labels))
  missing = classes - len(np.unique(labels[test]))
  if missing:
    _log.warning(
      "%s: %d of %d classes have no test image: raise test_fraction (a config's"
      " data.options.test_fraction), which is %g",
      *(name, missing, classes, test_fraction),
    )
  return train, test


PLAIN, STRATIFIED = "plain", "stratified"


def validation_split(
  labels, num_valid: int, seed: int, kind: str | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
  """`split`, unless a class would lack training or validation images by it;
  then every class gives its share to both, as far as it has images.

  Args:
    labels: [N], 0..K-1.
    kind: PLAIN or STRATIFIED, as an earlier call has told; None: as said.

  Returns:
    (train_index, valid_index, kind).

  Raises:
    DataError: as `split`.
  """
  labels = np.asarray(labels)
  train, valid = split(labels, num_valid, seed)
  if kind is None:
    kind = STRATIFIED if _lacking(labels, train, valid) else PLAIN
  if kind == PLAIN:
    return train, valid, kind
  counts = np.bincount(labels)
  spare = np.maximum(counts - 1, 0)
  share = _shares(counts, spare, num_valid)
  rank = _rank_in_class(labels, seeded_order(len(labels), seed))
  is_valid = rank < share[labels]
  return np.flatnonzero(~is_valid), np.flatnonzero(is_valid), kind


def _lacking(labels, train, valid) -> bool:
  """Whether a class with two images or more is not in both parts."""
  width = labels.max() + 1
  counts, left, right = (
    np.bincount(part, minlength=width)
    for part in (labels, labels[train], labels[valid])
  )
  return bool(
    ((counts > 0) & (left == 0)).any() or ((counts > 1) & (right == 0)).any()
  )


def _shares(counts, spare, wanted: int) -> np.ndarray:
  """int[K]: validation images of each class, one at least where there are so
  many; in all as many as are wanted, if each class can keep an image."""
  share = np.minimum(counts * wanted // max(1, counts.sum()), spare)
  if wanted >= np.count_nonzero(spare):
    share = np.maximum(share, np.minimum(spare, 1))
  wanted = min(wanted, int(spare.sum()))
  ideal = counts * wanted / counts.sum()
  while share.sum() < wanted:
    debt = np.where(share < spare, ideal - share, -np.inf)
    share[np.argmax(debt)] += 1
  while share.sum() > wanted:
    share[np.argmax(np.where(share > 1, share - ideal, -np.inf))] -= 1
  return share


def _rank_in_class(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
  """int64[N]: the place of each example among its class, in that order."""
  rank = np.empty(len(labels), np.int64)
  by_class = order[np.argsort(labels[order], kind="stable")]
  counts = np.bincount(labels)
  starts = np.repeat(np.cumsum(counts) - counts, counts)
  rank[by_class] = np.arange(len(labels)) - starts
  return rank


def limit(
  data: ImageData, fraction: float, max_per_class: int | None, seed: int
) -> ImageData:
  """A smaller set: a random part of each class of both splits.

  Args:
    fraction: share of each class to keep, above 0 and at most 1, rounded.
    max_per_class: at most so many of each class in each split; None: all.
    seed: of the choice. A larger share holds every smaller one.

  Raises:
    DataError: for a share that leaves a class without images.
  """
  if not 0 < fraction <= 1:
    raise DataError(f"fraction is {fraction}: give a number in (0, 1]")
  if max_per_class is not None and max_per_class < 1:
    raise DataError(f"max_per_class is {max_per_class}: give 1 or more")
  if fraction == 1 and max_per_class is None:
    return data

  def part(images, labels):
    counts = np.bincount(labels, minlength=data.num_classes)
    keep = np.rint(counts * fraction).astype(np.int64)
    if max_per_class is not None:
      keep = np.minimum(keep, max_per_class)
    gone = np.flatnonzero((keep == 0) & (counts > 0))
    if len(gone):
      raise DataError(
        f"fraction {fraction} leaves nothing of the {counts[gone[0]]} images of"
        f" class {data.class_names[gone[0]]!r}: raise it"
      )
    rank = _rank_in_class(labels, seeded_order(len(labels), seed))
    index = np.flatnonzero(rank < keep[labels])
    return images[index], labels[index]

  train = part(data.train_images, data.train_labels)
  test = part(data.test_images, data.test_labels)
  gone = [
    len(before) - len(after)
    for before, after in (
      (data.train_labels, train[1]),
      (data.test_labels, test[1]),
    )
  ]
  if not any(gone):
    return data
  _log.info(
    "%s: %d training and %d test images are left out (data.fraction %g,"
    " data.max_per_class %s)",
    data.name,
    *gone,
    fraction,
    max_per_class,
  )
  note = "; ".join(filter(None, [data.note, "part of the images only"]))
  return data._replace(
    train_images=train[0],
    train_labels=train[1],
    test_images=test[0],
    test_labels=test[1],
    note=note,
  )


def checked(data: ImageData) -> ImageData:
  """The data with int32 labels and its fingerprint, if all is well.

  Raises:
    DataError: for anything that training would only trip over later.
  """
  data = data._replace(
    train_labels=_checked_labels(data, "train"),
    test_labels=_checked_labels(data, "test"),
    class_names=tuple(data.class_names),
  )
  train, test = data.train_images, data.test_images
  check_classes(data.name, data.class_names)
  if train.shape[1:] != test.shape[1:]:
    raise DataError(
      f"{data.name}: training images are {train.shape[1:]} and test images"
      f" {test.shape[1:]}: bring them to one size and number of channels"
    )
  if train.max() <= 1:
    _log.warning(
      "%s: no training pixel is above 1 of 255, all are nearly black: if they"
      " are floats of 0..1 that were cast, multiply them by 255 first",
      data.name,
    )
  counts = np.bincount(data.train_labels, minlength=data.num_classes)
  if not counts.all():
    empty = int(np.argmin(counts))
    raise DataError(
      f"{data.name}: class {data.class_names[empty]!r} (label {empty}) has no"
      " training image: add some, or number the labels without gaps"
    )
  return data._replace(fingerprint=fingerprint(data))


def check_classes(name, class_names):
  """Raises DataError for fewer than two classes, and for two of one name."""
  if len(class_names) < 2:
    raise DataError(
      f"{name}: only one class, {class_names[0]!r}; there is nothing to tell"
      " apart: add a second class folder"
    )
  for label, count in collections.Counter(class_names).items():
    if count > 1:
      raise DataError(
        f"{name}: {count} classes are called {label!r}: call them differently"
      )


def check_images(where: str, images: np.ndarray, num_labels: int):
  """uint8[N, H, W, C] with C 1, 3 or 4, a label each; else DataError with the
  order of axes that was meant, where one can be told."""
  if images.dtype != np.uint8 or images.ndim != 4:
    raise DataError(
      f"{where} is {images.dtype}{list(images.shape)}: images must be"
      " uint8[N, H, W, C] of 0..255"
    )
  if min(images.shape) < 1:
    raise DataError(
      f"{where} is {images.dtype}{list(images.shape)}: there are no images"
    )
  channels = images.shape[3]
  if channels not in (1, 3, 4):
    raise DataError(
      f"{where} is uint8{list(images.shape)} with {channels} channels: images"
      " are uint8[N, H, W, C] with 1, 3 or 4 (colour and opacity)"
      f"{in_this_order(images.shape, num_labels)}"
    )
  if len(images) != num_labels:
    raise DataError(
      f"{where}: {len(images)} images but {num_labels} labels"
      f"{in_this_order(images.shape, num_labels)}"
    )


def in_this_order(shape, num_labels: int, wanted=(1, 3, 4)) -> str:
  """How to order axes as they are wanted, if they are there in another.

  Args:
    shape: of four axes.
    num_labels: how many images there are.
    wanted: numbers of channels that can be.
  """
  for order, name in (
    ((0, 2, 3, 1), "N, C, H, W"),
    ((3, 0, 1, 2), "H, W, C, N"),
    ((3, 1, 2, 0), "C, H, W, N"),
    ((1, 2, 3, 0), "C, N, H, W"),
    ((0, 1, 3, 2), "N, H, C, W"),
  ):
    n, channels = shape[order[0]], shape[order[3]]
    if n == num_labels and channels in wanted:
      return f"; these look like [{name}]: x.transpose{order}"
  return ""


def _checked_labels(data: ImageData, part: str) -> np.ndarray:
  images = getattr(data, f"{part}_images")
  labels = np.asarray(getattr(data, f"{part}_labels"))
  where = f"{data.name}: {part} set"
  if labels.ndim != 1 or labels.dtype.kind not in "iu":
    raise DataError(
      f"{where} has labels {labels.dtype}{list(labels.shape)}: they must be"
      " integers[N]"
    )
  check_images(where, images, len(labels))
  bad = (labels < 0) | (labels >= data.num_classes)
  if bad.any():
    first = int(np.argmax(bad))
    raise DataError(
      f"{where} has label {labels[first]} at image {first}, outside"
      f" 0..{data.num_classes - 1}: number the classes from 0, the same in"
      " both sets"
    )
  return labels.astype(np.int32)


def fingerprint(data: ImageData) -> str:
  """16 hexadecimal digits that stand for images, labels and class names."""
  digest = hashlib.sha256("\0".join(data.class_names).encode())
  for array in data[:4]:
    digest.update(str((array.dtype.str, array.shape)).encode())
    digest.update(np.ascontiguousarray(array).data)
  return digest.hexdigest()[:16]
