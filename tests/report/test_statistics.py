import math

import numpy as np
import pytest
from scipy import stats

from nasnet_jax.report import statistics


def test_wilson_interval_has_its_known_values():
  # Newcombe 1998, table I: 81 of 263 and 15 of 148.
  assert statistics.wilson_interval(81, 263) == pytest.approx(
    (0.2553, 0.3662), abs=5e-5
  )
  assert statistics.wilson_interval(15, 148) == pytest.approx(
    (0.0624, 0.1605), abs=5e-5
  )


def test_wilson_interval_stays_within_0_and_1():
  low, high = statistics.wilson_interval(29, 29)
  assert 0.88 < low < 0.89 and high == pytest.approx(1)
  assert high <= 1
  assert statistics.wilson_interval(0, 0) == (0.0, 1.0)


def test_running_best_equals_a_plain_loop():
  rng = np.random.default_rng(0)
  reward = rng.normal(size=500)
  reward[rng.random(500) < 0.3] = np.nan
  reward[0] = np.nan
  wanted, best = [], math.nan
  for value in reward:
    if not math.isnan(value) and not value <= best:
      best = value
    wanted.append(best)
  np.testing.assert_array_equal(statistics.running_best(reward), wanted)


def test_rolling_mean_equals_a_plain_loop():
  values = np.random.default_rng(0).normal(size=100)
  wanted = [values[max(0, i - 19) : i + 1].mean() for i in range(100)]
  np.testing.assert_allclose(statistics.rolling_mean(values, 20), wanted)


def test_pareto_front_equals_a_plain_loop():
  rng = np.random.default_rng(0)
  cost, value = rng.integers(0, 30, (2, 200)).astype(float)
  cost[:5], value[5:10] = np.nan, np.nan

  def beaten(i):
    return any(
      cost[j] <= cost[i]
      and value[j] >= value[i]
      and ((cost[j], value[j]) != (cost[i], value[i]) or j < i)
      for j in range(200)
    )

  wanted = [i for i in range(10, 200) if not beaten(i)]
  front = statistics.pareto_front(cost, value)
  assert sorted(front) == wanted
  assert (np.diff(cost[front]) > 0).all()


def test_operation_shares_count_every_child_once():
  ops = np.array([[0, 0], [0, 1], [2, 2], [2, 2], [1, 2]])
  middle, shares = statistics.operation_shares(ops, 4, windows=2)
  assert middle.tolist() == [0.5, 3.0]
  np.testing.assert_allclose(shares, [[0.75, 0.25, 0, 0], [0, 1 / 6, 5 / 6, 0]])


def test_rank_correlations_are_scipys_with_ties_too():
  rng = np.random.default_rng(0)
  a = rng.integers(0, 6, 40)
  b = a + rng.integers(0, 6, 40)
  spearman = stats.spearmanr(a, b).statistic
  assert statistics.spearman(a, b) == pytest.approx(spearman)
  kendall = stats.kendalltau(a, b).statistic
  assert statistics.kendall(a, b) == pytest.approx(kendall)
  infinite = np.where(a == a.min(), -np.inf, a)
  assert statistics.kendall(infinite, b) == pytest.approx(kendall)
  for rank in (statistics.spearman, statistics.kendall):
    assert np.isnan(rank([1, 1, 1], [1, 2, 3]))
