"""A search that is killed and started again ends as if nothing had been."""

import json
import random
import signal
import time

import pytest


def _killed(search, folder, fault: str, *fields: str):
  done = search(folder, fault, *fields)
  assert done.returncode == -signal.SIGKILL, (fault, done.stdout, done.stderr)


def test_a_killed_search_ends_like_an_undisturbed_one(
  search, finished, tmp_path, same_outcome
):
  folder = tmp_path / "run"
  # In the history's append; in training; in an Orbax save, the fourth of that
  # process, with which the first training of the ranking would end; in the
  # final retraining, after 12 updates of the ranking.
  for fault in ("history:2", "train:5", "save:4", "fit:19"):
    _killed(search, folder, fault)
    left = list(folder.rglob("*.orbax-checkpoint-tmp"))
    assert bool(left) == fault.startswith("save")  # half of a checkpoint
  done = search(folder)
  assert done.returncode == 0, done.stderr
  same_outcome(folder, finished)


@pytest.mark.slow
@pytest.mark.parametrize(
  "fault",
  [
    "journal:1",  # half an ask
    "journal:2",  # half a tell: history is ahead
    "save:1",
    "save:5",  # in the ranking
    "save:9",  # in the last training, or in writing the weights
    "ranking:1",
    "ranking:2",
    "retrain:1",
    "retrain:5",
    "fit:1",
    "result:1",
  ],
)
def test_a_kill_between_any_two_writes_does_no_harm(
  search, finished, tmp_path, same_outcome, fault
):
  folder = tmp_path / "run"
  _killed(search, folder, fault)
  done = search(folder)
  assert done.returncode == 0, done.stderr
  same_outcome(folder, finished)


@pytest.mark.slow
def test_a_killed_search_of_several_objectives_ends_like_an_undisturbed_one(
  search, tmp_path, same_outcome
):
  fields = (
    'search.controller="evolution"',
    "search.controller_options.evolution.pareto=true",
    'search.objectives=["accuracy", "-params"]',
  )
  whole, folder = tmp_path / "whole", tmp_path / "run"
  assert search(whole, *fields).returncode == 0
  for fault in ("history:2", "journal:2", "ranking:1", "result:1"):
    _killed(search, folder, fault, *fields)
  done = search(folder, *fields)
  assert done.returncode == 0, done.stderr
  same_outcome(folder, whole)
  result = json.loads((folder / "result.json").read_text())
  assert result["front"]["objectives"] == ["accuracy", "-params"]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_do_no_harm(
  search, finished, tmp_path, same_outcome
):
  start = time.monotonic()
  assert search(tmp_path / "undisturbed").returncode == 0
  length = time.monotonic() - start  # imports among it, now that all is cached
  moments = random.Random(0)
  kills, runs = 0, 0
  while kills < 20:
    runs += 1
    folder = tmp_path / f"run{runs}"
    done = None
    while done is None or done.returncode:  # report.html is there all along
      kill = kills < 20
      fault = [f"after:{moments.uniform(0, length)}"] if kill else []
      done = search(folder, *fault)
      assert done.returncode in (0, -signal.SIGKILL), done.stderr
      kills += done.returncode != 0
    same_outcome(folder, finished)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_keeps_finished_rounds_and_says_how_to_go_on(
  search, finished, tmp_path, rows_of, name, code
):
  folder = tmp_path / "run"
  done = search(folder, f"{name}:5")
  assert done.returncode == code
  assert done.stderr.strip().splitlines()[-1] == (
    f"stopped by {name}; run the same command again to go on"
  )
  assert (
    rows_of(folder / "history.jsonl")
    == (rows_of(finished / "history.jsonl")[:3])
  )


# Ends after the third round of three, which the limit makes smaller.
_ENDS = ("search.epochs=7.0", "search.limit.params=40", "search.children=18")


@pytest.mark.slow
def test_a_killed_search_with_a_budget_and_a_limit_ends_the_same(
  search, tmp_path, same_outcome, rows_of
):
  reference, folder = tmp_path / "reference", tmp_path / "run"
  assert search(reference, *_ENDS).returncode == 0
  rows = rows_of(reference / "history.jsonl")
  assert (
    7 <= sum(row["status"] != "over_limit" for row in rows) < len(rows) < 18
  )
  for fault in ("history:2", "journal:1", "train:5", "ranking:1", "result:1"):
    done = search(folder, fault, *_ENDS)
    assert done.returncode == -signal.SIGKILL, done.stderr
  done = search(folder, *_ENDS)
  assert done.returncode == 0, done.stderr
  same_outcome(folder, reference)


@pytest.mark.slow
def test_six_children_raised_to_twelve_end_like_twelve_whatever_is_killed(
  search, finished, tmp_path, rows_of
):
  folder = tmp_path / "run"
  assert search(folder, "search.children=6").returncode == 0
  # Whoever is ranked or wins again is not trained, so no fault is in "fit".
  for fault in ("journal:2", "history:1", "ranking:1", "result:1"):
    _killed(search, folder, fault)
  done = search(folder)
  assert done.returncode == 0, done.stderr
  for name in ("history.jsonl", "journal.jsonl"):
    assert rows_of(folder / name) == rows_of(finished / name), name
  one, other = (
    json.loads((f / "result.json").read_text()) for f in (folder, finished)
  )
  for name in ("winner", "top_k", "test_correct"):
    assert one[name] == other[name], name
  old = json.loads((folder / "result.1.json").read_text())
  assert old["cost"]["children"] == 6
  assert not (folder / "result.2.json").exists()
