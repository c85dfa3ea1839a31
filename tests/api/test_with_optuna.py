"""Our strategies as samplers of Optuna, and the other way about."""

import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax.api import parts
from nasnet_jax.controllers import CONTROLLERS
from nasnet_jax.training import own_parts

optuna = pytest.importorskip("optuna")
CHOICES = {
  "width": [8, 16, 32],
  "op": ["conv", "pool", "id"],
  "depth": range(4),
}
SIZES = [3, 3, 4]
OPTIONS = {
  "evolution": {"population": 4, "sample": 2},
  "local_search": {},
  "predictor_search": {"first": 3, "steps": 2},
}


@pytest.fixture(autouse=True)
def _around():
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  yield
  for name in {*CONTROLLERS} - parts.OURS["strategy"]:
    del CONTROLLERS[name]
  own_parts.forget()


def _reward(row) -> float:
  return sum(row) / 7


def _row(params) -> list[int]:
  return [list(CHOICES[name]).index(params[name]) for name in CHOICES]


def _objective(trial) -> float:
  trial.suggest_int("width", 8, 32)
  trial.suggest_categorical("op", CHOICES["op"])
  trial.suggest_float("depth", 0.0, 3.0)
  return _reward(_row(trial.params))


def _study(sampler, direction="maximize"):
  return optuna.create_study(direction=direction, sampler=sampler)


@pytest.mark.parametrize("strategy", OPTIONS)
def test_a_sampler_proposes_what_the_strategy_does(tmp_path, strategy):
  sampler = nas.optuna_sampler(CHOICES, strategy, seed=3, **OPTIONS[strategy])
  study = _study(sampler)
  study.optimize(_objective, n_trials=12)
  ours = nas.Study(
    tmp_path, space=SIZES, strategy=strategy, seed=3, **OPTIONS[strategy]
  ).run(lambda child: _reward(child.decisions), children=12)
  rows = [_row(trial.params) for trial in study.trials]
  assert rows == [row["decisions"] for row in ours.children]
  assert study.best_value == pytest.approx(ours.best()[0]["reward"])


def test_another_process_goes_on_as_if_it_were_the_same():
  options = OPTIONS["evolution"]
  whole = _study(nas.optuna_sampler(CHOICES, **options))
  whole.optimize(_objective, n_trials=10)
  part = _study(nas.optuna_sampler(CHOICES, **options))
  part.optimize(_objective, n_trials=5)
  part.sampler = nas.optuna_sampler(CHOICES, **options)
  part.optimize(_objective, n_trials=5)
  assert [t.params for t in part.trials] == [t.params for t in whole.trials]


def test_the_least_is_the_best_where_it_is_minimised():
  options = {"population": 1, "sample": 1, "identity": 1.0}
  study = _study(nas.optuna_sampler(CHOICES, **options), "minimize")
  study.optimize(lambda trial: -_objective(trial), n_trials=4)
  # A population of one whose children are copies: all are as the first one.
  assert len({trial.value for trial in study.trials}) == 1
  most = _study(nas.optuna_sampler(CHOICES, seed=1, **OPTIONS["evolution"]))
  most.optimize(_objective, n_trials=12)
  least = _study(
    nas.optuna_sampler(CHOICES, seed=1, **OPTIONS["evolution"]), "minimize"
  )
  least.optimize(lambda trial: -_objective(trial), n_trials=12)
  assert [t.params for t in least.trials] == [t.params for t in most.trials]


def test_trials_that_failed_or_were_enqueued_teach_nothing():
  options = {"population": 1, "sample": 1, "identity": 1.0}
  study = _study(nas.optuna_sampler(CHOICES, **options))
  study.enqueue_trial({"width": 32, "op": "id", "depth": 3})
  study.optimize(_objective, n_trials=1)
  assert _row(study.trials[0].params) == [2, 2, 3]

  def failing(trial):
    _objective(trial)
    raise optuna.TrialPruned

  study.optimize(failing, n_trials=1)
  study.optimize(_objective, n_trials=3)
  later = [_row(t.params) for t in study.trials[2:]]
  assert later[1] == later[2] == later[0]  # bred from the first that counts
  assert later[0] != [2, 2, 3]


def test_what_the_sampler_cannot_choose_is_one_line():
  study = _study(nas.optuna_sampler({"width": [8, 16]}))
  with pytest.raises(
    ValueError, match="no choices for 'depth', only for width"
  ):
    study.optimize(lambda trial: trial.suggest_int("depth", 0, 3), n_trials=1)
  study = _study(nas.optuna_sampler({"width": [8, 16]}))
  with pytest.raises(ValueError, match="for 'width' is not in"):
    study.optimize(lambda trial: trial.suggest_int("width", 1, 3), n_trials=1)
  with pytest.raises(ValueError, match="one value or more"):
    nas.optuna_sampler({"width": []})
  with pytest.raises(ValueError, match="one direction"):
    optuna.create_study(
      directions=["maximize"] * 2, sampler=nas.optuna_sampler(CHOICES)
    ).ask()


@pytest.mark.parametrize(
  ("make", "options"),
  [
    (optuna.samplers.TPESampler, {}),
    (optuna.samplers.TPESampler, {"ordered": True}),
    (lambda seed: optuna.samplers.RandomSampler(seed), {"max_children": 4}),
  ],
)
def test_a_sampler_is_a_strategy_that_survives_a_process(
  tmp_path, make, options
):
  nas.optuna_strategy("theirs", make)
  assert "12 children" in nas.check("theirs")
  given = {"space": SIZES, "strategy": "theirs", **options}

  def reward(child):
    return None if child.id == 2 else _reward(child.decisions)

  nas.Study(tmp_path / "whole", **given).run(reward, children=14, at_once=2)
  study = nas.Study(tmp_path / "parts", **given)
  study.run(reward, children=6, at_once=2)
  study.close()
  nas.Study(tmp_path / "parts").run(reward, children=14, at_once=2)
  both = [
    (tmp_path / name / "journal.jsonl").read_text()
    for name in ("whole", "parts")
  ]
  assert both[0] == both[1]


def test_a_sampler_sees_all_children_that_there_were(tmp_path):
  # It proposes what no trial has had yet, until nothing is left.
  nas.optuna_strategy("all", optuna.samplers.BruteForceSampler)
  other = nas.Study(tmp_path / "a", space=SIZES, strategy="all")
  other.run(lambda child: _reward(child.decisions), children=20, at_once=4)
  study = nas.Study(
    tmp_path / "b", space=SIZES, strategy="all", start_from=other
  )
  study.run(lambda child: _reward(child.decisions), children=16)
  rows = [tuple(r["decisions"]) for s in (other, study) for r in s.children]
  assert len({*rows}) == np.prod(SIZES)
