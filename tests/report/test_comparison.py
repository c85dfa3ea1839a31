"""Several runs on one page."""

import shutil

import numpy as np
import pytest

from nasnet_jax import report
from nasnet_jax.report import comparison_charts, labels, runs


@pytest.fixture
def folders(make_run, tmp_path):
  return [make_run(name=name) for name in ("nasnet", "pnas")]


def test_every_run_is_named_and_leads_to_its_own_report(folders, tmp_path):
  report.write_report(folders[0])
  out = tmp_path / "pages" / "all.html"
  text = report.write_comparison(folders, out).read_text()
  for label in labels.label_folders(folders):
    assert label in text
  target = text.split('href="')[1].split('"')[0]
  assert (out.parent / target).resolve() == folders[0] / "report.html"
  assert text.count("report.html") == 1  # the other has none yet
  assert "<script" not in text and "<link" not in text


def test_a_running_search_is_marked_and_the_page_looks_again(folders, tmp_path):
  out = tmp_path / "all.html"
  text = report.write_comparison(folders, out).read_text()
  assert "not finished" not in text and "refresh" not in text
  (folders[1] / "result.json").unlink()
  text = report.write_comparison(folders, out).read_text()
  assert text.count("not finished") == 2  # its row, the line below the title
  assert 'http-equiv="refresh"' in text


def test_numbers_of_the_table_are_those_of_the_histories(folders, tmp_path):
  text = report.write_comparison(folders, tmp_path / "all.html").read_text()
  for folder in folders:
    history = runs.read_history(folder / "history.jsonl")
    good = history.reward[~np.isnan(history.reward)]
    assert f"{good.mean():.4f} ± {good.std(ddof=1):.4f}" in text
    assert f"{good.max():.4f}" in text
    assert f"{len(history):,}, {np.isnan(history.reward).sum()} failed" in text


def test_runs_of_equal_names_are_told_apart_by_the_folders_above(tmp_path):
  found = []
  for above in ("monday", "tuesday"):
    (tmp_path / above / "ppo").mkdir(parents=True)
    found.append(tmp_path / above / "ppo")
  assert labels.label_folders(found) == ["monday/ppo", "tuesday/ppo"]
  assert labels.label_folders(found[:1]) == ["ppo"]


def _reward_axes(make_run, rewards):
  """Of runs whose children have these rewards."""
  first = runs.read_history(make_run(children=40) / "history.jsonl")
  found = {
    label: runs.History(
      **(first._asdict() | {"reward": np.linspace(*ends, 40)})
    )
    for label, ends in rewards.items()
  }
  return comparison_charts.compared_rewards_figure(found, "children").axes


def test_one_poor_run_does_not_press_the_others_together(make_run):
  axes = _reward_axes(
    make_run, {"a": (0.80, 0.90), "b": (0.81, 0.91), "poor": (0.20, 0.25)}
  )
  upper, lower = (one.get_ylim() for one in axes)
  assert 0.7 < upper[0] < 0.82 and 0.91 < upper[1] < 0.93
  assert lower[0] < 0.25 < lower[1] < 0.3  # cut, and still shown


def test_runs_that_are_alike_share_one_axis(make_run):
  axes = _reward_axes(make_run, {"a": (0.5, 0.9), "b": (0.4, 0.8)})
  assert len(axes) == 1


def _front_axes(fronts):
  """Of runs whose children have these (parameters, accuracies)."""
  found = {}
  for label, (params, accuracy) in fronts.items():
    n = len(params)
    history = runs.History(
      id=np.arange(n),
      round=np.zeros(n, int),
      decisions=[[0]] * n,
      reward=np.array(accuracy),
      accuracy=np.array(accuracy),
      stopped=np.zeros(n, bool),
      params=np.array(params, float),
      macs=np.full(n, np.nan),
      bytes=np.full(n, np.nan),
      latency=np.full(n, np.nan),
      seconds=np.zeros(n),
      over_limit=np.zeros(n, bool),
      skipped=0,
    )
    found[label] = history
  (axes,) = comparison_charts.compared_fronts_figure(found, "params").axes
  return axes


GOOD = ([100, 120, 140, 160, 180, 200], [0.8, 0.82, 0.84, 0.86, 0.88, 0.9])


def test_a_poor_front_is_told_and_marked_and_presses_nobody():
  poor = ([100, 150], [0.20, 0.25])
  axes = _front_axes({"a": GOOD, "b": GOOD, "poor": poor})
  assert 78 < axes.get_ylim()[0] < 80
  (words,) = [text.get_text() for text in axes.texts]
  assert words == "2 of 14 outside: down to 20.0 %"
  (marks,) = [line for line in axes.lines if line.get_marker() == "v"]
  assert [*marks.get_xdata()] == [100, 150]


def test_a_front_far_to_the_right_is_told_unless_it_has_the_best():
  large = ([900, 2000], [0.85, 0.89])
  axes = _front_axes({"a": GOOD, "b": GOOD, "large": large})
  assert axes.texts[0].get_text() == "2 of 14 outside: up to 2"
  assert [m.get_marker() for m in axes.lines].count(">") == 1
  best = ([900, 2000], [0.85, 0.95])
  axes = _front_axes({"a": GOOD, "b": GOOD, "best": best})
  assert not axes.texts


def test_fronts_that_are_alike_are_shown_whole():
  axes = _front_axes({"a": GOOD, "b": ([90, 110], [0.7, 0.75])})
  assert not axes.texts
  assert axes.get_ylim()[0] < 70


def test_a_run_without_children_is_shown(folders, tmp_path):
  (folders[0] / "history.jsonl").unlink()
  (folders[0] / "result.json").unlink()
  text = report.write_comparison(folders, tmp_path / "all.html").read_text()
  assert folders[0].name in text and "winner: child" in text


def test_runs_without_a_single_child_have_no_curves(folders, tmp_path):
  for folder in folders:
    (folder / "history.jsonl").unlink()
    (folder / "result.json").unlink()
  text = report.write_comparison(folders, tmp_path / "all.html").read_text()
  assert "<svg" not in text


@pytest.mark.parametrize("which", [[0], [0, 0]])
def test_one_run_or_the_same_twice_is_no_comparison(folders, tmp_path, which):
  with pytest.raises(ValueError, match="two or more folders"):
    report.write_comparison([folders[i] for i in which], tmp_path / "a.html")


def test_a_long_search_draws_few_points(make_run):
  history = runs.read_history(make_run(name="nasnet") / "history.jsonl")
  rng = np.random.default_rng(0)
  n = 20_000
  columns = {"reward": rng.uniform(size=n), "seconds": np.ones(n)}
  long = runs.History(**(history._asdict() | columns))
  figure = comparison_charts.compared_rewards_figure(
    {"a": long, "b": long}, "seconds"
  )
  points = sum(len(line.get_xdata()) for line in figure.axes[0].lines)
  assert points < 1_500
  assert figure.axes[0].lines[1].get_xdata()[-1] == pytest.approx(n / 60)


@pytest.mark.slow  # ten seconds of an idle core
def test_ten_runs_of_twenty_thousand_children_make_a_small_page(
  make_run, tmp_path
):
  first = make_run(children=20_000)
  folders = [tmp_path / f"seed_{i}" for i in range(10)]
  for folder in folders:
    shutil.copytree(first, folder)
  path = report.write_comparison(folders, tmp_path / "ten.html")
  assert path.stat().st_size < 2_000_000
  assert path.read_text().count("seed_") >= 10
