"""Whole detection jobs: killed, stopped, gone on with."""

import json
import signal

import jax
import numpy as np
import pytest

from nasnet_jax.jobs import predict_boxes

pytestmark = pytest.mark.slow

# Four epochs of four updates, saved at each.
TINY = [
  "--config=configs/detect_voc.py:tiny",
  "--config.data.source=coco",
  "--config.data.options.valid_split=val2017",
  "--config.train.batch_size=2",
  "--config.train.epochs=4",
  "--config.train.eval_batch_size=2",
  "--config.train.warmup_epochs=0",
  "--config.data.sizes.buckets=((128, 128),)",  # one shape, one program
]


@pytest.fixture(scope="module")
def flags(coco_files, tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "boxes"
  coco_files.white_boxes(folder, count=8, tests=3)
  return [*TINY, f"--config.data.data_dir={folder}"]


@pytest.fixture(scope="module")
def whole(launch, flags, tmp_path_factory):
  """The folder of a run that nothing disturbed."""
  folder = tmp_path_factory.mktemp("detect") / "run"
  done = launch("main.py", *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  return folder


def _curve(folder):
  """Lines of the curve, times apart."""
  lines = (folder / "retrain.jsonl").read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


def _same_bits(folder, reference):
  assert _curve(folder) == _curve(reference) and len(_curve(folder)) == 4
  weights = [
    jax.tree.leaves(predict_boxes.load(run).variables)
    for run in (folder, reference)
  ]
  for one, other in zip(*weights, strict=True):
    np.testing.assert_array_equal(one, other)
  results = [
    json.loads((run / "result.json").read_text())["test"]
    for run in (folder, reference)
  ]
  assert results[0] == results[1]


def test_a_killed_run_ends_like_one_that_was_not(
  whole, flags, launch, launch_and_kill, tmp_path
):
  folder = tmp_path / "killed"
  launch_and_kill("main.py", folder, *flags)
  assert not (folder / "result.json").exists()
  done = launch("main.py", *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  _same_bits(folder, whole)


def test_a_run_that_is_told_to_stop_goes_on_from_there(
  whole, flags, launch, start_processes, launch_environment, tmp_path
):
  folder = tmp_path / "stopped"
  process = start_processes(
    ["tests/launch/stop_at.py", "in_fit", "7", *flags, f"--workdir={folder}"],
    launch_environment,
  )
  code, output = process.end()
  assert code == 128 + signal.SIGTERM, output
  assert len(_curve(folder)) == 1  # in the middle of the second epoch
  done = launch("main.py", *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  _same_bits(folder, whole)
