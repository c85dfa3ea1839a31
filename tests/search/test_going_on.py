"""The same folder under another config: what was trained stays."""

import json
import shutil

import numpy as np
import pytest

from nasnet_jax import controllers, search
from nasnet_jax.jobs import kept_results, run_log
from nasnet_jax.search import ending, final, final_cost, job, rounds, run_clock
from nasnet_jax.training import evaluation, workdir

SETTINGS = rounds.RoundSettings(16, 4, 5)


def _lines(path):
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  return [{**row, "seconds": 0} for row in rows]


# Small settings of every strategy, that all of them learn from 8 children.
STRATEGIES = {
  "ppo": {"batch_size": 4, "hidden": 8},
  "reinforce": {"batch_size": 4, "hidden": 8},
  "evolution": {"population": 4, "sample": 2},
  "genetic": {"population": 4},
  "local_search": {"memory": 100},
  "random_search": {},
  "predictor_search": {
    "first": 4,
    "hidden": 8,
    "embedding": 4,
    "steps": 20,
    "pool": 64,
  },
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_eight_children_raised_to_sixteen_are_those_of_sixteen(
  harness, tmp_path, name
):
  """Of whole rounds: no strategy knows how many children are to come."""
  fake = harness.FakeEvaluator()

  def run(folder, children):
    folder.mkdir(exist_ok=True)
    controller = controllers.make(name, (2, 3, 3, 2, 4), **STRATEGIES[name])
    settings = SETTINGS._replace(children=children)
    return rounds.run(folder, controller, fake, settings)

  run(tmp_path / "whole", 16)
  first = 9 if name == "local_search" else 8  # which begins with one child
  assert len(run(tmp_path / "raised", first)) == first
  # As if the saved state were damaged, or of another version.
  shutil.rmtree(tmp_path / "raised" / "checkpoints")
  run(tmp_path / "raised", 16)
  for file in (rounds.HISTORY, rounds.JOURNAL):
    assert _lines(tmp_path / "raised" / file) == _lines(
      tmp_path / "whole" / file
    )


@pytest.mark.parametrize("eta", [0, 2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_children_that_were_trained_stay_bit_for_bit(
  harness, tmp_path, eta, asynchronous
):
  from nasnet_jax.search import asynchronous as without_rounds
  from nasnet_jax.search import halving

  settings = SETTINGS._replace(
    halving=halving.HalvingSettings(eta), asynchronous=asynchronous
  )
  run = without_rounds.run if asynchronous else rounds.run

  def to(children):
    evaluator = harness.fake_evaluator()
    controller = controllers.make(
      "ppo", evaluator.space, batch_size=4, hidden=8
    )
    return run(
      tmp_path,
      harness.with_budgets(controller),
      evaluator,
      settings._replace(children=children),
    )

  first = to(7)
  before = _lines(tmp_path / rounds.HISTORY)
  assert to(3) == first  # fewer: those that there are
  assert len(to(15)) == 15
  assert _lines(tmp_path / rounds.HISTORY)[:7] == before


@pytest.fixture
def claim(harness, tmp_path):
  """claim(**changes) -> the folder, claimed by a config with these changes."""

  class Images:
    fingerprint, split = "f", "plain"

  def make(changes=()):
    config = harness.tiny_config()
    config.update_from_flattened_dict(dict(changes))
    job._claim(tmp_path, config, Images)
    return tmp_path

  return make


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("child.epochs", 2, r"child.epochs was 1 and is now 2 \(the learning rate"),
    ("child.batch_size", 8, r"was 32 and is now 8 \(children of before would"),
    ("search.seed", 3, r"search.seed was 0 and is now 3 \(every child there"),
    ("search.controller", "evolution", r"\(a strategy goes on from its own"),
    ("search.halving.eta", 2, r"eta was 0 and is now 2 \(the children there"),
    ("data.seed", 1, r"data.seed was 0 and is now 1 \(children of before"),
  ],
)
def test_what_cannot_change_says_why_in_a_line(claim, field, value, words):
  claim()
  with pytest.raises(workdir.WorkdirError, match=words) as error:
    claim({field: value})
  assert "\n" not in str(error.value)


def _put_result(folder, **result):
  (folder / "final" / "weights").mkdir(parents=True)
  (folder / "final" / "weights" / "w").write_text("old")
  (folder / "checkpoints" / "rank_1").mkdir(parents=True)
  (folder / "checkpoints" / "final_1").mkdir()
  workdir.write_json(
    folder / "result.json", {"cost": {"children": 12}, **result}
  )
  rows = [{"stage": "rank", "id": 1}, {"stage": "final", "id": 1}]
  workdir.append_lines(folder / "retrain.jsonl", rows)
  workdir.append_lines(folder / "ranking.jsonl", [{"id": 1}])
  workdir.write_json(folder / "test_answers.json", {"of": "old"})


@pytest.mark.parametrize(
  ("changes", "kept", "stages", "ranked"),
  [
    ({"log.seconds": 3.0}, False, ["rank", "final"], True),
    ({"search.children": 24}, True, ["rank", "final"], True),
    ({"search.children": 6}, False, ["rank", "final"], True),
    ({"search.patience": 6}, False, ["rank", "final"], True),
    ({"final.now": True}, False, ["rank", "final"], True),
    ({"final.top_k": 7}, True, ["rank", "final"], True),
    ({"final.epochs": 7}, True, ["rank"], True),
    ({"final.rank_epochs": 7}, True, ["final"], False),
    ({"final.learning_rate": 0.5}, True, [], False),
    ({"final.network.features": 2}, True, [], False),
  ],
)
def test_what_another_config_does_not_mean_is_put_away(
  claim, changes, kept, stages, ranked
):
  folder = claim()
  _put_result(folder)
  claim(changes)
  assert (folder / "result.1.json").exists() == kept
  assert (folder / "result.json").exists() != kept
  if kept:
    assert (folder / "final.1" / "weights" / "w").read_text() == "old"
    assert len(_lines(folder / "retrain.1.jsonl")) == 2
    assert (folder / "test_answers.1.json").exists()
  assert (folder / "test_answers.json").exists() != kept
  assert [row["stage"] for row in _lines(folder / "retrain.jsonl")] == stages
  assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == sorted(
    f"{stage}_1" for stage in stages
  )
  assert (folder / "ranking.jsonl").exists() == ranked
  # The config is the new one now, and nothing more happens.
  claim(changes)
  assert not (folder / "result.2.json").exists()


def test_an_end_before_the_last_child_is_not_the_end_under_another_budget(
  claim,
):
  folder = claim({"search.children": 24, "search.patience": 3})
  _put_result(folder, ended_by="search.patience")
  claim({"search.children": 24})
  assert (folder / "result.1.json").exists()


def test_a_kill_while_a_result_is_put_away_loses_nothing(claim, monkeypatch):
  folder = claim()
  _put_result(folder)
  replace = kept_results.os.replace

  def dies(source, target):
    if str(source).endswith("result.json"):
      raise KeyboardInterrupt
    replace(source, target)

  monkeypatch.setattr(kept_results.os, "replace", dies)
  with pytest.raises(KeyboardInterrupt):
    claim({"search.children": 24})
  monkeypatch.undo()
  # Whole for whoever goes back, and for whoever goes on.
  assert (folder / "result.json").exists()
  assert (folder / "final" / "weights" / "w").exists()
  claim({"search.children": 24})
  assert (folder / "result.1.json").exists()
  assert (folder / "final.1" / "weights" / "w").exists()


@pytest.fixture
def run(harness, tmp_path, monkeypatch):
  """run(callbacks=(), **fields) -> result.json of a search in `run.folder`,
  whose final stage trains nothing; `run.trained` has what it would have."""
  config, trained = harness.tiny_config(), []
  config.search.controller = "random_search"  # compiles nothing

  def train(folder, key, *_, valid=None, watch=None, **__):
    trained.append((key["stage"], key["id"]))
    row = {**key, "step": 4, "epoch": 1.0, "loss": 0.5, "accuracy": 0.5}
    row |= {"valid_accuracy": None, "seconds": 1.0}
    workdir.append_lines(folder / "retrain.jsonl", [row])
    watch.point(row)
    return None, evaluation.Score(key["id"] * 7 % 50, 50) if valid else None

  def make_evaluate(*_, **__):
    return lambda _, images: evaluation.Score(7, images.num_images)

  monkeypatch.setattr(final.resumable, "train", train)
  monkeypatch.setattr(ending.evaluation, "make_evaluate", make_evaluate)
  weights = {"params": {"kernel": np.zeros(3, np.float32)}}
  monkeypatch.setattr(ending.fit, "variables_of", lambda state: weights)
  monkeypatch.setattr(
    job.report, "write_report", lambda run: (run / "report.html").touch()
  )

  def make(callbacks=(), **fields):
    trained.clear()
    config.update_from_flattened_dict(
      {name.replace("__", "."): value for name, value in fields.items()}
    )
    return search.run(
      config,
      make.folder,
      callbacks=callbacks,
      make_evaluator=harness.make_fake,
    )

  make.folder, make.trained = tmp_path / "run", trained
  return make


def test_a_finished_search_goes_on_to_more_children_and_another_end(
  run, caplog
):
  caplog.set_level("INFO", "nasnet_jax")
  told = []

  class Callback:
    def on_start(self, where, config):
      told.append((where, config["search"]["children"]))

    def on_round(self, rows):
      told.append([row["id"] for row in rows])

    def on_epoch(self, row):
      raise RuntimeError("no\nconnection")

    def on_end(self, result):
      told.append(result["cost"]["children"])

  first = run()
  assert run.trained == [
    *(("rank", row["id"]) for row in sorted(first["top_k"], key=_place(run))),
    ("final", first["winner"]["id"]),
  ]
  folder, before = run.folder, _lines(run.folder / rounds.HISTORY)
  ranked = {row["id"] for row in first["top_k"]}
  seconds = run_clock.RunClock(folder).seconds
  caplog.clear()
  result = run([Callback()], search__children=15)
  assert "goes on with 12 of 15 children" in caplog.text
  assert "kept as result.1.json" in caplog.text
  assert told == [(folder, 15), [12, 13, 14], 15]
  assert caplog.text.count("RuntimeError: no connection; the run goes on") == (
    1 if run.trained else 0
  )
  assert _lines(folder / rounds.HISTORY)[:12] == before
  assert json.loads((folder / "result.1.json").read_text()) == first
  assert run_clock.RunClock(folder).seconds > seconds
  # Only who had not been ranked is; a winner that wins again is not trained.
  fresh = {row["id"] for row in result["top_k"]} - ranked
  assert {child for stage, child in run.trained if stage == "rank"} == fresh
  again = result["winner"]["id"] == first["winner"]["id"]
  assert (("final", result["winner"]["id"]) not in run.trained) == again
  assert ("see result.1.json" in caplog.text) == again
  # The history has the child's size, the ranking the final network's.
  size = result["winner"]["child_params"], result["winner"]["params"]
  assert size[0] == 100 and size[1] == result["top_k"][0]["params"] != 100
  assert run(search__children=15) == result and run.trained == []
  run(final__epochs=9)
  assert run.trained == [("final", result["winner"]["id"])]
  last = run(final__epochs=2)  # as at first, so nothing is trained
  assert run.trained == [] and last["winner"] == result["winner"]
  assert len(list(folder.glob("result.*.json"))) == 3
  curve = [(r["stage"], r["id"]) for r in _lines(folder / "retrain.jsonl")]
  assert curve.count(("final", last["winner"]["id"])) == 1
  assert [stage for stage, _ in curve].count("final") == 1
  assert (folder / "final" / "weights").exists()


def _place(run):
  """Ranked children are trained in the order of their rewards."""
  return lambda row: (-row["reward"], row["id"])


def test_a_search_whose_time_is_up_goes_on_with_more_of_it(run, monkeypatch):
  monkeypatch.setattr(
    final_cost,
    "measure",
    lambda *_: final_cost.Measured(100.0, 0.0, 1),  # per training, and no more
  )
  result = run(search__hours=1 / 3600)
  assert (result["ended_by"], result["cost"]["children"]) == ("search.hours", 3)
  assert run(search__hours=1 / 3600) == result
  result = run(search__hours=0.0)
  assert "ended_by" not in result and result["cost"]["children"] == 12


def test_a_search_that_is_ended_now_has_a_winner_and_may_go_on(run, caplog):
  caplog.set_level("INFO", "nasnet_jax")
  whole, folder = run(), run.folder
  history = _lines(folder / rounds.HISTORY)
  # As if it had been stopped while its third round trained.
  (folder / "result.json").unlink()
  for name, count in ((rounds.HISTORY, 6), (rounds.JOURNAL, 5)):
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(lines[:count]))
  config = run_log.read_config(folder)
  assert config.space.operations == ("identity", "avg_pool_3x3")
  result = run(final__now=True)
  assert "out of the 6 of 12 children there are, 3 under way are" in caplog.text
  assert (result["ended_by"], result["cost"]["children"]) == ("final.now", 6)
  assert {row["id"] for row in result["top_k"]} < set(range(6))
  again = run(final__now=False)
  assert "goes on with 6 of 12 children" in caplog.text
  assert "ended_by" not in again
  assert _lines(folder / rounds.HISTORY) == history
  assert json.loads((folder / "result.1.json").read_text()) == result
  assert again["winner"] == whole["winner"]


def test_without_a_finished_child_none_can_win(harness, tmp_path):
  class Parts:
    controller = controllers.make("random_search", (2, 3))
    rounds = SETTINGS

  with pytest.raises(ValueError, match="has no finished round of children yet"):
    job._rows_there_are(tmp_path, Parts)
