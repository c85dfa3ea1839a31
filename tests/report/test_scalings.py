"""What is drawn and said of a scaling run."""

import json

import numpy as np
import pytest

from nasnet_jax import report
from nasnet_jax.report import scalings

BASE = {
  "stage": "baseline",
  "phi": 0.0,
  "coefficients": [1.0, 1.0, 1.0],
  "depth": 1.0,
  "width": 1.0,
  "resolution": 1.0,
  "macs": 2_000_000,
  "params": 1234,
  "valid_accuracy": 0.5,
  "test_accuracy": 0.4,
}


def _row(*coefficients, stage="grid", phi=1.0, **changes):
  names = ("depth", "width", "resolution")
  factors = {n: c**phi for n, c in zip(names, coefficients)}
  point = {"stage": stage, "phi": phi, "coefficients": [*coefficients]}
  return {**BASE, **factors, **point, "macs": 4_000_000, **changes}


def test_seeds_are_averaged_in_the_table():
  row = _row(1.2, 1.1, 1.15, macs=2_000_000)
  other = {**row, "valid_accuracy": 0.6, "test_accuracy": 0.5}
  raised = [_row(1.2, 1.1, 1.15, stage="phi", phi=phi) for phi in (2.0, 3.0)]
  lines = scalings.table([row, other, *raised]).splitlines()
  assert lines[1:] == [
    "1.2  1.1  1.15  2.0M  1,234  55.00  45.00  (grid, phi 1)",
    "1.44  1.21  1.32  4.0M  1,234  50.00  40.00  (phi, phi 2)",
    "1.73  1.33  1.52  4.0M  1,234  50.00  40.00  (phi, phi 3)",
  ]


@pytest.mark.parametrize(
  ("coefficients", "words"),
  [
    ((2, 1, 1), "depth"),
    ((1, 1.4, 1), "width"),
    ((1, 1, 1.4), "resolution"),
    ((1.2, 1.1, 1.15), "all three"),
    ((1.5, 1.1, 1), "depth and width"),
  ],
)
def test_what_was_grown_is_named(coefficients, words):
  assert scalings.grown(_row(*coefficients)) == words
  assert scalings.grown(BASE) == ""


def test_a_line_leads_from_the_baseline_to_the_mean_of_the_seeds():
  low, high = _row(2, 1, 1, test_accuracy=0.5), _row(2, 1, 1, test_accuracy=0.7)
  wide = _row(1, 1.4, 1, macs=8_000_000, test_accuracy=0.45)
  figure = scalings.scalings_figure({"a": [BASE, low, high, wide], "b": [BASE]})
  axes = figure.axes[0]
  lines = [
    (line.get_xdata(), line.get_ydata())
    for line in axes.lines
    if line.get_linestyle() == "-"
  ]
  np.testing.assert_allclose(lines[0], [[2, 4], [40, 60]])
  np.testing.assert_allclose(lines[1], [[2, 8], [40, 45]])
  assert [*axes.get_xticks()] == [2, 4, 8]
  assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
  (legend,) = figure.legends
  words = [text.get_text() for text in legend.get_texts()]
  assert words == ["depth", "width", "baseline"]


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(tmp_path):
  lines = [json.dumps(BASE), json.dumps(_row(2, 1, 1)), '{"id": 2, "sta']
  (tmp_path / "scaled.jsonl").write_text("\n".join(lines))
  page = report.write_report(tmp_path).read_text()
  assert "2 trainings. Not finished; last" in page and "<td>depth</td>" in page
  assert report.summary_text(tmp_path).startswith("2 trainings\n")
  assert (tmp_path / "figures" / "scaling.svg").exists()


def test_a_report_of_a_run_under_way_is_not_taken_for_that_of_its_end(tmp_path):
  (tmp_path / "scaled.jsonl").write_text(json.dumps(BASE) + "\n")
  report.write_report(tmp_path)
  result = {"job": "scale", "rows": [BASE, _row(2, 1, 1)]}
  (tmp_path / "result.json").write_text(json.dumps(result))
  page = report.finish_report(tmp_path)
  assert "2 trainings" in page.read_text()
  assert "Not finished" not in page.read_text()
  page.write_text("as it was")  # the same command on a finished run
  assert report.finish_report(tmp_path).read_text() == "as it was"


def test_the_page_of_a_finished_run_says_what_was_chosen(tmp_path):
  rows = [BASE, _row(1.2, 1.1, 1.15, test_accuracy=0.625)]
  coefficients = {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}
  result = {
    "job": "scale",
    "rows": rows,
    "winner": {"coefficients": coefficients},
    "command": "python launch/main.py --config=x",
  }
  (tmp_path / "result.json").write_text(json.dumps(result))
  page = report.write_report(tmp_path).read_text()
  assert "Best alpha" in page and "for depth" in page
  assert "62.50%" in page and "--config=x" in page
  assert "Not finished" not in page
