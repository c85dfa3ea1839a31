"""Disks that are full or cannot be written: a line, and nothing is lost."""

import os
import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
  """small_disk(size, *more options) -> a folder that is a disk of its own."""
  mounted = []

  def mount(size: str, *options: str):
    folder = tmp_path / f"disk{len(mounted)}"
    folder.mkdir()
    flags = ",".join([f"size={size}", *options])
    command = ["mount", "-t", "tmpfs", "-o", flags, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
      pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    mounted.append(folder)
    return folder

  if os.geteuid():
    pytest.skip("mounting a small disk takes root")
  yield mount
  for folder in mounted:
    subprocess.run(["umount", str(folder)], check=True)


# Of the journal's first lines, of a checkpoint, and of the final stage.
@pytest.mark.parametrize(
  "size",
  [
    "300k",
    pytest.param("8k", marks=pytest.mark.slow),
    pytest.param("1300k", marks=pytest.mark.slow),
  ],
)
def test_a_full_disk_is_one_line_and_loses_nothing(
  search, finished, small_disk, size, same_outcome
):
  disk = small_disk(size)
  done = search(disk / "run", quiet=True)
  assert done.returncode == 1
  lines = _errors(done)
  assert len(lines) == 1, done.stderr
  assert "No space left on device" in lines[0]
  assert "run the same command again" in lines[0]
  subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
  done = search(disk / "run")
  assert done.returncode == 0, done.stderr
  same_outcome(disk / "run", finished)


def _errors(done) -> list[str]:
  """Lines on stderr but for warnings."""
  lines = done.stderr.strip().splitlines()
  return [line for line in lines if not line.startswith("warning: ")]


def test_a_disk_that_cannot_be_written_is_one_line(search, small_disk):
  disk = small_disk("1m", "ro")
  done = search(disk / "run", quiet=True)
  assert done.returncode == 1
  lines = _errors(done)
  assert len(lines) == 1, done.stderr
  assert "Read-only file system" in lines[0]
