"""Programs under `launch/`, as a user starts them."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def launch():
  """launch(program, *flags, one_cpu=True) -> CompletedProcess with text."""

  def run(program, *flags):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, f"launch/{program}", *map(str, flags)]
    return subprocess.run(
      command, env=env, capture_output=True, text=True, timeout=400, cwd=ROOT
    )

  return run
