"""Encoded images by number, and a set of them: what streams read."""

import dataclasses
import hashlib
from typing import NamedTuple, Protocol

import numpy as np


class Records(Protocol):
  """Encoded images by number; can be pickled.

  Attributes:
    labels: int32[N], or None where only reading a record tells.
  """

  labels: np.ndarray | None

  def __len__(self) -> int: ...

  def name(self, index: int) -> str:
    """What to call the image in a message."""
    ...

  def read(self, index: int) -> tuple[bytes, int]:
    """(the image file's content, its label). OSError if it cannot be read."""
    ...


class Photographs(NamedTuple):
  """An image classification set on disk.

  Attributes:
    train, test: its records.
    class_names: K names.
    name: the source.
    note: what a report must say beside a figure from this set; may be empty.
    fingerprint: 16 hexadecimal digits that stand for names, sizes and labels
      of the images. Not for their content: that would be hours of reading.
  """

  train: Records
  test: Records
  class_names: tuple[str, ...]
  name: str
  note: str
  fingerprint: str


@dataclasses.dataclass(frozen=True)
class Subset:
  """Some records of another set."""

  records: Records
  index: np.ndarray  # int64[N]

  @property
  def labels(self) -> np.ndarray | None:
    labels = self.records.labels
    return None if labels is None else labels[self.index]

  def __len__(self) -> int:
    return len(self.index)

  def name(self, index: int) -> str:
    return self.records.name(int(self.index[index]))

  def read(self, index: int) -> tuple[bytes, int]:
    return self.records.read(int(self.index[index]))


def digest(*rows) -> str:
  found = hashlib.sha256()
  for row in rows:
    found.update(f"{row!r}\n".encode())
  return found.hexdigest()[:16]
