"""Networks with an operation of a user's own file."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax.export import graph, keras_module, torch_module
from nasnet_jax.models import families, ops
from nasnet_jax.models.kernels import pools
from nasnet_jax.models.layers import BatchNorm, Numerics, PointwiseConv
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.training import own_parts, program_cache

_SHAPE = (8, 8, 3)


class OfLayers(nn.Module):
  """Built as the page on own operations says."""

  numerics: Numerics
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    x = ops.Window("max", 3, self.stride, False, name="window")(x)
    x = PointwiseConv(self.numerics, self.features, name="conv")(nn.relu(x))
    return BatchNorm(self.numerics, name="norm")(x, train)


class OfArrays(OfLayers):
  """Built of functions that no file format has."""

  @nn.compact
  def __call__(self, x, train):
    x = pools.max_pool(jax.numpy.tanh(x), 3, self.stride)
    x = PointwiseConv(self.numerics, self.features, name="conv")(x)
    return BatchNorm(self.numerics, name="norm")(x, train)


@pytest.fixture(autouse=True)
def _forget():
  known = {*ops.OPERATIONS}
  yield
  for name in {*ops.OPERATIONS} - known:
    del ops.OPERATIONS[name]
  program_cache._own.clear()
  own_parts.forget()


def _network(module):
  nas.operation("mine_3x3")(module)
  space = nas.cells(["mine_3x3"], blocks=1, reduction=False)
  config = NetworkConfig(
    num_cells=1, features=4, num_reductions=1, num_classes=3
  )
  genotype = space.decode(np.zeros(len(space.num_choices), np.int32))
  network = families.network(space, genotype, config)
  variables = network.init(jax.random.key(0), np.zeros((1, *_SHAPE)), False)
  return network, variables


@pytest.mark.parametrize(
  "write",
  [
    lambda n: torch_module.source(n, _SHAPE, (0.5,), (0.25,), about=""),
    lambda n: keras_module.source(n, 3, about=""),
  ],
)
def test_a_module_of_another_framework_is_refused_in_a_line(write):
  network, _ = _network(OfLayers)
  with pytest.raises(ValueError, match="operation 'mine_3x3' is your own") as e:
    write(network)
  assert "export to onnx or stablehlo" in str(e.value)
  assert "\n" not in str(e.value)


def test_one_of_layers_is_read_out_of_jax():
  found = graph.trace(*_network(OfLayers), _SHAPE)
  assert {"pool", "pointwise_conv", "batch_norm"} <= {n.op for n in found.nodes}


def test_one_of_other_functions_says_what_it_may_be_built_of():
  with pytest.raises(ValueError, match="OfArrays is your own: build it of"):
    graph.trace(*_network(OfArrays), _SHAPE)
