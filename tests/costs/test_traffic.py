"""Bytes of inference: the compiler's, once per operation and shape."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.costs import traffic
from nasnet_jax.models import block_network, stacked, stacked_plan
from nasnet_jax.spaces.blocks import Architecture, Group

SPACE = spaces.get(
  "nasnet", num_blocks=1, operations=("identity", "conv_1x1", "avg_pool_3x3")
)
CONFIG = stacked_plan.NetworkConfig(num_cells=1, num_reductions=1, features=4)
SHAPE = (8, 8, 3)


def _network(decisions):
  cells = stacked.as_cells(SPACE, SPACE.decode(decisions))
  return stacked.StackedNetwork(CONFIG, cells)


def _blocks(*groups):
  """A network of 8 channels all through; groups: (kind, repeats)."""
  groups = tuple(
    Group(kind, repeats, 8, expansion=2, squeeze=0.25)
    for kind, repeats in groups
  )
  arch = Architecture(stem=8, groups=groups, head=12, stem_stride=1)
  return block_network.BlockNetwork(
    block_network.BlockConfig(num_classes=3), arch
  )


def _compiled(network):
  """Bytes that XLA counts for the whole network, compiled as one."""
  image = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
  init = functools.partial(network.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), image)

  def apply(variables, x):
    return network.apply(variables, x, False)[0]

  compiled = jax.jit(apply).lower(variables, image).compile()
  return compiled.cost_analysis()["bytes accessed"]


@pytest.fixture
def compiled_units(monkeypatch):
  """The names of units that were compiled during the test."""
  names, original = [], traffic._compile.__wrapped__

  def compile_unit(unit, *args, **kwargs):
    names.append(type(unit).__name__)
    return original(unit, *args, **kwargs)

  monkeypatch.setattr(traffic, "_compile", functools.cache(compile_unit))
  return names


def test_a_dense_layer_moves_what_it_reads_and_writes():
  class Whole(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      return stacked.Classifier(CONFIG.numerics, 5)(x)

  # 4 bytes each: 7 inputs, a 7x5 kernel, 5 biases and 5 outputs.
  least = 4 * (7 + 35 + 5 + 5)
  assert least <= traffic.count_bytes(Whole(), (7,)) < 2 * least


def test_the_sum_of_parts_is_near_the_whole():
  network = _network(SPACE.sample(np.random.default_rng(0), 1)[0])
  ratio = traffic.count_bytes(network, SHAPE) / _compiled(network)
  assert 0.8 < ratio < 2


def test_the_sum_of_blocks_is_near_the_whole():
  network = _blocks(("mbconv", 2), ("conv", 1))
  ratio = traffic.count_bytes(network, SHAPE) / _compiled(network)
  assert 0.8 < ratio < 2


def test_equal_blocks_of_different_groups_are_compiled_once(compiled_units):
  traffic.count_bytes(_blocks(("mbconv", 2), ("mbconv", 1)), SHAPE)
  assert compiled_units.count("MBConv") == 1
  traffic.count_bytes(_blocks(("mbconv", 1)), SHAPE)
  assert compiled_units.count("MBConv") == 1


def test_each_operation_is_compiled_once(compiled_units):
  children = SPACE.sample(np.random.default_rng(1), 12)
  first = [traffic.count_bytes(_network(d), SHAPE) for d in children]
  done = len(compiled_units)
  again = [traffic.count_bytes(_network(d), SHAPE) for d in children]
  assert again == first
  assert len(compiled_units) == done
  assert len(set(first)) > 3


def test_more_work_moves_more_bytes():
  def cell(op):
    block_network = [(0, 0, op, op)]
    return {"normal": (block_network, [2]), "reduction": (block_network, [2])}

  counts = [
    traffic.count_bytes(
      _network(SPACE.encode(SPACE.from_literal(cell(op)))), SHAPE
    )
    for op in ("identity", "conv_1x1", "avg_pool_3x3")
  ]
  assert counts[0] < min(counts[1:])


def test_a_compiler_that_does_not_count_is_one_line(monkeypatch):
  class Silent:
    def lower(self, *_):
      return self

    def compile(self):
      return self

    def cost_analysis(self):
      return None

  monkeypatch.setattr(traffic.jax, "jit", lambda _: Silent())
  monkeypatch.setattr(
    traffic, "_compile", functools.cache(traffic._compile.__wrapped__)
  )
  with pytest.raises(ValueError, match="does not count bytes"):
    traffic.count_bytes(
      _network(SPACE.sample(np.random.default_rng(0), 1)[0]), SHAPE
    )
