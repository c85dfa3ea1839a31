"""Sets of TensorFlow Datasets: prepared with TensorFlow, read without.

Preparing takes a Python that has tensorflow, tensorflow-datasets and, before
3.12, importlib_resources; NASNET_JAX_TF_PYTHON names it.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nasnet_jax import data
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
