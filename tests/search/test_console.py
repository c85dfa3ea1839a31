"""What a search says: how far it is, how long it takes, what is best."""

import logging

import pytest

from nasnet_jax.search import rounds
from nasnet_jax.search.console import Console
from nasnet_jax.training import stop
from nasnet_jax.training.scalars import Scalars


@pytest.fixture
def say(tmp_path, caplog):
  """say(every) -> (console, scalars, lines said since the last call)."""
  caplog.set_level(logging.INFO, "nasnet_jax")

  def make(every=1e9):
    scalars = Scalars(tmp_path)
    settings = rounds.RoundSettings(children=12, children_per_round=3, seed=0)
    console = Console(stop.StopRequest(), scalars, settings, 1.0, every)

    def lines():
      said = [record.getMessage() for record in caplog.records]
      caplog.clear()
      return said

    return console, scalars, lines

  return make


def _rows(rewards):
  return [
    {"id": i, "round": i // 3, "reward": reward, "seconds": 2.0}
    for i, reward in enumerate(rewards)
  ]


def test_a_round_tells_the_best_child_and_the_time_to_go(say):
  console, scalars, lines = say()
  rows = _rows([0.5, 0.75, None, 0.625, 0.5, 0.25])
  console.after_round(rows[:3], 3, 30.0)
  assert lines() == [
    "round 1: 3/12 children, mean 0.6250, best 0.7500 (child 1), 1 failed,"
    " 10.0 s per child, 90 s to go"
  ]
  # The first round compiled; from now on the others say what is to come.
  console.after_round(rows, 3, 6.0)
  assert lines() == [
    "round 2: 6/12 children, mean 0.4583, best 0.7500 (child 1),"
    " 2.0 s per child, 12 s to go"
  ]
  written = scalars.rows[-1]
  assert written["best_reward"] == 0.75
  assert (written["step"], written["child_seconds"]) == (6, 6.0)


def test_a_round_of_failed_children_has_no_best_one(say):
  console, _, lines = say()
  console.after_round(_rows([None] * 12), 12, 12.0)
  assert lines() == ["round 4: 12/12 children, 12 failed, 1.0 s per child"]


def test_work_under_way_is_told_now_and_then_only(say):
  quiet, _, lines = say(every=1e9)
  quiet.in_round(0.5, "1/3 trained")
  quiet.in_fit("rank", 4, 10, 40)
  assert lines() == []
  console, _, lines = say(every=0)
  console.in_round(0.5, "1/3 trained, loss 2.300")
  assert lines() == ["   50% of the round, 1/3 trained, loss 2.300"]
  for step in range(1, 7):
    console.in_fit("rank", 4, step, 40)
  *_, last = lines()
  assert last.startswith("  child 4, step 6/40, ")
  assert last.endswith(" to go")


def test_a_stop_is_obeyed_between_two_steps_and_after_a_round(say):
  console, _, _ = say()
  console._request.signum = 15
  for call in (
    lambda: console.in_round(0.5, ""),
    lambda: console.in_fit("rank", 4, 1, 40),
    lambda: console.after_round(_rows([0.5]), 1, 1.0),
  ):
    with pytest.raises(stop.Stopped):
      call()
