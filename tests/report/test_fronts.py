"""The page of a search of several objectives."""

import json

import numpy as np
import pytest

from nasnet_jax import report
from nasnet_jax.pareto import hypervolume
from nasnet_jax.report import front_sections, runs

NAMES = ("accuracy", "-params", "-macs")


@pytest.fixture
def several(make_run):
  """several(k, finished) -> the folder of a run of k objectives."""

  def make(k=2, finished=True):
    folder = make_run(children=40, finished=finished)
    path = folder / "history.jsonl"
    rows = [json.loads(line) for line in path.open()]
    for row in rows:
      values = (row["reward"], -row["params"], -row["macs"])
      row["accuracy"] = row["reward"]
      failed = row["status"] == "failed"
      values = [None] * k if failed else values[:k]
      row["objectives"] = dict(zip(NAMES, values))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder

  return make


def _ends(history):
  """(best accuracy, fewest parameters), found without the library."""
  ok = [i for i in range(len(history)) if not np.isnan(history.accuracy[i])]
  best = max(ok, key=lambda i: (history.accuracy[i], -history.params[i]))
  return best, min(ok, key=lambda i: history.params[i])


@pytest.mark.parametrize("k", [2, 3])
def test_the_page_shows_the_front_its_ends_and_its_hypervolume(several, k):
  folder = several(k)
  history = runs.read_history(folder / "history.jsonl")
  assert history.objectives == NAMES[:k]
  html = report.write_report(folder).read_text()
  assert (folder / "figures" / "front.svg").exists()
  assert (folder / "figures" / "hypervolume.svg").exists()
  assert f"Hypervolume of {k} objectives by child" in html
  best, least = _ends(history)
  table = html[html.index("The children on the front of all objectives") :]
  for row, words in ((best, "most accuracy"), (least, "least params")):
    after = table[table.index(f"<td>{history.id[row]}</td>") :]
    assert words in after[: after.index("</tr>")]
  text = report.summary_text(folder)
  assert f"child {history.id[best]} most accuracy" in text
  assert "the knee" in text


def test_the_volume_is_from_the_worst_child_to_the_best(several):
  history = runs.read_history(several() / "history.jsonl")
  rewards = history.rewards[~np.isnan(history.rewards[:, 0])]
  low, high = rewards.min(0), rewards.max(0)
  found = front_sections.volumes(history)
  whole = hypervolume.hypervolume(rewards, low) / np.prod(high - low)
  assert found[-1] == pytest.approx(whole)
  assert 0 < whole <= 1
  assert (np.diff(found) >= 0).all()


def test_a_search_of_one_reward_has_no_front_of_objectives(make_run):
  folder = make_run()
  html = report.write_report(folder).read_text()
  assert "ypervolume" not in html
  assert "front of all objectives" not in html
  assert "front of" not in report.summary_text(folder)
  assert not (folder / "figures" / "front.svg").exists()


def test_a_page_of_four_objectives_says_that_it_has_no_volume(several):
  folder = several(3, finished=False)
  path = folder / "history.jsonl"
  rows = [json.loads(line) for line in path.open()]
  for row in rows:
    row["objectives"]["-latency"] = None if row["status"] == "failed" else -0.1
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  html = report.write_report(folder).read_text()
  assert "No hypervolume: it is shown of up to 3 objectives" in html
  assert "0.1 s" in html


@pytest.mark.parametrize("keep", [0, 4])
def test_a_page_of_a_search_that_begins_has_what_there_is(several, keep):
  folder = several(2, finished=False)
  path = folder / "history.jsonl"
  lines = path.read_text().splitlines(keepends=True)
  failed = [line for line in lines if '"failed"' in line]
  path.write_text("".join(failed[:keep]))
  assert "front of all" not in report.write_report(folder).read_text()
  path.write_text("".join([*failed[:keep], lines[0], '{"id": 9']))
  assert "front of all" in report.write_report(folder).read_text()
