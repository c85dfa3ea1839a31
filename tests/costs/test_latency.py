"""Measured latency: a median, and one number for equal networks."""

import types

import numpy as np
import pytest

from nasnet_jax.costs import latency
from nasnet_jax.data import augment
from nasnet_jax.models import block_network, families
from nasnet_jax.population import population
from nasnet_jax.population.evaluation import Costs
from nasnet_jax.population.evaluator import PopulationEvaluator
from nasnet_jax.search import search_config
from nasnet_jax.spaces.mnasnet import MnasSpace
from nasnet_jax.training import mesh

SPACE = MnasSpace(
  "mnasnet",
  operations=("conv",),
  kernels=(3,),
  features=(8,),
  layers=(1,),
  strides=(1,),
  stem=8,
  stem_stride=1,
  head=8,
)
CONFIG = block_network.BlockConfig(num_classes=3)
# One layer of eight channels: the second says "fewer layers", which it has.
ONE, SAME, OTHER = (
  np.array([0, 0, 0, 0, 1, layers], np.int32) for layers in (1, 0, 2)
)


def test_a_latency_is_the_median_of_calls_after_a_warm_up(monkeypatch):
  calls = [9.0] * latency.WARM_UP + [3.0] * latency.CALLS
  slower = slice(latency.WARM_UP + 2, None, 2)  # not quite half of them
  calls[slower] = [5.0] * len(calls[slower])
  times = iter(np.concatenate([[i, i + c] for i, c in enumerate(calls)]))
  clock = types.SimpleNamespace(perf_counter=lambda: next(times))
  monkeypatch.setattr(latency, "time", clock)
  network = families.network(SPACE, SPACE.decode(ONE), CONFIG)
  assert latency.measure(network, (4, 4, 3), 2) == 3.0
  assert next(times, None) is None


def _evaluator(**costs):
  images = np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8, np.int32)
  return PopulationEvaluator(
    SPACE,
    CONFIG,
    population.ChildRecipe(epochs=1, batch_size=4, eval_batch_size=4),
    augment.Augmentation(mean=(0.4,) * 3, std=(0.25,) * 3),
    images,
    images,
    mesh.make_mesh(1, 1),
    Costs(**costs),
  )


@pytest.fixture
def measured(monkeypatch):
  """What is measured: (shape, batch) of each call; 1 s, 2 s, and so on."""
  calls = []

  def measure(network, shape, batch_size):
    calls.append((shape, batch_size))
    return float(len(calls))

  monkeypatch.setattr(latency, "measure", measure)
  return calls


def test_equal_networks_are_measured_once_and_others_by_themselves(measured):
  evaluator = _evaluator(also="latency", image_side=6, latency_batch=2)
  found = [
    evaluator.cost(SPACE.decode(row))["latency"]
    for row in (ONE, SAME, OTHER, ONE)
  ]
  assert found == [1.0, 1.0, 2.0, 1.0]
  assert measured == [((6, 6, 3), 2)] * 2


def test_what_was_measured_before_is_not_measured_again(measured):
  evaluator = _evaluator(also="latency")
  evaluator.remember(SAME, 0.125)
  evaluator.remember(ONE, 0.25)  # the first number of a network counts
  assert evaluator.cost(SPACE.decode(ONE))["latency"] == 0.125
  assert measured == []


def test_costs_are_of_images_of_the_size_that_is_asked_for():
  small, large = (
    _evaluator(image_side=side).cost(SPACE.decode(ONE)) for side in (0, 8)
  )
  assert small.keys() == {"params", "macs"}
  assert small["params"] == large["params"]
  head = 8 * CONFIG.num_classes  # once per image, at any size
  assert large["macs"] - head == 4 * (small["macs"] - head)


@pytest.mark.parametrize(
  "fields", [{"image_side": -1}, {"latency_batch": 0}], ids=str
)
def test_costs_that_are_none_get_one_clear_line(fields):
  search = {
    "cost": {"image_side": 0, "latency_batch": 1} | fields,
    "reward": types.SimpleNamespace(to_dict=lambda: {"kind": "accuracy"}),
  }
  config = types.SimpleNamespace(search=_Fields(search))
  with pytest.raises(ValueError, match=r"search\.cost\.image_side is") as error:
    search_config.get_costs(config)
  assert "\n" not in str(error.value)


class _Fields(dict):
  __getattr__ = dict.__getitem__
