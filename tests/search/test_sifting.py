"""Scores in the history; strategies of whose proposals a part is trained."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import controllers
from nasnet_jax.controllers import base
from nasnet_jax.jobs import job_config
from nasnet_jax.population import child_scores, evaluation
from nasnet_jax.search import (
  asynchronous,
  limits,
  rounds,
  scoring,
  search_config,
  sifting,
)
from nasnet_jax.training import stop

SPACE = (3, 4, 3, 4)
SETTINGS = rounds.RoundSettings(12, 4, 5)
RNG = jax.random.key(1)


@pytest.fixture
def evaluator(harness):
  """Accuracy is the sum of the decisions; "synflow" the same and less a bit of
  the seed. Counts what it trains and scores."""

  class Evaluator(harness.FakeEvaluator):
    score_names = ("synflow",)
    trained, scored = 0, 0

    def score(self, decisions, seeds):
      self.scored += len(seeds)
      rows = zip(decisions, seeds, strict=True)
      return [{"synflow": int(np.sum(d)) - s / 2**32} for d, s in rows]

    def evaluate(self, decisions, seeds, budgets, progress=None):
      if progress:
        progress(0.0, "")
      self.trained += len(seeds)
      return [
        evaluation.Outcome(np.sum(d) / 10, 0, 1, 0.0, 10 * int(np.sum(d)), 1)
        for d in decisions
      ]

  return Evaluator()


def _sifted(
  evaluator,
  score="synflow",
  times=5,
  limit=limits.OFF,
  strategy="random_search",
):
  controller = controllers.make(strategy, SPACE)
  judge = sifting.judge(evaluator, score, SETTINGS.seed, limit)
  return sifting.sifted(controller, times, judge)


def _lines(folder):
  found = {}
  for name in (rounds.HISTORY, rounds.JOURNAL):
    lines = (folder / name).read_text().splitlines()
    found[name] = [{**json.loads(line), "seconds": 0} for line in lines]
  return found


def test_the_best_of_so_many_times_as_many_proposals_are_trained(
  evaluator, tmp_path
):
  rows = rounds.run(tmp_path, _sifted(evaluator), evaluator, SETTINGS)
  assert (len(rows), evaluator.trained, evaluator.scored) == (12, 12, 60)
  plain = controllers.make("random_search", SPACE)
  rng = jax.random.fold_in(jax.random.key(SETTINGS.seed), 0)
  first, _ = plain.ask(plain.init(rng), rng, 20)
  seeds = [rounds.child_seed(SETTINGS.seed, child) for child in range(20)]
  scores = evaluator.score(first.decisions, seeds)
  best = np.argsort([-row["synflow"] for row in scores])[:4]
  assert [row["id"] for row in rows[:4]] == sorted(best)
  for row in rows[:4]:
    assert row["decisions"] == first.decisions[row["id"]].tolist()


def test_a_strategy_is_told_that_the_others_failed_and_nothing_else(evaluator):
  told = []
  plain = controllers.make("random_search", SPACE)

  def tell(state, proposals, rewards, status):
    told.append((proposals.id, rewards, status))
    return plain.tell(state, proposals, rewards, status)

  judge = sifting.judge(evaluator, "synflow", 0, limits.OFF)
  controller = sifting.sifted(plain._replace(tell=tell), 3, judge)
  rng = jax.random.key(0)
  proposals, _ = controller.ask(controller.init(rng), rng, 2)
  ((ids, rewards, status),) = told
  assert sorted([*ids, *proposals.id]) == list(range(6))
  assert len(proposals) == 2
  assert np.isnan(rewards).all() and (status == base.FAILED).all()
  told.clear()
  nobody, _ = controller.ask(controller.init(rng), rng, 0)
  assert not len(nobody) and not told


@pytest.mark.parametrize("strategy", ["evolution", "local_search"])
def test_a_sifted_search_that_was_stopped_ends_the_same(
  evaluator, tmp_path, strategy
):
  def run(folder, progress=None):
    folder.mkdir(exist_ok=True)
    controller = _sifted(evaluator, strategy=strategy)
    return rounds.run(
      folder, controller, evaluator, SETTINGS, progress=progress
    )

  def stops(*_):
    nonlocal left
    left -= 1
    if left < 0:
      raise stop.Stopped(15)

  run(tmp_path / "whole")
  for left in (0, 1, 2):
    folder = tmp_path / f"stopped{left}"
    with pytest.raises(stop.Stopped):
      run(folder, stops)
    run(folder)
    assert _lines(folder) == _lines(tmp_path / "whole")


def test_costs_sift_too_and_whoever_is_over_a_limit_comes_last(
  evaluator, tmp_path
):
  (tmp_path / "free").mkdir()
  free = rounds.run(
    tmp_path / "free", _sifted(evaluator, "params"), evaluator, SETTINGS
  )
  assert not evaluator.scored
  most = max(row["params"] for row in free)
  limit = limits.LimitSettings(params=most - 1)
  (tmp_path / "limited").mkdir()
  rows = rounds.run(
    tmp_path / "limited",
    _sifted(evaluator, "params", limit=limit),
    evaluator,
    SETTINGS._replace(limit=limit),
  )
  assert {row["status"] for row in rows} == {"ok"}
  assert max(row["params"] for row in rows) <= most - 1


def test_scores_that_are_not_finite_come_last_and_of_equal_ones_the_first():
  scores = np.array([np.nan, 1.0, -np.inf, 2.0, 1.0, np.nan])
  assert np.flatnonzero(sifting.best(scores, 2)).tolist() == [1, 3]
  assert np.flatnonzero(sifting.best(scores, 5)).tolist() == [0, 1, 2, 3, 4]


def test_the_history_has_a_childs_scores_and_they_outlast_a_kill(
  harness, tmp_path
):
  class Evaluator(harness.FakeEvaluator):
    def evaluate(self, *arguments):
      return [
        o._replace(scores={"snip": 0.1 + i, "synflow": None})
        for i, o in enumerate(super().evaluate(*arguments))
      ]

  controller = controllers.make("random_search", SPACE)
  rows = rounds.run(tmp_path, controller, Evaluator(), SETTINGS)
  assert [row["scores"]["snip"] for row in rows[:2]] == [0.1, 1.1]
  assert rows[0]["scores"]["synflow"] is None
  (tmp_path / "plain").mkdir()
  plain = rounds.run(
    tmp_path / "plain", controller, harness.FakeEvaluator(), SETTINGS
  )
  assert not any("scores" in row for row in plain)
  # What a process that is killed leaves of its round.
  outcome = Evaluator().evaluate(np.zeros((1, 4)), [1], [1.0], None)[0]
  pending = types.SimpleNamespace(id=np.array([3]))
  rounds._note(tmp_path / rounds.ROUND, [(3, outcome)])
  assert rounds._answered(tmp_path, pending)[3] == outcome


def test_a_population_scores_its_children_by_their_own_seeds(
  harness, tmp_path, monkeypatch
):
  def measure(self, genotype, seed, which, data):
    assert data.labels.shape == (8,)
    return {"snip": jnp.where(which, seed.astype(jnp.float32), 0.0)}

  monkeypatch.setattr(child_scores.ChildScores, "_measure", measure)
  config = harness.tiny_config()
  config.mesh.arch, config.child.width, config.child.epochs = 1, 3, 1
  config.search.scores, config.search.score_images = ("snip",), 8
  space = search_config.get_space(config)
  images = search_config.load_images(config)
  aug = job_config.get_augmentation(config.data, images)
  population = search_config.get_evaluator(config, space, images, aug)
  scoring.check_evaluator(config, population)
  population._scores.compile("the program of a test")
  harness.FakeTraining(population)
  controller = controllers.make("random_search", space)
  for kind in ("rounds", "asynchronous"):
    folder = tmp_path / kind
    folder.mkdir()
    run = {"rounds": rounds.run, "asynchronous": asynchronous.run}[kind]
    rows = run(folder, controller, population, SETTINGS)
    assert len(rows) == 12
    for row in rows:
      assert row["scores"] == {"snip": float(np.float32(row["seed"]))}
  judge = sifting.judge(population, "snip", SETTINGS.seed, limits.OFF)
  proposals, _ = controller.ask(controller.init(jax.random.key(0)), RNG, 5)
  seeds = [rounds.child_seed(SETTINGS.seed, child) for child in range(5)]
  assert judge(proposals).tolist() == np.float32(seeds).tolist()


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"scores": ("synfow",)}, r"'synfow'; did you mean 'synflow'\?"),
    ({"scores": ("params",)}, "every child has in its line anyway"),
    ({"scores": ("snip",), "score_images": 1}, "score_images is 1: give 2"),
    ({"scores": ("snip",), "weights": "shared"}, "of a child's own"),
    ({"prefilter": -1}, "prefilter is -1"),
    ({"prefilter": 10, "prefilter_score": "flops"}, "grad_norm.*params, macs"),
    ({"prefilter": 10, "controller": "genetic"}, "whole generations"),
    ({"prefilter": 10, "controller": "progressive"}, "its predictor"),
  ],
)
def test_what_cannot_be_is_one_line(harness, fields, words):
  config = harness.tiny_config()
  config.search.update(fields)
  space = search_config.get_space(config)
  with pytest.raises(ValueError, match=words) as caught:
    scoring.settings(config, space)
  assert "\n" not in str(caught.value)


def test_an_evaluator_without_networks_is_refused_in_a_line(harness):
  config = harness.tiny_config()
  scoring.check_evaluator(config, object())
  config.search.prefilter = 10
  assert scoring.settings(config).names == ("synflow",)
  with pytest.raises(ValueError, match="makes no networks"):
    scoring.check_evaluator(config, harness.FakeEvaluator())
  config.search.prefilter_score = "params"
  assert scoring.settings(config).names == ()
  scoring.check_evaluator(config, harness.FakeEvaluator())
  with pytest.raises(ValueError, match="counts no costs"):
    scoring.check_evaluator(config, object())


def test_fields_that_mean_nothing_are_told(harness, caplog):
  config = harness.tiny_config()
  scoring.tell(config)
  assert not caplog.records
  config.search.prefilter_score = "macs"
  config.search.score_images = 32
  scoring.tell(config)
  assert "prefilter_score is not used" in caplog.text
  assert "score_images is not used" in caplog.text
  caplog.clear()
  config.search.prefilter = 4
  config.search.scores = ("snip",)
  with caplog.at_level("INFO"):
    scoring.tell(config)
  assert "of 4 times as many proposals those of most macs" in caplog.text
  assert "not used" not in caplog.text


def test_a_forecast_says_that_it_does_not_count_scores(harness, caplog):
  config = harness.tiny_config()
  space = search_config.get_space(config)
  scoring.tell_uncounted(config, space)
  assert not caplog.records
  config.search.prefilter = 4
  scoring.tell_uncounted(config, space)
  assert (
    "scores (synflow) are measured by a program of their own" in caplog.text
  )
