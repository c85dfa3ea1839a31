import json

import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.report import runs


def test_a_truncated_last_line_is_left_out(make_run):
  folder = make_run(children=5)
  path = folder / "history.jsonl"
  whole = path.read_bytes()
  for cut in (1, 10, 60):
    path.write_bytes(whole[:-cut])
    history = runs.read_history(path)
    # Without its newline alone, the last line is still whole.
    assert history.id.tolist() == list(range(5 if cut == 1 else 4))
    assert history.skipped == 0


def test_a_broken_line_in_the_middle_is_skipped_and_counted(tmp_path):
  path = tmp_path / "history.jsonl"
  path.write_bytes(b'{"id": 0}\n{"id": 1, "rew\n[3]\n\n\xff\xfe\n{"id": 2}\n')
  history = runs.read_history(path)
  assert history.id.tolist() == [0, 2]
  assert history.skipped == 3


def test_missing_and_empty_files_are_an_empty_history(tmp_path):
  (tmp_path / "empty").write_text("")
  for name in ("empty", "missing"):
    history = runs.read_history(tmp_path / name)
    assert len(history) == 0 and history.decisions == []
    assert runs.read_retrain(tmp_path / name) == []
    assert runs.read_json(tmp_path / name) == {}


def test_a_half_written_result_counts_as_none(tmp_path):
  path = tmp_path / "result.json"
  path.write_text('{"space": "nas')
  assert runs.read_json(path) == {}


def test_failed_children_have_no_reward(tmp_path):
  lines = [
    {"status": "ok", "reward": 0.5},
    {"status": "failed", "reward": None},
    {"status": "failed", "reward": 0.9},
    {"status": "ok", "reward": float("nan")},
    {"status": "ok", "reward": float("inf")},
    {"status": "ok", "reward": "high"},
  ]
  path = tmp_path / "history.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  history = runs.read_history(path)
  assert history.failed.tolist() == [False] + [True] * 5
  assert history.reward[0] == 0.5


def test_a_step_written_twice_counts_once_and_the_later_line_wins(tmp_path):
  lines = [
    {"id": 4, "stage": "final", "step": 10, "epoch": 1, "loss": 9.0},
    {"id": 4, "stage": "rank", "step": 10, "epoch": 1, "loss": 5.0},
    {"id": 4, "stage": "final", "step": 20, "epoch": 2, "loss": 2.0},
    {"id": 4, "stage": "final", "step": 10, "epoch": 1, "loss": 3.0},
  ]
  path = tmp_path / "retrain.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  rank, final = runs.read_retrain(path)
  assert (rank.stage, final.stage) == ("rank", "final")
  assert final.step.tolist() == [10, 20]
  assert final.loss.tolist() == [3.0, 2.0]
  assert np.isnan(final.valid_accuracy).all()


def test_the_space_comes_from_the_result_or_else_from_the_config(make_run):
  finished = runs.space_of(runs.read_run(make_run()))
  running = runs.space_of(runs.read_run(make_run(finished=False)))
  assert finished == running == spaces.NASNET
  assert runs.space_of(runs.read_run(make_run(name="pnas"))) == spaces.PNAS


def test_an_unknown_space_is_no_error(make_run):
  folder = make_run(finished=False)
  for space in ("of the future", {"name": "nasnet", "operations": ["x"]}, 3):
    (folder / "config.json").write_text(json.dumps({"space": space}))
    assert runs.space_of(runs.read_run(folder)) is None


def test_only_decisions_of_the_space_are_decoded(make_run):
  space = spaces.NASNET
  history = runs.read_run(make_run(children=6)).history
  rows = history.decisions
  rows[1] = rows[1][:-1]
  rows[2] = [10_000, *rows[2][1:]]
  rows[3] = [None, *rows[3][1:]]
  rows[4] = []
  where, decisions = runs.valid_decisions(history, space)
  assert where.tolist() == [0, 5]
  assert decisions.tolist() == [rows[0], rows[5]]


def test_a_failed_write_leaves_the_old_file_and_no_litter(
  tmp_path, monkeypatch
):
  path = tmp_path / "report.html"
  runs.write_atomic(path, "old")

  def full(*_):
    raise OSError("No space left on device")

  monkeypatch.setattr(runs.os, "replace", full)
  with pytest.raises(OSError, match="No space left"):
    runs.write_atomic(path, "new")
  assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
  assert path.read_text() == "old"


def test_histories_from_before_other_rewards_are_still_read(tmp_path):
  lines = [
    {"id": 0, "status": "ok", "reward": 0.5, "params": 9},
    {"id": 1, "status": "ok", "reward": 0.2, "accuracy": 0.6, "bytes": 7}
    | {"latency": 2e-3},
    {"id": 2, "status": "failed", "reward": None, "accuracy": 0.9},
    {"id": 3, "status": "ok", "reward": 0.2, "accuracy": 0.4, "steps": 4},
    {"id": 4, "status": "ok", "reward": 0.2, "steps": 4, "horizon": 9},
    {"id": 5, "status": "ok", "reward": 0.2, "steps": 9, "horizon": 9},
    {"id": 6, "status": "failed", "reward": None, "steps": 4, "horizon": 9},
  ]
  path = tmp_path / "history.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  history = runs.read_history(path)
  assert history.accuracy[:2].tolist() == [0.5, 0.6]
  assert np.isnan(history.accuracy[[2, 6]]).all()
  assert history.stopped.tolist() == [False] * 4 + [True, False, False]
  assert history.bytes[1] == 7 and np.isnan(history.bytes[0])
  assert history.latency[1] == 2e-3 and np.isnan(history.latency[0])


def test_the_target_is_that_of_the_rewards_own_cost(make_run):
  run = runs.read_run(make_run())
  assert runs.target_of(run, "params") is None  # a config without rewards
  reward = {"kind": "mnasnet_soft", "cost": "params", "target": 5e4}
  run = run._replace(config={"search": {"reward": reward}})
  assert runs.target_of(run, "params") == 5e4
  assert runs.target_of(run, "macs") is None
  run.config["search"]["reward"]["kind"] = "accuracy"
  assert runs.target_of(run, "params") is None
