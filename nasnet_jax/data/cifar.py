"""CIFAR-10 and CIFAR-100 from the official binary archives, no pickle."""

import hashlib
import logging
import tarfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nasnet_jax.data import cache
from nasnet_jax.data.image_data import DataError, ImageData


class Release(NamedTuple):
  """One archive, and where things are in it.

  Attributes:
    url: Krizhevsky's page.
    size: bytes.
    sha256: of the archive.
    train: names of the record files, in order.
    test: the same.
    names: the file of class names, one a line.
    label_bytes: bytes before the 3,072 of pixels; the last is the label.
  """

  url: str
  size: int
  sha256: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  names: str
  label_bytes: int


# Sizes and SHA-256 are those in TensorFlow Datasets' checksum files; the MD5
# that the page itself gives for CIFAR-10 is c32a1d4ab5d03f1284b67883e8d87530.
CIFAR10 = Release(
  url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
  size=170_052_171,
  sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
  train=tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
  test=("cifar-10-batches-bin/test_batch.bin",),
  names="cifar-10-batches-bin/batches.meta.txt",
  label_bytes=1,
)
CIFAR100 = Release(
  url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
  size=168_513_733,
  sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
  train=("cifar-100-binary/train.bin",),
  test=("cifar-100-binary/test.bin",),
  names="cifar-100-binary/fine_label_names.txt",
  label_bytes=2,  # coarse, then fine
)

_PIXELS = 3 * 32 * 32
_TIMEOUT = 30  # seconds without a byte


def load_cifar10(data_dir=None, *, download: bool = True) -> ImageData:
  """50,000 + 10,000 images uint8[N, 32, 32, 3] in ten classes.

  Args:
    data_dir: where the archive may lie; else it is taken from the cache, else
      downloaded into it.
    download: whether to.

  Raises:
    DataError: if there is no archive, or its checksum is wrong.
  """
  return _load("cifar10", CIFAR10, data_dir, download)


def load_cifar100(data_dir=None, *, download: bool = True) -> ImageData:
  """Like `load_cifar10`, with the 100 fine classes."""
  return _load("cifar100", CIFAR100, data_dir, download)


def _load(name: str, release: Release, data_dir, download) -> ImageData:
  path = _archive(release, data_dir, download)
  key = {"release": release.sha256}
  arrays = cache.cached(key, lambda: _decode(path, release))
  return ImageData(
    arrays["x_train"],
    arrays["y_train"],
    arrays["x_test"],
    arrays["y_test"],
    tuple(str(c) for c in arrays["class_names"]),
    name=name,
  )


def _archive(release: Release, data_dir, download: bool) -> Path:
  """The path of the archive, its checksum verified."""
  file_name = release.url.rpartition("/")[2]
  folders = [cache.cache_dir() / "downloads"]
  if data_dir is not None:
    folders.insert(0, Path(data_dir))
  for folder in folders:
    path = folder / file_name
    if path.is_file():
      _verify(path, release)
      return path
  ways = (
    f"put {file_name} from {release.url} into {folders[0]}, or use source"
    " 'folder' or 'digits'"
  )
  if not download:
    raise DataError(f"no {file_name}: {ways}")
  path = folders[-1] / file_name
  try:
    _download(release, path)
  except OSError as error:  # urllib's errors are kinds of it
    raise DataError(f"cannot download {file_name} ({error}): {ways}") from error
  return path


def _verify(path: Path, release: Release):
  if path.stat().st_size == release.size:
    with path.open("rb") as f:
      if hashlib.file_digest(f, "sha256").hexdigest() == release.sha256:
        return
  raise DataError(
    f"{path} is not the official archive (size or SHA-256 differs): remove it"
    f" and download {release.url} again"
  )


def _download(release: Release, path: Path):
  """Only a file that came whole, and verified, gets its name."""
  logging.info("downloading %s, %.0f MB", release.url, release.size / 1e6)
  with (
    urllib.request.urlopen(release.url, timeout=_TIMEOUT) as response,
    cache.atomic_file(path) as out,
  ):
    done, said = 0, 0
    while block := response.read(1 << 20):
      out.write(block)
      done += len(block)
      if done * 10 // release.size > said:
        said = done * 10 // release.size
        logging.info("%s: %d %%", path.name, 10 * said)
    out.flush()
    _verify(Path(out.name), release)


def _decode(path: Path, release: Release) -> cache.Arrays:
  wanted = (*release.train, *release.test, release.names)
  content = {}
  with tarfile.open(path, "r|gz") as tar:
    for member in tar:
      if member.name in wanted:
        content[member.name] = tar.extractfile(member).read()
  missing = [name for name in wanted if name not in content]
  if missing:
    raise DataError(f"{path} lacks {missing[0]}: download it again")
  class_names = content[release.names].decode().split()
  arrays = {"class_names": np.array(class_names)}
  for part in ("train", "test"):
    raw = b"".join(content[name] for name in getattr(release, part))
    arrays[f"x_{part}"], arrays[f"y_{part}"] = _records(raw, release)
  return arrays


def _records(raw: bytes, release: Release) -> tuple[np.ndarray, np.ndarray]:
  """Records of label bytes and planes -> uint8[N, 32, 32, 3], int32[N]."""
  table = np.frombuffer(raw, np.uint8)
  table = table.reshape(-1, release.label_bytes + _PIXELS)
  planes = table[:, release.label_bytes :].reshape(-1, 3, 32, 32)
  labels = table[:, release.label_bytes - 1].astype(np.int32)
  return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
