"""Hours, epochs and patience: where a search ends, and that it ends there."""

import functools
import json
import math

import pytest

from nasnet_jax import controllers
from nasnet_jax.jobs import job_config
from nasnet_jax.search import (
  asynchronous,
  budgets,
  final,
  final_cost,
  halving,
  rounds,
  run_clock,
  search_config,
)
from nasnet_jax.training import datasets, stop, workdir

SETTINGS = rounds.RoundSettings(24, 4, 5)
EPOCHS = 9  # of a child


def _over(**budget):
  return budgets.reproducible(budgets.BudgetSettings(**budget), EPOCHS)


def _run(harness, folder, settings=SETTINGS, **callbacks):
  folder.mkdir(exist_ok=True)
  evaluator = harness.fake_evaluator()
  controller = controllers.make("ppo", evaluator.space, batch_size=4, hidden=8)
  run = asynchronous.run if settings.asynchronous else rounds.run
  return run(
    folder,
    harness.with_budgets(controller),
    evaluator,
    settings,
    **callbacks,
  )


def _same(folder, other):
  for name in (rounds.HISTORY, rounds.JOURNAL):
    one, two = (
      [
        {**json.loads(line), "seconds": 0}
        for line in (f / name).read_text().splitlines()
      ]
      for f in (folder, other)
    )
    assert one == two, name


KINDS = {
  "rounds": SETTINGS,
  "halving": SETTINGS._replace(halving=halving.HalvingSettings(2)),
  "asynchronous": SETTINGS._replace(asynchronous=True),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("budget", [{"epochs": 25.0}, {"patience": 4}])
def test_a_budget_ends_a_search_early_and_changes_nothing_before(
  harness, tmp_path, kind, budget
):
  settings = KINDS[kind]
  whole = _run(harness, tmp_path / "whole", settings)
  rows = _run(harness, tmp_path / "ended", settings, over=_over(**budget))
  assert 4 <= len(rows) < 24 == len(whole)
  journals = [
    (tmp_path / name / rounds.JOURNAL).read_text().splitlines()
    for name in ("ended", "whole")
  ]
  if not settings.asynchronous:
    assert len(rows) % 4 == 0  # the round under way was finished
    assert journals[0] == journals[1][: len(journals[0])]
  # It ends with the first round, or answer, after which the budget is spent;
  # without rounds, what was under way then is finished.
  over = _over(**budget)
  parts = [
    n for n in range(1, 24) if whole[n]["round"] != whole[n - 1]["round"]
  ]
  spent = next(n for n in parts if over(whole[:n]))
  under_way = 2 if settings.asynchronous else 0
  assert spent <= len(rows) <= spent + under_way
  # Started again it has nothing left to do.
  again = _run(harness, tmp_path / "ended", settings, over=over)
  assert again == rows


@every_kind
def test_a_search_with_a_budget_that_was_stopped_ends_where_it_would_have(
  harness, tmp_path, kind
):
  settings, over = KINDS[kind], _over(epochs=30.0, patience=11)
  calls = []
  whole = _run(
    harness,
    tmp_path / "whole",
    settings,
    over=over,
    progress=lambda *_: calls.append(0),
  )
  assert len(whole) < 24
  for share in (0.2, 0.5, 0.95):
    left = int(share * len(calls))

    def progress(*_):
      nonlocal left
      left -= 1
      if left < 0:
        raise stop.Stopped(15)

    folder = tmp_path / f"stopped{share}"
    with pytest.raises(stop.Stopped):
      _run(harness, folder, settings, over=over, progress=progress)
    _run(harness, folder, settings, over=over)
    _same(folder, tmp_path / "whole")


def _rows(rewards, per_round=2):
  return [
    {
      "id": i,
      "round": i // per_round,
      "reward": reward,
      "status": "failed" if reward is None else "ok",
      "budget": 1.0,
      "steps": 5,
      "seconds": 10.0,
    }
    for i, reward in enumerate(rewards)
  ]


def test_patience_counts_children_without_a_better_one_where_rounds_end():
  over = _over(patience=3)
  assert over([]) == ""
  assert over(_rows([0.5, 0.4, 0.4, 0.6])) == ""  # 3 is better in time
  assert over(_rows([0.5, 0.6, 0.6, None])) == ""
  assert over(_rows([0.6, 0.5, 0.6, None]))  # three are enough
  reason = over(_rows([0.5, 0.6, 0.6, None, 0.1, 0.2]))
  assert reason == (
    "search.patience is 3, and the last 4 children were no better than child 1"
  )
  # What comes later, as without rounds, does not take it back.
  assert over(_rows([0.5, 0.6, 0.6, None, 0.1, 0.2, 0.9, 0.9])) == reason
  assert "no better than the best" in over(_rows([None] * 4))


def test_epochs_are_those_that_were_trained():
  rows = _rows([0.5] * 4)
  assert _over(epochs=37.0)(rows) == ""
  assert _over(epochs=36.0)(rows) == (
    "search.epochs is 36, and children trained 36"
  )
  for row in rows:
    row["horizon"] = 10  # stopped halfway
  assert _over(epochs=19.0)(rows) == ""
  assert _over(epochs=18.0)(rows)


class _Clock:
  def __init__(self, seconds):
    self.seconds, self.notes = seconds, {}
    self.known, self.note = self.notes.get, self.notes.__setitem__


def test_hours_leave_enough_for_a_round_and_the_final_stage():
  clock, rows = _Clock(0.0), _rows([0.5] * 4)  # a round took 20 s
  over = budgets.Hours(0.1, clock, 2, lambda _: 100.0)  # 360 s
  clock.seconds = 240.0
  assert over(rows) == ""
  clock.seconds = 241.0
  assert "search.hours is 0.1" in over(rows)
  # What was decided stays, though a restart might see it otherwise; more hours
  # make it go on.
  clock.seconds = 200.0
  assert over(rows)
  assert budgets.Hours(0.2, clock, 2, lambda _: 100.0)(rows) == ""
  assert (
    budgets.Hours(0.1, _Clock(9e9), 2, None)([]) == ""
  )  # one round at least
  assert budgets.Hours(0.0, _Clock(9e9), 2, None)(rows) == ""  # no limit


def test_the_clock_of_the_first_host_decides_for_all(monkeypatch):
  rows, said = _rows([0.5] * 4), []
  decides = budgets.Hours(0.1, _Clock(900.0), 2, lambda _: 100.0)
  follows = budgets.Hours(0.1, _Clock(0.0), 2, lambda _: 0.0)
  monkeypatch.setattr(
    budgets.hosts, "of_first", lambda value: said.append(value) or value
  )
  assert decides(rows)
  monkeypatch.setattr(budgets.hosts, "of_first", lambda _: said.pop(0))
  assert follows(rows)
  assert said == []


def test_the_clock_of_a_run_goes_on_where_it_stood(tmp_path, monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(run_clock.time, "monotonic", lambda: now[0])
  with run_clock.RunClock(tmp_path, seconds_before=5.0) as clock:
    now[0] += 20
    assert clock.seconds == 25.0
    clock.tick()
    assert not (tmp_path / run_clock.CLOCK).exists()
    now[0] += 20
    clock.tick()  # a kill after this loses nothing
    killed = run_clock.RunClock(tmp_path)
    assert killed.seconds == 45.0
    clock.note("over", 2.0)
    now[0] += 3
  now[0] += 5000  # nobody works
  again = run_clock.RunClock(tmp_path)
  assert (again.seconds, again.known("over")) == (48.0, 2.0)


def test_a_run_from_before_clocks_has_the_time_that_it_wrote_down(tmp_path):
  workdir.append_lines(tmp_path / "retrain.jsonl", [{"seconds": 2.0}])
  metrics = [
    {"group": "search", "seconds": 30.0},
    {"group": "rank_1", "compilations": 3},
  ]
  assert run_clock.seconds_of(tmp_path, metrics) == 32.0


@pytest.mark.parametrize(
  "budget", [{"hours": -1.0}, {"epochs": math.nan}, {"patience": -3}]
)
def test_a_number_that_is_no_budget_is_one_line(budget):
  (name,) = budget
  with pytest.raises(ValueError, match=f"search.{name} is .*: give 0") as error:
    budgets.check(budgets.BudgetSettings(**budget))
  assert "\n" not in str(error.value)


def test_budgets_come_from_the_config_and_older_ones_have_none(harness):
  config = harness.tiny_config()
  config.search.hours, config.search.patience = 2, 30
  settings = search_config.round_settings(config)
  assert settings.budget == (2.0, 0.0, 30)
  with config.unlocked():
    for name in settings.budget._fields:
      del config.search[name]
  assert search_config.round_settings(config).budget == budgets.OFF


def test_the_final_stage_is_expected_from_measured_updates(harness):
  config = harness.tiny_config()
  space = search_config.get_space(config)
  images = search_config.load_images(config)
  aug = job_config.get_augmentation(config.data, images)
  settings = search_config.final_settings(config, 10, aug, space)
  child = {"id": 3, "decisions": [0] * len(space.num_choices), "macs": 100}
  seen = []
  measured = final_cost.measure(
    child,
    space,
    settings,
    datasets.on_device(images.train),
    lambda *now: seen.append(now),
  )
  assert 3 <= len(seen) <= 6 and seen[0][:2] == ("measure", 3)
  assert measured.first_seconds > measured.image_seconds > 0
  expect = functools.partial(
    final_cost.expected_seconds, settings=settings, num_train=150, num_valid=50
  )
  fixed = final_cost.Measured(7.0, 0.01, 100)
  one = expect(fixed, [child])
  twice = expect(fixed, [{**child, "macs": 200}])
  # Ranking: 2 epochs of 4 batches of 32, each followed by the validation
  # images; the last training: 2 epochs of all 200 images.
  work = 0.01 * (2 * 4 * 32 + 2 * 50 / 3 + 2 * 6 * 32)
  assert one == pytest.approx(1.1 * (work + 14.0))
  assert twice - one == pytest.approx(1.1 * work)


def test_no_child_without_a_result_needs_a_measurement():
  rows = _rows([None] * 4)
  made = final.FinalSettings(2, None, None, None, None, 0)
  seconds = final_cost.FinalSeconds(None, made, None, _Clock(0.0), None)
  assert seconds(rows) == 0.0
