"""The final stage: who is retrained, on which images, and who is tested."""

import numpy as np

from nasnet_jax import data, search, spaces
from nasnet_jax.search import ending, final, job
from nasnet_jax.training import evaluation

SPACE = spaces.get("nasnet", 2, ("identity", "conv_1x1"))


def _row(child, reward, decisions, status="ok"):
  return {
    "id": child,
    "reward": reward if status == "ok" else None,
    "decisions": decisions.tolist(),
    "status": status,
    "steps": 10,
  }


def test_the_top_children_have_different_cells_and_did_not_fail():
  one, two, three = SPACE.sample(np.random.default_rng(0), 3)
  turned = one.copy()
  turned[[0, 1, 2, 3]] = one[[1, 0, 3, 2]]  # the sides of a block, swapped
  assert (turned != one).any()
  rows = [
    _row(0, 0.5, two),
    _row(1, 0.8, one),
    _row(2, 0.9, turned),
    _row(3, 0.5, three),
    _row(4, 0.99, three, "failed"),
  ]

  def top(k):
    return [row["id"] for row in final.top_children(rows, SPACE, k)]

  assert top(2) == [2, 0]  # 1 is 2 again; of equal rewards the first counts
  assert top(9) == [2, 0, 3]


def test_only_the_winner_sees_all_training_images_and_is_tested_once(
  harness, tmp_path, monkeypatch
):
  """Trainings are made up: who was worse as a child validates better."""
  config = harness.tiny_config()
  config.search.controller = "random_search"
  config.final.top_k = 3
  trained, tested = [], []

  def train(
    folder, key, network, recipe, aug, images, seed, *, valid=None, **_
  ):
    numbers = images.num_images, valid.num_images if valid else 0
    trained.append((key["stage"], key["id"], recipe.epochs, *numbers))
    return None, evaluation.Score(len(trained), 50) if valid else None

  def make_evaluate(*_, **__):
    def evaluate(variables, images):
      tested.append(np.asarray(images.images))
      return evaluation.Score(7, images.num_images)

    return evaluate

  monkeypatch.setattr(final.resumable, "train", train)
  monkeypatch.setattr(ending.evaluation, "make_evaluate", make_evaluate)
  weights = {"params": {"kernel": np.zeros(3, np.float32)}}
  monkeypatch.setattr(job.fit, "variables_of", lambda state: weights)
  monkeypatch.setattr(
    job.report, "write_report", lambda run: (run / "report.html").touch()
  )
  result = search.run(config, tmp_path, make_evaluator=harness.make_fake)
  ranked = [row for row in trained if row[0] == "rank"]
  # 200 training images, of which 50 validate.
  assert [row[2:] for row in ranked] == [(2, 150, 50)] * 3
  winner = ranked[-1][1]  # validation decides, not the search's reward
  assert trained == [*ranked, ("final", winner, 2, 200, 0)]
  assert result["winner"]["id"] == winner
  assert result["top_k"][0]["id"] == winner
  (seen,) = tested
  whole = data.load(**result["data"]["load"])
  np.testing.assert_array_equal(seen, whole.test_images)
