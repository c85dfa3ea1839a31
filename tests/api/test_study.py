"""A search's folder, looked at: that of a search whose files are kept."""

import json
import pathlib

import pytest

import nasnet_jax as nas

_KEPT = pathlib.Path(__file__).parents[2] / "docs/results/search_cifar_small"


@pytest.fixture(name="study", scope="module")
def _study():
  return nas.Study(_KEPT / "evolution")


def test_children_are_the_rows_of_the_history(study):
  lines = (study.folder / "history.jsonl").read_text().splitlines()
  assert study.children == [json.loads(line) for line in lines]


def test_the_best_come_first(study):
  rewards = [row["reward"] for row in study.best(5)]
  known = [r["reward"] for r in study.children if r["status"] == "ok"]
  assert rewards == sorted(known, reverse=True)[:5]


def test_nobody_beats_a_child_of_the_front_in_both(study):
  front = study.front("params")
  assert len(front) > 1
  for row in front:
    for other in study.children:
      if other["status"] == "ok":
        assert not (
          other["params"] < row["params"] and other["reward"] > row["reward"]
        )
  with pytest.raises(ValueError, match="no cost is called 'flops'"):
    study.front("flops")


def test_a_genotype_is_that_of_the_child(study):
  won = json.loads((study.folder / "result.json").read_text())["winner"]
  assert study.genotype(won["id"]) == won["genotype"]
  with pytest.raises(ValueError, match="has no child 999"):
    study.genotype(999)


def test_a_notebook_shows_the_cells_and_the_curve(study):
  before = sorted(study.folder.rglob("*"))
  text = study._repr_html_()
  assert text.count("<svg") == 3  # two cells and the rewards
  assert "test accuracy" in text
  assert sorted(study.folder.rglob("*")) == before


def test_a_frame_has_a_row_per_child(study):
  pytest.importorskip("pandas")
  assert study.children.frame()["reward"].count() == len(study.children)


def test_a_search_that_trains_its_children_is_not_asked(study):
  with pytest.raises(ValueError, match="trains its children itself"):
    study.ask()


def test_a_search_by_hand_is_reported_and_does_not_go_on_by_itself(tmp_path):
  study = nas.Study(tmp_path, space="pnas", strategy="random_search")
  study.run(lambda child: 0.1 * child.id, children=3)
  assert study.report().exists()
  assert study._repr_html_().count("<svg") == 2  # the cell and the rewards
  assert study.genotype("1st") == study.genotype(2)
  with pytest.raises(ValueError, match="job 'by_hand'"):
    study.resume()


def test_report_and_export_take_a_study_or_its_folder(study, tmp_path):
  study = nas.Study(tmp_path, space=[2, 2], strategy="random_search")
  study.run(lambda child: 0.5, children=2)
  assert nas.report(study) == nas.report(tmp_path)
  with pytest.raises(ValueError, match="did you mean 'onnx'"):
    nas.export(study, "onx")
