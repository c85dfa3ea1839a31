"""The page's section on scores of initial weights."""

import json

import numpy as np
import pytest

from nasnet_jax import report
from nasnet_jax.report import runs, score_sections


@pytest.fixture
def scored(make_run):
  """A run whose score "snip" ranks as the reward does; "synflow" of the first
  child is not finite."""
  folder = make_run()
  path = folder / "history.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    reward = line["reward"] or 0.0
    flow = -reward if line["id"] else None
    line["scores"] = {"snip": 100 * reward**3, "synflow": flow}
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return folder


def test_a_page_shows_how_scores_rank_and_what_the_best_children_have(scored):
  history = runs.read_history(scored / "history.jsonl")
  found = score_sections.rank_correlations(history)
  assert found["snip"] == (pytest.approx(1), 36)  # four of 40 failed
  assert found["synflow"] == (pytest.approx(-1), 35)
  assert set(found) == {"snip", "synflow", "parameters", "multiply-adds"}
  page = report.write_report(scored).read_text()
  assert "Scores without training" in page
  best = int(np.nanargmax(history.reward))
  assert f"<td>{history.scores['snip'][best]:.4g}</td>" in page


def test_a_page_of_a_search_without_scores_has_no_such_section(make_run):
  folder = make_run()
  assert not runs.read_history(folder / "history.jsonl").scores
  assert "Scores without" not in report.write_report(folder).read_text()


def test_stopped_children_do_not_count(scored):
  path = scored / "history.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines[::2]:
    line["horizon"] = 2 * line["steps"]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  found = score_sections.rank_correlations(runs.read_history(path))
  assert found["snip"][1] == 16
