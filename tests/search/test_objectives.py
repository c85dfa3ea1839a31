"""A search of several objectives: what it is told, keeps and retrains."""

import json
import logging
import shutil

import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax import controllers, search
from nasnet_jax.controllers import base, journal
from nasnet_jax.search import (
  ending,
  final,
  front,
  job,
  limits,
  objectives,
  rounds,
  search_config,
  start_from,
)
from nasnet_jax.training import evaluation

NAMES = ("accuracy", "-params", "-macs")
OPTIONS = {"population": 6, "sample": 3, "pareto": True}
SPACE = (3, 3, 4, 4)


@pytest.fixture
def sized(harness):
  """An evaluator of children of different sizes, some of which fail."""

  class Sized(harness.FakeEvaluator):
    def evaluate(self, decisions, seeds, budgets, progress=None):
      found = super().evaluate(decisions, seeds, budgets, progress)
      return [
        o._replace(params=100 + 10 * int(np.sum(d)), macs=900 + int(d[0]))
        for o, d in zip(found, decisions)
      ]

  return Sized()


def _settings(children=40, names=NAMES, **more):
  reward = objectives.make(names)
  return rounds.RoundSettings(children, 5, 0, reward, **more)


def _controller(names=NAMES):
  count = len(names)
  return controllers.make("evolution", SPACE, objectives=count, **OPTIONS)


def _config(harness, **fields):
  config = harness.tiny_config()
  config.search.controller = "evolution"
  config.search.controller_options.evolution.pareto = True
  config.search.objectives = NAMES
  config.unlock()
  config.update_from_flattened_dict(
    {f"search.{name.replace('__', '.')}": v for name, v in fields.items()}
  )
  return config


def _read(config):
  space = search_config.get_space(config)
  search_config.get_controller(config, space)
  return search_config.round_settings(config)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (
      {"objectives": ("accuracy", "-parms")},
      "'-parms'; did you mean '-params'",
    ),
    ({"objectives": ("accuracy", "params")}, "less of it is better, so write"),
    ({"objectives": ("-accuracy", "-macs")}, "so write 'accuracy'"),
    ({"objectives": ("accuracy",)}, "give two or more"),
    ({"objectives": ("-params", "accuracy")}, "begin with 'accuracy'"),
    ({"objectives": ("accuracy", "-macs", "-macs")}, "has '-macs' twice"),
    ({"halving__eta": 3}, "set search.halving.eta to 0"),
    ({"reward__kind": "mnasnet_soft"}, "search.reward.kind 'mnasnet_soft'"),
    ({"controller": "ppo"}, "search.controller 'ppo' is told 1 of each"),
    (
      {"controller_options__evolution__pareto": False},
      "are 3, and search.controller 'evolution' is told 1 of each",
    ),
    ({"objectives": ()}, r"wants several .*search\.objectives names none"),
    ({"controller_options__evolution__ageing": False}, "ageing=False"),
  ],
)
def test_what_cannot_be_is_refused_in_a_line_before_children_are_trained(
  harness, fields, words
):
  with pytest.raises(ValueError, match=words) as error:
    _read(_config(harness, **fields))
  assert "\n" not in str(error.value)


def test_rewards_are_told_costs_negative_and_only_what_is_asked_is_counted(
  harness,
):
  config = _config(harness, objectives=("accuracy", "-latency", "-bytes"))
  reward = _read(config).reward
  costs = {"latency": 0.5, "bytes": 70, "params": 9}
  assert reward(0.9, costs) == (0.9, -0.5, -70)
  assert all(map(np.isnan, reward(np.nan, {})))  # failed: nothing was counted
  with pytest.raises(
    ValueError, match="'-latency', and this evaluator does not"
  ):
    reward(0.9, {"params": 9})
  counted = search_config.get_costs(config)
  assert (counted.also, counted.bytes) == ("latency", True)
  counted = search_config.get_costs(_config(harness))
  assert (counted.also, counted.bytes) == ("params", False)


def test_history_and_journal_have_all_rewards_by_name(sized, tmp_path):
  rows = rounds.run(tmp_path, _controller(), sized, _settings())
  told = [
    e for e in journal.read(tmp_path / "journal.jsonl") if hasattr(e, "id")
  ]
  rewards = np.concatenate([event.rewards for event in told])
  assert rewards.shape == (40, 3)
  assert {row["status"] for row in rows} == {"ok", "failed"}
  for row, reward in zip(rows, rewards):
    if row["status"] == "failed":
      assert np.isnan(reward).all()
      assert row["objectives"] == dict.fromkeys(NAMES)
      assert row["reward"] is None
    else:
      values = [row["accuracy"], -row["params"], -row["macs"]]
      np.testing.assert_array_equal(reward, np.float32(values))
      assert row["objectives"] == dict(zip(NAMES, reward.tolist()))
      assert row["reward"] == row["objectives"]["accuracy"]


def test_a_search_of_one_reward_has_no_word_of_objectives(sized, tmp_path):
  controller = controllers.make("evolution", SPACE, population=6, sample=3)
  rows = rounds.run(tmp_path, controller, sized, rounds.RoundSettings(9, 3, 0))
  assert not any("objectives" in row for row in rows)
  assert not front.has_one(rows)


@pytest.mark.parametrize("lost", [(), ("checkpoints",)])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(
  sized, tmp_path, lost
):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  for folder in (whole, broken):
    folder.mkdir()
  rounds.run(whole, _controller(), sized, _settings())
  calls = 0

  def stop(share, words):
    nonlocal calls
    calls += 1
    if calls % 11 == 0:
      raise KeyboardInterrupt

  for _ in range(20):
    try:
      rounds.run(broken, _controller(), sized, _settings(), progress=stop)
      break
    except KeyboardInterrupt:
      for name in lost:
        shutil.rmtree(broken / name, ignore_errors=True)
  for name in ("history", "journal"):
    files = [(f / f"{name}.jsonl").read_bytes() for f in (whole, broken)]
    assert files[0] == files[1]
  assert calls > 20


def test_a_child_over_a_limit_has_no_rewards(sized, tmp_path):
  settings = _settings(limit=limits.LimitSettings(params=60))
  rows = rounds.run(tmp_path, _controller(), sized, settings)
  over = [row for row in rows if row["status"] == "over_limit"]
  assert over and all(not any(r["objectives"].values()) for r in over)
  assert all(m.row["status"] == "ok" for m in front.of(rows))


def _row(child, accuracy, params, status="ok"):
  values = {"accuracy": accuracy, "-params": -params}
  return {
    "id": child,
    "status": status,
    "steps": 10,
    "reward": accuracy if status == "ok" else None,
    "objectives": values if status == "ok" else dict.fromkeys(values),
  }


ROWS = [
  _row(0, 0.5, 10),
  _row(1, 0.9, 100),
  _row(2, 0.6, 50),
  _row(3, 0.85, 20),
  _row(4, 0.87, 60),
  _row(5, 0.4, 30),  # beaten
  _row(6, 0.85, 20),  # as good as 3, and later
  _row(7, 0.99, 1, "failed"),
]


def test_the_final_stage_takes_the_best_the_knee_and_the_other_ends():
  def top(k):
    return [row["id"] for row in final.top_children(ROWS[::-1], None, k)]

  assert top(3) == [1, 3, 0]
  assert top(9) == [1, 3, 0, 4]  # 2 is beaten by 3
  assert [front.words(m) for m in front.of(ROWS)] == [
    "most accuracy",
    "the knee",
    "least params",
    "between",
  ]
  assert front.summary(ROWS) == {
    "objectives": ["accuracy", "-params"],
    "children": [1, 3, 0, 4],
    "ends": {"accuracy": 1, "-params": 0},
    "knee": 3,
  }
  assert front.of(ROWS[-1:]) == []


def test_the_result_names_the_front_and_its_retrained_children(
  harness, sized, tmp_path, monkeypatch, caplog
):
  """Trainings are made up."""
  caplog.set_level(logging.INFO, "nasnet_jax")
  config = _config(harness, children=20, objectives=("accuracy", "-params"))
  config.final.top_k = 3

  def train(
    folder, key, network, recipe, aug, images, seed, *, valid=None, **_
  ):
    return None, evaluation.Score(7, 50) if valid else None

  monkeypatch.setattr(final.resumable, "train", train)
  monkeypatch.setattr(
    ending.evaluation,
    "make_evaluate",
    lambda *_, **__: lambda variables, images: evaluation.Score(7, 200),
  )
  weights = {"params": {"kernel": np.zeros(3, np.float32)}}
  monkeypatch.setattr(job.fit, "variables_of", lambda state: weights)
  result = search.run(config, tmp_path, make_evaluator=lambda *_: sized)
  rows = [json.loads(r) for r in (tmp_path / "history.jsonl").open()]
  members = front.of(rows)
  assert result["front"] == front.summary(rows)
  words = {row["id"]: row["on_front"] for row in result["top_k"]}
  assert words == {m.row["id"]: front.words(m) for m in members[:3]}
  assert f"{len(members)} children on the front: child" in caplog.text
  # The same folder under one objective more is another search.
  config.search.objectives = NAMES
  with pytest.raises(ValueError, match="told the old ones"):
    search.run(config, tmp_path, make_evaluator=lambda *_: sized)


def test_it_learns_from_another_search_of_the_same_objectives(sized, tmp_path):
  rows = rounds.run(tmp_path, _controller(), sized, _settings())
  known = [row for row in rows if row["reward"] is not None]
  two = ("accuracy", "-macs")
  controller = start_from.teach(_controller(two), "evolution", known, two)
  assert controller.objectives == 2
  state = controller.init(base.jax.random.key(0))
  told = {tuple(row["objectives"][n] for n in two) for row in known}
  assert {tuple(row) for row in state.rewards.tolist()} <= told
  assert int(state.born) == OPTIONS["population"]
  with pytest.raises(ValueError, match="has '-bytes', and children there were"):
    names = ("accuracy", "-bytes")
    start_from.teach(_controller(names), "evolution", known, names)
  with pytest.raises(ValueError, match="rewarded by reward only"):
    one = [{"decisions": [0, 0, 0, 0], "reward": 0.5}]
    start_from.teach(_controller(two), "evolution", one, two)


def test_where_a_child_has_one_reward_pareto_is_refused(tmp_path):
  with pytest.raises(ValueError, match="and a study is told one"):
    nas.Study(tmp_path / "x", space=SPACE, strategy="evolution", pareto=True)
  assert not (tmp_path / "x" / "config.json").exists()


def test_a_strategy_of_several_rewards_of_ones_own_is_checked(monkeypatch):
  def two(space):
    return controllers.evolution.evolution(space, pareto=True)

  monkeypatch.setitem(controllers.CONTROLLERS, "two", two)
  assert "children asked and told" in nas.check("two")
