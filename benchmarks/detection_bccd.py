"""Do features learnt in classification help to find blood cells?

    python benchmarks/detection_bccd.py --bccd=BCCD --cifar=DATA \\
      --runs=runs/bccd

BCCD (Shenggan 2017; 205 images to train on, 87 to validate, 72 to test) at a
quarter of its sides. Three settings of one detector, two seeds each: cells that
our search found, trained on CIFAR-10 images before; the same from nothing; and
NASNet-A's cell, trained before in the same way. `--cifar` is the folder of an
archive of class folders (`cifar10_jpeg_60000.tar.xz`), or of a folder with
another name by `--images`.

Every training is a job of its own under `--runs`, so the command goes on where
it was stopped. What came out goes to `--out`: results.json and the curves.
Test pictures with what was found on them are the set's, so they stay under
`--runs`, in pictures/. `--summary` writes all of these of what is there.
"""

import argparse
import importlib.util
import json
import logging
import pathlib
import shutil
from typing import Any, NamedTuple

from nasnet_jax.training import mesh

ROOT = pathlib.Path(__file__).parents[1]
FOUND = "docs/results/search_cifar_small/pnas/result.json"
SEEDS = (0, 1)
SHOWN = 4  # pictures per setting
LEAST_SCORE = 0.4  # of boxes that are drawn


class Setting(NamedTuple):
  """Cells, and whether they are trained to classify first."""

  genotype: str
  pretrained: bool


SETTINGS = {
  "found cell, pretrained": Setting(FOUND, True),
  "found cell, from nothing": Setting(FOUND, False),
  "NASNet-A, pretrained": Setting("nasnet_a", True),
}
# Of all networks. One reduction behind the stem's two: the map that regions
# are proposed on has a stride of 8, for cells of 5 to 60 pixels.
NETWORK = {
  "network.num_cells": 1,
  "network.features": 16,
  "network.stem": "imagenet",
  "network.stem_features": 16,
  "network.num_reductions": 1,
  "network.init": "fan_in",
  "network.bn_decay": 0.9,
}
CLASSIFIER = {
  "data.options.image_size": 32,
  "data.options.note": "CIFAR-10, JPEG-recompressed",
  "data.augmentation.pad": 4,
  "train.epochs": 5,
}
DETECTOR = {
  "data.options.valid_split": "val",
  "data.sizes.buckets": ((160, 216),),
  "data.sizes.shorter": 160,
  "data.sizes.longer": 216,
  "detector.anchors.base": 48.0,  # 12 to 96 pixels
  "detector.rpn_batch": 128,
  "detector.proposals": 60,
  "train.epochs": 10,
  "train.report_epochs": 2.0,
  "train.eval_batch_size": 12,
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--bccd", required=True)
  parser.add_argument("--cifar", required=True)
  parser.add_argument("--images", default="cifar10_jpeg_60000.tar.xz")
  parser.add_argument("--runs", default="runs/detection_bccd")
  parser.add_argument("--out", default="docs/results/detection_bccd")
  parser.add_argument("--only", nargs="*", default=list(SETTINGS))
  parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
  parser.add_argument("--summary", action="store_true")
  options = parser.parse_args()
  logging.basicConfig(format="%(message)s")
  logging.getLogger("nasnet_jax").setLevel(logging.INFO)
  mesh.prepare_host()
  runs, out = pathlib.Path(options.runs), pathlib.Path(options.out)
  if not options.summary:
    for seed in options.seeds:
      for name in options.only:
        run(name, seed, options, runs)
  summarise(runs, out, options)


def run(name: str, seed: int, options, runs: pathlib.Path):
  """One detector, and the classifier that it starts from if need be."""
  from nasnet_jax.jobs import detect, train  # only now may JAX start

  setting = SETTINGS[name]
  print(f"{name}, seed {seed}", flush=True)
  changes: dict[str, Any] = {"model.genotype": setting.genotype, **NETWORK}
  if setting.pretrained:
    folder = runs / folder_of(f"classifier of {name}")
    train.run(classifier_config(setting, options), folder)
    changes = {"model.genotype": "", "model.checkpoint": str(folder)}
  config = load("detect_voc", "bccd")
  config.update_from_flattened_dict({**DETECTOR, **changes})
  config.data.data_dir = options.bccd
  config.train.seed = seed
  detect.run(config, runs / folder_of(f"{name} {seed}"))


def classifier_config(setting: Setting, options):
  """The classifier's training; one for all seeds of the detector."""
  config = load("train_cifar", "small")
  config.update_from_flattened_dict({**NETWORK, **CLASSIFIER})
  config.model.genotype = setting.genotype
  config.data.data_dir = options.cifar
  config.data.options.path = options.images
  return config


def folder_of(name: str) -> str:
  return name.replace(",", "").replace(" ", "_")


def load(name: str, variant: str):
  """A config of configs/."""
  spec = importlib.util.spec_from_file_location(
    name, ROOT / "configs" / f"{name}.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


# --- what came out -----------------------------------------------------------


def summarise(runs: pathlib.Path, out: pathlib.Path, options):
  """Writes everything of the runs that have ended."""
  from nasnet_jax import report
  from nasnet_jax.training import workdir

  done = {
    name: {
      seed: folder
      for seed in SEEDS
      if (folder := runs / folder_of(f"{name} {seed}")).is_dir()
      and (folder / "result.json").exists()
    }
    for name in SETTINGS
  }
  done = {name: found for name, found in done.items() if found}
  if not done:
    return
  (out / "figures").mkdir(parents=True, exist_ok=True)
  rows = [
    row_of(name, seed, folder, runs)
    for name, found in done.items()
    for seed, folder in found.items()
  ]
  workdir.write_json(out / "results.json", rows)
  curves = {name: list(found.values()) for name, found in done.items()}
  report.draw_trainings(curves, out / "figures" / "ap50", score="AP50")
  for name, found in done.items():
    draw(name, min(found.items())[1], runs / "pictures", options)
  print(table(rows))


def row_of(name: str, seed: int, folder: pathlib.Path, runs) -> dict[str, Any]:
  """What results.json holds of a run."""
  result = json.loads((folder / "result.json").read_text())
  lines = (folder / "retrain.jsonl").read_text().splitlines()
  shown = ("epoch", "loss", "valid_accuracy", "seconds")
  row = {
    "name": name,
    "seed": seed,
    "params": result["params"],
    "test": result["test"],
    "valid_voc_ap50": result["valid_voc_ap50"],
    "seconds": result["cost"]["total_seconds"],
    "curve": [{k: json.loads(line)[k] for k in shown} for line in lines],
    "environment": result["environment"],
  }
  classifier = runs / folder_of(f"classifier of {name}") / "result.json"
  if SETTINGS[name].pretrained:
    found = json.loads(classifier.read_text())
    row["classifier"] = {
      "test_accuracy": found["test_accuracy"],
      "test_examples": found["test_examples"],
      "seconds": found["cost"]["total_seconds"],
    }
  return row


def draw(name: str, folder: pathlib.Path, out: pathlib.Path, options):
  """The first test pictures with what the detector finds on them."""
  from nasnet_jax.jobs import predict_boxes

  top = pathlib.Path(options.bccd)
  names = (top / "ImageSets" / "Main" / "test.txt").read_text().split()
  paths = [top / "JPEGImages" / f"{stem}.jpg" for stem in names[:SHOWN]]
  detector = predict_boxes.load(folder)
  target = out / folder_of(name)
  shutil.rmtree(target, ignore_errors=True)
  classes = detector.result["data"]["classes"]
  for answer in predict_boxes.find(detector, paths, LEAST_SCORE):
    predict_boxes.draw(answer, classes, target)


def table(rows) -> str:
  """Markdown: one line per run."""
  lines = [
    "| setting | seed | parameters | test AP50 | AP (COCO) | by class |",
    "|---|---|---|---|---|---|",
  ]
  for row in rows:
    test = row["test"]
    by_class = ", ".join(
      f"{name} {value:.3f}" for name, value in test["voc_ap50_by_class"].items()
    )
    coco = f"{test['coco']['ap']:.3f}" if test["coco"] else ""
    lines.append(
      f"| {row['name']} | {row['seed']} | {row['params']:,}"
      f" | {test['voc_ap50']:.3f} | {coco} | {by_class} |"
    )
  return "\n".join(lines)


if __name__ == "__main__":
  main()
