import html.parser
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from nasnet_jax import report, spaces
from nasnet_jax.report import runs, search_charts

_VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Page(html.parser.HTMLParser):
  """Checks nesting; collects references, ids and text."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.references, self.ids, self.words = [], [], [], []
    self.tags = []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    if tag not in _VOID:
      self.open.append(tag)
    self._attributes(attrs)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self._attributes(attrs)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)

  def _attributes(self, attrs):
    for name, value in attrs:
      if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
        self.references.append(value)
      if name == "id":
        self.ids.append(value)

  @property
  def text(self) -> str:
    return " ".join(" ".join(self.words).split())


def _page(folder) -> _Page:
  return _Page(report.write_report(folder).read_text())


@pytest.mark.parametrize("name", ["nasnet", "nasnet_concat", "pnas"])
def test_the_report_is_one_file_that_needs_nothing_else(make_run, name):
  folder = make_run(name=name)
  page = _page(folder)
  for reference in page.references:
    assert reference.startswith(("#", "data:image/"))
    assert reference[0] != "#" or reference[1:] in page.ids
  assert len(page.ids) == len(set(page.ids))
  assert page.tags.count("script") == 1 and "link" not in page.tags
  text = (folder / "report.html").read_text()
  assert "@import" not in text
  assert "url(http" not in text


def test_the_report_says_what_won_and_how_well(make_run):
  page = _page(make_run())
  for words in (
    "80.00%",
    "95% interval 49.02% to 94.33%, 8 of 10 test images",
    "network = load('here')",
    "python launch/main.py --config=configs/search_digits.py",
    "8x8 <images>",
    "Reward by child",
    "Operations the controller chose",
    "Best children, retrained for longer",
    "90.00%",  # validation accuracy
    "Training of children",
    "12 s",  # the whole job
    "Normal cell",
    "Reduction cell",
    "separable convolution",
  ):
    assert words in page.text


def test_figures_lie_beside_the_report_as_svg_and_png(make_run):
  folder = make_run()
  report.write_report(folder)
  names = {p.name for p in (folder / "figures").iterdir()}
  stems = {name.split(".")[0] for name in names}
  assert stems == {
    "cell_normal",
    "cell_reduction",
    "cells",
    "operations",
    "retrain",
    "reward",
    "accuracy_macs",
    "accuracy_params",
  }
  assert names == {f"{s}.{e}" for s in stems for e in ("svg", "png")}
  for path in (folder / "figures").glob("*.svg"):
    ET.parse(path)


def test_a_running_search_shows_its_best_child_and_looks_again(make_run):
  folder = make_run(finished=False)
  page = _page(folder)
  assert "Best child so far" in page.text
  assert "Not finished" in page.text
  assert "Test accuracy" not in page.text
  assert 'http-equiv="refresh"' in (folder / "report.html").read_text()
  history = runs.read_history(folder / "history.jsonl")
  best = history.id[history.reward == max(history.reward[~history.failed])]
  assert f"child {best[0]}" in page.text


def test_a_finished_search_does_not_look_again(make_run):
  text = report.write_report(make_run()).read_text()
  assert 'http-equiv="refresh"' not in text


def test_the_report_of_a_search_that_goes_on_is_replaced(make_run):
  folder = make_run(finished=False)
  path = folder / "history.jsonl"
  whole = path.read_text()
  path.write_text(whole[: len(whole) // 2])
  first = _page(folder).text
  path.write_text(whole)
  second = _page(folder).text
  assert "40 children" in second and "40 children" not in first
  assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("text", ["", '{"id": 0, "rou'])
def test_a_search_without_children_has_a_report(tmp_path, text):
  (tmp_path / "history.jsonl").write_text(text)
  config = {"job": "search", "data": {"source": "digits"}}
  (tmp_path / "config.json").write_text(json.dumps(config))
  assert "nothing to show yet" in _page(tmp_path).text
  assert report.summary_text(tmp_path) == "0 children, data digits"


def test_a_search_whose_children_all_failed_has_a_report(make_run):
  folder = make_run(finished=False)
  path = folder / "history.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    line.update(status="failed", reward=None)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert "All children so far failed" in _page(folder).text
  assert "40 failed" in report.summary_text(folder)


def test_a_winner_that_is_no_cell_still_has_a_report(make_run):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  result["winner"]["genotype"] = {"layers": [3, 5]}
  result["space"] = "another"
  (folder / "result.json").write_text(json.dumps(result))
  assert "80.00%" in _page(folder).text


def test_stages_of_a_winner_are_drawn_and_told(make_run):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  stages = [{"nodes": 3, "edges": [[0, 2]]}, {"nodes": 2, "edges": []}]
  result["winner"]["genotype"] = {"space": "genetic_cnn", "stages": stages}
  result["space"] = "genetic_cnn"
  (folder / "result.json").write_text(json.dumps(result))
  text = _page(folder).text
  assert "Stages of the winner" in text and "node 2 reads 0" in text
  assert (folder / "figures" / "stages.png").exists()


def test_blocks_of_a_winner_are_drawn_and_told(make_run):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  space = spaces.get("mnasnet")
  won = space.decode(np.zeros(len(space.num_choices), int))
  result["winner"]["genotype"] = space.to_json(won)
  result["space"], result["space_options"] = "mnasnet", space.options
  (folder / "result.json").write_text(json.dumps(result))
  text = _page(folder).text
  assert "Blocks of the winner" in text and "3 x conv 3x3 / 2, 48" in text
  assert (folder / "figures" / "blocks.png").exists()


def test_a_search_of_blocks_shows_its_operations_and_latencies(make_run):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  space = spaces.get("mnasnet")
  won = space.decode(np.zeros(len(space.num_choices), int))
  result["winner"]["genotype"] = space.to_json(won)
  result["space"], result["space_options"] = "mnasnet", space.options
  (folder / "result.json").write_text(json.dumps(result))
  path = folder / "history.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  decisions = space.sample(np.random.default_rng(0), len(rows)).tolist()
  for i, row in enumerate(rows):
    row |= {"decisions": decisions[i], "latency": 0.00123 + i / 1e4}
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  text = _page(folder).text
  assert "Accuracy against latency in seconds" in text
  assert "0.00123" in text  # of the first child, the fastest
  assert "mbconv6" in (folder / "figures" / "operations.svg").read_text()
  assert (folder / "figures" / "accuracy_latency.png").stat().st_size > 0


def test_a_missing_folder_is_one_clear_line(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such folder"):
    report.write_report(tmp_path / "nowhere")


def test_text_of_the_run_cannot_break_the_page(make_run):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  result["command"] = "</pre><script>alert(1)</script>"
  result["data"]["note"] = '"><img src=http://x>'
  (folder / "result.json").write_text(json.dumps(result))
  page = _page(folder)
  assert page.tags.count("script") == 1 and "img" not in page.tags


def test_the_summary_tells_the_cells_in_words(make_run):
  text = report.summary_text(make_run())
  assert "test accuracy: 80.00% (95% interval 49.02% to 94.33%" in text
  assert "normal cell\n  block 0: " in text
  assert "reduction cell\n  block 0: " in text
  assert "best reward: 0." in text
  assert max(map(len, text.splitlines())) <= 80


def test_twenty_thousand_children_take_seconds(make_run):
  folder = make_run(children=20_000)
  start = time.process_time()
  path = report.write_report(folder)
  assert time.process_time() - start < 30  # 4 s on an idle core
  assert path.stat().st_size < 2_000_000
  assert "20,000 children" in path.read_text()


def test_the_charts_count_all_children(make_run):
  history = runs.read_run(make_run(children=50)).history
  axes = search_charts.reward_figure(history).axes[0]
  drawn = {line.get_label(): line.get_xdata() for line in axes.lines}
  points, *_ = axes.lines
  assert len(points.get_xdata()) == 45
  assert "failed (5)" in drawn


def test_charts_number_children_as_tables_do(make_run):
  """The jump of the best so far stands at the child that made it."""
  history = runs.read_run(make_run(children=50)).history
  (axes,) = search_charts.reward_figure(history).axes
  drawn = {line.get_label(): line for line in axes.lines}
  points, *_ = axes.lines
  assert points.get_xdata().tolist() == history.id[~history.failed].tolist()
  best = int(history.id[np.nanargmax(history.reward)])
  x, y = drawn["best so far"].get_data()
  assert x[list(y).index(max(y))] == best
  low, high = axes.get_xlim()
  assert low < 0 and 49 < high < 51
  # Without rounds children are told in another order than they were asked for.
  turned = runs.History(**(history._asdict() | {"id": history.id[::-1]}))
  points, *_ = search_charts.reward_figure(turned).axes[0].lines
  assert (
    points.get_xdata()[0] == 0 and points.get_ydata()[0] == (history.reward[-1])
  )


def test_children_over_the_limit_did_not_fail(make_run):
  folder = make_run(children=40, finished=False)
  path = folder / "history.jsonl"
  text = path.read_text().replace('"failed"', '"over_limit"', 3)
  path.write_text(text)
  words = report.summary_text(folder).splitlines()[0]
  assert words.startswith("40 children, 1 failed, 3 over the limit")
  (axes,) = search_charts.reward_figure(runs.read_history(path)).axes
  labels = [line.get_label() for line in axes.lines]
  assert "failed (1)" in labels and "over the limit (3)" in labels


def test_what_a_single_round_cannot_tell_is_not_drawn(make_run):
  run = runs.read_run(make_run(children=20))
  history, space = run.history, runs.space_of(run)
  assert search_charts.operations_figure(history, space) is None
  (axes,) = search_charts.reward_figure(history).axes
  labels = [line.get_label() for line in axes.lines]
  assert not any(label.startswith("mean of last") for label in labels)


def test_the_winners_mark_hides_no_point_and_has_room(make_run):
  history = runs.read_run(make_run()).history
  best = int(history.id[np.nanargmax(history.accuracy)])
  (axes,) = search_charts.tradeoff_figure(history, "params", best).axes
  (mark,) = [line for line in axes.lines if line.get_label() == "winner"]
  assert mark.get_markerfacecolor() == "none"
  low, high = axes.get_ylim()
  assert high - mark.get_ydata()[0] > 0.05 * (high - low)


def test_one_child_of_two_sizes_is_told_as_such(make_run):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  child = result["winner"]["id"]
  result["winner"]["params"] = 777_777
  result["top_k"][0]["params"] = 777_777
  (folder / "result.json").write_text(json.dumps(result))
  text = _page(folder).text
  assert "777,777" in text
  assert f"of the final network; {100_000 + 1000 * child:,} as searched" in text
  assert "as searched" in text and "the final network" in text


def test_each_child_to_take_is_drawn_with_the_command_that_trains_it(make_run):
  folder = make_run()
  page = _page(folder)
  result = json.loads((folder / "result.json").read_text())
  assert len(result["top_k"]) == 3
  for row in result["top_k"]:
    assert f"child{row['id']}-cell_normal-block-0" in page.ids
    wanted = f"{folder}#{row['id']}"
    assert f"--config.model.genotype={wanted} --workdir=" in page.text
  assert (folder / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize(
  ("typed", "predict", "config"),
  [
    ("nasnet-jax search", "nasnet-jax predict", "--config=train_cifar "),
    (
      "python launch/main.py --config=x",
      "python launch/predict.py",
      "--config=configs/train_cifar.py",
    ),
    ("", "nasnet-jax predict", "--config=train_cifar "),
  ],
)
def test_next_steps_are_in_the_form_that_was_typed(
  make_run, typed, predict, config
):
  folder = make_run()
  result = json.loads((folder / "result.json").read_text())
  result["command"] = typed
  result["data"]["load"] = {}
  (folder / "result.json").write_text(json.dumps(result))
  fields = {
    "source": "folder",
    "options": {"path": "my pictures", "name": None},
  }
  (folder / "config.json").write_text(
    json.dumps({"space": {"name": "nasnet"}, "data": fields})
  )
  text = _page(folder).text
  assert f"{predict} --checkpoint={folder} PICTURES" in text
  assert config in text and "--config.data.source=folder" in text
  assert "'--config.data.options.path=my pictures'" in text
  for name in ("evaluate", "export", "finetune"):
    assert name in text


def _with_other_rewards(folder):
  """Makes the run one of MnasNet's reward and of successive halving: every
  second child was stopped, and child 1 is the best of all."""
  path = folder / "history.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    if line["status"] == "ok":
      line["accuracy"] = line["reward"]
      line["reward"] = line["accuracy"] * 0.5
    line["bytes"] = 1000 + line["id"]
    line["horizon"] = 20 if line["id"] % 2 else 10
  lines[1].update(accuracy=0.99, reward=0.6, params=1, macs=1, bytes=1)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  reward = {"kind": "mnasnet_soft", "cost": "params", "target": 120_000.0}
  config = json.loads((folder / "config.json").read_text())
  config["search"] = {"reward": reward}
  (folder / "config.json").write_text(json.dumps(config))
  return lines


def test_pareto_fronts_are_of_children_that_ran_to_the_end(make_run):
  folder = make_run()
  lines = _with_other_rewards(folder)
  history = runs.read_history(folder / "history.jsonl")
  for cost in ("params", "macs", "bytes"):
    can = [x for x in lines if x["status"] == "ok" and x["id"] % 2 == 0]
    wanted = [
      x["id"]
      for x in can
      if not any(
        y[cost] < x[cost] and y["accuracy"] >= x["accuracy"] for y in can
      )
    ]
    assert sorted(history.id[search_charts.front(history, cost)]) == wanted
  axes = search_charts.tradeoff_figure(
    history, "params", target=120_000.0
  ).axes[0]
  drawn = {line.get_label(): line for line in axes.lines}
  front = search_charts.front(history, "params")
  ends = drawn["Pareto front"].get_xydata()
  assert ends[:, 0] == pytest.approx(history.params[front] / 1000)
  assert ends[:, 1] == pytest.approx(100 * history.accuracy[front])
  assert drawn["target"].get_xdata() == [120.0, 120.0]
  assert "stopped" in drawn


def test_the_report_shows_accuracy_beside_another_reward(make_run):
  folder = make_run()
  _with_other_rewards(folder)
  result = json.loads((folder / "result.json").read_text())
  result["cost"] |= {
    "child_epochs": 120.5,
    "stopped": 16,
    "epochs_saved": 60.25,
    "seconds_saved": 30.0,
  }
  (folder / "result.json").write_text(json.dumps(result))
  page = _page(folder)
  for words in (
    "Accuracy in the search",
    "Accuracy against bytes moved",
    "The children on the Pareto fronts",
    "16 stopped early",
    "120.5",
    "60.2 more saved, about 30 s",
  ):
    assert words in page.text, words
  assert (folder / "figures/accuracy_bytes.png").stat().st_size > 0
  assert "(child 1, accuracy 0.9900)" in report.summary_text(folder)


def test_the_report_says_who_began_with_whose_weights(make_run):
  folder = make_run()
  path = folder / "history.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  best = max(lines, key=lambda line: line["reward"] or 0)["id"]
  for line in lines:
    line |= {"parent": None if line["id"] < 7 else 3, "inherited": False}
  lines[best] |= {"parent": 5, "inherited": True}
  lines[(best + 1) % 40] |= {"parent": 6, "inherited": True}
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  page = _page(folder)
  assert "2 began with their parent's weights" in page.text
  assert "with weights of child 5" in page.text
  assert "weights of child 3" not in page.text


def test_without_bytes_there_is_no_chart_of_them(make_run):
  page = _page(make_run())
  assert "Accuracy against parameters" in page.text
  assert "Accuracy against multiply-adds" in page.text
  assert "bytes moved" not in page.text
  assert "Accuracy in the search" not in page.text


def test_the_same_run_gives_the_same_report(make_run):
  folder = make_run()
  first = report.write_report(folder).read_bytes()
  assert report.write_report(folder).read_bytes() == first


def test_the_report_needs_no_jax():
  code = "import sys, nasnet_jax.report; sys.exit('jax' in sys.modules)"
  env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
  subprocess.run([sys.executable, "-c", code], check=True, env=env)
