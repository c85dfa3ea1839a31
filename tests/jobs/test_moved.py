"""Data and runs that lie elsewhere than they did."""

import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from nasnet_jax import data, report
from nasnet_jax.data import paths
from nasnet_jax.jobs import results
from nasnet_jax.report import runs


@pytest.fixture
def pictures(tmp_path, monkeypatch):
  """A folder of two classes, and the name of its only test images."""
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))
  rng = np.random.default_rng(0)
  top = tmp_path / "before" / "pets"
  for name in ("cat", "dog"):
    (top / name).mkdir(parents=True)
    for i in range(8):
      pixels = rng.integers(0, 256, (8, 8), np.uint8)
      Image.fromarray(pixels).save(top / name / f"{i}.png")
  return top


def _result(load):
  images = data.load(**load)
  about = {"load": load, "fingerprint": images.fingerprint}
  return {"data": about}, images.test_images


@pytest.mark.parametrize("given", ["the folder", "the folder around it"])
def test_moved_images_are_found_though_the_run_had_a_whole_path(
  pictures, tmp_path, given
):
  result, wanted = _result({"source": "folder", "path": str(pictures)})
  new = tmp_path / "after" / "pets"
  shutil.copytree(pictures, new)
  shutil.rmtree(pictures)
  with pytest.raises(data.DataError, match=r"before/pets.*give --data_dir"):
    results.test_images(result)
  where = new if given == "the folder" else new.parent
  found = results.test_images(result, where)
  np.testing.assert_array_equal(found.images, wanted)


def test_other_images_than_the_runs_are_refused_and_not_passed_over(
  pictures, tmp_path
):
  result, _ = _result({"source": "folder", "path": str(pictures)})
  other = tmp_path / "after" / "pets"
  shutil.copytree(pictures, other)
  Image.new("L", (8, 8)).save(other / "cat" / "0.png")
  with pytest.raises(data.DataError, match="not what the run saw"):
    results.test_images(result, other)
  with pytest.raises(data.DataError, match="no such folder"):
    results.test_images(result, tmp_path / "nowhere")


def test_a_path_inside_of_data_dir_stays_there(pictures, tmp_path):
  load = {"source": "folder", "data_dir": "elsewhere", "path": "before/pets"}
  moved = paths.relocated(load, tmp_path)
  assert moved["path"] == str(pictures) and moved["data_dir"] is None


def test_a_table_of_labels_moves_with_its_pictures(pictures, tmp_path):
  table = pictures.parent / "labels.csv"
  rows = [
    f"{p.relative_to(pictures)},{p.parent.name}" for p in _files(pictures)
  ]
  table.write_text("\n".join(["file,label", *rows]))
  load = {"source": "folder", "path": str(pictures), "labels": str(table)}
  result, wanted = _result(load)
  shutil.move(pictures.parent, tmp_path / "after")
  found = results.test_images(result, tmp_path / "after")
  np.testing.assert_array_equal(found.images, wanted)


def _files(top):
  return sorted(top.glob("*/*.png"))


def test_a_data_dir_that_is_of_no_use_is_said(pictures, caplog, tmp_path):
  with caplog.at_level(logging.WARNING):
    paths.relocated({"source": "digits"}, "/somewhere")
    data.load("folder", data_dir=tmp_path, path=str(pictures))
  first, second = [record.getMessage() for record in caplog.records[:2]]
  assert "/somewhere is not used: digits" in first
  assert f"{tmp_path} is not used for path {pictures}" in second


def test_the_report_of_a_moved_run_loads_it_where_it_is(tmp_path):
  old, new = tmp_path / "old", tmp_path / "new"
  old.mkdir()
  result = {"job": "train", "data": {"image_shape": [8, 8, 1]}}
  result["how_to_load"] = report.how_to_load(result, old)
  assert f"results.load({str(old)!r})" in result["how_to_load"]
  (old / "result.json").write_text(json.dumps(result))
  old.rename(new)
  moved = runs.read_run(new).result["how_to_load"]
  assert f"results.load({str(new)!r})" in moved and "uint8[N, 8, 8, 1]" in moved


def test_a_report_tells_no_folder_a_file_and_no_run_apart(tmp_path):
  (tmp_path / "file").touch()
  (tmp_path / "empty").mkdir()
  for name, words in {
    "none": "no such folder",
    "file": "is a file",
    "empty": "has no run in it",
  }.items():
    with pytest.raises(FileNotFoundError, match=words):
      runs.read_run(tmp_path / name)
