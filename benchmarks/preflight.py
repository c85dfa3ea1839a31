"""Compiles jobs for TPU slices that are not here: docs/results/preflight/.

  python benchmarks/preflight.py                     # all, hours on two cores
  python benchmarks/preflight.py --only=search_cifar --topologies=v5e:2x2
  python benchmarks/preflight.py --brief --only=nasnet_a_large
  python benchmarks/preflight.py --table             # of what is there

One compilation at a time. Each leaves a JSON file in docs/results/preflight,
with the hash of the program that went into the compiler; where that is the same
nothing is compiled, so a stopped run goes on.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # a TPU that is here is not touched
# What is compiled for a slice that is not here cannot be read back.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"

import jax
import libtpu

from nasnet_jax.cli import shipped
from nasnet_jax.preflight import chips, figures, plans, program
from nasnet_jax.training import mesh

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "preflight"
SLICES = ("v5e:1x1", "v5e:2x2", "v5e:4x4", "v5e:16x16", "v5p:2x2x1", "v6e:2x2")


@dataclasses.dataclass(frozen=True)
class Subject:
  """A job and the slices that it is compiled for.

  Attributes:
    config: file of configs/, with its variant.
    fields: what is set in it.
    topologies: the first ones are the most telling.
    devices_on_data: whether mesh.data is the slice's size.
    per_device: images of a batch on each of these devices; 0: the batch is as
      the config has it.
  """

  config: str
  topologies: tuple[str, ...]
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  devices_on_data: bool = False
  per_device: int = 0


_EPOCH = 45_000 // 32
# As on a CPU, whatever would be chosen for the chip.
_PLAIN = {"child.fold": 1, "child.width": 1, "child.steps_per_call": 1}
_LARGE = {
  "train.dtype": "bfloat16",
  "network.remat": True,
  "train.bn_group": 0,
}
# Unrolled, their compilation takes more than 20 GB of memory.
_LOOPED = {**_LARGE, "network.scan_cells": True}
SUBJECTS = {
  # Small enough for every slice: how figures per chip scale.
  "search_digits": Subject("search_digits:tiny", SLICES, _PLAIN),
  "search_cifar": Subject(
    "search_cifar",
    ("v5e:16x16", "v5e:1x1", "v5e:2x2", "v5e:4x4", "v6e:2x2", "v5p:2x2x1"),
    {**_PLAIN, "child.steps_per_call": _EPOCH},
  ),
  "search_cifar_folded": Subject(
    "search_cifar",
    ("v5e:1x1",),
    {**_PLAIN, "child.steps_per_call": _EPOCH, "child.fold": 4},
  ),
  # Another recipe: the paper does not give its batch.
  "search_cifar_folded_128": Subject(
    "search_cifar",
    ("v5e:1x1",),
    {
      **_PLAIN,
      "child.steps_per_call": 45_000 // 128,
      "child.fold": 4,
      "child.batch_size": 128,
    },
  ),
  "nasnet_a_large": Subject(
    "transfer_imagenet:nasnet_a_large",
    ("v5e:4x4",),
    {**_LOOPED, "train.batch_size": 256, "train.bn_group": 16},
    True,
  ),
  "pnasnet_5_large": Subject(
    "transfer_imagenet:pnasnet_5_large",
    ("v5e:4x4",),
    {**_LOOPED, "train.batch_size": 256, "train.bn_group": 16},
    True,
  ),
  # 128, 64 and 16 images per chip; the paper's batch for the smallest alone.
  "efficientnet_b0": Subject(
    "train_efficientnet:efficientnet_b0",
    ("v5e:4x4",),
    {"train.dtype": "bfloat16", "train.batch_size": 2048},
    True,
  ),
  "efficientnet_b4": Subject(
    "train_efficientnet:efficientnet_b4",
    ("v5e:4x4",),
    {"train.dtype": "bfloat16", "train.batch_size": 1024},
    True,
  ),
  "efficientnet_b7": Subject(
    "train_efficientnet:efficientnet_b7",
    ("v5e:4x4",),
    {**_LARGE, "train.batch_size": 256},
    True,
  ),
  # GPipe's network (Huang et al. 2019): 18 cells, F=512, 557M parameters.
  "amoebanet_b_gpipe": Subject(
    "transfer_imagenet:amoebanet_b_gpipe",
    ("v5e:4x4",),
    {
      **_LOOPED,
      "train.batch_size": 128,
      "train.bn_group": 8,
      "mesh.shard_params": True,
    },
    True,
  ),
  # Faster R-CNN at 1200x1200, one image per chip, as the original had it.
  "detect_large": Subject(
    "detect_coco:large_1200",
    ("v5e:4x4", "v5p:2x2x1"),
    {**_LARGE, "model.genotype": "nasnet_a"},
    True,
    1,
  ),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", nargs="*", default=list(SUBJECTS))
  parser.add_argument("--topologies", nargs="*", default=())
  parser.add_argument("--brief", action="store_true")
  parser.add_argument("--table", action="store_true")
  options = parser.parse_args()
  if options.table:
    rows = read()
    print(table(rows))
    print()
    print(scaling(rows))
    return
  mesh.prepare_host()
  RESULTS.mkdir(parents=True, exist_ok=True)
  for name in options.only:
    subject = SUBJECTS[name]
    for topology in options.topologies or subject.topologies:
      measure(name, subject, topology, options.brief)


def measure(name: str, subject: Subject, topology: str, brief: bool):
  """Compiles one job for one slice, unless that was done."""
  ending = "_brief" if brief else ""
  file = RESULTS / f"{name}_{topology.replace(':', '_')}{ending}.json"
  devices = program.get_devices(topology)
  config = load(subject, len(devices))
  plan = plans.make_plan(config, devices)
  lowered, _ = program.lower(plan.step)
  key = _hash(lowered.as_text(), topology)
  if file.exists() and json.loads(file.read_text())["key"] == key:
    print(f"{file.name} is there", flush=True)
    return
  print(f"compiling {name} for {topology}", flush=True)
  compiled = program.compile_step(plan.step, brief=brief)
  found = figures.figures(plan, compiled, chips.of(topology))
  row = {
    "name": name,
    "config": subject.config,
    "fields": subject.fields,
    "topology": topology,
    "slice_chips": len(devices),
    "brief": brief,
    "libtpu": libtpu.__version__,
    "key": key,
    **found,
  }
  half = file.with_suffix(".part")
  half.write_text(json.dumps(row, indent=1) + "\n")
  half.replace(file)
  print(f"  {found['compile_seconds'] / 60:.1f} min", flush=True)


def load(subject: Subject, num_devices: int):
  """The subject's config for a slice of so many chips."""
  config = shipped.config(subject.config)
  config.update_from_flattened_dict(subject.fields)
  if subject.devices_on_data:
    config.mesh.data = num_devices
  if subject.per_device:
    config.train.batch_size = subject.per_device * num_devices
    config.train.eval_batch_size = config.train.batch_size
  return config


def _hash(text: str, topology: str) -> str:
  about = (text, topology, jax.__version__, libtpu.__version__)
  return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


# --- tables ------------------------------------------------------------------


def read() -> list[dict[str, Any]]:
  """All that was compiled, in the order of the tables."""
  rows = [json.loads(file.read_text()) for file in RESULTS.glob("*.json")]
  order = list(SUBJECTS)
  rows.sort(key=lambda r: (order.index(r["name"]), r["chip"], r["chips"]))
  return rows


def scaling(rows) -> str:
  """Markdown: figures per chip beside those of the smallest slice."""
  lines = [
    "| job | chips | FLOPs per chip | bytes per chip | collectives, MB |",
    "|---|---|---|---|---|",
  ]
  for name in SUBJECTS:
    same = [r for r in rows if r["name"] == name and r["chip"] == "v5e"]
    same = [row for row in same if row["fits"] and not row.get("brief")]
    for row in same if len(same) > 1 else []:
      cells = [name, str(row["chips"])]
      cells += [f"{row[key] / same[0][key]:.4f}" for key in ("flops", "bytes")]
      cells.append(f"{row['collective_bytes'] / 1e6:.4g}")
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def table(rows) -> str:
  """Markdown of all that was compiled."""
  lines = [
    "| job | slice | HBM per chip, GiB | FLOPs, G | bytes, GB | collectives,"
    " MB | roofline, ms | compiler, ms | whole job, h | compiled in, min |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for row in rows:
    hbm = (
      f"{row['hbm']['needed'] / 2**30:.2f} of {row['hbm']['chip'] / 2**30:g}"
    )
    minutes = (row["lower_seconds"] + row["compile_seconds"]) / 60
    name = f"{row['name']}, brief" if row.get("brief") else row["name"]
    cells = [name, row["topology"], hbm]
    if row["fits"]:
      by_cycles = row["compiler_seconds"]
      cells += [
        f"{row['flops'] / 1e9:.4g}",
        f"{row['bytes'] / 1e9:.4g}",
        f"{row['collective_bytes'] / 1e6:.4g}",
        f"{row['roofline_seconds'] * 1e3:.4g}",
        f"{by_cycles * 1e3:.4g}" if by_cycles else "",
        f"{row['hours']:,.1f}",
      ]
    else:
      cells += ["does not fit", *[""] * 5]
    lines.append(f"| {' | '.join([*cells, f'{minutes:.1f}'])} |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
