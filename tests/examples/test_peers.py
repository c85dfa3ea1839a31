"""The files whose lines docs/ten_lines.md counts: they run, and are so long."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "peers"
_spec = importlib.util.spec_from_file_location("count", FOLDER / "count.py")
count = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(count)
NEEDED = {"optuna", "keras", "pyglove", "timm", "torch"}


def test_the_table_of_the_docs_is_what_is_counted():
  assert count.table() in (ROOT / "docs" / "ten_lines.md").read_text()
  readme = (ROOT / "README.md").read_text()
  for name in ("arrays", "operation", "features"):
    job = next(job for job in count.JOBS if job[1] == f"{name}_ours")
    ours, theirs = (
      count.lines_of_code((FOLDER / f"{file}.py").read_text())
      for file in job[1:3]
    )
    assert re.search(rf"\s{ours}\s+\({theirs} with {job[3]}\)", readme)
  assert count.lines_of_code('"""A.\n\nB."""\nx = (\n  1\n)  # c\n\n# d\n') == 3
  assert count.lines_of_code('def f():\n  """A."""\n  return "a"\n') == 2


@pytest.mark.slow  # compiles searches
@pytest.mark.parametrize("job", count.JOBS, ids=lambda job: job[1])
@pytest.mark.parametrize("side", [1, 2], ids=["ours", "theirs"])
def test_a_file_that_is_counted_runs(job, side, tmp_path):
  shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
  name = job[side]
  source = (FOLDER / f"{name}.py").read_text()
  for module in (name for name in NEEDED if f"import {name}\n" in source):
    # Not imported here: Keras would look for TensorFlow in this process.
    if importlib.util.find_spec(module) is None:
      pytest.skip(f"{module} is not installed")
  # What goes on later has to have begun.
  first = [name.replace("resume", "evaluator")] if "resume" in name else []
  environment = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
      [str(ROOT), os.environ.get("PYTHONPATH", "")]
    ),
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
  }
  for script in [*first, name]:
    done = subprocess.run(
      [sys.executable, f"{script}.py"],
      cwd=tmp_path,
      env=environment,
      check=False,
      capture_output=True,
      text=True,
    )
    assert not done.returncode, done.stderr
  assert done.stdout.strip()
