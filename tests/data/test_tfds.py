"""Sets of TensorFlow Datasets: prepared with TensorFlow, read without.

Preparing takes a Python that has tensorflow, tensorflow-datasets and, before
3.12, importlib_resources; NASNET_JAX_TF_PYTHON names it.
"""

import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from nasnet_jax import data
from nasnet_jax.data import photo_stream, photographs
from nasnet_jax.data.image_data import DataError

PREPARE = pathlib.Path(__file__).with_name("prepare_tfds.py")
READ = """
import json, sys
from nasnet_jax import data
try:
  import tensorflow
  sys.exit("tensorflow could be imported")
except ImportError:
  pass
options = json.loads(sys.argv[1])
result = data.load("tfds", **options)
labels = result.train_labels.tolist()
np = __import__("numpy")
np.savez(sys.argv[2], images=result.train_images, labels=labels,
         test_images=result.test_images, test_labels=result.test_labels)
print(json.dumps(result.class_names))
"""

tfds = pytest.importorskip("tensorflow_datasets")


def tensorflow_python() -> str:
  python = os.environ.get("NASNET_JAX_TF_PYTHON")
  if not python:
    pytest.skip("set NASNET_JAX_TF_PYTHON to a Python that has tensorflow")
  return python


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """(the digits that were stored, {format: data_dir})."""
  python = tensorflow_python()
  top = tmp_path_factory.mktemp("tfds")
  digits = data.load("digits", max_per_class=5)
  np.savez(
    top / "digits.npz",
    x_train=digits.train_images,
    y_train=digits.train_labels,
    x_test=digits.test_images,
    y_test=digits.test_labels,
  )
  folders = {}
  for file_format in ("array_record", "tfrecord"):
    folders[file_format] = str(top / file_format)
    command = [python, str(PREPARE), str(top / "digits.npz")]
    command += [folders[file_format], file_format]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
  return digits, folders


def read_without_tensorflow(tmp_path, **options):
  """Class names and arrays that a process without TensorFlow reads."""
  (tmp_path / "tensorflow.py").write_text("raise ImportError('blocked')")
  root = pathlib.Path(__file__).parents[2]
  env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
  out = tmp_path / "read.npz"
  command = [sys.executable, "-c", READ, json.dumps(options), str(out)]
  done = subprocess.run(
    command, check=True, env=env, stdout=subprocess.PIPE, text=True
  )
  with np.load(out) as file:
    return json.loads(done.stdout), dict(file)


def in_order(images, labels):
  """tfds shuffles what it stores: rows as comparable tuples, sorted."""
  rows = zip(np.asarray(labels).tolist(), images)
  return sorted((label, image.tobytes()) for label, image in rows)


@pytest.mark.slow
def test_a_set_prepared_with_tensorflow_is_read_where_its_import_raises(
  prepared, tmp_path
):
  digits, folders = prepared
  class_names, read = read_without_tensorflow(
    tmp_path, name="tiny_digits", data_dir=folders["array_record"]
  )
  assert class_names == [str(digit) for digit in range(10)]
  assert in_order(read["images"], read["labels"]) == in_order(
    digits.train_images, digits.train_labels
  )
  assert in_order(read["test_images"], read["test_labels"]) == in_order(
    digits.test_images, digits.test_labels
  )


@pytest.mark.slow
def test_slices_of_a_split_and_another_size_are_read(prepared, tmp_path):
  _, folders = prepared
  _, read = read_without_tensorflow(
    tmp_path,
    name="tiny_digits:1.0.0",
    data_dir=folders["array_record"],
    train_split="train[:60%]",
    test_split="train[60%:]",
    image_size=6,
  )
  assert read["images"].shape == (30, 6, 6, 1)
  assert read["test_images"].shape == (20, 6, 6, 1)


@pytest.mark.slow
def test_a_set_in_tensorflows_own_format_says_how_to_prepare_it(prepared):
  _, folders = prepared
  with pytest.raises(DataError, match="file_format='array_record'") as caught:
    data.load("tfds", name="tiny_digits", data_dir=folders["tfrecord"])
  assert "in tfrecord format" in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_split_that_a_set_lacks_names_those_it_has(prepared):
  _, folders = prepared
  with pytest.raises(DataError, match="no split 'validation', only t"):
    data.load(
      "tfds",
      name="tiny_digits",
      data_dir=folders["array_record"],
      test_split="validation",
    )


@pytest.mark.parametrize("name", ["mnist", "no_such_set"])
def test_a_set_that_is_not_prepared_names_the_command(name, tmp_path):
  with pytest.raises(DataError, match="is not prepared") as caught:
    data.load("tfds", name=name, data_dir=tmp_path)
  assert f"tfds.builder('{name}', data_dir='{tmp_path}'" in str(caught.value)
  assert "download_and_prepare()" in str(caught.value)
  assert "nasnet_jax[tf]" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_tfds_without_a_name_is_refused():
  with pytest.raises(DataError, match="needs a name"):
    data.load("tfds")


# Sets in array_record files, written by the tests and not by TensorFlow


def _png(value: int, size=(20, 20)) -> bytes:
  buffer = io.BytesIO()
  Image.new("RGB", size, (value, 0, 255 - value)).save(buffer, "png")
  return buffer.getvalue()


@pytest.fixture
def written(write_tfds, tmp_path):
  """data_dir of 12 and 6 images, each of its own colour, of several sizes."""
  splits = {
    split: [(_png(first + i, (20 + i, 24)), i % 2) for i in range(n)]
    for split, n, first in (("train", 12, 0), ("validation", 6, 100))
  }
  return write_tfds(tmp_path, "photos", splits, ("cat", "dog"))


def test_a_set_is_read_into_memory_without_tensorflow(written):
  found = data.load(
    "tfds",
    name="photos",
    data_dir=written,
    test_split="validation",
    image_size=20,
    note="of mine",
  )
  assert found.class_names == ("cat", "dog")
  assert found.note == "of mine"
  assert found.train_labels.tolist() == [0, 1] * 6
  assert found.train_images[:, 0, 0, 0].tolist() == list(range(12))
  assert found.test_images[:, 0, 0, 0].tolist() == list(range(100, 106))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_is_streamed_without_tensorflow(written, workers):
  """`validation` is what ImageNet is tested on, and the default."""
  found = photographs.load("tfds", name="photos", data_dir=written)
  assert (len(found.train), len(found.test)) == (12, 6)
  assert found.class_names == ("cat", "dog")
  batches = photo_stream.Stream(
    found.train, photo_stream.Crops(8), 2, workers=workers
  ).training_batches(4, 0, 0, 3)
  rows = [
    (int(image[0, 0, 0]), int(label))
    for batch in batches
    for image, label in zip(batch.images, batch.labels)
  ]
  assert sorted(rows) == [(i, i % 2) for i in range(12)]
  assert rows != sorted(rows)


def test_slices_and_the_fingerprint_of_a_streamed_set(written):
  def load(**splits):
    return photographs.load("tfds", name="photos", data_dir=written, **splits)

  part = load(train_split="train[:75%]", test_split="train[75%:]")
  assert (len(part.train), len(part.test)) == (9, 3)
  assert part.test.read(0)[0] == _png(9, (29, 24))
  assert part.fingerprint != load().fingerprint
  with pytest.raises(DataError, match="no split 'test', only"):
    load(test_split="test")


def test_a_streamed_set_without_labels_is_refused_before_it_is_needed(
  write_tfds, tmp_path
):
  """ImageNet's test split has -1 everywhere."""
  splits = {
    "train": [(_png(1), 0), (_png(2), 1)],
    "test": [(_png(3), -1)],
  }
  write_tfds(tmp_path, "photos", splits, ("cat", "dog"))
  with pytest.raises(DataError, match=r"split 'test' has label -1") as error:
    photographs.load(
      "tfds", name="photos", data_dir=tmp_path, test_split="test"
    )
  assert "\n" not in str(error.value)
