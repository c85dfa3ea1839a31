"""Searches whose children begin with their parent's weights: rounds, resuming,
refusals."""

import json
import logging

import jax
import numpy as np
import pytest

from nasnet_jax import search
from nasnet_jax.controllers import base
from nasnet_jax.population import inheriting
from nasnet_jax.population.evaluation import NO_PARENT
from nasnet_jax.search import (
  asynchronous,
  halving,
  heirs,
  parts,
  rounds,
  search_config,
  weights,
)
from nasnet_jax.training import stop, workdir

CHILDREN, EPOCHS, INHERITED = 16, 4, 1


def _config(harness, **fields):
  config = harness.tiny_config()
  config.search.weights = "inherit"
  config.search.controller = "evolution"
  config.search.controller_options.evolution.update(population=4, sample=2)
  config.search.controller_options.local_search.memory = 100
  config.search.children, config.search.children_per_round = CHILDREN, 3
  config.search.inherit.epochs = INHERITED
  config.child.epochs, config.child.steps_per_call = EPOCHS, 2
  config.child.width, config.mesh.arch = 2, 1
  config.update_from_flattened_dict(fields)
  return config


def _fake(harness, evaluator):
  """Nothing is trained: a child has one weight, which remembers whom it is
  from and in how many updates it came to be."""
  trains = harness.FakeTraining(evaluator)

  def refill(state, fresh, seeds, horizons, genotypes):
    weight = np.where(fresh, seeds % 100 / 100, state["weight"])
    rest = {k: v for k, v in state.items() if k != "weight"}
    rest = trains.refill(rest, fresh, seeds, horizons, genotypes)
    return {**rest, "weight": weight}

  def train(state, genotypes, data):
    before = state["step"]
    new, metrics = trains.train(state, genotypes, data)
    made = new["step"] - before
    return {**new, "weight": state["weight"] * 0.99**made}, metrics

  def count_correct(state, which, genotypes, data):
    share = 0.5 + 0.4 * np.sin(9 * state["weight"])
    return np.where(which, (share * evaluator.num_valid).astype(int), 0)

  def adopt(state, genotypes, heir, final):
    weight = np.where(heir, 1 + final.params["w"], state["weight"])
    return {**state, "weight": weight}

  def take(state, slot):
    return {"w": np.float64(state["weight"][slot])}, {}

  def empty():
    return {**trains.empty(), "weight": np.zeros(evaluator.slots)}

  evaluator.population = evaluator.population._replace(
    empty=empty, refill=refill, train=train, count_correct=count_correct
  )
  evaluator.adopt, evaluator.take = adopt, take
  evaluator._shapes = inheriting.Final(
    evaluator.population.network.genotype_shapes,
    {"w": jax.ShapeDtypeStruct((), np.float64)},
    {},
  )


def _run(harness, folder, progress=None, real=False, **fields):
  made = parts.prepare(_config(harness, **fields), search_config.get_evaluator)
  if not real:
    _fake(harness, made.evaluator)
  run = asynchronous.run if made.rounds.asynchronous else rounds.run
  rows = run(
    folder, made.controller, made.evaluator, made.rounds, progress=progress
  )
  return made, rows


def _lines(path):
  return [{**json.loads(x), "seconds": 0} for x in path.open()]


def _same(harness, folder, other, made):
  """Histories, journals and the weights that are kept."""
  for name in (rounds.HISTORY, rounds.JOURNAL):
    assert _lines(folder / name) == _lines(other / name), name
  kept = [
    sorted(p.name for p in (f / inheriting.FOLDER).iterdir())
    for f in (folder, other)
  ]
  assert kept[0] == kept[1]
  for child in kept[0]:
    found = []
    for place in (folder, other):
      made.evaluator.open_folder(place)
      found.append(made.evaluator.read(int(child)))
    jax.tree.map(np.testing.assert_array_equal, *found)


KINDS = {
  "rounds": {},
  "no rounds": {"search.asynchronous": True},
  "local search": {"search.controller": "local_search"},
}


@pytest.fixture(
  scope="module",
  params=[
    "rounds",
    "no rounds",
    pytest.param("local search", marks=pytest.mark.slow),
  ],
)
def kind(request):
  return KINDS[request.param]


@pytest.fixture(scope="module")
def whole(harness, kind, tmp_path_factory):
  """(folder, what it was made of, rows, looks) of an undisturbed search."""
  folder, looks = tmp_path_factory.mktemp("whole"), []
  made, rows = _run(harness, folder, lambda *look: looks.append(look), **kind)
  return folder, made, rows, len(looks)


def test_children_with_a_parent_take_its_weights_and_fewer_updates(whole):
  _, made, rows, _ = whole
  by_id = {row["id"]: row for row in rows}
  per_epoch = made.evaluator.steps_per_epoch
  heirs_there = [row for row in rows if row["inherited"]]
  assert 4 < len(heirs_there) < len(rows)
  for row in rows:
    assert row["inherited"] == (row["parent"] is not None)
    epochs = INHERITED if row["inherited"] else EPOCHS
    assert row["budget"] == epochs / EPOCHS
    if row["status"] == "ok":
      assert row["steps"] == epochs * per_epoch
    if row["inherited"]:
      assert by_id[row["parent"]]["status"] == "ok"
  assert any(row["status"] == "failed" for row in rows)
  spent = halving.spent(rows, EPOCHS).epochs
  n = len(heirs_there)
  assert spent == n * INHERITED + (len(rows) - n) * EPOCHS


def test_weights_are_kept_of_those_who_may_still_be_parents(whole):
  folder, made, rows, _ = whole
  kept = {int(p.name) for p in (folder / inheriting.FOLDER).iterdir()}
  ok = [row["id"] for row in rows if row["status"] == "ok"]
  assert kept <= set(ok)
  assert 0 < len(kept) <= 4
  if made.controller.parents.func.__module__.endswith("evolution"):
    assert kept == set(ok[-4:])  # the population


class _StopsAt:
  """Raises at the n-th call."""

  def __init__(self, n: int, function=None):
    self.left, self.function = n, function

  def __call__(self, *args, **kwargs):
    self.left -= 1
    if self.left == 0:
      raise stop.Stopped(2)
    return self.function and self.function(*args, **kwargs)


@pytest.mark.parametrize("shares", [(0.3, 0.1), (0.8, 0.05)])
def test_a_search_that_was_stopped_goes_on_with_the_same_bits(
  harness, kind, whole, tmp_path, shares
):
  folder, made, _, looks = whole
  for share in shares:
    with pytest.raises(stop.Stopped):
      _run(harness, tmp_path, _StopsAt(1 + int(share * looks)), **kind)
  _run(harness, tmp_path, **kind)
  _same(harness, tmp_path, folder, made)


@pytest.mark.parametrize(
  ("where", "name", "n"),
  [
    (rounds.journal, "record_tell", 4),  # answers that are not told
    (rounds.heirs, "keep_parents", 5),  # told, and nothing thrown away
    (inheriting.checkpoint, "write", 9),  # between a child's end and its file
    (inheriting.checkpoint, "remove", 3),
  ],
)
def test_an_end_between_any_two_writes_does_no_harm(
  harness, kind, whole, tmp_path, monkeypatch, where, name, n
):
  folder, made, _, _ = whole
  with monkeypatch.context() as patch, pytest.raises(stop.Stopped):
    patch.setattr(where, name, _StopsAt(n, getattr(where, name)))
    _run(harness, tmp_path, **kind)
  _run(harness, tmp_path, **kind)
  _same(harness, tmp_path, folder, made)


def test_weights_that_are_gone_are_not_made_anew_in_silence(
  harness, whole, kind, tmp_path
):
  with pytest.raises(stop.Stopped):
    _run(harness, tmp_path, _StopsAt(int(0.5 * whole[3])), **kind)
  for path in (tmp_path / inheriting.FOLDER).iterdir():
    path.rename(tmp_path / f"gone-{path.name}")
  with pytest.raises(workdir.WorkdirError, match="put back what was there"):
    _run(harness, tmp_path, **kind)


def test_more_children_later_are_those_of_one_search(
  harness, kind, whole, tmp_path
):
  if kind:
    pytest.skip("there are other rounds where there are fewer children to ask")
  folder, made, _, _ = whole
  _run(harness, tmp_path, **kind, **{"search.children": 12})
  _run(harness, tmp_path, **kind)
  _same(harness, tmp_path, folder, made)


@pytest.mark.slow
def test_real_children_go_on_with_the_same_bits(harness, tmp_path):
  fields = {"search.children": 9, "real": True}
  looks = []
  whole, other = tmp_path / "whole", tmp_path / "other"
  for folder in (whole, other):
    folder.mkdir()
  made, rows = _run(harness, whole, lambda *x: looks.append(x), **fields)
  assert any(row["inherited"] for row in rows)
  with pytest.raises(stop.Stopped):
    _run(harness, other, _StopsAt(int(0.8 * len(looks))), **fields)
  _run(harness, other, **fields)
  _same(harness, other, whole, made)


def test_a_failed_parent_leaves_nothing_and_that_is_told(caplog):
  proposals, _ = base.number(
    5, np.zeros((4, 2)), parent=np.array([1, 2, base.NOBODY, -3])
  )
  rows = [{"id": 1, "status": "ok"}, {"id": 2, "status": "failed"}]
  parents = heirs.parents_of(0.25, proposals, rows)
  assert parents.tolist() == [1, NO_PARENT, NO_PARENT, NO_PARENT]
  shares = heirs.budgets(0.25, proposals, parents)
  assert shares.tolist() == [0.25, 1, 1, 1]
  words = [
    heirs.words(0.25, proposals.rows([i]), p) for i, p in enumerate(parents)
  ]
  assert words == [
    {"parent": 1, "inherited": True},
    {"parent": 2, "inherited": False},
    {"parent": None, "inherited": False},
    {"parent": None, "inherited": False},
  ]
  caplog.set_level(logging.WARNING, "nasnet_jax")
  heirs.tell_failed(0.25, proposals, parents)
  assert caplog.messages == [
    "child 6: its parent, child 2, failed, so it trains from nothing and in"
    " full"
  ]


def test_a_search_alone_says_who_the_parent_was_and_trains_in_full(
  harness, tmp_path
):
  made = parts.prepare(
    _config(harness, **{"search.weights": "alone"}), harness.make_fake
  )
  rows = rounds.run(tmp_path, made.controller, made.evaluator, made.rounds)
  assert {row["budget"] for row in rows} == {1.0}
  assert any(row["parent"] is not None for row in rows)
  assert not any("inherited" in row for row in rows)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"search.controller": "ppo"}, "search.controller ppo has no parents"),
    ({"search.controller": "genetic"}, "set it to evolution or local_search"),
    ({"search.halving.eta": 2}, "set search.halving.eta to 0"),
    ({"search.inherit.epochs": 0.0}, "search.inherit.epochs is 0.0: give more"),
    ({"search.inherit.epochs": 5.0}, "child.epochs \\(4\\) at most"),
    ({"search.inherit.epochs": float("nan")}, "search.inherit.epochs is nan"),
  ],
)
def test_what_cannot_inherit_weights_gets_one_line_before_it_starts(
  harness, tmp_path, fields, words
):
  with pytest.raises(ValueError, match=words) as error:
    search.run(_config(harness, **fields), tmp_path)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["search_genetic", "search_mnasnet"])
def test_spaces_without_cells_inherit_no_weights(harness, tmp_path, name):
  config = harness.load_config(name, "tiny")
  config.search.weights = "inherit"
  config.search.controller = "evolution"
  with pytest.raises(ValueError, match="have no cells: set it to"):
    search.run(config, tmp_path)


def test_an_evaluator_that_trains_nothing_is_refused(harness, tmp_path):
  with pytest.raises(ValueError, match="keeps no weights that"):
    search.run(_config(harness), tmp_path, make_evaluator=harness.make_fake)


def test_fields_of_inheriting_that_mean_nothing_are_told(harness, caplog):
  config = harness.tiny_config()
  weights.tell(config)
  assert not caplog.messages
  config.search.inherit.epochs = 2.0
  weights.tell(config)
  assert "search.inherit.epochs is not used" in caplog.text


def test_children_that_train_less_than_is_counted_are_told(harness, caplog):
  config = harness.tiny_config()
  weights.tell_counted_in_full(config)
  assert not caplog.messages
  config.search.halving.eta = 3
  weights.tell_counted_in_full(config)
  assert "search.halving.eta is 3, and every child is counted" in caplog.text
  config.search.halving.eta = 0
  config.search.weights = "inherit"
  weights.tell_counted_in_full(config)
  assert 'search.weights is "inherit", and every child' in caplog.messages[-1]
