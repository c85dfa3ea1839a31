"""A detector learns: it knows eight real pictures by heart."""

import importlib.util
import json
import pathlib
import shutil

import pytest

from nasnet_jax.jobs import detect

ROOT = pathlib.Path(__file__).parents[2]
_LEAST = 0.1  # of the longer side of a picture: objects that are 16 pixels here


def _config():
  path = ROOT / "configs" / "detect_voc.py"
  spec = importlib.util.spec_from_file_location("detect_voc", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config("tiny")


def eight_pictures(coco: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """The first eight pictures of COCO's sample without crowds and without
  objects that are too small for 160 pixels, to train and to test on."""
  data = json.loads(
    (coco / "annotations" / "instances_train2017.json").read_text()
  )
  boxes: dict[int, list] = {}
  for row in data["annotations"]:
    boxes.setdefault(row["image_id"], []).append(row)

  def is_plain(image) -> bool:
    rows = boxes.get(image["id"], [])
    least = _LEAST * max(image["height"], image["width"])
    return bool(rows) and all(
      not row["iscrowd"] and min(row["bbox"][2:]) >= least for row in rows
    )

  images = [image for image in data["images"] if is_plain(image)][:8]
  rows = [row for image in images for row in boxes[image["id"]]]
  data |= {"images": images, "annotations": rows}
  (folder / "annotations").mkdir(parents=True)
  for split in ("train2017", "val2017"):
    file = folder / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps(data))
    (folder / split).mkdir()
    for image in images:
      name = image["file_name"]
      shutil.copy(coco / "train2017" / name, folder / split / name)
  return folder


def settings(folder):
  """A ResNet-18 of half its width at 160 pixels: minutes of one core."""
  config = _config()
  config.update_from_flattened_dict(
    {
      "model.genotype": "resnet_18",
      "network.width": 0.5,
      "detector.anchors.base": 64.0,
      "detector.rpn_features": 64,
      "detector.rpn_batch": 64,
      "detector.proposals": 50,
      "detector.box_batch": 32,
      "data.source": "coco",
      "data.data_dir": str(folder),
      "data.sizes.buckets": ((160, 160),),
      "data.sizes.shorter": 160,
      "data.sizes.longer": 160,
      "data.sizes.jitter": (1.0, 1.0),
      "data.sizes.flip": False,
      "train.batch_size": 8,
      "train.eval_batch_size": 8,
      "train.epochs": 200,
      "train.warmup_epochs": 10.0,
      "train.learning_rate": 0.02,
      "train.weight_decay": 0.0,
      "train.report_epochs": 40.0,
      "train.checkpoint_seconds": 600.0,
    }
  )
  return config


@pytest.mark.slow
def test_a_detector_learns_eight_real_pictures_by_heart(coco, tmp_path):
  folder = eight_pictures(coco, tmp_path / "eight")
  result = detect.run(settings(folder), tmp_path / "run")
  assert result["test"]["images"] == 8
  assert result["test"]["voc_ap50"] > 0.9
