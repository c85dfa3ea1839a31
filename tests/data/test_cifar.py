"""The official binary archives, in small: layout, checksum, download."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from nasnet_jax import data
from nasnet_jax.data import cifar
from nasnet_jax.data.image_data import DataError


def records(release, count, num_classes, rng):
  """uint8[count, 32, 32, 3], labels, and the bytes of the records."""
  images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
  labels = np.arange(count) % num_classes
  rows = []
  for image, label in zip(images, labels):
    # Of CIFAR-100's two label bytes the first is the coarse class.
    coarse = [255] * (release.label_bytes - 1)
    planes = image.transpose(2, 0, 1).tobytes()
    rows.append(bytes([*coarse, label]) + planes)
  return images, labels, b"".join(rows)


@pytest.fixture(params=["cifar10", "cifar100"])
def packed(request, tmp_path, monkeypatch):
  """(source, path of a small archive of the true layout, what is in it)."""
  name = request.param
  release = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}[name]
  num_classes = int(name.removeprefix("cifar"))
  rng = np.random.default_rng(0)
  parts = {"train": [], "test": []}
  class_names = [f"class_{i}" for i in range(num_classes)]
  path = tmp_path / "files" / release.url.rpartition("/")[2]
  path.parent.mkdir()
  with tarfile.open(path, "w:gz") as tar:

    def add(member, content):
      info = tarfile.TarInfo(member)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))

    for part in parts:
      for member in getattr(release, part):
        images, labels, content = records(release, 100, num_classes, rng)
        parts[part].append((images, labels))
        add(member, content)
    add(release.names, "\n".join([*class_names, "", ""]).encode())
  content = path.read_bytes()
  small = release._replace(
    url=path.as_uri(),
    size=len(content),
    sha256=hashlib.sha256(content).hexdigest(),
  )
  monkeypatch.setattr(cifar, name.upper(), small)
  expected = {
    part: [np.concatenate(column) for column in zip(*rows)]
    for part, rows in parts.items()
  }
  return name, path, expected


def test_the_archive_in_data_dir_gives_its_images_and_labels(packed):
  name, path, expected = packed
  result = data.load(name, data_dir=path.parent, download=False)
  np.testing.assert_array_equal(result.train_images, expected["train"][0])
  np.testing.assert_array_equal(result.train_labels, expected["train"][1])
  np.testing.assert_array_equal(result.test_images, expected["test"][0])
  np.testing.assert_array_equal(result.test_labels, expected["test"][1])
  assert result.num_classes == int(name.removeprefix("cifar"))
  assert result.class_names[:2] == ("class_0", "class_1")


def test_a_missing_archive_is_downloaded_once_into_the_cache(
  packed, cache_folder, monkeypatch
):
  name, path, expected = packed
  first = data.load(name)
  assert (cache_folder / "downloads" / path.name).exists()
  path.unlink()
  second = data.load(name)
  assert first.fingerprint == second.fingerprint
  np.testing.assert_array_equal(second.test_labels, expected["test"][1])


def test_a_download_that_differs_from_the_checksum_leaves_nothing(
  packed, cache_folder
):
  name, path, _ = packed
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(DataError, match="not the official archive"):
    data.load(name)
  assert list((cache_folder / "downloads").iterdir()) == []


@pytest.mark.parametrize("damage", ["shorter", "changed"])
def test_an_archive_that_differs_from_the_checksum_is_refused(packed, damage):
  name, path, _ = packed
  content = bytearray(path.read_bytes())
  content[-5] ^= 1
  path.write_bytes(content[:-1] if damage == "shorter" else content)
  with pytest.raises(DataError, match="remove it and download"):
    data.load(name, data_dir=path.parent)


@pytest.mark.parametrize("download", [True, False])
def test_without_archive_and_network_the_ways_to_get_it_are_named(
  packed, tmp_path, download
):
  name, path, _ = packed
  path.unlink()
  with pytest.raises(DataError, match=f"put {path.name} from") as caught:
    data.load(name, data_dir=tmp_path, download=download)
  assert f"into {tmp_path}" in str(caught.value)
  assert "'folder' or 'digits'" in str(caught.value)


def test_releases_are_the_official_ones():
  # The checksum files that tensorflow-datasets 4.9 ships.
  assert cifar.CIFAR10.url == (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
  )
  assert cifar.CIFAR10.sha256.startswith("c4a38c50a1bc5f3a")
  assert cifar.CIFAR10.size == 170_052_171
  assert cifar.CIFAR100.url == (
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
  )
  assert cifar.CIFAR100.sha256.startswith("58a81ae192c23a4b")
  assert cifar.CIFAR100.size == 168_513_733
