"""launch/export.py and import_weights.py, as they are typed."""

import json

import pytest

from nasnet_jax.data import augment
from nasnet_jax.export import tables
from nasnet_jax.jobs import results
from nasnet_jax.training import checkpoint


def _error(done) -> str:
  """The one line."""
  assert done.returncode == 2, done.stdout
  (line,) = done.stderr.strip().splitlines()
  return line


@pytest.mark.parametrize(
  ("program", "flags", "words"),
  [
    ("export.py", [], "give --checkpoint=runs/... and --format=onnx"),
    (
      "export.py",
      ["--format=onx"],
      "no format is called 'onx': did you mean 'onnx'",
    ),
    ("export.py", ["--format=onnx", "--sides=3y4"], "give 32 or 32x48"),
    ("export.py", ["--format=onnx", "--calibration=x"], "give --format=tflite"),
    ("export.py", ["--format=onnx", "--opset=22"], "give 13 to 21"),
    ("export.py", ["--format=onnx", "--static=3x8x8"], "as 1x3x224x224"),
    (
      "export.py",
      ["--format=onnx,torch", "--static=1x3x8x8"],
      "torch takes any batch and side: --static is of onnx and tflite",
    ),
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


def _printed(done) -> str:
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow  # five programs, one after another
def test_a_run_that_left_comes_back_and_is_tuned(
  launch, random_variables, tmp_path
):
  pytest.importorskip("safetensors")
  network = tables.published(
    "nasnet_a_cifar", num_cells=1, features=4, num_classes=10
  )
  run, out, again = (tmp_path / name for name in ("run", "out", "again"))
  results.save(
    run,
    "nasnet_a_cifar",
    network,
    random_variables(network, 8),
    augmentation=augment.PHOTOGRAPHS,
  )
  # Of digits: one channel.
  variables = random_variables(network, 8, channels=1)
  checkpoint.write(run / results.WEIGHTS, variables)
  result = json.loads((run / "result.json").read_text())
  result["data"]["image_shape"] = [8, 8, 1]
  (run / "result.json").write_text(json.dumps(result))

  told = _printed(
    launch(
      "export.py",
      f"--checkpoint={run}",
      f"--out={out}",
      "--format=safetensors,torch",
      "--noverify",
    )
  )
  assert "torch: " in told and "not compared with our logits" in told
  for name in ("safetensors", "torch"):
    flags = (f"--weights={out / name}", f"--workdir={again / name}")
    assert "parameters for 10" in _printed(launch("import_weights.py", *flags))
  _printed(
    launch(
      "main.py",
      "--config=configs/finetune.py:tiny",
      f"--config.model.checkpoint={again / 'torch'}",
      "--config.train.epochs=1",
      f"--workdir={tmp_path / 'tuned'}",
    )
  )
  tuned = json.loads((tmp_path / "tuned" / "result.json").read_text())
  assert tuned["test_examples"] and tuned["data"]["name"] == "digits"
  # And a tuned one leaves like any other.
  flags = (f"--checkpoint={tmp_path / 'tuned'}", f"--out={tmp_path / 'last'}")
  _printed(launch("export.py", *flags, "--format=torch", "--noverify"))
  text = (tmp_path / "last" / "torch" / "README.md").read_text()
  assert "for 10 classes of digits" in text and "Test accuracy 0." in text
