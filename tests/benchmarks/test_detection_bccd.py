"""Settings of the study on BCCD, and its table."""

import types

import pytest


@pytest.fixture(scope="module")
def study(script):
  return script("detection_bccd")


def test_settings_are_those_of_configs_that_there_are(study):
  options = types.SimpleNamespace(cifar="data", images="images.tar")
  found = {
    name: study.classifier_config(setting, options)
    for name, setting in study.SETTINGS.items()
  }
  assert found["NASNet-A, pretrained"].model.genotype == "nasnet_a"
  assert found["found cell, pretrained"].model.genotype == study.FOUND
  assert (study.ROOT / study.FOUND).exists()
  for config in found.values():
    assert config.network.stem == "imagenet"
    assert config.data.options.path == "images.tar"
  config = study.load("detect_voc", "bccd")
  config.update_from_flattened_dict({**study.DETECTOR, **study.NETWORK})
  assert config.data.options.valid_split == "val"


def test_the_table_has_a_line_per_run(study):
  row = {
    "name": "a",
    "seed": 1,
    "params": 1234,
    "test": {
      "voc_ap50": 0.5,
      "voc_ap50_by_class": {"RBC": 0.25, "WBC": 0.75},
      "coco": None,
    },
  }
  lines = study.table([row, row]).splitlines()
  assert len(lines) == 4
  assert lines[2] == lines[3]
  assert lines[2].startswith("| a | 1 | 1,234 | 0.500 |  | RBC 0.250, WBC 0.75")
