"""A cache of its own for every test, and small images to pack."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  """An empty cache, so that no test reads what another decoded."""
  folder = tmp_path / "cache"
  monkeypatch.setenv("NASNET_JAX_CACHE", str(folder))
  return folder


@pytest.fixture
def files() -> dict[str, bytes]:
  """{name: PNG of 6x5 noise}: 4 cats and 2 dogs to train on, 2 and 1 to test.

  The seed of the noise is the place in the dict.
  """
  result = {}
  for folder, count in (
    ("train/cat", 4),
    ("train/dog", 2),
    ("test/cat", 2),
    ("test/dog", 1),
  ):
    for i in range(count):
      rng = np.random.default_rng(len(result))
      buffer = io.BytesIO()
      pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
      Image.fromarray(pixels).save(buffer, "png")
      result[f"{folder}/{i}.png"] = buffer.getvalue()
  return result


@pytest.fixture
def write_folder(tmp_path):
  """(files, folder="images") -> the path of a directory of these files."""

  def write(files, folder="images"):
    top = tmp_path / folder
    for name, content in files.items():
      (top / name).parent.mkdir(parents=True, exist_ok=True)
      (top / name).write_bytes(content)
    return top

  return write
