"""ScheduledDropPath against none and a constant one: nine trainings.

    python benchmarks/drop_path.py --data=DATA --runs=runs/drop_path \\
        --out=docs/results/drop_path

DATA holds cifar10_jpeg_60000.tar.xz. NASNet-A at the size of
`configs/train_cifar.py:small`, on a quarter of its images for longer, so that
there is something to regularise; three seeds each. It may be stopped at any
time and goes on with the same command; the results of those that are done lie
in OUT, from where it goes on without their runs too. About an hour of two CPU
cores.
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

# name -> (keep probability at the end, version)
KINDS = {
  "none": (1.0, "both"),
  "constant": (0.8, "constant"),
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
    "| drop path | test accuracy, % | mean | standard deviation | training"
    " accuracy, % |",
    "|---|---|---|---|---|",
  ]
  for kind, found in results.items():
    tests = [100 * row["test"] for row in found]
    mean = f"{statistics.mean(tests):.2f}" if tests else "-"
    spread = f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "-"
    trained = ", ".join(f"{100 * row['train']:.1f}" for row in found)
    listed = ", ".join(f"{value:.2f}" for value in tests)
    rows.append(f"| {kind} | {listed} | {mean} | {spread} | {trained} |")
  return "\n".join(rows) + "\n"


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
  from nasnet_jax import report, train  # only now may JAX start

  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  settings = {"images": args.images, "epochs": args.epochs}
  results = read(out / "results.json", settings)
  # Seed by seed, so that what is done at any time compares all kinds.
  for seed in SEEDS:
    for kind in KINDS:
      if seed in [row["seed"] for row in results[kind]]:
        continue
      run = pathlib.Path(args.runs) / f"{kind}_{seed}"
      found = train.run(get_config(args, kind, seed), run)
      curve = out / f"{kind}_{seed}" / "retrain.jsonl"
      curve.parent.mkdir(exist_ok=True)
      shutil.copy(run / "retrain.jsonl", curve)
      last = json.loads(curve.read_text().splitlines()[-1])
      results[kind].append(
        {
          "seed": seed,
          "test": found["test_accuracy"],
          "train": last["accuracy"],
        }
      )
      text = json.dumps({"settings": settings, "results": results}, indent=1)
      (out / "results.json").write_text(text + "\n")
      (out / "table.md").write_text(table(results))
      print(f"{kind}, seed {seed}: {found['test_accuracy']:.4f}", flush=True)
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
