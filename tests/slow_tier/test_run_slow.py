"""The command of the slow tier, on a small folder of tests."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

COMMAND = pathlib.Path(__file__).parents[1] / "run_slow.py"
ONE = """
import os, pathlib, pytest
pytestmark = pytest.mark.slow
HERE = pathlib.Path(__file__).parent

def note(name):
  with open(HERE.parent / "ran", "a") as file:
    file.write(name + "\\n")

@pytest.mark.parametrize("case", ["a", "b c"])
def test_good(case):
  note(f"good {case}")

def test_bad():
  note("bad")
  assert (HERE.parent / "mended").exists(), "not mended"

def test_without():
  pytest.skip("needs a thing")
"""
TWO = """
import os, pathlib, pytest, signal, time
pytestmark = pytest.mark.slow
TOP = pathlib.Path(__file__).parents[1]

def test_first():
  with open(TOP / "ran", "a") as file:
    file.write("first\\n")

def test_that_ends_its_process():
  if (TOP / "stop").exists():
    (TOP / "stop").unlink()
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
  os._exit(3)

def test_last():
  pass
"""
THREE = 'import pytest\npytest.importorskip("no_such_package")\n'
PROJECT = '[tool.pytest.ini_options]\nmarkers = ["slow"]\n'


@pytest.fixture
def root(tmp_path):
  files = {"test_one.py": ONE, "test_two.py": TWO, "test_three.py": THREE}
  (tmp_path / "tests").mkdir()
  for name, text in files.items():
    (tmp_path / "tests" / name).write_text(text)
  (tmp_path / "pyproject.toml").write_text(PROJECT)
  return tmp_path


def _run(root, *options):
  command = [sys.executable, COMMAND, "--root", root, "--plain", *options]
  return subprocess.run(
    [*map(str, command)],
    capture_output=True,
    text=True,
    timeout=400,
    env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # half the time
  )


def _ran(root) -> list[str]:
  path = root / "ran"
  found = sorted(path.read_text().splitlines()) if path.exists() else []
  path.unlink(missing_ok=True)
  return found


def test_a_run_ends_with_a_table_and_the_next_one_repeats_what_did_not_pass(
  root,
):
  done = _run(root, "--write")
  assert done.returncode == 1, done.stdout + done.stderr
  assert _ran(root) == ["bad", "first", "good a", "good b c"]
  text = (root / "docs" / "results" / "tests.md").read_text()
  assert text in done.stdout
  assert "| tests/test_one.py | 2 | 1 | 1 |" in text
  # One ends its process; the others of its file run all the same.
  assert "| tests/test_two.py | 2 | 1 | 0 |" in text
  assert "| all | 4 | 2 | 2 |" in text
  assert "- `tests/test_one.py::test_bad`: AssertionError: not mended" in text
  assert "its process ended with code 3" in text
  assert "- tests/test_one.py: needs a thing (1)" in text
  assert "no_such_package" in text

  (root / "mended").touch()
  done = _run(root, "tests/test_one.py")
  assert _ran(root) == ["bad"]
  assert "| tests/test_one.py | 3 | 0 | 1 |" in done.stdout
  # A changed source has no results yet.
  (root / "tests" / "test_two.py").write_text(TWO + "\n")
  assert _run(root, "tests/test_one.py").returncode == 0
  assert _ran(root) == ["bad", "good a", "good b c"]


def test_a_stopped_run_goes_on_and_writes_nothing(root):
  (root / "stop").touch()
  done = _run(root, "--write", "--workers=1", "--again")
  assert done.returncode == 128 + signal.SIGINT, done.stdout + done.stderr
  assert "the same command goes on" in done.stdout
  assert not (root / "docs").exists()
  assert "first" in _ran(root)
  done = _run(root)
  assert "first" not in _ran(root)
  assert "| all | 4 | 2 | 2 |" in done.stdout


def test_a_test_that_never_ends_fails(root):
  (root / "tests" / "test_two.py").write_text(
    TWO.replace("os._exit(3)", "time.sleep(60)")
  )
  done = _run(root, "tests/test_two.py", "--minutes=0.05")
  assert "| tests/test_two.py | 2 | 1 | 0 |" in done.stdout, done.stdout
  assert "no result within" in done.stdout


@pytest.mark.parametrize(
  ("options", "said"),
  [
    (["tests/test_four.py"], "there is no tests/test_four.py"),
    (["--write", "tests/test_one.py"], "name no files"),
  ],
)
def test_what_cannot_be_is_refused(root, options, said):
  done = _run(root, *options)
  assert done.returncode == 2
  assert said in done.stderr


def test_a_file_that_cannot_be_read_has_failed_and_the_others_run(root):
  (root / "tests" / "test_one.py").write_text("import no_such_package\n")
  done = _run(root)
  assert done.returncode == 1
  assert "- `tests/test_one.py`: " in done.stdout, done.stdout + done.stderr
  assert "No module named 'no_such_package'" in done.stdout
  assert _ran(root) == ["first"]
  assert "| all | 2 | 2 |" in done.stdout
