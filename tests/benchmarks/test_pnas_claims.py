"""PNAS's claims on a table of made-up accuracies."""

import math
import sys

import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.search import cell_table, tabular

PNAS = spaces.get("pnas", min_blocks=1)
CHAIN = spaces.get("pnas_chain")


@pytest.fixture(scope="module")
def claims(script):
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, "strategies", script("strategies"))
    return script("pnas_claims")


def test_ranks_of_equal_values_are_shared(claims):
  assert claims.spearman([1, 2, 3, 4], [10, 20, 30, 90]) == pytest.approx(1)
  assert claims.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
  # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
  expected = 4.5 / math.sqrt(4.5 * 5)
  assert claims.spearman([0, 1, 1, 2], [1, 2, 3, 4]) == pytest.approx(expected)


def test_a_cell_counts_once_with_the_mean_of_its_trainings(claims, tmp_path):
  one, two = "0 identity + 1 identity", "0 identity + 0 identity"
  three = f"{one}; 2 identity + 1 identity"
  found = [
    ("one_block", one, 0.2),
    ("random", three, 0.5),
    ("one_block", two, 0.3),
    ("chain", three, 0.9),  # no random cell
    ("one_block", one, 0.4),
    ("random", three, 0.7),
  ]
  names = ("part", "cell", "accuracy")
  rest = {"params": 1, "macs": 1, "seconds": 1.0, "seed": 0}
  rows = [{**dict(zip(names, row)), **rest} for row in found]
  path = tmp_path / "cells.csv.gz"
  cell_table.write_cells(path, {}, rows)
  levels = claims.read_levels(path, PNAS)
  assert sorted(levels[0].accuracy) == pytest.approx([0.3, 0.3])
  assert levels[1].accuracy == pytest.approx([0.6])
  assert claims.repeated_pairs(path).tolist() == [[0.5, 0.7]]


def test_what_grows_well_is_chosen_more_often_than_by_chance(
  claims, monkeypatch
):
  monkeypatch.setattr(claims, "SEARCHES", 2)
  cells = CHAIN.all_cells()
  # Each block's first operation alone counts.
  value = 0.3 + 0.05 * cells[:, 3::4].sum(1) + 1e-5 * np.arange(len(cells))
  table = tabular.Table(
    space=CHAIN,
    decisions=cells,
    epochs=(1,),
    steps_per_epoch=1,
    accuracy=value[:, None, None],
    seconds=np.ones((len(cells), 1)),
    params=np.zeros(len(cells), int),
    macs=np.zeros(len(cells), int),
  )
  found = claims.control(table)["levels"]
  assert [row["cells"] for row in found.values()] == [4, 16, 64, 256]
  assert [row["chosen"] for row in found.values()] == [4, 16, 16, 16]
  assert found[2]["good_chosen"] == found[2]["good_random"]  # all of them
  assert found[4]["mean_chosen"] > found[4]["mean_of_level"] + 0.02
