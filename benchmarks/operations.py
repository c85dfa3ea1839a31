"""What a child's operations take on a TPU by its compiler, each by itself.

    python benchmarks/operations.py [--fold 4] [--batch 32] [--out FILE]
      [--kernels pallas] [--only sep_conv_3x3,sep_conv_5x5] [--dump FOLDER]

Compiles every operation of `configs/search_cifar.py`, forward and backward, for
each kind of cell on one chip that one does not hold (some ten minutes on a
core), and adds up what the edges of a random child would take if nothing were
around them. The difference to a whole update (docs/results/preflight/) is what
reading, writing and adding states costs. Prints one JSON object; --out keeps
it. Cycles are the compiler's estimates.

--dump keeps the compiler's schedules in a new folder, up to half a gigabyte for
an operation, and counts kernels of our own by them (`preflight.bundles`);
without it they count as nothing, and a line says so. --only leaves out the
other operations, and with them the sums.
"""

import argparse
import json
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # a TPU that is here is not touched
# What is compiled for a slice that is not here cannot be read back.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"

import jax
import jax.numpy as jnp
import libtpu
from jax.sharding import SingleDeviceSharding

from nasnet_jax.cli import shipped
from nasnet_jax.models import stacked_plan
from nasnet_jax.models.layers import Numerics
from nasnet_jax.preflight import (
  bundles,
  chips,
  costs,
  figures,
  hlo,
  plans,
  program,
)
from nasnet_jax.training import mesh

TOPOLOGY = "v5e:1x1"


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--fold", type=int, default=4)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--out", type=pathlib.Path)
  parser.add_argument("--kernels", choices=("xla", "pallas"), default="xla")
  parser.add_argument("--only", default="")
  parser.add_argument("--dump", type=pathlib.Path)
  options = parser.parse_args()
  if options.dump:  # before the compiler is loaded
    options.dump.mkdir(parents=True)
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    flags += " " + bundles.DUMP.format(folder=options.dump)
    os.environ["LIBTPU_INIT_ARGS"] = flags.strip()
  mesh.prepare_host()
  config = shipped.config("search_cifar")
  config.child.fold, config.child.batch_size = options.fold, options.batch
  config.child.kernels = options.kernels
  devices = program.get_devices(TOPOLOGY)
  plan = plans.make_plan(config, devices)
  search = plans.open_search(config, devices)
  network, names = search.population.network, search.space.operations
  blocks = network.genotype_shapes.ops.shape[1]
  first = network.shapes[0].features
  total, kinds = 0.0, {}
  for shape, mix in zip(network.shapes, network.mixes, strict=True):
    _, groups = stacked_plan.groups_of(shape, blocks)
    numerics = Numerics(fold=options.fold).widened(shape.features // first)
    if groups not in kinds:
      shares = plan.step.shares[mix.inactive + 1].mean(0)
      where = (options.batch, numerics.fold, SingleDeviceSharding(devices[0]))
      kinds[groups] = measure(mix, groups, names, shares, *where, options)
    kinds[groups]["cells"] += 1
    total += kinds[groups]["cycles_of_an_edge"] * 2 * blocks
  result = {
    "topology": TOPOLOGY,
    "fold": options.fold,
    "batch_size": options.batch,
    "kernels": options.kernels,
    "jax": jax.__version__,
    "libtpu": libtpu.__version__,
    "cycles_of_all_edges": round(total),
    "seconds_of_all_edges": total / chips.of(TOPOLOGY).clock,
    "kinds": list(kinds.values()),
  }
  if options.only:
    del result["cycles_of_all_edges"], result["seconds_of_all_edges"]
    for kind in result["kinds"]:
      del kind["cycles_of_an_edge"]
  text = json.dumps(result, indent=1)
  print(text)
  if options.out:
    options.out.write_text(text + "\n")


def measure(mix, groups, names, shares, batch, fold, sharding, options) -> dict:
  """Of one kind of cell: each branch's cycles, and their mean by `shares`."""

  def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

  states = [
    shaped(batch // fold, height, width, channels * fold)
    for (height, width, channels), _ in groups
  ]
  params = {name: shaped(size) for name, size in mix.params.items()}
  moments = {name: shaped(1, size) for name, size in mix.stats.items()}
  rows, schedules, mean = {}, {}, 0.0
  only = options.only.split(",") if options.only else names
  for number in range(mix.inactive):
    if names[number % len(names)] not in only:
      continue

    def forward(states, params, number=number):
      return mix.forward(jnp.int32(number), _places(states), params)

    group, operation = divmod(number, mix.num_operations)

    def backward(states, g, params, moments, group=group, operation=operation):
      states, operation = _places([*states, g]), jnp.int32(operation)
      return mix.backward[group](operation, states, params, moments, None)

    found, kernels = zip(
      _cycles(options.dump, forward, states, params),
      _cycles(options.dump, backward, states, states[0], params, moments),
      strict=True,
    )
    name = f"{names[operation]} of {states[group].shape}"
    print(name, *found, file=sys.stderr, flush=True)
    rows[name], schedules[name] = found, kernels
    mean += float(shares[number]) * sum(found)
  return {
    "states": [list(state.shape) for state in states],
    "cells": 0,
    "cycles_of_an_edge": round(mean),
    "forward_and_backward": rows,
    **({"kernels": schedules} if options.dump else {}),
  }


def _places(states):
  return tuple((state[None], jnp.int32(0)) for state in states)


def _cycles(dump, function, *shapes) -> tuple[int, dict]:
  """(cycles of a function, its kernels by name); without a dump none."""
  before = set(dump.iterdir()) if dump else set()
  compiled = jax.jit(function).lower(*shapes).compile()
  module = hlo.parse(compiled.as_text())
  limits = figures.limits(chips.of(TOPOLOGY))
  walk = costs.Walk(module, limits)
  cycles, kernels = walk.total().cycles, {}
  if dump:
    # The last step of a grid finishes what the one before it has read.
    found = bundles.read(set(dump.iterdir()) - before, idle=1)
    kernels = {name: found[name]._asdict() for name in walk.uncounted}
    cycles += sum(kernel["cycles"] for kernel in kernels.values())
  elif walk.uncounted:
    print("left out:", *walk.uncounted, file=sys.stderr)
  return round(cycles), kernels


if __name__ == "__main__":
  main()
