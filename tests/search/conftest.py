"""Searches in processes of their own, and in this one."""

import importlib.util
import logging
import os
import pathlib
import subprocess
import sys

import pytest

# Orbax leaves failed tasks behind where a test damages a checkpoint; asyncio
# would tell of them at exit, long after the test.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session")
def harness():
  """The module `harness.py`."""
  spec = importlib.util.spec_from_file_location("harness", HERE / "harness.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="session")
def environment():
  """Of a child process: one device, every compiled program kept."""
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  env.pop("XLA_FLAGS", None)
  return env


@pytest.fixture(scope="session")
def run_python(environment):
  """run_python(script, *arguments) -> CompletedProcess with text."""

  def run(script, *arguments, **options):
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(
      command,
      env=environment,
      capture_output=True,
      text=True,
      timeout=300,
      cwd=ROOT,
      **options,
    )

  return run


@pytest.fixture(scope="session")
def search(run_python):
  """search(workdir, *fault): a search of the harness."""

  def run(workdir, *fault, **options):
    return run_python("tests/search/harness.py", workdir, *fault, **options)

  return run


@pytest.fixture(scope="session")
def finished(search, tmp_path_factory):
  """The folder of a search that nobody disturbed."""
  folder = tmp_path_factory.mktemp("reference") / "run"
  done = search(folder)
  assert done.returncode == 0, done.stderr
  return folder
