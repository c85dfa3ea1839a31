"""Children over a limit: never trained, counted, and nobody waits for them."""

import json

import numpy as np
import pytest

from nasnet_jax import controllers
from nasnet_jax.controllers import base
from nasnet_jax.population import evaluation
from nasnet_jax.search import (
  asynchronous,
  budgets,
  halving,
  limits,
  rounds,
  search_config,
)
from nasnet_jax.training import stop

SETTINGS = rounds.RoundSettings(24, 4, 5)
KINDS = {
  "rounds": SETTINGS,
  "halving": SETTINGS._replace(halving=halving.HalvingSettings(2)),
  "asynchronous": SETTINGS._replace(asynchronous=True),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def _run(harness, folder, settings, progress=None):
  """(evaluator, rows); the fake population counts parameters for real."""
  folder.mkdir(exist_ok=True)
  evaluator = harness.fake_evaluator()
  controller = controllers.make("ppo", evaluator.space, batch_size=4, hidden=8)
  run = asynchronous.run if settings.asynchronous else rounds.run
  rows = run(
    folder,
    harness.with_budgets(controller),
    evaluator,
    settings,
    progress=progress,
  )
  return evaluator, rows


def _history(folder):
  lines = (folder / rounds.HISTORY).read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


@pytest.fixture(scope="module")
def limit(harness, tmp_path_factory):
  """One that about half of the first children are over."""
  _, rows = _run(harness, tmp_path_factory.mktemp("free"), SETTINGS)
  params = sorted(row["params"] for row in rows)
  assert params[11] < params[-1]
  return limits.LimitSettings(params=params[11])


@every_kind
def test_children_over_a_limit_are_counted_and_never_trained(
  harness, tmp_path, limit, kind
):
  settings = KINDS[kind]._replace(limit=limit)
  evaluator, rows = _run(harness, tmp_path, settings)
  assert len(rows) == 24
  over = [row for row in rows if row["status"] == "over_limit"]
  trained = [row for row in rows if row["status"] != "over_limit"]
  assert 4 < len(over) < 20
  assert all(row["params"] > limit.params for row in over)
  assert all(row["params"] <= limit.params for row in trained)
  assert {(r["steps"], r["reward"], r["accuracy"]) for r in over} == {
    (0, None, None)
  }
  assert evaluator.training.updates == sum(row["steps"] for row in trained)
  # Neither epochs nor patience count them.
  assert halving.spent(rows, 9) == halving.spent(trained, 9)
  patience = budgets.reproducible(budgets.BudgetSettings(patience=3), 9)
  assert patience([{**row, "round": 0} for row in over]) == ""


@every_kind
def test_a_search_with_a_limit_that_was_stopped_ends_the_same(
  harness, tmp_path, limit, kind
):
  settings, calls = KINDS[kind]._replace(limit=limit), []
  _run(harness, tmp_path / "whole", settings, lambda *_: calls.append(0))
  for share in (0.0, 0.3, 0.8):
    left = int(share * len(calls))

    def progress(*_):
      nonlocal left
      left -= 1
      if left < 0:
        raise stop.Stopped(15)

    folder = tmp_path / f"stopped{share}"
    with pytest.raises(stop.Stopped):
      _run(harness, folder, settings, progress)
    _run(harness, folder, settings)
    assert _history(folder) == _history(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["rounds", "asynchronous"])
def test_a_kill_between_the_ask_and_the_answers_over_a_limit_does_no_harm(
  harness, tmp_path, limit, kind, monkeypatch
):
  settings = KINDS[kind]._replace(limit=limit)
  _run(harness, tmp_path / "whole", settings)
  original, asked = limits.outcomes, []

  def outcomes(*arguments):
    found = original(*arguments)
    if found:
      asked.append(0)
      if len(asked) == 3:
        raise KeyboardInterrupt  # asked, and nothing told of it
    return found

  monkeypatch.setattr(limits, "outcomes", outcomes)
  with pytest.raises(KeyboardInterrupt):
    _run(harness, tmp_path / "killed", settings)
  _run(harness, tmp_path / "killed", settings)
  assert _history(tmp_path / "killed") == _history(tmp_path / "whole")


def test_a_limit_that_nothing_is_below_ends_the_search_and_names_the_least(
  harness, tmp_path
):
  limit = limits.LimitSettings(params=1, macs=7)
  settings = SETTINGS._replace(children=5000, limit=limit)
  controller = controllers.make("random_search", (2, 3, 3, 2))
  rows = rounds.run(tmp_path, controller, harness.FakeEvaluator(), settings)
  assert len(rows) == limits.HOPELESS
  words = limits.no_winner(limit, rows)
  assert words.startswith("200 of 200 children are over search.limit.params=1")
  assert "macs=7 (the least was 1000): none can win" in words
  assert "all 3 children failed" in limits.no_winner(
    limits.OFF, [{"status": "failed"}] * 3
  )


def test_without_a_limit_nothing_is_counted():
  def refuses(decisions):
    raise AssertionError

  evaluator = type("E", (), {"costs": staticmethod(refuses)})
  proposals = base.number(0, np.zeros((3, 2), np.int32))[0]
  assert limits.outcomes(limits.OFF, evaluator, proposals) == {}


def test_what_is_not_counted_cannot_be_limited():
  evaluator = type(
    "E",
    (),
    {"costs": staticmethod(lambda d: [{"params": 5, "macs": 1}] * len(d))},
  )
  proposals = base.number(0, np.zeros((3, 2), np.int32))[0]
  with pytest.raises(ValueError, match="does not count bytes: set it to 0"):
    limits.outcomes(limits.LimitSettings(bytes=9), evaluator, proposals)
  (found, *_) = limits.outcomes(
    limits.LimitSettings(params=4), evaluator, proposals
  ).values()
  assert (found.status, found.params) == (evaluation.OVER_LIMIT, 5)


def test_limits_come_from_the_config_and_bytes_are_then_counted(harness):
  config = harness.tiny_config()
  assert not search_config.get_costs(config).bytes
  config.search.limit.bytes = 10
  assert search_config.get_costs(config).bytes
  settings = search_config.round_settings(config)
  assert settings.limit == (0, 0, 10)
  with pytest.raises(ValueError, match="counts no costs before training"):
    search_config.check_evaluator(object(), settings)
  config.search.limit.macs = -1
  with pytest.raises(ValueError, match=r"search\.limit\.macs is -1: give 0"):
    search_config.round_settings(config)
