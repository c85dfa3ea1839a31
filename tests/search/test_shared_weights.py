"""Searches whose children share their weights: rounds, resuming, refusals."""

import json

import jax
import numpy as np
import pytest

from nasnet_jax import search
from nasnet_jax.population import shared_evaluator
from nasnet_jax.search import halving, parts, rounds, search_config, weights
from nasnet_jax.training import checkpoint, stop, workdir
from nasnet_jax.training.state import TrainState

LOOKS = 5  # of the first two rounds each: two calls of updates, three children


def _config(harness, **shared):
  config = harness.tiny_config()
  config.search.weights = "shared"
  config.search.controller = "reinforce"
  config.search.controller_options.reinforce.batch_size = 3
  config.search.controller_options.reinforce.learning_rate = 0.1
  config.search.children, config.search.children_per_round = 9, 3
  config.search.shared.sampling = "strategy"
  config.search.shared.samples = 2
  config.search.shared.epochs = 0.75  # three of four updates
  config.child.epochs = 2
  config.child.steps_per_call = 2
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


class _Fake:
  """In the place of compiled functions: a weight that depends on all children
  it ever saw, and their order."""

  def __init__(self, evaluator):
    self.valid = evaluator.shared.num_judged
    evaluator._compiled = True
    evaluator.shared = evaluator.shared._replace(
      init=self.init, train=self.train, count_correct=self.count_correct
    )

  def init(self, seed):
    zero = np.zeros((), np.int32)
    return TrainState({"w": np.float32(seed)}, {}, (), zero, zero, seed)

  def train(self, state, genotypes, count, data):
    weight = state.params["w"]
    for i in range(int(count)):
      weight = np.float32(weight * 0.9 + np.sum(genotypes.ops[i]) / 8)
    state = state._replace(params={"w": weight}, step=state.step + count)
    return state, {"loss": np.float32(weight)}

  def count_correct(self, which, genotypes, state, train, valid):
    ops = np.asarray(genotypes.ops).reshape(len(which), -1).sum(-1)
    share = 0.5 + 0.4 * np.sin(ops + state.params["w"])
    return (which * share * self.valid).astype(np.int32)


def _parts(harness, real):
  made = parts.prepare(_config(harness), search_config.get_evaluator)
  if not real:
    _Fake(made.evaluator)
  return made


def _run(harness, real, folder, progress=None):
  made = _parts(harness, real)
  return rounds.run(
    folder, made.controller, made.evaluator, made.rounds, progress=progress
  )


def _state(harness, real, folder):
  """(rounds, the weights) that were saved last."""
  empty = _parts(harness, real).evaluator.shared.init(np.uint32(0))
  found = checkpoint.restore(folder / shared_evaluator.FOLDER, empty)
  return jax.device_get(found)


@pytest.fixture(
  scope="module",
  params=[False, pytest.param(True, marks=pytest.mark.slow)],
  ids=["fake", "real"],
)
def real(request):
  """Whether networks are trained."""
  return request.param


@pytest.fixture(scope="module")
def undisturbed(harness, real, tmp_path_factory):
  """(folder, looks) of a search that nobody stopped."""
  folder = tmp_path_factory.mktemp("shared")
  looks = _StopsAt(0)
  _run(harness, real, folder, looks)
  return folder, looks.seen


def test_a_round_trains_the_weights_and_judges_its_children(undisturbed):
  folder, looks = undisturbed
  rows = [json.loads(x) for x in (folder / rounds.HISTORY).open()]
  assert [row["id"] for row in rows] == list(range(9))
  # The last round has what is left of two epochs.
  assert [row["steps"] for row in rows] == [3] * 3 + [6] * 3 + [8] * 3
  assert [row["shared_epochs"] for row in rows[::3]] == [0.75, 1.5, 2.0]
  assert all(row["params"] > 0 and row["status"] == "ok" for row in rows)
  assert all(0 < row["accuracy"] <= 1 for row in rows)
  shares = [share for share, _ in looks[:LOOKS]]
  assert shares == sorted(shares)
  assert shares[-1] == 1


@pytest.mark.parametrize("where", ["updates", "judged"])
def test_a_stopped_search_goes_on_with_the_same_bits(
  harness, real, undisturbed, tmp_path, where
):
  folder, looks = undisturbed
  first = next(i for i, (_, words) in enumerate(looks) if where in words)
  for at in (LOOKS + first + 1, 2):  # in the second round; and once more
    with pytest.raises(stop.Stopped):
      _run(harness, real, tmp_path, _StopsAt(at))
  _run(harness, real, tmp_path)
  for name in (rounds.HISTORY, rounds.JOURNAL):
    found, wanted = (
      [{**json.loads(x), "seconds": 0} for x in (f / name).open()]
      for f in (tmp_path, folder)
    )
    assert found == wanted, name
  (step, found), (other, wanted) = (
    _state(harness, real, f) for f in (tmp_path, folder)
  )
  assert step == other == 3
  for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_weights_that_are_gone_are_not_made_anew_in_silence(
  harness, real, tmp_path
):
  with pytest.raises(stop.Stopped):
    _run(harness, real, tmp_path, _StopsAt(2 * LOOKS + 1))
  for step in checkpoint.steps(tmp_path / shared_evaluator.FOLDER):
    (tmp_path / shared_evaluator.FOLDER / str(step)).rename(
      tmp_path / f"{step}"
    )
  with pytest.raises(workdir.WorkdirError, match="put back what was removed"):
    _run(harness, real, tmp_path)


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
  weights.tell(config)
  assert not caplog.messages
  config.search.shared.samples = 2
  weights.tell(config)
  assert "search.shared.samples is not used" in caplog.text


def test_epochs_of_shared_weights_count_once():
  row = {"status": "ok", "budget": 1.0, "steps": 8, "seconds": 2.0}
  rows = [{**row, "shared_epochs": e} for e in (0.5, 0.5, 1.0)]
  assert halving.spent(rows, 20).epochs == 1.0
  assert halving.spent(rows, 20).seconds == 6.0
  assert halving.spent([row] * 3, 20).epochs == 60.0
