"""Searches whose children share their weights: rounds, resuming, refusals."""

import json

import jax
import numpy as np
import pytest

from nasnet_jax import search
from nasnet_jax.population import shared_evaluator
from nasnet_jax.search import halving, parts, rounds, search_config, weights
from nasnet_jax.training import checkpoint, stop, workdir


def _config(harness, **shared):
  config = harness.tiny_config()
  config.search.weights = "shared"
  config.search.controller = "reinforce"
  config.search.controller_options.reinforce.batch_size = 3
  config.search.controller_options.reinforce.learning_rate = 0.1
  config.search.children, config.search.children_per_round = 9, 3
  config.search.shared.sampling = "strategy"
  config.search.shared.samples = 2
  config.search.shared.epochs = 0.5
  config.child.epochs = 2
  config.child.steps_per_call = 2  # of the three updates of a round
  config.mesh.arch = 1
  config.search.shared.update(shared)
  return config


class _StopsAt:
  """Raises at the n-th look."""

  def __init__(self, n: int):
    self.left, self.seen = n, []

  def __call__(self, share, words):
    self.seen.append((share, words))
    self.left -= 1
    if self.left == 0:
      raise stop.Stopped(2)


def _run(harness, folder, progress=None):
  made = parts.prepare(_config(harness), search_config.get_evaluator)
  return rounds.run(
    folder, made.controller, made.evaluator, made.rounds, progress=progress
  )


def _weights(folder):
  """All that was saved last, as bytes by name."""
  folder = folder / shared_evaluator.FOLDER
  last = checkpoint.steps(folder)[-1]
  return last, {
    str(path.relative_to(folder / str(last))): path
    for path in (folder / str(last)).rglob("*")
  }


def _state(harness, folder):
  made = parts.prepare(_config(harness), search_config.get_evaluator)
  empty = made.evaluator.shared.init(np.uint32(0))
  found = checkpoint.restore(folder / shared_evaluator.FOLDER, empty)
  return jax.device_get(found)


@pytest.fixture(scope="module")
def undisturbed(harness, tmp_path_factory):
  """(folder, looks) of a search that nobody stopped."""
  folder = tmp_path_factory.mktemp("shared")
  looks = _StopsAt(0)
  _run(harness, folder, looks)
  return folder, looks.seen


def test_a_round_trains_the_weights_and_judges_its_children(undisturbed):
  folder, looks = undisturbed
  rows = [json.loads(x) for x in (folder / rounds.HISTORY).open()]
  assert [row["id"] for row in rows] == list(range(9))
  # Four updates are an epoch of the 130 images; half of one is two.
  per_epoch = rows[0]["steps"] / rows[0]["shared_epochs"]
  assert [row["steps"] for row in rows[::3]] == [
    round((i + 1) * per_epoch / 2) for i in range(3)
  ]
  assert all(row["params"] > 0 and row["status"] == "ok" for row in rows)
  assert all(0 < row["accuracy"] <= 1 for row in rows)
  shares = [share for share, _ in looks[: len(looks) // 3]]
  assert shares == sorted(shares)
  assert shares[-1] == 1


@pytest.mark.parametrize("where", ["updates", "judged"])
def test_a_stopped_search_goes_on_with_the_same_bits(
  harness, undisturbed, tmp_path, where
):
  folder, looks = undisturbed
  second = [i for i, (_, words) in enumerate(looks) if where in words]
  third = len(looks) // 3 + min(i for i in second)
  for at in (third + 1, 2):  # in the second round; and right after it began
    with pytest.raises(stop.Stopped):
      _run(harness, tmp_path, _StopsAt(at))
  _run(harness, tmp_path)
  for name in (rounds.HISTORY, rounds.JOURNAL):
    found, wanted = (
      [{**json.loads(x), "seconds": 0} for x in (f / name).open()]
      for f in (tmp_path, folder)
    )
    assert found == wanted, name
  (step, found), (other, wanted) = (
    _state(harness, f) for f in (tmp_path, folder)
  )
  assert step == other == 3
  for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_weights_that_are_gone_are_not_made_anew_in_silence(
  harness, undisturbed, tmp_path
):
  with pytest.raises(stop.Stopped):
    _run(harness, tmp_path, _StopsAt(2 * len(undisturbed[1]) // 3 + 1))
  for step in checkpoint.steps(tmp_path / shared_evaluator.FOLDER):
    (tmp_path / shared_evaluator.FOLDER / str(step)).rename(
      tmp_path / f"{step}"
    )
  with pytest.raises(workdir.WorkdirError, match="put back what was removed"):
    _run(harness, tmp_path)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"search.weights": "share"}, "'share', not one of: alone, shared"),
    ({"search.halving.eta": 2}, "set search.halving.eta to 0"),
    ({"search.asynchronous": True}, "set search.asynchronous to False"),
    ({"search.controller": "evolution"}, "evolution has no policy to sample"),
    ({"search.shared.samples": 33}, "more than child.batch_size, 32"),
    ({"search.shared.epochs": float("nan")}, "search.shared.epochs is nan"),
  ],
)
def test_what_cannot_share_weights_gets_one_line_before_it_starts(
  harness, tmp_path, fields, words
):
  config = _config(harness)
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=words) as error:
    search.run(config, tmp_path)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["search_genetic", "search_mnasnet"])
def test_spaces_without_cells_share_no_weights(harness, tmp_path, name):
  config = harness.load_config(name, "tiny")
  config.search.weights = "shared"
  with pytest.raises(ValueError, match="have no cells: set it to"):
    search.run(config, tmp_path)


def test_fields_of_sharing_that_mean_nothing_are_told(harness, caplog):
  config = harness.tiny_config()
  weights.tell_unused(config)
  assert not caplog.messages
  config.search.shared.samples = 2
  weights.tell_unused(config)
  assert "search.shared.samples is not used" in caplog.text


def test_epochs_of_shared_weights_count_once():
  row = {"status": "ok", "budget": 1.0, "steps": 8, "seconds": 2.0}
  rows = [{**row, "shared_epochs": e} for e in (0.5, 0.5, 1.0)]
  assert halving.spent(rows, 20).epochs == 1.0
  assert halving.spent(rows, 20).seconds == 6.0
  assert halving.spent([row] * 3, 20).epochs == 60.0
