"""Searches without rounds: full slots, and the same run after any kill."""

import collections
import json
import math
import signal

import jax
import numpy as np
import pytest

from nasnet_jax import controllers
from nasnet_jax.controllers import base, journal
from nasnet_jax.search import asynchronous, rounds
from nasnet_jax.training import stop


def _history(folder):
  lines = (folder / rounds.HISTORY).read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


def _same(folder, wanted):
  assert _history(folder) == _history(wanted)
  journals = [(f / rounds.JOURNAL).read_bytes() for f in (folder, wanted)]
  assert journals[0] == journals[1]


def _stop_at(n: int):
  """A `Progress` that stops the search at its n-th call."""
  calls = iter(range(1, n + 1))

  def progress(*_):
    if next(calls) == n:
      raise stop.Stopped(2)

  return progress


@pytest.fixture(scope="module")
def calls():
  """What happened in the undisturbed search: an item per call of the step."""
  return []


@pytest.fixture(scope="module")
def whole(harness, calls, tmp_path_factory):
  """The folder of an undisturbed search."""
  folder = tmp_path_factory.mktemp("whole")
  harness.asynchronous_search(folder, lambda *now: calls.append(now))
  return folder


def _run(harness, folder, settings, controller=None, width=3):
  """(evaluator, rows) of a search of children of unequal budgets."""
  evaluator = harness.fake_evaluator(width)
  if controller is None:
    controller = controllers.make("random_search", evaluator.space)
  controller = harness.with_budgets(controller)
  run = asynchronous.run if settings.asynchronous else rounds.run
  return evaluator, run(folder, controller, evaluator, settings)


def _simulate(durations, slots: int):
  """When each child ends if the first free slot takes the next one."""
  free, ends = [0] * slots, []
  for calls in durations:
    free.sort()
    free[0] += calls
    ends.append(free[0])
  return ends


def test_no_slot_waits_for_the_end_of_a_round(harness, tmp_path):
  settings = rounds.RoundSettings(24, 4, 0)
  for name in ("rounds", "none"):
    (tmp_path / name).mkdir()
  in_rounds, rows = _run(harness, tmp_path / "rounds", settings, width=4)
  settings = settings._replace(asynchronous=True)
  without, others = _run(harness, tmp_path / "none", settings, width=4)
  steps = {row["id"]: row["steps"] for row in others}
  assert steps == {row["id"]: row["steps"] for row in rows}
  assert len(set(steps.values())) == 3
  durations = [steps[child] for child in range(24)]
  assert without.training.calls == max(_simulate(durations, 4))
  assert in_rounds.training.calls == sum(
    max(durations[first : first + 4]) for first in range(0, 24, 4)
  )
  assert without.training.calls < 0.75 * in_rounds.training.calls


def test_children_are_told_in_the_order_in_which_they_end(harness, tmp_path):
  settings = rounds.RoundSettings(24, 4, 0, asynchronous=True)
  _, rows = _run(harness, tmp_path, settings)
  durations = [row["steps"] for row in sorted(rows, key=lambda row: row["id"])]
  together = collections.defaultdict(list)
  for child, end in enumerate(_simulate(durations, 3)):
    together[end].append(child)
  tells = [
    event.id.tolist()
    for event in journal.read(tmp_path / rounds.JOURNAL)
    if isinstance(event, journal.Tell)
  ]
  assert tells == [together[end] for end in sorted(together)]
  assert any(len(children) > 1 for children in tells)
  assert [row["round"] for row in rows] == [
    number for number, children in enumerate(tells) for _ in children
  ]


def test_the_same_search_comes_out_the_same(harness, whole, tmp_path):
  harness.asynchronous_search(tmp_path)
  _same(tmp_path, whole)
  rows = _history(whole)
  assert sorted(row["id"] for row in rows) == list(range(16))
  assert [row["id"] for row in rows] != list(range(16))
  assert {row["status"] for row in rows} == {"ok", "failed"}


@pytest.mark.parametrize("shares", [(0.0,), (0.2, 0.1), (0.7, 0.2, 0.0)])
def test_a_stopped_search_goes_on_as_if_it_had_not(
  harness, whole, calls, tmp_path, shares
):
  for share in shares:
    with pytest.raises(stop.Stopped):
      n = 1 + int(share * len(calls))
      harness.asynchronous_search(tmp_path, _stop_at(n))
  harness.asynchronous_search(tmp_path)
  _same(tmp_path, whole)


@pytest.mark.parametrize("width", [2, 5])
def test_a_search_goes_on_the_same_with_other_slots(
  harness, whole, calls, tmp_path, width
):
  with pytest.raises(stop.Stopped):
    harness.asynchronous_search(tmp_path, _stop_at(len(calls) // 2))
  harness.asynchronous_search(tmp_path, width=width)
  _same(tmp_path, whole)


def test_a_killed_search_ends_like_an_undisturbed_one(
  harness, whole, calls, run_python, tmp_path
):
  n = len(calls) // 2
  done = run_python("tests/search/harness.py", "asynchronous", tmp_path, n)
  assert done.returncode == -signal.SIGKILL, done.stderr
  assert 0 < len(_history(tmp_path)) < 16
  harness.asynchronous_search(tmp_path)
  _same(tmp_path, whole)


def test_a_saved_state_with_pending_children_is_the_replayed_one(
  harness, whole, calls, tmp_path
):
  with pytest.raises(stop.Stopped):
    harness.asynchronous_search(tmp_path, _stop_at(int(0.7 * len(calls))))
  space = harness.fake_evaluator().space
  controller = harness.with_budgets(
    controllers.make("ppo", space, batch_size=4, hidden=8)
  )
  settings = rounds.RoundSettings(16, 5, 3)
  saved = rounds.resume(tmp_path, controller, settings)
  (tmp_path / "checkpoints").rename(tmp_path / "gone")
  replayed = rounds.resume(tmp_path, controller, settings)
  assert (tmp_path / "gone").exists()
  assert len(saved.pending) == 3
  assert saved.rows == replayed.rows
  jax.tree.map(
    np.testing.assert_array_equal,
    (saved.state, saved.pending),
    (replayed.state, replayed.pending),
  )


def _patient(space, batch: int, most: int) -> base.Controller:
  """Proposes `batch` children, then none before all of them are told; and
  never more than `most`."""
  inner = controllers.make("random_search", space)

  def init(rng):
    return inner.init(rng), np.zeros((), np.int64)

  def ask(state, rng, n):
    inner_state, waiting = state
    left = most - int(inner_state.next_id)
    n = min(n, batch, left) if not waiting else 0
    proposals, inner_state = inner.ask(inner_state, rng, n)
    return proposals, (inner_state, np.array(waiting + n))

  def tell(state, proposals, rewards, status):
    inner_state = inner.tell(state[0], proposals, rewards, status)
    return inner_state, np.array(state[1] - len(proposals))

  return base.Controller(init, ask, tell)


def test_a_controller_that_waits_is_asked_again_after_answers(
  harness, tmp_path
):
  space = harness.fake_evaluator().space
  settings = rounds.RoundSettings(20, 4, 0, asynchronous=True)
  controller = _patient(space, batch=3, most=7)
  for _ in range(2):  # the second one finds it exhausted
    _, rows = _run(harness, tmp_path, settings, controller)
    assert sorted(row["id"] for row in rows) == list(range(7))
  asks = [
    event.came
    for event in journal.read(tmp_path / rounds.JOURNAL)
    if isinstance(event, journal.Ask)
  ]
  assert asks == [3, 3, 1]


def test_rewards_are_those_of_children_trained_in_rounds(harness, tmp_path):
  settings = rounds.RoundSettings(10, 4, 0, asynchronous=True)
  evaluator, rows = _run(harness, tmp_path, settings)
  outcomes = evaluator.evaluate(
    np.array([row["decisions"] for row in rows]),
    np.array([row["seed"] for row in rows], np.uint32),
    np.array([row["budget"] for row in rows], np.float32),
  )
  for row, outcome in zip(rows, outcomes, strict=True):
    assert row["steps"] == outcome.steps
    assert row["accuracy"] == (
      None if math.isnan(outcome.reward) else outcome.reward
    )


def test_what_is_finished_is_told_of_in_portions_of_a_round(harness, tmp_path):
  evaluator = harness.fake_evaluator()
  settings = rounds.RoundSettings(16, 5, 0, asynchronous=True)
  seen = []
  asynchronous.run(
    tmp_path,
    harness.with_budgets(controllers.make("random_search", evaluator.space)),
    evaluator,
    settings,
    finished=lambda rows, fresh, seconds: seen.append((len(rows), fresh)),
  )
  assert [total for total, _ in seen] == np.cumsum(
    [f for _, f in seen]
  ).tolist()
  assert seen[-1][0] == 16
  assert all(fresh >= 5 for _, fresh in seen[:-1])
