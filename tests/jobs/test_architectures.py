"""Any child of a search, and architectures in files, by one function."""

import json

import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.jobs import results

OPTIONS = {"num_blocks": 2, "operations": ["identity", "conv_1x1"]}
SPACE = spaces.get("nasnet", **OPTIONS)
DECISIONS = SPACE.sample(np.random.default_rng(0), 5).tolist()


def _row(child, reward, decisions, status="ok"):
  row = {"id": child, "reward": reward, "decisions": decisions, "steps": 4}
  return {**row, "status": status}


ROWS = [
  _row(0, 0.5, DECISIONS[0]),
  _row(1, 0.9, DECISIONS[1]),
  _row(2, None, DECISIONS[2], "failed"),
  _row(3, 0.9, DECISIONS[1]),  # 1 again
  _row(4, 0.7, DECISIONS[3]),
  _row(5, None, DECISIONS[4], "over_limit"),
]


@pytest.fixture
def run(tmp_path):
  """A search under way."""
  folder = tmp_path / "run"
  folder.mkdir()
  config = {"job": "search", "space": {"name": "nasnet", **OPTIONS}}
  (folder / "config.json").write_text(json.dumps(config))
  _write(folder, ROWS)
  return folder


def _write(folder, rows):
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "history.jsonl").write_text(lines + '{"id": 6, "dec')


def _is(found, decisions):
  space, genotype = found
  assert space == SPACE
  want = SPACE.to_json(SPACE.decode(np.array(decisions)))
  assert space.to_json(genotype) == want


@pytest.mark.parametrize(
  ("which", "child"), [("0", 0), ("4", 4), ("1st", 1), ("2nd", 4), ("3rd", 0)]
)
def test_a_child_of_a_search_under_way_by_number_and_by_place(
  run, which, child
):
  _is(results.find_cells(f"{run}#{which}"), DECISIONS[[0, 1, 2, 1, 3][child]])


def test_places_of_a_finished_search_are_those_of_its_ranking(run):
  top = [{"id": 0}, {"id": 1}]
  (run / "result.json").write_text(json.dumps({"top_k": top}))
  _is(results.find_cells(f"{run}#1st"), DECISIONS[0])
  _is(results.find_cells(f"{run}#2nd"), DECISIONS[1])
  _is(results.find_cells(f"{run}#3rd"), DECISIONS[3])


@pytest.mark.parametrize(
  ("which", "words"),
  [
    ("7", "has no child 7: its 6 children so far are numbered from 0 to 5"),
    ("2", "child 2 of .* failed: take another"),
    ("5", "child 5 of .* was over a limit: take another"),
    (
      "4th",
      "has 3 different children that succeeded so far, so none has place 4",
    ),
    ("best", "give a child's number, as in .*#12, or its place, as in .*#2nd"),
    ("0th", "give a child's number"),
  ],
)
def test_a_child_that_cannot_be_taken_is_one_line(run, which, words):
  with pytest.raises(ValueError, match=words) as error:
    results.find_cells(f"{run}#{which}")
  assert "\n" not in str(error.value)


def test_a_run_without_children_or_of_another_job_is_one_line(run, tmp_path):
  _write(run, [])
  with pytest.raises(ValueError, match="has no children yet"):
    results.find_cells(f"{run}#0")
  with pytest.raises(ValueError, match=r"not finished: .*#1st takes its"):
    results.find_cells(str(run))
  (run / "config.json").write_text('{"job": "train"}')
  with pytest.raises(ValueError, match="job 'train', which has no children"):
    results.find_cells(f"{run}#0")
  with pytest.raises(ValueError, match="no such folder"):
    results.find_cells(f"{tmp_path / 'nowhere'}#0")


def test_a_folder_whose_name_has_the_mark_is_a_folder(run, tmp_path):
  winner = {"genotype": SPACE.to_json(SPACE.decode(np.array(DECISIONS[2])))}
  result = {"space": "nasnet", "space_options": OPTIONS, "winner": winner}
  odd = tmp_path / "odd#1"
  odd.mkdir()
  (odd / "result.json").write_text(json.dumps(result))
  _is(results.find_cells(str(odd)), DECISIONS[2])


FILES = {
  "cells": (SPACE, SPACE.decode(np.array(DECISIONS[0]))),
  "published cells": results.find_cells("nasnet_a"),
  "blocks": results.find_cells("efficientnet"),
  "stages": (
    spaces.get("genetic_cnn", nodes=(3, 4)),
    spaces.get("genetic_cnn", nodes=(3, 4)).decode(np.ones(9, np.int32)),
  ),
  "mnasnet": (
    spaces.MNASNET,
    spaces.MNASNET.decode(np.zeros(len(spaces.MNASNET.num_choices), int)),
  ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("in_row", [False, True])
def test_a_genotype_in_a_file_is_the_same_again(tmp_path, name, in_row):
  space, genotype = FILES[name]
  data = space.to_json(genotype)
  path = tmp_path / "genotype.json"
  path.write_text(json.dumps({"genotype": data} if in_row else data))
  found_space, found = results.find_cells(str(path))
  again = found_space.to_json(found)
  assert {**again, "space": data["space"]} == data


def test_published_names_are_not_files():
  assert results.find_cells("pnasnet_5")[0] == zoo.cells.CELLS["pnasnet_5"][0]
  with pytest.raises(ValueError, match="neither a published cell"):
    results.find_cells("nasnet_z")


@pytest.mark.parametrize("text", ["[]", "{}", '{"space": "nasnt"}', "{", "3"])
def test_a_file_without_cells_is_one_line(tmp_path, text):
  (tmp_path / "a.json").write_text(text)
  with pytest.raises(ValueError, match="has no cells of ours") as error:
    results.find_cells(str(tmp_path / "a.json"))
  assert "\n" not in str(error.value)


def test_another_file_of_a_search_says_how_to_take_a_child(tmp_path):
  (tmp_path / "history.jsonl").write_text('{"id": 0}\n{"id": 1}\n')
  with pytest.raises(ValueError, match=f"{tmp_path}#12 takes child 12"):
    results.find_cells(str(tmp_path / "history.jsonl"))
