"""Searches in processes of their own, and in this one."""

import importlib.util
import json
import logging
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
def environment(one_device):
  """Of a child process: one device, every compiled program kept."""
  return one_device() | {"PYTHONPATH": str(ROOT)}


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
  """search(workdir, *fault, quiet=False): a search of the harness; a quiet
  one says errors as a user sees them, in a line."""

  def run(workdir, *fault, quiet=False):
    flags = [] if quiet else ["--traceback"]
    return run_python("tests/search/harness.py", workdir, *fault, *flags)

  return run


@pytest.fixture(scope="session")
def finished(search, tmp_path_factory):
  """The folder of a search that nobody disturbed."""
  folder = tmp_path_factory.mktemp("reference") / "run"
  done = search(folder)
  assert done.returncode == 0, done.stderr
  return folder


# Seconds differ between any two runs, and so does where they lie.
_TIMES = ("seconds", "cost", "how_to_load", "command")


def _without_times(row: dict) -> dict:
  return {k: v for k, v in row.items() if k not in _TIMES}


def _rows_of(path) -> list[dict]:
  lines = path.read_text().splitlines()
  return [_without_times(json.loads(line)) for line in lines]


@pytest.fixture(scope="session")
def rows_of():
  """rows_of(file.jsonl) -> its rows without what differs in any two runs."""
  return _rows_of


@pytest.fixture(scope="session")
def same_outcome():
  """same_outcome(folder, reference) asserts that two runs came out equal."""

  def check(folder, reference):
    for name in ("history.jsonl", "ranking.jsonl", "retrain.jsonl"):
      assert _rows_of(folder / name) == _rows_of(reference / name), name
    journals = [(f / "journal.jsonl").read_text() for f in (folder, reference)]
    assert journals[0] == journals[1]
    results = [
      _without_times(json.loads((f / "result.json").read_text()))
      for f in (folder, reference)
    ]
    assert results[0] == results[1]

  return check


@pytest.fixture
def start_hosts(environment, start_processes):
  """start_hosts(count, script, workdir) -> its processes, each with `end`."""

  def start(count, script, workdir):
    port = start_processes.free_port()
    coordinator = f"127.0.0.1:{port}" if count > 1 else ""
    return [
      start_processes([script, workdir, coordinator, count, index], environment)
      for index in range(count)
    ]

  return start
