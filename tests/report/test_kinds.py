"""Jobs that are no searches have pages of their own kind."""

import json
import re

import pytest

from nasnet_jax import report, spaces, zoo

PIXEL = "data:image/png;base64,iVBORw0KGgo="
GENOTYPE = spaces.NASNET.to_json(zoo.cells.genotype("nasnet_a"))


def _write(folder, name: str, value):
  (folder / name).write_text(json.dumps(value))


def _curve(folder, epochs: int):
  rows = [
    {
      "id": 0,
      "stage": "train",
      "step": 10 * epoch,
      "epoch": epoch,
      "loss": 1 / epoch,
      "accuracy": 0.5,
      "valid_accuracy": 0.25,
      "seconds": 50.0 if epoch == 1 else 10.0,
    }
    for epoch in range(1, epochs + 1)
  ]
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "retrain.jsonl").write_text(lines)


@pytest.fixture
def training(tmp_path):
  """The folder of a finished training."""
  config = {"job": "train", "train": {"epochs": 4}, "cells": GENOTYPE}
  _write(tmp_path, "config.json", config | {"data": {"source": "digits"}})
  _curve(tmp_path, 4)
  result = {
    "job": "train",
    "space": "nasnet",
    "space_options": {},
    "winner": {"genotype": GENOTYPE, "params": 4321, "macs": 98765},
    "test_accuracy": 0.75,
    "test_correct": 3,
    "test_examples": 4,
    "test_mean_per_class": 0.8,
    "data": {"name": "digits", "classes": ["0", "1<2"], "load": {}},
  }
  _write(tmp_path, "result.json", result)
  return tmp_path


def test_a_training_has_a_page_of_its_own(training):
  text = report.write_report(training).read_text()
  for words in ("child", "search", "ranked", "winner", "?</dd>", "Winner"):
    assert words not in text.split("<section>", 1)[1].split("Reproduce")[0], (
      words
    )
  for words in ("75.00%", "80.00%", "4,321", "98,765", "The training", "of 4"):
    assert words in text, words
  said = report.summary_text(training)
  assert "child" not in said and "4,321 parameters" in said
  names = {p.stem for p in (training / "figures").iterdir()}
  assert names == {"training", "cells", "cell_normal", "cell_reduction"}


def test_a_training_under_way_says_how_far_it_is(training):
  (training / "result.json").unlink()
  _curve(training, 2)
  text = report.write_report(training).read_text()
  # Ten seconds an epoch: the first has the compiling in it.
  assert "epoch 2 of 4, about 20 s to go, data digits" in text
  assert 'aria-valuenow="50"' in text and "25.00%" in text
  (training / "retrain.jsonl").unlink()
  text = report.write_report(training).read_text()
  assert "has just begun" in text and "<svg" in text  # its cells


def test_what_a_network_gets_wrong_is_shown(training):
  tested = {
    "examples": 4,
    "correct": 3,
    "mean_per_class": 0.8,
    "classes": [
      {"name": "0", "examples": 2, "correct": 1},
      {"name": "1<2", "examples": 2, "correct": 2},
    ],
    "answers": ["0", "1<2", "unseen"],
    "confusion": [[1, 0, 1], [0, 2, 0]],
    "wrong": [{"picture": PIXEL, "is": "0", "said": "unseen", "share": 0.9}],
    "sample": [{"picture": PIXEL, "is": "1<2"}],
  }
  _write(training, "test_answers.json", tested)
  text = report.write_report(training).read_text()
  for words in (
    "1 of 4 test images are wrong",
    '<th scope="col">others</th>',
    "1&lt;2",
    "taken for <b>unseen</b> (90%)",
    "The images",
    "50.00%",
  ):
    assert words in text, words
  assert "1<2" not in text and text.count(PIXEL) == 2
  tested["wrong"][0]["picture"] = "https://elsewhere/x.png"
  _write(training, "test_answers.json", tested)
  assert "elsewhere" not in report.write_report(training).read_text()


def test_of_many_classes_the_worst_are_listed(training):
  names = [f"class {i}" for i in range(100)]
  classes = [{"name": n, "examples": 10, "correct": 9} for n in names]
  classes[70] |= {"correct": 2}
  tested = {
    "examples": 1000,
    "correct": 893,
    "classes": classes,
    "answers": names,
    "confusion": None,
    "pairs": [[i, i, 9] for i in range(100)] + [[70, 3, 8]],
  }
  _write(training, "test_answers.json", tested)
  text = report.write_report(training).read_text()
  assert "the lowest 12" in text and "20.00%" in text
  assert "<td>class 70</td><td>class 3</td><td>8 of 10</td>" in text
  assert "Confusion matrix" not in text


def test_a_detector_has_precision_and_recall_and_pictures(tmp_path):
  config = {"job": "detect", "train": {"epochs": 2}, "data": {"source": "voc"}}
  _write(tmp_path, "config.json", config)
  _curve(tmp_path, 2)
  result = {
    "job": "detect",
    "params": 1234,
    "winner": {"genotype": GENOTYPE},
    "test": {
      "voc_ap50": 0.625,
      "voc_ap50_by_class": {"cat": 0.625, "dog": None},
      "coco": {"ap": 0.31, "ap75": 0.2, "ar_100": 0.4},
      "images": 7,
    },
    "data": {"name": "voc", "classes": ["cat", "dog"]},
  }
  _write(tmp_path, "result.json", result)
  counts = [
    {"name": "cat", "found": 4, "right": 3, "true": 6},
    {"name": "dog", "found": 0, "right": 0, "true": 0},
  ]
  pictures = [{"picture": PIXEL, "found": 4, "true": 6}]
  kept = {"score": 0.5, "by_class": counts, "boxes": pictures}
  _write(tmp_path, "test_answers.json", kept)
  text = report.write_report(tmp_path).read_text()
  row = "<td>cat</td><td>62.50%</td><td>75.00%</td><td>50.00%</td><td>6</td>"
  for words in (row, "31.00%", "1,234", "4 found, 6 there", "none there"):
    assert words in text, words
  words = re.sub("<[^>]*>", "", text)
  assert "nasnet-jax detect --checkpoint=" in words
  assert "predict" not in words
  assert "child" not in text.split("<section>", 1)[1].split("Reproduce")[0]
  assert report.summary_text(tmp_path).splitlines()[1] == (
    "test AP50 (VOC): 62.50%"
  )
