"""Programs under `launch/`, as a user starts them."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def launch_environment():
  """Of the program: one device, every compiled program kept."""
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  env.pop("XLA_FLAGS", None)
  return env


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
      timeout=400,
      cwd=ROOT,
    )

  return run
