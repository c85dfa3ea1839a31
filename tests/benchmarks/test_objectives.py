"""What the comparison of several objectives plays and counts."""

import argparse
import json

import numpy as np
import pytest

from nasnet_jax.pareto import hypervolume
from nasnet_jax.search import tabular
from nasnet_jax.spaces.base import ListSpace

CELLS = np.array([[a, b] for a in range(4) for b in range(5)], np.int32)
RANDOM = np.random.default_rng(0)
TABLE = tabular.Table(
  space=ListSpace((4, 5)),
  decisions=CELLS,
  epochs=(1,),
  steps_per_epoch=1,
  accuracy=RANDOM.random((20, 1, 2)),
  seconds=np.full((20, 1), 3.0),
  params=RANDOM.integers(100, 900, 20),
  macs=np.zeros(20, int),
  latency=RANDOM.random(20),
)
EVALUATOR = tabular.TabularEvaluator(TABLE)


@pytest.fixture(scope="module")
def objectives(script):
  return script("objectives")


def test_rewards_are_the_tables_and_scaled_from_worst_to_best(objectives):
  rewards = objectives.rewards_of(TABLE)
  np.testing.assert_allclose(rewards[:, 0], TABLE.accuracy[:, 0].mean(-1))
  np.testing.assert_array_equal(rewards[:, 1], -TABLE.latency)
  np.testing.assert_array_equal(rewards[:, 2], -TABLE.params)
  scaled = objectives.scaled(rewards)
  assert scaled.min(0).tolist() == [0, 0, 0]
  assert scaled.max(0).tolist() == [1, 1, 1]
  assert scaled[:, 2].argmax() == TABLE.params.argmin()


def test_the_tables_latency_is_what_an_evaluator_tells():
  seeds, budgets = np.zeros(1, np.uint32), np.ones(1, np.float32)
  (outcome,) = EVALUATOR.evaluate(CELLS[3:4], seeds, budgets)
  assert outcome.latency == TABLE.latency[3]


def test_a_run_keeps_the_queries_that_made_the_volume_grow(
  objectives, monkeypatch, tmp_path
):
  rewards, answers = objectives.rewards_of(TABLE), []

  def start(strategy, num_choices, seed):
    for cells in ([0, 7], [7, 19], [3, 3]):
      answers.append((yield CELLS[cells]))

  monkeypatch.setattr(objectives, "start", start)
  row = objectives.play(None, EVALUATOR, rewards, run=4, queries=5)
  assert row["run"] == 4
  cells = [0, 7, 7, 19, 3]  # the last is one too many
  values = objectives.scaled(rewards)
  volumes = [
    hypervolume.hypervolume(values[cells[: i + 1]], [0, 0, 0]) for i in range(5)
  ]
  assert row["grew"] == [
    [i + 1, cells[i]] for i in range(5) if volumes[i] > [0, *volumes][i]
  ]
  assert 1 < len(row["grew"]) < 5
  assert row["distinct"] == 4
  path = tmp_path / "runs.jsonl"
  rows = [{"queries": 5}, row]
  path.write_text("".join(json.dumps(line) + "\n" for line in rows))
  np.testing.assert_allclose(objectives.read(path, values), [volumes])
  np.testing.assert_array_equal(answers[0], rewards[[0, 7]])


def test_ours_is_told_all_objectives_and_the_table_compares_run_by_run(
  objectives, tmp_path, monkeypatch
):
  monkeypatch.setattr(objectives, "MARKS", (5, 20))
  ours = objectives.Ours("evolution", {"population": 4, "pareto": True})
  peer = objectives.Ours("random_search")
  rewards = objectives.rewards_of(TABLE)
  args = argparse.Namespace(runs=3, queries=20)
  for label, strategy in ((objectives.OURS, ours), (objectives.OPTUNA, peer)):
    path = tmp_path / f"{objectives.slug(label)}.jsonl"
    objectives.complete(path, strategy, EVALUATOR, rewards, 0, args)
    before = path.read_text()
    objectives.complete(path, strategy, EVALUATOR, rewards, 0, args)
    assert path.read_text() == before
    _, *rows = map(json.loads, before.splitlines())
    assert [row["run"] for row in rows] == [0, 1, 2]
  labels = (objectives.OURS, objectives.OPTUNA)
  text = objectives.tables(tmp_path, labels, rewards)
  curves = [
    objectives.read(
      tmp_path / f"{objectives.slug(label)}.jsonl", objectives.scaled(rewards)
    )
    for label in labels
  ]
  won = int((curves[0] > curves[1])[:, -1].sum())
  assert f"| {won} of 3 |" in text.splitlines()[-1]
  assert curves[0].shape == (3, 20)
  assert (np.diff(curves[0]) >= 0).all()


def test_the_interval_of_a_median_holds_it_and_shrinks(objectives):
  values = np.random.default_rng(1).normal(size=400)
  low, high = objectives.interval(values)
  assert low < np.median(values) < high
  assert high - low < 0.4
  few = objectives.interval(values[:20])
  assert few[1] - few[0] > high - low
