"""Whole searches with real children, as a user starts them."""

import json
import shutil

import pytest

from nasnet_jax import search
from nasnet_jax.jobs import results
from nasnet_jax.training import checkpoint, workdir

# One cell: reductions are test_population.py's.
TINY = (
  "--config=configs/search_digits.py:tiny",
  "--config.network.num_reductions=0",
  "--config.final.network.num_reductions=0",
)


@pytest.fixture(scope="module")
def digits(launch, tmp_path_factory):
  """The folder of a finished tiny search, and what it printed."""
  folder = tmp_path_factory.mktemp("digits") / "run"
  done = launch(
    "main.py",
    *TINY,
    "--config.profile=steps",
    f"--workdir={folder}",
  )
  assert done.returncode == 0, done.stderr
  return folder, done


def test_a_trace_of_a_few_steps_is_there_if_asked_for(digits):
  folder, _ = digits
  assert len(list((folder / "profile").rglob("*.xplane.pb"))) == 1
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  assert all(json.loads(line)["compilations"] > 0 for line in lines)


def test_a_search_ends_with_a_tested_network_and_a_report(digits):
  folder, done = digits
  # Few steps, and said so; nothing else.
  lines = done.stderr.splitlines()
  assert all("bn_decay" in line for line in lines), done.stderr
  assert len(done.stdout.splitlines()) < 30
  result = json.loads((folder / "result.json").read_text())
  assert result["test_examples"] == 297
  assert 0 <= result["test_correct"] <= 297
  assert result["data"]["train"] + result["data"]["valid"] == 1500
  for name in (
    "report.html",
    "history.jsonl",
    "metrics.jsonl",
    "retrain.jsonl",
    "log.txt",
  ):
    assert (folder / name).stat().st_size > 0, name
  assert list((folder / "tensorboard").iterdir())
  assert "Total: " in (folder / "log.txt").read_text()  # of parameters
  # Of the strategy alone, and only its last.
  (kept,) = (folder / "checkpoints").glob("*/*")
  assert kept.parent.name == "controller"


def test_killed_while_children_train_it_ends_like_one_that_was_not(
  digits, launch, launch_and_kill, tmp_path
):
  folder = tmp_path / "run"
  # The first of two rounds is done, the second one is asked for and trains.
  launch_and_kill("main.py", folder, *TINY, after="metrics.jsonl")
  assert len((folder / "history.jsonl").read_text().splitlines()) == 3
  done = launch("main.py", *TINY, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  for name in ("history.jsonl", "ranking.jsonl", "retrain.jsonl"):
    assert _untimed(folder / name) == _untimed(digits[0] / name)
  one, other = (
    json.loads((f / "result.json").read_text()) for f in (folder, digits[0])
  )
  assert one["winner"] == other["winner"]
  assert one["test_correct"] == other["test_correct"]


def _untimed(path):
  lines = path.read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


def test_no_child_was_ever_tested(digits):
  folder, _ = digits
  for name in ("history.jsonl", "ranking.jsonl", "retrain.jsonl"):
    assert "test" not in (folder / name).read_text()


def test_a_new_process_reproduces_the_test_accuracy(digits, launch, tmp_path):
  moved = shutil.copytree(digits[0], tmp_path / "moved")
  for path in moved.iterdir():  # these two alone must do
    if path.name not in ("result.json", "final"):
      shutil.rmtree(path) if path.is_dir() else path.unlink()
  done = launch("evaluate.py", f"--workdir={moved}")
  assert done.returncode == 0, done.stderr
  result = json.loads((moved / "result.json").read_text())
  assert f"{result['test_correct']} of 297" in done.stdout


def test_evaluate_notices_another_answer(digits, launch, tmp_path):
  moved = shutil.copytree(digits[0], tmp_path / "moved")
  result = json.loads((moved / "result.json").read_text())
  result["test_correct"] += 1
  (moved / "result.json").write_text(json.dumps(result))
  assert launch("evaluate.py", f"--workdir={moved}").returncode == 1


def test_the_same_command_on_a_finished_search_only_sums_it_up(digits, launch):
  folder, first = digits
  before = (folder / "result.json").read_bytes()
  again = launch("main.py", *TINY, f"--workdir={folder}")
  assert again.returncode == 0, again.stderr
  assert again.stdout in first.stdout
  assert (folder / "result.json").read_bytes() == before


def test_the_winner_can_be_used_from_python(digits):
  winner = search.load_winner(digits[0])
  images = results.test_images(winner.result)
  logits = winner.predict(images.images)
  assert logits.shape == (297, 10)
  right = int((logits.argmax(-1) == images.labels).sum())
  assert right == winner.result["test_correct"]


def test_weights_that_changed_on_the_disk_are_noticed(digits, tmp_path):
  moved = shutil.copytree(digits[0], tmp_path / "moved")
  for file in (moved / "final/weights").rglob("d/*"):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
  with pytest.raises(checkpoint.DamagedError):
    search.load_winner(moved)


def test_a_folder_without_a_result_has_no_winner(tmp_path):
  with pytest.raises(workdir.WorkdirError, match="has no run in it"):
    search.load_winner(tmp_path)


def test_a_result_that_was_cut_is_named(digits, tmp_path):
  content = (digits[0] / "result.json").read_text()
  (tmp_path / "result.json").write_text(content[: len(content) // 2])
  with pytest.raises(workdir.WorkdirError, match=r"result\.json is no JSON"):
    search.load_winner(tmp_path)


@pytest.mark.parametrize(
  ("config", "overrides"),
  [
    ("search_cifar", []),
    ("search_pnas", []),
    pytest.param(
      "search_enas", ["--config.search.children=6"], marks=pytest.mark.slow
    ),
    pytest.param("search_mnasnet", [], marks=pytest.mark.slow),
    pytest.param(
      "search_digits",
      [
        "--config.space.operations=('avg_pool_3x3',)",
        "--config.space.num_blocks=1",
      ],
      marks=pytest.mark.slow,
    ),
  ],
  ids=["cifar", "pnas", "enas", "mnasnet", "one operation"],
)
def test_every_tiny_search_runs(launch, tmp_path, config, overrides):
  done = launch(
    "main.py",
    f"--config=configs/{config}.py:tiny",
    f"--workdir={tmp_path}",
    *overrides,
  )
  assert done.returncode == 0, done.stderr
  # Few steps, and said so; nothing else.
  lines = done.stderr.splitlines()
  assert all("bn_decay" in line for line in lines), done.stderr
  rows = (tmp_path / "history.jsonl").read_text().splitlines()
  assert [json.loads(row)["status"] for row in rows] == ["ok"] * 6
  assert launch("evaluate.py", f"--workdir={tmp_path}").returncode == 0


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ([*TINY, "--seeds=0,one"], "--seeds=0,one: give different numbers"),
    ([*TINY, "--seeds=1,1"], "--seeds=1,1: give different numbers"),
    (["--config=configs/train_cifar.py:tiny", "--seeds=1"], "is for searches"),
  ],
)
def test_seeds_that_are_none_are_one_line(launch, tmp_path, flags, words):
  done = launch("main.py", *flags, f"--workdir={tmp_path}")
  assert done.returncode == 2
  assert words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_seeds_are_searched_one_after_another_and_compared(
  digits, launch, launch_and_kill, tmp_path
):
  flags = [*TINY, "--seeds=0,1"]
  launch_and_kill("main.py", tmp_path, *flags, after="seed1/history.jsonl")
  done = launch("main.py", *flags, f"--workdir={tmp_path}")
  assert done.returncode == 0, done.stderr
  assert "seed1" in (tmp_path / "comparison.html").read_text()
  first = tmp_path / "seed0" / "history.jsonl"
  assert _untimed(first) == _untimed(digits[0] / "history.jsonl")
  assert _untimed(tmp_path / "seed1" / "history.jsonl") != _untimed(first)


@pytest.mark.slow
def test_finish_ends_a_search_that_was_stopped(
  launch, launch_and_kill, tmp_path
):
  folder = tmp_path / "run"
  done = launch("finish.py", tmp_path)
  assert (done.returncode, "has no run in it" in done.stderr) == (1, True)
  launch_and_kill("main.py", folder, *TINY, after="metrics.jsonl")
  done = launch("finish.py", folder)
  assert done.returncode == 0, done.stderr
  assert "out of the 3 of 6 children there are" in done.stdout
  assert launch("evaluate.py", f"--workdir={folder}").returncode == 0
  assert json.loads((folder / "result.json").read_text())["top_k"]
  child = f"{folder}#2nd"
  done = launch(
    "main.py",
    "--config=configs/train_cifar.py:tiny",
    f"--config.model.genotype={child}",
    f"--workdir={tmp_path / 'second'}",
  )
  assert done.returncode == 0, done.stderr
