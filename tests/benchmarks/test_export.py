"""How exports are timed."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

# In a process of its own: flags of two benchmarks have the same names.
_CODE = """
import pathlib, runpy, sys
export = runpy.run_path("benchmarks/export.py")
seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 2.0, 3.0]}
assert export["latencies"](seconds)["theirs"] == {
  "seconds": 2.0, "by_ours": 1.0, "rounds": 3
}
folder, snippet = pathlib.Path(sys.argv[1]), sys.argv[2]
worker = export["Worker"]("onnx", folder, snippet, folder)
for count in (3, 1):
  assert worker.seconds(count) >= 0
worker.end()
broken = export["Worker"]("keras", folder, snippet + "1 / 0\\n", folder)
try:
  broken.seconds(1)
except RuntimeError:
  print("told")
"""
_SNIPPET = """
file = open("log", "a")
images = [0] * 8
file.write(f"{len(images)} ")
file.flush()
"""


def test_a_format_is_loaded_once_and_called_with_so_many_images(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", _CODE, tmp_path, _SNIPPET],
    cwd=ROOT,
    env={"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ["told"]
  assert (tmp_path / "log").read_text() == "8 3 1 8 "
