"""The benchmark of scores on NAS-Bench-201."""

import json
import sys
import types

import jax
import numpy as np
import pytest

from nasnet_jax.scores import formulas
from nasnet_jax.search import nasbench201_table
from nasnet_jax.spaces import nasbench201 as nb201


@pytest.fixture(scope="module")
def scores(script):
  return script("scores")


@pytest.mark.parametrize("op", ["1x1", "3x3"])
def test_the_network_has_the_parameters_of_the_tables(scores, op):
  shapes = jax.eval_shape(lambda: scores.init(jax.random.key(0), 5, 16))
  other = {"1x1": "3x3", "3x3": "1x1"}[op]
  count = sum(
    leaf.size
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    if other not in [getattr(key, "key", "") for key in path]
  )
  # Scales and offsets of edges, stem, residual blocks and end; the last bias.
  rest = 5 * 6 * 2 * (16 + 32 + 64) + 32 + 4 * (32 + 64) + 128 + 10
  cell = [{"1x1": nb201.CONV_1X1, "3x3": nb201.CONV_3X3}[op]] * 6
  about = nasbench201_table.DATASETS["cifar10"]
  params, _ = nasbench201_table.network_sizes([cell], about)
  assert count + rest == params[0]


def test_a_cell_is_the_sum_of_what_its_edges_bring(scores):
  x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
  params = [None] * 6
  skip, none = nb201.SKIP, nb201.NONE

  def cell(*ops):
    edge = scores._edge
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        scores, "_edge", lambda op, x, *_: {skip: x, none: 0 * x}[op]
      )
      assert edge is not scores._edge
      return scores._cell(ops, x, params, True)

  # In the order of the edges: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.
  assert cell(skip, none, none, none, skip, none) == pytest.approx(x)
  assert cell(skip, skip, skip, skip, skip, skip) == pytest.approx(4 * x)
  assert not np.any(cell(skip, skip, skip, none, none, none))


def test_it_goes_on_where_it_stopped_and_what_is_not_finite_ranks_last(
  scores, tmp_path, monkeypatch
):
  played = []

  def measure(ops, seed):
    played.append(seed)
    flow = -np.inf if seed == 0 else seed
    small = {name: np.float32(seed) for name in ("grad_norm", "snip")}
    matrices = {
      name: (seed + 2) * np.eye(3) for name in ("jacob_cov", "naswot")
    }
    return {**small, "synflow": np.float32(flow), **matrices}

  cells = np.arange(len(nb201.all_cells()))
  ranks = np.empty(len(cells))
  ranks[scores.chosen_rows()] = np.arange(scores.CELLS)  # best by their seed
  table = types.SimpleNamespace(mean=lambda: ranks, params=-ranks, macs=ranks)
  monkeypatch.setattr(nasbench201_table, "nasbench201", lambda name: table)
  monkeypatch.setattr(scores, "make_measure", lambda *_: measure)
  monkeypatch.setattr(scores, "read_images", lambda *_: (None, None))
  monkeypatch.setenv("NASNET_JAX_DATA", str(tmp_path))
  for limit in (5, 12, 12):
    monkeypatch.setattr(
      sys, "argv", ["scores.py", f"--out={tmp_path}", f"--limit={limit}"]
    )
    scores.main()
  assert played == list(range(12))
  _, *lines = map(json.loads, (tmp_path / scores.ROWS).read_text().splitlines())
  assert lines[0]["synflow"] is None
  found = scores.correlations(lines, "cifar10")
  assert found["synflow"] == pytest.approx((1, 1))
  assert found["params"] == pytest.approx((-1, -1))
  page = (tmp_path / "README.md").read_text()
  assert "| `synflow` | 1.00 (1.00) | 1.00 (1.00) |" in page
  assert "0.74, 0.76, 0.75 |" in page
  assert "rank last: 1 of `synflow`." in page
  assert set(found) == {*formulas.NAMES, "params", "macs"}
