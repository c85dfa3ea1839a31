"""The study of the demonstration: its table, and what goes on."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def demonstration(script):
  return script("demonstration")


def _row(run: int, first: float, last: float, test: float):
  rewards = [first] * 12 + [0.5] * 24 + [last] * 12
  return {"run": run, "rewards": rewards, "test": test, "params": 1000}


def test_the_table_counts_seeds_that_got_better_and_compares_seed_by_seed(
  demonstration,
):
  found = {
    "random_search": [_row(0, 0.6, 0.5, 0.9), _row(1, 0.6, 0.7, 0.8)],
    "evolution": [_row(0, 0.6, 0.8, 0.91), _row(1, 0.6, 0.9, 0.82)],
  }
  _, _, control, evolution = demonstration.table(found).splitlines()
  assert control.split(" | ")[1:5] == ["2", "0.600", "0.600", "1"]
  assert evolution.split(" | ")[1:5] == ["2", "0.600", "0.850", "2"]
  # 1 and 2 points: Student's t of one degree of freedom is 12.706.
  assert "| 1.50 [-4.85, 7.85] |" in evolution
  assert control.split(" | ")[7] == "-"


def test_a_failed_child_has_the_reward_0(demonstration):
  row = _row(0, 0.6, 0.6, 0.9)
  row["rewards"][0] = None
  rewards = demonstration.rewards_of([row])
  assert rewards.shape == (1, 48)
  assert rewards[0, 0] == 0
  assert not np.isnan(rewards).any()


def test_what_is_done_is_read_by_seed(demonstration, tmp_path):
  rows = [_row(1, 0.5, 0.6, 0.9), _row(0, 0.5, 0.6, 0.8)]
  lines = [{"strategy": "evolution"}, *rows]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (tmp_path / "evolution.jsonl").write_text(text)
  found = demonstration.read(tmp_path)
  assert list(found) == ["evolution"]
  assert [row["run"] for row in found["evolution"]] == [0, 1]
