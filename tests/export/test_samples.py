"""Which pictures an export reads, and in which batches it compares."""

import pathlib
import types

import numpy as np
import pytest

from nasnet_jax.data import image_data
from nasnet_jax.export import artifact, samples
from nasnet_jax.training import datasets


def test_indices_are_evenly_spread_from_the_first_on():
  assert list(image_data.evenly(9, 3)) == [0, 4, 8]
  assert list(image_data.evenly(3, 9)) == [0, 1, 2]
  assert list(image_data.evenly(5, 1)) == [0]
  assert list(image_data.evenly(0, 4)) == []


def _files(**folders: int):
  """So many files in each folder."""
  return [
    pathlib.Path(name, f"{i:03}.png")
    for name, count in folders.items()
    for i in range(count)
  ]


def _counts(files):
  names = [file.parent.name for file in files]
  return {name: names.count(name) for name in sorted(set(names))}


def test_every_folder_gives_as_many_as_it_has_and_others_leave():
  files = _files(a=100, b=2, c=50)
  assert _counts(samples.of_every_folder(files, 20)) == {"a": 9, "b": 2, "c": 9}
  assert _counts(samples.of_every_folder(files, 3)) == {"a": 1, "b": 1, "c": 1}
  picked = samples.of_every_folder(files, 20)
  assert picked == sorted(picked)  # in their order
  assert [file.name for file in picked][:9:8] == ["000.png", "099.png"]


def test_of_more_folders_than_images_some_give_one_from_first_to_last():
  files = _files(**{f"c{i}": 5 for i in range(9)})
  found = _counts(samples.of_every_folder(files, 3))
  assert found == {"c0": 1, "c4": 1, "c8": 1}


def test_few_files_are_all_taken():
  files = _files(a=2, b=3)
  assert samples.of_every_folder(files, 99) == files


def test_test_images_that_lie_class_by_class_are_picked_of_every_class(
  monkeypatch,
):
  labels = np.repeat(np.arange(4), 25)
  images = np.zeros((100, 2, 2, 1), np.uint8) + labels[:, None, None, None]
  monkeypatch.setattr(
    samples.results,
    "test_images",
    lambda result, data_dir: datasets.Images(images, labels),
  )
  source = types.SimpleNamespace(
    options=artifact.Options(), result={"data": {"name": "some"}}
  )
  pixels, found, _ = samples.labelled(source, 8)
  assert list(found) == [0, 0, 1, 1, 2, 2, 3, 3]
  np.testing.assert_array_equal(pixels[:, 0, 0, 0], found)


def _source(static=(), **options):
  made = types.SimpleNamespace(
    options=artifact.Options(static=static, **options),
    image_shape=(16, 16, 3),
    fixed=None,
  )
  if static:
    made.fixed = (static[0], *static[2:])
  return made


def test_a_network_of_one_shape_is_compared_in_it_on_every_image():
  pixels = np.arange(8, dtype=np.uint8)[:, None, None, None]
  pixels = np.broadcast_to(pixels, (8, 16, 16, 3))
  source = _source((3, 3, 10, 20))
  found = samples.cases(source, pixels)
  assert {x.shape for x in found.values()} == {(3, 10, 20, 3)}
  seen = [list(x[:, 0, 0, 0]) for x in found.values()]
  assert seen == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]
  assert samples.examples(source, pixels).shape == (3, 10, 20, 3)
  assert samples.examples(_source(), pixels) is pixels


@pytest.mark.parametrize(
  ("names", "options", "words"),
  [
    (["torch"], {"static": (1, 3, 8, 8)}, "torch takes any batch and side"),
    (
      ["onnx"],
      {"static": (1, 3, 8, 8), "sides": ((9, 9),)},
      "leave out --sides",
    ),
    (["tflite"], {"opset": 18}, "give --format=onnx"),
    (["onnx"], {"opset": 12}, "--opset=12 is not written: give 13 to 21"),
    (["onnx"], {"opset": 22}, "--opset=22 is not written: give 13 to 21"),
    (["tflite"], {"calibration_images": 9}, "give that, too"),
    (["onnx", "torch", "onnx"], {}, "--format names onnx twice"),
    (["onnx"], {"tolerance": -1.0}, "--tolerance=-1 is not above 0"),
    (["onnx"], {"tolerance": float("nan")}, "--tolerance=nan is not above 0"),
    (["onnx"], {"images": ("a",), "data_dir": "b"}, "leave one out"),
    (["onnx"], {"calibration": "x"}, "give --format=tflite"),
    (["tflite"], {"int8_io": True}, "give --calibration=FOLDER"),
    (
      ["tflite"],
      {"int8_io": True, "calibration": "x", "preprocess": True},
      "leave out one of them",
    ),
  ],
)
def test_what_a_format_could_not_do_is_refused_in_a_line(names, options, words):
  with pytest.raises(ValueError, match=words) as error:
    artifact.Options(**options).check(names)
  assert "\n" not in str(error.value)


def test_what_it_can_do_is_not():
  static = (1, 3, 8, 8)
  artifact.Options(static=static, opset=13).check(["onnx", "tflite"])
  artifact.Options(calibration="x", int8_io=True).check(["tflite", "torch"])
