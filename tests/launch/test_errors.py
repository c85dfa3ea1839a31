"""Every mistake is one line on stderr, and a code that is not 0."""

import json

import numpy as np
import pytest
from PIL import Image

DIGITS = "--config=configs/search_digits.py:tiny"


def _error(done) -> str:
  """The one line."""
  assert done.returncode not in (0, -9), done.stdout
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith("error: ")
  return lines[0]


@pytest.mark.parametrize(
  ("flags", "words", "code"),
  [
    (["--config.child.epohcs=3", DIGITS], "mean --config.child.epochs=3?", 2),
    (["--config=configs/search_digits.py:huge"], "no variant 'huge'", 2),
    (["--config=configs/none.py"], "No such file", 2),
    (["--config=README.md"], "README.md is no config: line", 2),
    ([DIGITS, "--wrkdir=x"], "Did you mean: workdir", 2),
    (
      [DIGITS, "--config.job=serch"],
      "not one of ['search', 'train', 'scale', 'detect']",
      2,
    ),
    ([], "give both --config", 2),
  ],
)
def test_a_wrong_flag_is_named_with_the_nearest_right_one(
  launch, tmp_path, flags, words, code
):
  done = launch("main.py", f"--workdir={tmp_path}/run", *flags)
  assert words in _error(done)
  assert done.returncode == code
  assert not (tmp_path / "run").exists()


def _folder_of_images(folder, classes=("cat", "dog"), count=8):
  rng = np.random.default_rng(0)
  for name in classes:
    (folder / name).mkdir(parents=True)
    for i in range(count):
      pixels = rng.integers(0, 256, (8, 8), np.uint8)
      Image.fromarray(pixels).save(folder / name / f"{i}.png")
  return folder


def _broken_image(folder):
  (_folder_of_images(folder) / "cat" / "3.png").write_bytes(b"\x89PNG no")


def _one_class(folder):
  _folder_of_images(folder, classes=("cat",))


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (_broken_image, "cat/3.png is broken"),
    (_one_class, "only one class"),
    (_folder_of_images, "fewer than one batch of 64"),
  ],
)
def test_images_that_cannot_be_used_are_told_in_a_line(
  launch, tmp_path, make, words, monkeypatch
):
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))
  make(tmp_path / "images")
  done = launch(
    "main.py",
    DIGITS,
    f"--workdir={tmp_path}/run",
    "--config.data.source=folder",
    f"--config.data.options.path={tmp_path}/images",
    "--config.data.num_valid=2",
  )
  assert words in _error(done)


@pytest.mark.parametrize(
  ("override", "words"),
  [
    ("--config.search.controller=pop", "did you mean 'ppo'"),
    ("--config.data.source=digit", "did you mean 'digits'"),
    ("--config.data.num_valid=5000", "5000 validation images asked of 1500"),
    ("--config.space.name=nasnt", "is not one of"),
    ("--config.search.children=0", "1 or more"),
  ],
)
def test_a_value_that_makes_no_search_is_told_before_anything_is_written(
  launch, tmp_path, override, words
):
  done = launch("main.py", DIGITS, f"--workdir={tmp_path}/run", override)
  assert words in _error(done)
  assert not (tmp_path / "run" / "config.json").exists()


def test_a_folder_of_another_config_is_refused_and_left_alone(launch, tmp_path):
  # As a run leaves it that was stopped before its first round.
  folder = tmp_path / "run"
  folder.mkdir()
  config = {"job": "search", "child": {"epochs": 7}}
  (folder / "config.json").write_text(json.dumps(config))
  before = {p: p.read_bytes() for p in folder.iterdir()}
  done = launch("main.py", DIGITS, f"--workdir={folder}")
  assert "child.epochs was 7 and is now 1" in _error(done)
  for path, content in before.items():
    assert path.read_bytes() == content


def test_a_search_that_has_not_finished_has_no_winner_to_evaluate(
  launch, tmp_path
):
  (tmp_path / "config.json").write_text(json.dumps({"job": "search"}))
  for flag in ("workdir", "checkpoint"):
    done = launch("evaluate.py", f"--{flag}={tmp_path}")
    assert "has not finished" in _error(done)
