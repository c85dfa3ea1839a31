"""A path is understood alike wherever one is given."""

import sys

import pytest

from nasnet_jax import data, report, search
from nasnet_jax.cli import doctor
from nasnet_jax.data import paths, photographs
from nasnet_jax.detection import pictures
from nasnet_jax.export import artifact, importing, torch_file
from nasnet_jax.jobs import (
  labelled,
  predict_boxes,
  preparation,
  results,
)
from nasnet_jax.training import profile, workdir


def _locked(path):
  with workdir.locked(path):
    pass


ENTRANCES = {
  "the folder of a run": _locked,
  "a file beside others": lambda p: workdir.new_file(p, "a", ".png"),
  "a trained network": results.load,
  "cells": results.find_cells,
  "a detector": predict_boxes.load,
  "a search's winner": search.load_winner,
  "imported weights": lambda p: results.save(p, "resnet_18", None, {}),
  "exported weights": importing.read,
  "a run of exported weights": lambda p: importing.to_run(".", p),
  "an export": lambda p: artifact.export(None, "onnx", None, p),
  "what is exported": lambda p: artifact.open_run(p, artifact.Options()),
  "a file of PyTorch": torch_file.read,
  "pictures": lambda p: preparation.find_images([p]),
  "labelled pictures": lambda p: labelled.match(p, ["a", "b"]),
  "answers": lambda p: labelled.check_out(f"{p}.csv"),
  "images": lambda p: data.load("folder", path=p),
  "images by their folder": lambda p: data.load("cifar10", data_dir=p),
  "photographs": lambda p: photographs.load("folder", path=p),
  "a report": report.write_report,
  "a comparison": lambda p: report.write_comparison([], p),
  "a run to compare": lambda p: report.write_comparison([p, p], "page.html"),
  "a profile": profile.StepTrace,
  "boxes": lambda p: pictures.load("coco", path=p),
  "boxes by their folder": lambda p: pictures.load("voc", data_dir=p),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_an_address_that_cannot_be_used_is_refused_with_the_way(
  entrance, scheme, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, "gcsfs", None)  # not installed
  fix = "pip install gcsfs|mount it" if scheme == "gs" else "mount"
  with pytest.raises(ValueError, match=f"{scheme}://bucket/a.*({fix})"):
    ENTRANCES[entrance](f"{scheme}://bucket/a")
  assert not list(tmp_path.iterdir())


_WRITTEN = (
  "the folder of a run",
  "imported weights",
  "a run of exported weights",
  "an export",
  "answers",
  "a comparison",
)
_HERE_ONLY = ("a file beside others", "a profile")


@pytest.mark.parametrize(
  "entrance", sorted({*ENTRANCES} - {*_WRITTEN, *_HERE_ONLY})
)
def test_an_address_where_nothing_is_is_told(entrance, bucket, tmp_path):
  bucket.top.mkdir()
  with pytest.raises(ValueError, match=r"gs://bucket/.*there is nothing at"):
    ENTRANCES[entrance]("gs://bucket/a")


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_variable_that_is_not_set_is_named(entrance, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv("PLACE", raising=False)
  with pytest.raises(ValueError, match="variable PLACE is not set"):
    ENTRANCES[entrance]("$PLACE/a")
  assert not list(tmp_path.iterdir())


def test_variables_are_read_where_the_shell_left_them(tmp_path, monkeypatch):
  monkeypatch.setenv("PLACE", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert paths.local("$PLACE/a") == paths.local("${PLACE}/a") == tmp_path / "a"
  assert paths.expanded("gs://$PLACE/a") == f"gs://{tmp_path}/a"
  (tmp_path / "$PLACE").mkdir()  # a name that is there is meant
  assert paths.local("$PLACE").absolute() == tmp_path / "$PLACE"


def test_the_home_of_a_stranger_is_refused_in_a_line():
  with pytest.raises(data.DataError, match="no home folder of ~nobody_here"):
    paths.local("~nobody_here/a")


def test_doctor_says_the_same(monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  (found,) = doctor.check_folder("run folder", "gs://bucket/a")
  assert found.level == doctor.STOP and "pip install gcsfs" in found.text
  first = next(iter(doctor.check_data("gs://bucket/a")))
  assert first.level == doctor.STOP and "pip install gcsfs" in first.text


def test_doctor_looks_into_a_bucket(bucket):
  (bucket.top / "bucket" / "a").mkdir(parents=True)
  found = [*doctor.check_folder("run folder", "gs://bucket/a")]
  assert [one.level for one in found] == [doctor.OK, doctor.OK]
  assert "can be read, 0 entries" in found[0].text
  bucket.reachable = False
  (found,) = doctor.check_folder("run folder", "gs://bucket/a")
  assert found.level == doctor.STOP and "ConnectionError" in found.text


def test_tfds_gets_its_address_as_it_is(monkeypatch):
  given = []

  def loader(data_dir, **options):
    given.append((data_dir, options))
    raise data.DataError("far enough")

  monkeypatch.setitem(data.SOURCES, "tfds", loader)
  monkeypatch.setitem(photographs.SOURCES, "tfds", loader)
  for load in (data.load, photographs.load):
    with pytest.raises(data.DataError, match="far enough"):
      load("tfds", data_dir="gs://bucket/tfds")
  assert given == [("gs://bucket/tfds", {})] * 2


def test_the_home_folder_may_stand_behind_an_equals_sign(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert paths.local("~/a") == tmp_path / "a"
  assert paths.local("a~/b").parts == ("a~", "b")
  for call in (
    results.load,
    predict_boxes.load,
    search.load_winner,
    importing.read,
  ):
    with pytest.raises(ValueError, match=f"{tmp_path}/none"):
      call("~/none")
  assert workdir.new_file("~/out", "a", ".png") == tmp_path / "out" / "a.png"
  assert not (tmp_path / "~").exists()


def test_an_export_to_an_address_is_there_when_it_is_done(bucket, monkeypatch):
  def write(source, name, kind, out):
    assert not out.exists()
    out.mkdir()
    (out / "network").write_text(name)
    return artifact.Exported(out, None, None, 4)

  monkeypatch.setattr(artifact, "_export", write)
  done = artifact.export(None, "onnx", None, "s3://bucket/e/onnx")
  assert done.folder == "s3://bucket/e/onnx"
  assert (bucket.top / "bucket/e/onnx/network").read_text() == "onnx"
  with pytest.raises(ValueError, match="has files already"):
    artifact.export(None, "onnx", None, "s3://bucket/e/onnx")
