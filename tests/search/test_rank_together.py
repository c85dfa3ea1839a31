"""The final stage's ranking of all children in one program."""

import json

import pytest

from nasnet_jax.search import final as final_stage
from nasnet_jax.search import parts, rank_together, rounds, search_config
from nasnet_jax.training import recipes, stop


@pytest.fixture(scope="module")
def searched(harness, tmp_path_factory):
  """(parts, rows) of a tiny search whose final networks are children again."""
  config = harness.tiny_config()
  config.search.controller = "random_search"
  config.search.children, config.search.children_per_round = 3, 3
  config.mesh.arch = 2
  config.final.rank_together = True
  config.final.network.aux = True  # and left out of the ranking
  for field in ("learning_rate", "batch_size", "drop_path_keep", "clip_norm"):
    config.final[field] = config.child[field]
  config.final.network.init = config.child.init
  config.final.rank_epochs = config.child.epochs = 15
  made = parts.prepare(config, search_config.get_evaluator)
  folder = tmp_path_factory.mktemp("search")
  rows = rounds.run(folder, made.controller, made.evaluator, made.rounds)
  return made, rows


def _rank(folder, made, rows, watch=final_stage.Watch()):  # noqa: B008
  train, valid = made.images.train, made.images.valid
  return final_stage.rank(
    folder, rows, made.space, made.final, train, valid, watch
  )


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_child_with_the_final_recipe_is_as_good_as_in_the_search(
  searched, tmp_path, caplog
):
  made, rows = searched
  caplog.set_level("INFO")
  told = []
  watch = final_stage.Watch(lambda *tick: told.append(tick))
  ranking = _rank(tmp_path, made, rows, watch)
  assert "without the auxiliary head" in caplog.text
  rewards = {row["id"]: row["reward"] for row in rows}
  assert len(ranking) == len(set(rewards.values())) == 3
  for row in ranking:
    child = rows[row["id"]]
    assert row["valid_accuracy"] == pytest.approx(rewards[row["id"]], abs=1e-6)
    assert (row["params"], row["macs"]) == (child["params"], child["macs"])
  steps = rows[0]["steps"]
  curves = _lines(tmp_path / "retrain.jsonl")
  assert [(c["stage"], c["step"], c["epoch"]) for c in curves] == [
    ("rank", steps, 15.0)
  ] * 3
  assert told[-1] == ("rank", rank_together.ALL, 3 * steps, 3 * steps)
  # Nothing is left to do, and nothing is compiled for it.
  refused = made.final._replace(together=None)
  assert _rank(tmp_path, made._replace(final=refused), rows) == ranking


def test_a_stop_keeps_who_was_done_and_the_rest_trains_as_it_would_have(
  searched, tmp_path
):
  made, rows = searched
  (tmp_path / "whole").mkdir()
  whole = _rank(tmp_path / "whole", made, rows)

  def stops(stage, child, step, horizon):
    if (tmp_path / "ranking.jsonl").exists():
      raise stop.Stopped(2)

  with pytest.raises(stop.Stopped):
    _rank(tmp_path, made, rows, final_stage.Watch(stops))
  before = _lines(tmp_path / "ranking.jsonl")
  assert 0 < len(before) < 3
  assert _rank(tmp_path, made, rows) == whole
  assert _lines(tmp_path / "ranking.jsonl")[: len(before)] == before
  # Killed between the two files: the curve of a child stands there once.
  written = [json.dumps(row) + "\n" for row in before]
  (tmp_path / "ranking.jsonl").write_text("".join(written))
  assert _rank(tmp_path, made, rows) == whole
  assert len(_lines(tmp_path / "retrain.jsonl")) == 3


@pytest.mark.parametrize(
  ("field", "value"),
  [("label_smoothing", 0.1), ("ema_decay", 0.99), ("optimizer", "rmsprop")],
)
def test_what_a_population_does_without_is_refused_before_the_search(
  harness, field, value
):
  config = harness.tiny_config().unlock()
  config.final[field] = value
  space = search_config.get_space(config)
  search_config.final_settings(config, 10, None, space)
  config.final.rank_together = True
  wrong = f"final.{field} is {value!r}.* set final.rank_together to False"
  with pytest.raises(ValueError, match=wrong):
    search_config.final_settings(config, 10, None, space)


def test_a_batch_that_does_not_divide_is_refused_before_the_search(harness):
  config = harness.tiny_config()
  config.final.rank_together, config.mesh.data = True, 3
  space = search_config.get_space(config)
  with pytest.raises(ValueError, match="does not divide"):
    search_config.final_settings(config, 10, None, space)


def test_a_recipe_of_children_has_all_numbers_of_the_ranking():
  recipe = recipes.Recipe(
    epochs=7, learning_rate=0.5, drop_path_keep=0.5, weight_decay=0.25
  )
  made = rank_together.child_recipe(recipe)
  assert (made.epochs, made.learning_rate) == (7, 0.5)
  assert (made.drop_path_keep, made.weight_decay) == (0.5, 0.25)
