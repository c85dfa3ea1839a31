"""Curves of several strategies in one picture."""

import numpy as np

from nasnet_jax.report import comparison_charts


def test_a_line_is_the_mean_over_runs_and_the_best_is_in_the_picture():
  rng = np.random.default_rng(0)
  found = {
    name: np.maximum.accumulate(rng.uniform(80, 90, (5, 60)), axis=1)
    for name in ("one", "two")
  }
  figure = comparison_charts.searches_figure(found, "accuracy, %", best=91.0)
  (axes,) = figure.axes
  lines = {line.get_label(): line for line in axes.lines}
  assert list(lines) == ["one", "two", "best cell"]
  np.testing.assert_allclose(lines["two"].get_ydata(), found["two"].mean(0))
  low, high = axes.get_ylim()
  assert low < found["one"].mean(0)[30] < 91.0 < high
  assert axes.get_ylabel() == "accuracy, %, best so far"


def test_a_single_run_has_no_band():
  (axes,) = comparison_charts.searches_figure(
    {"one": np.ones((1, 20))}, "y", 2.0
  ).axes
  (band,) = axes.collections
  assert np.ptp(band.get_paths()[0].vertices[:, 1]) == 0
