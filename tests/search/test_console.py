"""What a search says: how far it is, how long it takes, what is best."""

import logging

import pytest

from nasnet_jax.search import rounds
from nasnet_jax.search.console import Console
from nasnet_jax.training import compile_clock, live, stop
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


def test_a_round_tells_the_best_child_and_the_time_to_go(say, clock):
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


def test_a_round_of_failed_children_has_no_best_one(say, clock):
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


@pytest.fixture
def clock(monkeypatch):
  """Moves time: clock(seconds, compiled=those of them spent on compiling)."""
  at = {"now": 1000.0}
  monkeypatch.setattr("time.monotonic", lambda: at["now"])
  spent = compile_clock.Intervals()
  monkeypatch.setattr(compile_clock, "seconds", spent.seconds)

  def move(seconds, compiled=0.0):
    spent.add(at["now"], at["now"] + compiled)
    at["now"] += seconds

  return move


def test_the_time_to_go_does_not_count_what_was_compiled(say, clock):
  console, _, lines = say()
  clock(30.0, compiled=30.0)  # of something else, before the round
  clock(48.0, compiled=45.0)
  console.after_round(_rows([0.5, 0.75, 0.25]), 3, 48.0)
  assert lines()[0].endswith("1.0 s per child, 9 s to go")


def test_the_live_line_of_a_round_knows_the_time_for_all(
  say, clock, monkeypatch
):
  shown = []
  monkeypatch.setattr(
    live, "show", lambda words, **more: shown.append((words, more))
  )
  console, _, _ = say()
  clock(65.0, compiled=60.0)
  console.in_round(1 / 3, "1/3 trained")  # 5 s for one child of 12
  words, more = shown[-1]
  assert words == "round 1, 0/12 children"
  assert more == {
    "left": pytest.approx(55.0),
    "then": " and the final stage (1/3 trained)",
  }
  console.after_round(_rows([0.5, 0.75, None]), 3, 75.0)
  clock(6.0)
  console.in_round(2 / 3, "")
  words, more = shown[-1]
  assert words == "round 2, 3/12 children, best 0.7500"
  assert more["left"] == pytest.approx((9 - 2) * 5.0)


def test_the_final_stage_knows_the_time_for_all_of_it(say, clock, monkeypatch):
  shown = []
  monkeypatch.setattr(
    live, "show", lambda words, **more: shown.append((words, more))
  )
  console, _, lines = say(every=0.0)
  console.plan([(("rank", 7), 100), (("rank", 4), 100), (("final", -1), 300)])
  console.begin_fit("rank", 7, "a network")
  for step in (1, 2, 3):  # cold
    clock(20.0, compiled=15.0)
    console.in_fit("rank", 7, step, 100)
  clock(40.0, compiled=20.0)
  lines()
  console.in_fit("rank", 7, 13, 100)  # 2 s a step
  words, more = shown[-1]
  assert words == "ranking 1 of 2, child 7, step 13/100"
  assert more["left"] == pytest.approx(2 * (87 + 100 + 300) + 2 * 15)
  assert lines() == ["  child 7, step 13/100, 2.9 min to go, 16.7 min in all"]
  console.in_fit("final", 7, 1, 300)
  clock(30.0)
  for step in (2, 3, 4):
    console.in_fit("final", 7, step, 300)
  clock(3.0)
  console.in_fit("final", 7, 5, 300)
  assert shown[-1][1]["left"] == pytest.approx(3.0 * 295 / 2)


def test_a_search_that_goes_on_counts_the_children_it_has(
  say, clock, monkeypatch
):
  console, _, _ = say()
  console.after_round(_rows([0.5, 0.75, 0.25]), 3, 3.0)
  shown = []
  monkeypatch.setattr(live, "show", lambda words, **_: shown.append(words))
  again, _, _ = say()
  again.in_round(0.0, "")
  assert shown == ["round 2, 3/12 children, best 0.7500"]
