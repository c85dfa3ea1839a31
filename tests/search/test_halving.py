"""Children that are stopped early: who, and what it saves."""

import json

import numpy as np
import pytest

from nasnet_jax import controllers
from nasnet_jax.population.evaluation import OK, Outcome
from nasnet_jax.search import asynchronous, final, halving, rewards, rounds
from nasnet_jax.training import stop

HALVING = halving.HalvingSettings(eta=3, min_epochs=1.0)
SETTINGS = rounds.RoundSettings(30, 10, 1, halving=HALVING)


def _run(harness, folder, settings=SETTINGS, width=3, progress=None, **recipe):
  evaluator = harness.fake_evaluator(width, **recipe)
  controller = controllers.make("random_search", evaluator.space)
  run = asynchronous.run if settings.asynchronous else rounds.run
  rows = run(folder, controller, evaluator, settings, progress=progress)
  return evaluator, rows


def _history(folder):
  lines = (folder / rounds.HISTORY).read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


def _stopped_by_a_plain_loop(harness, rows, rungs, horizon, num_valid, eta):
  """{child: updates made}: asynchronous successive halving, word for word."""
  made, results = {}, [[] for _ in rungs]
  for row in sorted(rows, key=lambda row: row["id"]):
    made[row["id"]] = horizon
    for rung, updates in enumerate(rungs):
      if row["seed"] % 7 == 0:  # its loss is not finite
        made[row["id"]] = updates
        break
      accuracy = harness.accuracy_of(row["seed"], updates / horizon)
      mine = round(num_valid * accuracy)
      results[rung].append(mine)
      best = sorted(results[rung], reverse=True)
      best = best[: max(1, len(best) // eta)]
      ties = results[rung].count(mine) - 1
      if mine not in best or best.count(mine) <= ties:
        made[row["id"]] = updates
        break
  return made


@pytest.mark.parametrize("asynchronously", [False, True])
@pytest.mark.parametrize("eta", [2, 3])
def test_those_stop_whom_a_plain_loop_stops(
  harness, tmp_path, asynchronously, eta
):
  settings = SETTINGS._replace(
    children=60,
    halving=halving.HalvingSettings(eta),
    asynchronous=asynchronously,
  )
  _, rows = _run(harness, tmp_path, settings)
  rungs = {2: [4, 8, 16, 32], 3: [4, 12]}[eta]  # of 9 epochs of 4 updates
  wanted = _stopped_by_a_plain_loop(harness, rows, rungs, 36, 50, eta)
  assert {row["id"]: row["steps"] for row in rows} == wanted
  made = [row["steps"] for row in rows]
  assert all(made.count(updates) > 1 for updates in rungs)
  assert 0 < made.count(36) < 30


def test_rungs_are_whole_calls_of_the_compiled_step(harness, tmp_path):
  evaluator, rows = _run(harness, tmp_path, steps_per_call=5)
  judge = halving.Halving(HALVING, rewards.ACCURACY)
  assert judge.stops(evaluator).rungs == (1, 3)
  assert {row["steps"] for row in rows} == {5, 15, 36}


def test_a_stopped_child_is_judged_by_what_it_was_when_it_stopped(
  harness, tmp_path
):
  _, rows = _run(harness, tmp_path)
  for row in rows:
    if row["status"] == "ok":
      share = row["steps"] / row["horizon"]
      right = round(50 * harness.accuracy_of(row["seed"], share))
      assert row["accuracy"] == right / 50
      assert row["reward"] == np.float32(row["accuracy"])
      if halving.was_stopped(row):
        assert row["rungs"][-1] == row["accuracy"]


def test_a_stopped_childs_slot_goes_to_the_next(harness, tmp_path):
  evaluator, rows = _run(harness, tmp_path)
  total = sum(row["steps"] for row in rows)
  assert evaluator.training.updates == total
  # Three slots; only at the end of a round do some of them stand empty.
  assert evaluator.training.calls < total / 3 + 3 * 36
  assert total < 0.5 * 30 * 36


def test_epochs_are_counted(harness, tmp_path):
  evaluator, rows = _run(harness, tmp_path)
  spent = halving.spent(rows, epochs=9)
  per_epoch = evaluator.steps_per_epoch
  assert spent.epochs * per_epoch == pytest.approx(evaluator.training.updates)
  assert spent.epochs + spent.epochs_saved == pytest.approx(9 * 30)
  assert spent.stopped == sum(
    row["steps"] < 36 and row["status"] == "ok" for row in rows
  )
  rows = [
    {**row, "seconds": 2.0 * row["steps"]} for row in rows
  ]  # as if each update took 2 s
  spent = halving.spent(rows, epochs=9)
  assert spent.seconds_saved == pytest.approx(
    2 * per_epoch * spent.epochs_saved
  )


def test_without_halving_every_epoch_counts(harness, tmp_path):
  settings = SETTINGS._replace(halving=halving.OFF)
  evaluator, rows = _run(harness, tmp_path, settings)
  spent = halving.spent(rows, epochs=9)
  assert (spent.stopped, spent.epochs, spent.epochs_saved) == (0, 270, 0)
  assert evaluator.training.updates == 270 * evaluator.steps_per_epoch
  assert all("rungs" not in row and "horizon" not in row for row in rows)


@pytest.mark.parametrize("width", [1, 3, 4])
def test_a_search_that_was_stopped_stops_the_same_children(
  harness, tmp_path, width
):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  whole.mkdir()
  broken.mkdir()
  _run(harness, whole)
  calls = iter(range(1000))

  def progress(*_):
    if next(calls) == 90:
      raise stop.Stopped(2)

  with pytest.raises(stop.Stopped):
    _run(harness, broken, progress=progress)
  assert 0 < len(_history(broken)) < 30
  _run(harness, broken, width=width)
  assert _history(broken) == _history(whole)


def test_rungs_compare_rewards_and_not_accuracies(harness, tmp_path):
  def outcome(accuracy, params):
    return Outcome(accuracy, OK, 4, 0.0, params, 0, 0, 36, (accuracy,))

  soft = rewards.make("mnasnet_soft", "params", 1000)
  judge = halving.Halving(halving.HalvingSettings(3), soft)
  assert judge.keep(0, 0, outcome(0.50, 1000))
  assert judge.keep(1, 0, outcome(0.49, 100))
  assert not judge.keep(2, 0, outcome(0.51, 1000))


def test_of_equal_children_at_a_rung_the_earlier_is_the_better():
  outcome = Outcome(0.5, OK, 4, 0.0, 1, 1)
  judge = halving.Halving(halving.HalvingSettings(2), rewards.ACCURACY)
  kept = [judge.keep(child, 0, outcome) for child in range(3)]
  assert kept == [True, False, False]
  # Judged again after a kill: those asked for later do not count.
  assert judge.keep(0, 0, outcome)


def test_the_final_stage_takes_children_that_ran_to_the_end(harness, tmp_path):
  evaluator, rows = _run(harness, tmp_path)
  rows = [dict(row) for row in rows]
  early = next(row for row in rows if halving.was_stopped(row))
  early["reward"] = 1.0
  best = final.top_children(rows, evaluator.space, 30)
  assert best and not any(map(halving.was_stopped, best))
  only = [row for row in rows if halving.was_stopped(row)]
  assert final.top_children(only, evaluator.space, 1) == [early]


@pytest.mark.parametrize(
  ("settings", "words"),
  [
    (halving.HalvingSettings(1), "give 2 or more"),
    (halving.HalvingSettings(-3), "give 2 or more"),
    (halving.HalvingSettings(3, 0.0), "above 0 epochs"),
    (halving.HalvingSettings(3, -1.0), "above 0 epochs"),
  ],
)
def test_settings_that_make_no_halving_are_one_line(settings, words):
  with pytest.raises(ValueError, match=words) as error:
    halving.check(settings)
  assert "\n" not in str(error.value)


def test_a_first_rung_at_the_end_is_one_line(harness):
  evaluator = harness.fake_evaluator()
  judge = halving.Halving(halving.HalvingSettings(3, 9.0), rewards.ACCURACY)
  with pytest.raises(ValueError, match=r"min_epochs is 9\.0, where children"):
    judge.stops(evaluator)
