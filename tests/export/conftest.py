"""Small networks that have every operation, and another interpreter."""

import functools
import importlib.util
import os
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from nasnet_jax.export import tables
from nasnet_jax.models import layers, ops, stacked, stacked_plan, stage_network

COMBINERS = ("add", "concat", "add_layer_norm", "add_instance_norm")
OPERATIONS = tuple(ops.OPERATIONS)


def cell(operations, inputs=2, separate=False):
  """A cell of three blocks with these six operations; of the four combiners a
  separate one has the last three, others the first three."""
  blocks = tuple(
    (
      b % inputs,
      (b + 1) % (inputs + b),
      operations[2 * b],
      operations[2 * b + 1],
      COMBINERS[b + separate],
    )
    for b in range(3)
  )
  outputs = tuple(range(inputs, inputs + 3))
  if separate:
    return blocks, outputs, "separate"
  return blocks, (0, 1, *outputs)


def of_cells(normal, reduction, **fields):
  """A network of such cells: raw first input, reductions, odd sides inside."""
  fields = {"num_cells": 1, "features": 4, "num_classes": 3, **fields}
  fields.setdefault("num_reductions", 1)
  config = stacked_plan.NetworkConfig(**fields)
  return stacked.StackedNetwork(config, (normal, reduction))


def _with_pools(padding):
  pools = ("max_pool_3x3", "avg_pool_3x3", "max_pool_2x2", "max_pool_5x5")
  found = cell((*pools, "identity", "avg_pool_3x3"))
  numerics = layers.Numerics(pool_padding=padding)
  return of_cells(found, found, numerics=numerics)


def _stages():
  config = stage_network.StageConfig(
    features=(4, 6), kernel_size=3, num_classes=3
  )
  graphs = ((3, ((0, 1), (0, 2), (1, 2))), (4, ((0, 3), (1, 3))))
  return stage_network.StageNetwork(config, graphs)


def networks():
  """{name: network}; all operations of the spaces are in the first ones."""
  found = {}
  for i in range(0, len(OPERATIONS), 6):
    some = (OPERATIONS + OPERATIONS)[i : i + 6]
    found[f"cells_{i // 6}"] = of_cells(cell(some), cell(some[::-1]))
  some = ("sep_conv_3x3", "identity", "avg_pool_3x3") * 2
  found["zeros"] = _with_pools("zeros")
  found["zeros_avg"] = _with_pools("zeros_avg")
  found["imagenet"] = of_cells(
    cell(some),
    cell(some[::-1]),
    stem="imagenet",
    features=8,
    stem_features=6,
    skip_reduction=True,
    aux=True,
  )
  # One cell for both strides, the first of a stack with stride 2.
  found["pnas"] = of_cells(cell(some), cell(some), layout="pnas", num_cells=2)
  separate = cell(some, 3, separate=True)
  found["separate"] = of_cells(separate, separate)
  found["stages"] = _stages()
  small = {"width": 0.1, "depth": 0.3, "num_classes": 3}
  for name in ("efficientnet_b0", "mnasnet_a1", "mobilenet_v1", "mobilenet_v2"):
    found[name] = tables.published_blocks(name, **small)
  for name in ("resnet_18", "se_resnet_50"):
    found[name] = tables.published_blocks(name, **small)
  return found


# Those that add little to the others, for the slow tier.
SLOW = (
  "zeros_avg",
  "pnas",
  "mnasnet_a1",
  "mobilenet_v1",
  "mobilenet_v2",
  "se_resnet_50",
)


def pytest_generate_tests(metafunc):
  """A test that asks for `small_network` gets them all; one that asks for
  `small_name` their names, without weights and answers."""
  if "small_name" in metafunc.fixturenames:
    metafunc.parametrize("small_name", list(networks()))
  if "small_network" in metafunc.fixturenames:
    metafunc.parametrize(
      "small_network",
      [
        pytest.param(n, marks=pytest.mark.slow if n in SLOW else ())
        for n in networks()
      ],
      indirect=True,
      scope="session",
    )


class Small(NamedTuple):
  """A network with random weights, and what it answers.

  Attributes:
    cases: [(images f32[N, H, W, 3], logits)] of two batches and sides, even
      and odd.
  """

  name: str
  network: Any
  variables: Any
  cases: list


_MADE: dict[str, Small] = {}


class _Initialised(NamedTuple):
  """What `random_variables` asks of a network."""

  init: Any


def _random_with_aux(random_variables, network, side):
  """Variables with those of the auxiliary head, which one side has."""
  init = functools.partial(network.init, train=True)
  return random_variables(_Initialised(init), side)


@pytest.fixture(scope="session")
def random_with_aux():
  return _random_with_aux


@pytest.fixture(scope="session")
def small_network(request, random_variables):
  name = request.param
  if name not in _MADE:
    network = networks()[name]
    variables = _random_with_aux(random_variables, network, 24)
    run = jax.jit(lambda x: network.apply(variables, x, train=False)[0])
    rng = np.random.default_rng(0)
    cases = []
    for shape in ((1, 24, 24, 3), (3, 21, 26, 3)):
      images = rng.normal(size=shape).astype(np.float32)
      cases.append((images, np.asarray(run(images))))
    _MADE[name] = Small(name, network, variables, cases)
  return _MADE[name]


@pytest.fixture(scope="session")
def small_networks():
  """{name: network}, all of them."""
  return networks()


def _keras_logits(model):
  """(images) -> logits with the weights of the moment, compiled once."""
  run = jax.jit(
    lambda weights, rest, x: model.stateless_call(weights, rest, x)[0]
  )

  def call(images):
    weights, rest = (
      [variable.value for variable in variables]
      for variables in (
        model.trainable_variables,
        model.non_trainable_variables,
      )
    )
    return run(weights, rest, images)

  return call


@pytest.fixture(scope="session")
def keras_logits():
  return _keras_logits


@pytest.fixture(scope="session")
def python_with():
  """(packages) -> an interpreter that has them: this one, or the one that
  NASNET_JAX_PYTHON names, for packages that are no part of our environment."""

  def find(*packages):
    if all(importlib.util.find_spec(name) for name in packages):
      return sys.executable
    other = os.environ.get("NASNET_JAX_PYTHON")
    look = "import sys, importlib.util as u; sys.exit(not all(map(u.find_spec,"
    look += " sys.argv[1:])))"
    if not other or subprocess.run([other, "-c", look, *packages]).returncode:
      pytest.skip(
        f"needs {', '.join(packages)}, here or where NASNET_JAX_PYTHON points"
      )
    return other

  return find
