"""Programs under `launch/`, as a user starts them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nasnet_jax import spaces

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def launch_environment(one_device):
  """Of the program: one device, every compiled program kept."""
  return one_device() | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def cells(tmp_path_factory):
  """A result.json as a search leaves it, with cells of one block."""
  space = spaces.get("nasnet", 1, ("identity", "avg_pool_3x3"))
  genotype = space.decode(np.array([0, 1, 1, 1, 0, 1, 1, 0]))
  result = {
    "space": "nasnet",
    "space_options": space.options,
    "winner": {"genotype": space.to_json(genotype)},
  }
  path = tmp_path_factory.mktemp("cells") / "result.json"
  path.write_text(json.dumps(result))
  return path


@pytest.fixture(scope="session")
def launch(launch_environment):
  """launch(program, *flags) -> CompletedProcess with text."""

  def run(program, *flags):
    command = [sys.executable, f"launch/{program}", *map(str, flags)]
    return subprocess.run(
      command,
      env=launch_environment,
      capture_output=True,
      text=True,
      timeout=1_200,  # for a machine with other work, too
      cwd=ROOT,
    )

  return run


@pytest.fixture(scope="session")
def launch_and_kill(launch_environment):
  """launch_and_kill(program, folder, *flags, after="retrain.jsonl"): a run that
  is killed once it has written into this file; by default, the first point of
  a training's curve."""

  def run(program, folder, *flags, after="retrain.jsonl"):
    command = [
      sys.executable,
      f"launch/{program}",
      f"--workdir={folder}",
      *map(str, flags),
    ]
    process = subprocess.Popen(
      command, env=launch_environment, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    file, limit = folder / after, time.monotonic() + 400
    while not (file.exists() and file.stat().st_size):
      assert process.poll() is None, "it ended before it could be killed"
      assert time.monotonic() < limit
      time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

  return run
