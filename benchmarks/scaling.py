"""Depth, width, resolution or all three, at about the same multiply-adds.

    python benchmarks/scaling.py --data=DATA --runs=runs/scaling \\
        --out=docs/results/scaling

DATA holds cifar10_jpeg_60000.tar.xz. The three studies of
`configs/scale_grid.py` that are sized for two cores: a MobileNetV2, a ResNet-20
and a network of a cell that our search found, each trained as it is, and grown
to about twice its multiply-adds in four ways, with two seeds: Tan & Le 2019,
table 3 and figure 3. Each goes on where it was stopped. `--only=small_resnet`
runs one of them: two commands, each under `taskset -c N`, use two cores best.
What is there is written to OUT after each.
"""

import argparse
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nasnet_jax import report  # noqa: E402
from nasnet_jax.cli import shipped  # noqa: E402
from nasnet_jax.report import scalings  # noqa: E402

STUDIES = {
  "small_mbconv": "MobileNetV2, narrow",
  "small_resnet": "ResNet-20",
  "small_cell": "found cell",
}

KEPT = ("winner", "network", "rows", "environment", "seed")  # of a result.json


def get_config(args, variant: str):
  """That variant of `scale_grid`, with the study's images."""
  config = shipped.config(f"scale_grid:{variant}")
  archive = pathlib.Path(args.data) / "cifar10_jpeg_60000.tar.xz"
  config.data.options.path = str(archive)
  config.data.max_per_class = args.images
  return config


def table(studies: dict) -> str:
  """All networks, in Markdown."""
  lines = [
    "| baseline | grown | depth, width, resolution | multiply-adds | parameters"
    " | validation, % | test of each seed, % | mean | minus baseline |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for title, rows in studies.items():
    groups = scalings.by_network(rows)
    start = _mean(groups[0], "test_accuracy")
    for group in groups:
      row, mean = group[0], _mean(group, "test_accuracy")
      factors = ", ".join(
        f"{row[name]:g}" for name in ("depth", "width", "resolution")
      )
      tests = ", ".join(f"{100 * r['test_accuracy']:.1f}" for r in group)
      grown = scalings.grown(row)
      lines.append(
        f"| {title} | {grown or '-'} | {factors} | {row['macs'] / 1e6:.1f} M |"
        f" {row['params']:,} | {_mean(group, 'valid_accuracy'):.1f} | {tests} |"
        f" {mean:.1f} | {f'{mean - start:+.1f}' if grown else '-'} |"
      )
  return "\n".join(lines) + "\n"


def _mean(rows: list[dict], name: str) -> float:
  return 100 * statistics.mean(row[name] for row in rows)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", required=True)
  parser.add_argument("--runs", default="runs/scaling")
  parser.add_argument("--out", default="scaling")
  parser.add_argument("--images", type=int, default=350)  # per class, and split
  parser.add_argument("--only", choices=STUDIES)
  args = parser.parse_args()
  from nasnet_jax.training import mesh

  mesh.prepare_host()
  from nasnet_jax.jobs import scale  # only now may JAX start

  runs = pathlib.Path(args.runs).resolve()
  for variant in [args.only] if args.only else STUDIES:
    scale.run(get_config(args, variant), runs / variant)
    write(runs, pathlib.Path(args.out), args.images)


def write(runs: pathlib.Path, out: pathlib.Path, images: int) -> None:
  """results.json, table.md and the picture, of the studies that are done."""
  results = {}
  for variant in STUDIES:
    path = runs / variant / "result.json"
    if path.exists():
      found = json.loads(path.read_text())
      results[variant] = {name: found[name] for name in KEPT if name in found}
  rows = {STUDIES[name]: found["rows"] for name, found in results.items()}
  out.mkdir(parents=True, exist_ok=True)
  text = json.dumps({"images per class": images, "studies": results}, indent=1)
  (out / "results.json").write_text(text + "\n")
  (out / "table.md").write_text(table(rows))
  report.draw_scalings(rows, out / "scaling")


if __name__ == "__main__":
  main()
