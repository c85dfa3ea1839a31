"""ScheduledDropPath against none and constant ones: twelve trainings.

    python benchmarks/drop_path.py --data=DATA --runs=runs/drop_path \\
        --out=docs/results/drop_path

DATA holds cifar10_jpeg_60000.tar.xz. NASNet-A at the size of
`configs/train_cifar.py:small`, on a quarter of its images for longer, so that
there is something to regularise; three seeds each. Equal seeds start from the
same weights and see the same images in the same order, so kinds are compared
seed by seed. Every network is measured on all 10,000 test images, and on its
training images without dropping or augmentation; accuracies in curves are of
training as it goes, with both. It may be stopped at any time and goes on with
the same command; the results of those that are done lie in OUT, from where it
goes on without their runs too. About an hour of two CPU cores.
"""

import argparse
import importlib.util
import json
import pathlib
import shutil
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# name -> (keep probability at the end, version). A ramp drops half as much as
# its end over the whole training, so there is a constant of either.
KINDS = {
  "none": (1.0, "both"),
  "constant": (0.8, "constant"),
  "constant_half": (0.9, "constant"),
  "scheduled": (0.8, "time"),  # the paper's
}
SEEDS = (0, 1, 2)


def get_config(args, kind: str, seed: int):
  """`train_cifar:small` with the study's changes."""
  path = ROOT / "configs" / "train_cifar.py"
  spec = importlib.util.spec_from_file_location("train_cifar", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("small")
  config.data.data_dir = args.data
  config.data.max_per_class = args.images
  config.data.num_valid = 0
  config.train.epochs = args.epochs
  config.train.seed = seed
  config.train.drop_path_keep, config.train.drop_path_version = KINDS[kind]
  return config


def table(results: dict) -> str:
  """The results so far, in Markdown."""
  rows = [
    "| drop path | test accuracy of each seed, % | mean ± standard deviation |"
    " minus none, seed by seed | accuracy on training images, % |",
    "|---|---|---|---|---|",
  ]
  none = {row["seed"]: row["test"] for row in results["none"]}
  for kind, found in results.items():
    tests = [100 * row["test"] for row in found]
    against = [
      100 * (row["test"] - none[row["seed"]])
      for row in found
      if row["seed"] in none and kind != "none"
    ]
    listed = ", ".join(f"{value:.2f}" for value in tests)
    seen = ", ".join(f"{100 * row['train']:.1f}" for row in found)
    rows.append(
      f"| {kind} | {listed} | {_mean(tests)} | {_mean(against)} | {seen} |"
    )
  return "\n".join(rows) + "\n"


def _mean(values: list[float]) -> str:
  if len(values) < 2:
    return "-"
  return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def measure(run: pathlib.Path) -> dict[str, float]:
  """Accuracies of a finished training: on all test images, of which its own
  test has as many per class as it trained on, and on its training images."""
  from nasnet_jax import data
  from nasnet_jax.jobs import results
  from nasnet_jax.training import datasets

  found = results.load(run)
  load = found.result["data"]["load"]
  own = data.load(**load)
  every = data.load(**{**load, "max_per_class": None})

  def accuracy(images, labels) -> float:
    images = datasets.on_device(datasets.Images(images, labels))
    return results.evaluate(found, images).accuracy

  return {
    "test": accuracy(every.test_images, every.test_labels),
    "train": accuracy(own.train_images, own.train_labels),
  }


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", required=True)
  parser.add_argument("--runs", default="runs/drop_path")
  parser.add_argument("--out", default="drop_path")
  parser.add_argument("--images", type=int, default=250)  # per class
  parser.add_argument("--epochs", type=int, default=40)
  args = parser.parse_args()
  from nasnet_jax.training import mesh

  mesh.prepare_host()
  from nasnet_jax import report
  from nasnet_jax.jobs import train  # only now may JAX start

  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  settings = {"images": args.images, "epochs": args.epochs, "tested on": "all"}
  results = read(out / "results.json", settings)
  # Seed by seed, so that what is done at any time compares all kinds.
  for seed in SEEDS:
    for kind in KINDS:
      if seed in [row["seed"] for row in results[kind]]:
        continue
      run = pathlib.Path(args.runs) / f"{kind}_{seed}"
      if not (run / "result.json").exists():
        train.run(get_config(args, kind, seed), run)
      curve = out / f"{kind}_{seed}" / "retrain.jsonl"
      curve.parent.mkdir(exist_ok=True)
      shutil.copy(run / "retrain.jsonl", curve)
      row = {"seed": seed, **measure(run)}
      results[kind].append(row)
      text = json.dumps({"settings": settings, "results": results}, indent=1)
      (out / "results.json").write_text(text + "\n")
      (out / "table.md").write_text(table(results))
      print(f"{kind}, seed {seed}: {row['test']:.4f}", flush=True)
  curves = {kind: [out / f"{kind}_{s}" for s in SEEDS] for kind in KINDS}
  report.draw_trainings(curves, out / "curves")


def read(path: pathlib.Path, settings: dict) -> dict:
  """Results of trainings that are done, or exits if they were of others."""
  if not path.exists():
    return {kind: [] for kind in KINDS}
  found = json.loads(path.read_text())
  if found["settings"] != settings:
    sys.exit(f"{path} is of {found['settings']}: take another --out")
  return found["results"]


if __name__ == "__main__":
  main()
