"""The detection job: what is told before it starts."""

import importlib.util
import pathlib

import numpy as np
import pytest

from nasnet_jax import detect, fit
from nasnet_jax.detection import detector as det
from nasnet_jax.detection import stream
from nasnet_jax.training import workdir

ROOT = pathlib.Path(__file__).parents[2]


def _config(name, variant="tiny"):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory, write):
  """Ten pictures of white boxes in COCO's layout; one has none."""
  rng = np.random.default_rng(0)
  images = []
  for number in range(10):
    side = (96, 128) if number % 3 else (128, 96)
    y, x = rng.integers(4, 40, 2)
    h, w = rng.integers(20, 50, 2)
    boxes = [(y, x, y + h, x + w)] if number else []
    content = write.painted(*side, boxes)
    fields = [
      {"bbox": (int(x), int(y), int(w), int(h)), "category_id": 7}
      for _ in boxes
    ]
    images.append((content, side, fields))
  folder = tmp_path_factory.mktemp("data") / "boxes"
  return write.coco(folder, {"train2017": images, "val2017": images[:7]})


def _tiny(made_up, **changes):
  config = _config("detect_voc")
  config.data.source = "coco"
  config.data.data_dir = str(made_up)
  config.train.batch_size = 2
  config.train.epochs = 1
  config.train.warmup_epochs = 0.0
  config.train.eval_batch_size = 4
  config.data.options.valid_split = "val2017"
  config.update_from_flattened_dict(changes)
  return config


def test_a_classifier_is_told_from_a_detector(tmp_path):
  (tmp_path / "result.json").write_text('{"job": "train"}')
  with pytest.raises(workdir.WorkdirError, match="has no detector"):
    detect.load(tmp_path)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model.genotype": ""}, "neither a published cell"),
    ({"train.patience_epochs": 1.0}, "needs images to score"),
    ({"train.batch_size": 20}, "fewer than one batch"),
    ({"detector.crop": "warp"}, "neither resize nor align"),
    ({"train.steps_per_call": 2}, "a stream gives one"),
    ({"data.sizes.shorter": 500, "data.sizes.longer": 900}, "buckets"),
  ],
)
def test_a_config_that_fits_not_is_told_in_a_line(made_up, changes, words):
  changes = {"data.options.valid_split": None} | changes
  with pytest.raises(ValueError, match=words) as error:
    detect.prepare(_tiny(made_up, **changes))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("name", "variant", "side"),
  [
    ("detect_coco", "", 600),
    ("detect_coco", "large_800", 800),
    ("detect_coco", "large_1200", 1200),
    ("detect_voc", "", 600),
    ("detect_voc", "bccd", 240),
  ],
)
def test_configs_name_fields_that_there_are(name, variant, side):
  config = _config(name, variant)
  fields = config.detector.to_dict()
  anchors = fields.pop("anchors")
  fields.pop("bn_frozen")
  det.DetectorConfig(**fields, anchors=det.Anchors(**anchors))
  sizes = detect._sizes(config.data.sizes.to_dict())
  assert sizes.shorter == side
  assert stream.Sizes(sizes.buckets).largest >= (side, side)
  fields = config.train.to_dict()
  known = set(fit.Recipe.__dataclass_fields__)
  assert set(fields) - known == {"seed", "checkpoint_seconds"}
