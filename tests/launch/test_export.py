"""launch/export.py and import_weights.py, as they are typed."""

import pytest


def _error(done) -> str:
  """The one line."""
  assert done.returncode == 2, done.stdout
  (line,) = done.stderr.strip().splitlines()
  return line


@pytest.mark.parametrize(
  ("program", "flags", "words"),
  [
    ("export.py", [], "give --checkpoint=runs/... and --format=onnx"),
    ("export.py", ["--format=onx"], "--format=onx is not one of: torch, keras"),
    ("export.py", ["--format=onnx", "--sides=3y4"], "give 32 or 32x48"),
    ("export.py", ["--format=onnx", "--calibration=x"], "give --format=tflite"),
    ("import_weights.py", [], "give --weights=exports/... and --workdir"),
  ],
)
def test_flags_that_make_no_export_are_one_line(
  launch, tmp_path, program, flags, words
):
  if flags:
    flags = [f"--checkpoint={tmp_path}/run", *flags]
  assert words in _error(launch(program, *flags))
  assert list(tmp_path.iterdir()) == []
