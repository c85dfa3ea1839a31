"""Rounds in this process: what a folder says is what happened."""

import contextlib
import json
import math
import shutil

import jax
import numpy as np
import pytest

from nasnet_jax import controllers
from nasnet_jax.controllers import journal
from nasnet_jax.population.evaluation import Outcome
from nasnet_jax.search import halving, rewards, rounds
from nasnet_jax.training import checkpoint, stop, workdir

CHOICES = (2, 3, 3, 2)
SETTINGS = rounds.RoundSettings(children=12, children_per_round=4, seed=5)


def _controller():
  return controllers.make("ppo", CHOICES, batch_size=4, hidden=8)


def _run(folder, evaluator, settings=SETTINGS, **callbacks):
  return rounds.run(folder, _controller(), evaluator, settings, **callbacks)


def _history(folder):
  lines = (folder / rounds.HISTORY).read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


class _Constant:
  """One outcome for all children."""

  def __init__(self, reward, status=0):
    self.outcome = Outcome(reward, status, 3, 0.5, 10, 20)

  def evaluate(self, decisions, seeds, budgets, progress=None):
    return [self.outcome] * len(seeds)


class _StopsAt:
  """The harness's evaluator; a stop is asked for at the n-th child."""

  def __init__(self, evaluator, n: int):
    self.evaluator, self.left = evaluator, n

  def evaluate(self, decisions, seeds, budgets, progress=None):
    self.left -= len(seeds)
    if self.left < 0:
      raise stop.Stopped(2)
    return self.evaluator.evaluate(decisions, seeds, budgets, progress)


@pytest.fixture
def fake(harness):
  return harness.FakeEvaluator()


def test_every_child_has_a_line_with_exactly_these_fields(fake, tmp_path):
  rows = _run(tmp_path, fake)
  assert [row["id"] for row in rows] == list(range(12))
  assert [row["round"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
  for row in _history(tmp_path):
    assert list(row) == [
      "id",
      "round",
      "decisions",
      "seed",
      "budget",
      "steps",
      "accuracy",
      "reward",
      "status",
      "params",
      "macs",
      "seconds",
    ]
  assert _history(tmp_path) == [{**row, "seconds": 0} for row in rows]


def test_a_childs_seed_follows_from_the_searchs_seed_and_its_number():
  # Written down once: a change would make every old history irreproducible.
  assert rounds.child_seed(0, 0) == 2968811710
  assert rounds.child_seed(0, 1) == 3964924996
  assert rounds.child_seed(1, 0) != rounds.child_seed(0, 1)


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(fake, tmp_path):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  whole.mkdir()
  broken.mkdir()
  _run(whole, fake)
  for n in (5, 1, 6):  # in round 2, at once, in round 3
    with pytest.raises(stop.Stopped):
      _run(broken, _StopsAt(fake, n))
  _run(broken, fake)
  assert _history(broken) == _history(whole)
  journals = [(f / rounds.JOURNAL).read_bytes() for f in (broken, whole)]
  assert journals[0] == journals[1]


@pytest.mark.parametrize("eta", [0, 2])
def test_children_that_were_done_are_not_trained_again(harness, tmp_path, eta):
  settings = SETTINGS._replace(
    children=14,  # of width 3: the last ones of a round are alone
    children_per_round=7,
    halving=halving.HalvingSettings(eta),
  )

  def run(folder, progress=None):
    folder.mkdir(exist_ok=True)
    evaluator = harness.fake_evaluator()
    controller = controllers.make(
      "ppo", evaluator.space, batch_size=4, hidden=8
    )
    with contextlib.suppress(stop.Stopped):
      rounds.run(
        folder,
        harness.with_budgets(controller),
        evaluator,
        settings,
        progress=progress,
      )
    return evaluator.training.updates

  whole = run(tmp_path / "whole")

  def stops(share, words):
    if 3 <= int(words.partition("/")[0]) < 7:
      raise stop.Stopped(15)

  folder = tmp_path / "stopped"
  first = run(folder, stops)
  done = (folder / rounds.ROUND).read_text().splitlines()
  assert 3 <= len(done) < 7
  known = sum(json.loads(line)["steps"] for line in done)
  assert first - known > 0  # of those that were under way
  assert known + run(folder) == whole
  assert _history(folder) == _history(tmp_path / "whole")
  assert not (folder / rounds.ROUND).exists()


def test_the_saved_state_is_the_one_that_replaying_gives(fake, tmp_path):
  _run(tmp_path, fake)
  saved = rounds.resume(tmp_path, _controller(), SETTINGS)
  for step in (tmp_path / rounds.CHECKPOINTS).iterdir():
    step.rename(tmp_path / f"gone-{step.name}")
  replayed = rounds.resume(tmp_path, _controller(), SETTINGS)
  leaves = jax.tree.leaves(saved.state), jax.tree.leaves(replayed.state)
  assert len(leaves[0]) == len(leaves[1])
  for a, b in zip(*leaves):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_cut_last_line_is_dropped_with_a_notice(fake, tmp_path, caplog):
  _run(tmp_path, fake, SETTINGS._replace(children=8))
  want = _history(tmp_path)
  with open(tmp_path / rounds.HISTORY, "a") as file:
    file.write('{"id": 8, "round": 2, "deci')
  rows = _run(tmp_path, fake, SETTINGS._replace(children=8))
  assert _history(tmp_path) == want == [{**r, "seconds": 0} for r in rows]
  assert "dropped a last line that was cut short" in caplog.text


def test_lines_of_an_unfinished_round_are_written_again(fake, tmp_path):
  _run(tmp_path, fake)
  want = _history(tmp_path)
  journal = (tmp_path / rounds.JOURNAL).read_text().splitlines(keepends=True)
  (tmp_path / rounds.JOURNAL).write_text("".join(journal[:-1]))  # no last tell
  _run(tmp_path, fake)
  assert _history(tmp_path) == want


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_costs_nothing_but_a_line(
  fake, tmp_path, caplog, damage
):
  _run(tmp_path, fake, SETTINGS._replace(children=8))
  newest = tmp_path / rounds.CHECKPOINTS / "2"
  # Small arrays lie in the index, others beside it: all but the text files.
  files = [f for f in newest.rglob("d/*") if f.is_file()]
  assert files
  for file in files:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "flip":
      file.write_bytes(content)
    elif damage == "cut":
      file.write_bytes(content[: len(content) // 2])
    else:
      file.unlink()
  _run(tmp_path, fake)
  assert "is damaged" in caplog.text
  whole = tmp_path / "whole"
  whole.mkdir()
  _run(whole, fake)
  assert _history(tmp_path) == _history(whole)


def test_a_history_that_does_not_fit_the_journal_is_refused(fake, tmp_path):
  _run(tmp_path, fake)
  path = tmp_path / rounds.HISTORY
  path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
  with pytest.raises(workdir.WorkdirError, match="other children"):
    _run(tmp_path, fake)


@pytest.mark.parametrize(
  ("reward", "status"), [(math.nan, 0), (math.inf, 0), (0.9, 1)]
)
def test_a_reward_that_is_no_number_is_a_failed_child(tmp_path, reward, status):
  before = _controller().init(jax.random.key(SETTINGS.seed))
  rows = _run(tmp_path, _Constant(reward, status))
  assert {row["status"] for row in rows} == {"failed"}
  assert {row["reward"] for row in rows} == {None}
  state = rounds.resume(tmp_path, _controller(), SETTINGS).state
  for a, b in zip(
    jax.tree.leaves(before.params), jax.tree.leaves(state.params)
  ):
    np.testing.assert_array_equal(a, b)


def test_the_controller_is_told_the_reward_and_history_keeps_both(
  fake, tmp_path
):
  reward = rewards.make("mnasnet_hard", "params", 50)  # children have 100
  rows = _run(tmp_path, fake, SETTINGS._replace(reward=reward))
  ok = [row for row in rows if row["status"] == "ok"]
  assert ok
  for row in ok:
    assert row["reward"] == np.float32(row["accuracy"] / 2)
  tells = [
    event
    for event in journal.read(tmp_path / rounds.JOURNAL)
    if isinstance(event, journal.Tell)
  ]
  told = [float(reward) for event in tells for reward in event.rewards]
  assert [r for r in told if not math.isnan(r)] == [row["reward"] for row in ok]


class _Measures:
  """The harness's evaluator, whose children have a latency each."""

  def __init__(self, evaluator):
    self.evaluator, self.remembered = evaluator, []

  def evaluate(self, decisions, seeds, budgets, progress=None):
    outcomes = self.evaluator.evaluate(decisions, seeds, budgets, progress)
    return [
      outcome._replace(latency=1e-3 + int(seed) / 1e15)
      for outcome, seed in zip(outcomes, seeds, strict=True)
    ]

  def remember(self, decisions, seconds):
    self.remembered.append((decisions.tolist(), seconds))


def test_what_was_measured_is_told_to_the_next_process(fake, tmp_path):
  reward = rewards.make("mnasnet_hard", "latency", 5e-4)
  settings = SETTINGS._replace(reward=reward)
  first = _Measures(fake)
  _run(tmp_path, first, settings._replace(children=8))
  assert first.remembered == []
  rows = _history(tmp_path)
  assert [row["latency"] for row in rows] == [
    1e-3 + row["seed"] / 1e15 for row in rows
  ]
  ok = [row for row in rows if row["status"] == "ok"]
  for row in ok:
    halved = row["accuracy"] * 5e-4 / row["latency"]
    assert row["reward"] == pytest.approx(halved, rel=1e-6)
  second = _Measures(fake)
  _run(tmp_path, second, settings)
  assert second.remembered == [(r["decisions"], r["latency"]) for r in rows]


def test_a_latency_of_a_round_under_way_is_told_too(fake, tmp_path):
  at = rounds.resume(tmp_path, _controller(), SETTINGS)
  at = rounds.ask(tmp_path, _controller(), SETTINGS, at, 3)
  evaluator = _Measures(fake)
  outcome = Outcome(0.5, 0, 3, 0.5, 10, 20, latency=0.25)
  rounds.remember(evaluator, at, {1: outcome, 2: outcome._replace(latency=0)})
  decisions = np.asarray(at.pending.decisions[1]).tolist()
  assert evaluator.remembered == [(decisions, 0.25)]


def test_the_key_of_an_ask_follows_from_the_seed_and_its_number(fake, tmp_path):
  # A change would make every old history irreproducible.
  _run(tmp_path, fake)
  events = journal.read(tmp_path / rounds.JOURNAL)
  asks = [event for event in events if isinstance(event, journal.Ask)]
  for number, event in enumerate(asks):
    key = jax.random.fold_in(jax.random.key(SETTINGS.seed), number)
    np.testing.assert_array_equal(event.key, jax.random.key_data(key))


def test_a_controller_without_further_proposals_ends_the_search(fake, tmp_path):
  controller = controllers.make("random_search", (2, 3), unique=True)
  for _ in range(2):
    rows = rounds.run(tmp_path, controller, fake, SETTINGS)
    assert len(rows) == 6
  assert len((tmp_path / rounds.JOURNAL).read_text().splitlines()) == 4


def test_the_last_round_asks_for_no_more_than_is_left(fake, tmp_path):
  rows = _run(tmp_path, fake, SETTINGS._replace(children=6))
  assert len(rows) == 6


def test_a_state_of_another_version_costs_a_replay_which_is_told(
  fake, tmp_path, caplog, monkeypatch
):
  monkeypatch.setattr(rounds, "_PAUSE", 0.0)
  _run(tmp_path, fake)
  saved = rounds.resume(tmp_path, _controller(), SETTINGS)
  caplog.set_level("INFO")
  assert "learns again" not in caplog.text
  checkpoint.write(tmp_path / rounds.CHECKPOINTS / "3", {"other": np.ones(3)})
  shutil.rmtree(tmp_path / rounds.CHECKPOINTS / "2")
  monkeypatch.setattr(rounds, "_SOON", 0.0)
  replayed = rounds.resume(tmp_path, _controller(), SETTINGS)
  assert "does not fit" in caplog.text
  assert caplog.text.count("learns again from the journal, about") == 1
  jax.tree.map(np.testing.assert_array_equal, saved.state, replayed.state)
