"""What the comparison of strategies writes down of a search."""

import argparse
import json

import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.search import tabular
from nasnet_jax.spaces.base import ListSpace

SPACE = ListSpace((4, 5))
CELLS = np.array([[a, b] for a in range(4) for b in range(5)], np.int32)
REWARDS = np.random.default_rng(0).permutation(20) / 20
TABLE = tabular.Table(
  space=SPACE,
  decisions=CELLS,
  epochs=(1,),
  steps_per_epoch=1,
  accuracy=REWARDS[:, None, None],
  seconds=np.full((20, 1), 3.0),
  params=np.zeros(20, int),
  macs=np.zeros(20, int),
)
EVALUATOR = tabular.TabularEvaluator(TABLE)


@pytest.fixture(scope="module")
def strategies(script):
  return script("strategies")


class _Fixed:
  """In the place of `start`: a search of fixed cells, some at a time."""

  def __init__(self, cells, at_a_time):
    self.cells, self.at_a_time = np.array(cells), at_a_time
    self.answers = []

  def __call__(self, strategy, space, seed):
    for i in range(0, len(self.cells), self.at_a_time):
      answers = yield self.cells[i : i + self.at_a_time]
      self.answers.append(answers)


def test_a_run_remembers_each_improvement_and_counts_repeats(
  strategies, monkeypatch
):
  order = np.argsort(REWARDS)
  asked = [order[3], order[1], order[3], order[7], order[7], order[9]]
  search = _Fixed(CELLS[asked], at_a_time=2)
  monkeypatch.setattr(strategies, "start", search)
  row = strategies.play(None, EVALUATOR, run=0, queries=5)
  assert row["best"] == [[1, order[3], 3], [4, order[7], 12]]
  assert row["queries"] == 5  # the sixth is one too many
  assert row["distinct"] == [3, 3, 3, 3]
  assert row["train_seconds"] == [15, 15, 15, 15]
  np.testing.assert_allclose(search.answers[0], REWARDS[asked[:2]])
  curve = strategies.curve(row, 100 * REWARDS, 6)
  np.testing.assert_allclose(curve, [15, 15, 15, 35, 35, 35])


def test_our_strategies_search_until_they_have_nothing_more(strategies):
  strategy = strategies.Ours("random_search", {"unique": True}, 7)
  row = strategies.play(strategy, EVALUATOR, run=1, queries=500)
  assert row["queries"] == 20
  assert row["best"][-1][1] == int(REWARDS.argmax())
  again = strategies.play(strategy, EVALUATOR, run=1, queries=500)
  assert {**again, "own_seconds": 0} == {**row, "own_seconds": 0}
  other = strategies.play(strategy, EVALUATOR, run=2, queries=500)
  assert other["best"] != row["best"]


def test_runs_that_are_there_are_not_played_again(strategies, tmp_path):
  path = tmp_path / "set" / "random.jsonl"
  strategy = strategies.Ours("random_search")
  args = argparse.Namespace(queries=6, runs=2, answers="mean")
  strategies.complete(path, strategy, EVALUATOR, 0, args)
  before = path.read_text().splitlines()
  args.runs = 3
  strategies.complete(path, strategy, EVALUATOR, 0, args)
  after = path.read_text().splitlines()
  assert after[:3] == before
  assert [json.loads(line)["run"] for line in after[1:]] == [0, 1, 2]
  curves, _ = strategies.read_curves(path, REWARDS)
  assert curves.shape == (3, 6)
  args.queries = 7
  with pytest.raises(SystemExit, match="other settings"):
    strategies.complete(path, strategy, EVALUATOR, 0, args)


def test_the_summary_has_a_row_for_each_strategy_that_was_run(
  strategies, tmp_path
):
  args = argparse.Namespace(queries=60, runs=2, answers="mean")
  for label in ("random search", "PPO, tuned"):
    path = tmp_path / f"{strategies.slug(label)}.jsonl"
    ours = strategies.Ours("random_search")
    strategies.complete(path, ours, EVALUATOR, 0, args)
  strategies.summarise(tmp_path, strategies.STRATEGIES, TABLE)
  found, needed = (tmp_path / "table.md").read_text().split("\n\nQueries")
  assert "| PPO, tuned | " in needed
  lines = found.splitlines()
  assert [line.split("|")[1].strip() for line in lines[2:]] == [
    "random search",
    "PPO, tuned",
    "best cell of the table",
  ]
  assert {line.count("|") for line in lines} == {8}
  assert "95.00" in lines[-1]
  assert (tmp_path / "curves.png").exists()


def test_queries_needed_are_counted_on_the_means(strategies):
  curves = {
    "random search": np.array([[1.0, 2.0, 2.0, 4.0], [1.0, 2.0, 2.0, 2.0]]),
    "PPO, tuned": np.array([[0.0, 3.0, 3.0, 5.0]]),
    "another": np.array([[0.0, 0.0, 1.0, 1.0]]),
  }
  assert strategies.queries_needed(curves)[4:] == [
    "| random search | 4 | - |",
    "| PPO, tuned | 2 | 4 |",
    "| another | - | - |",
  ]


def test_every_strategy_is_one_that_there_is(strategies):
  from nasnet_jax import controllers

  for strategy in {**strategies.STRATEGIES, **strategies.TUNING}.values():
    if isinstance(strategy, strategies.Ours):
      controllers.make(strategy.controller, SPACE, **strategy.options)
  chain = spaces.get("pnas_chain")
  for strategy in strategies.GROWING.values():
    controllers.make(strategy.controller, chain, **strategy.options)
