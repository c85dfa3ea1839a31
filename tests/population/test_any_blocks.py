"""Parts of the row of blocks that is data; whole networks are compared in
`tests/test_block_population.py`."""

import jax
import numpy as np
import pytest

from nasnet_jax.models import block_network
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population import any_blocks
from nasnet_jax.spaces.mnasnet import SKIPS, MnasSpace

SPACE = MnasSpace(
  "mnasnet",
  operations=("dconv", "mbconv3"),
  kernels=(3,),
  squeezes=(0.0, 0.25),
  features=(8, 16),
  layers=(1, 2),
  strides=(1, 2),
  stem=8,
  stem_stride=1,
  head=24,
)


def _network(**config):
  config = block_network.BlockConfig(num_classes=3, **config)
  return any_blocks.AnyBlocks(config, SPACE, (8, 8, 3))


@pytest.fixture(scope="module")
def network():
  return _network()


def test_layers_that_a_child_lacks_take_the_branch_of_nothing(network):
  none, identity, pool = map(SKIPS.index, ("none", "identity", "pool"))
  # Two layers of dconv, pooled; one of mbconv3 with squeeze-excite, pooled.
  rows = [[0, 0, 0, 2, 1, 2], [1, 0, 1, 2, 1, 0]]
  genotype = SPACE.decode(np.reshape(rows, -1))
  taken = jax.device_get(network.switches(genotype))
  inactive = 4  # behind two operations with and without squeeze-excite
  assert taken[inactive + 1].tolist() == [0, 0, 3, inactive, inactive]
  # No skip where the second block goes from 8 to 16 channels.
  assert taken[3].tolist() == [pool, pool, none, identity, identity]


def test_a_skip_needs_as_many_channels_in_as_out(network):
  def first_layers(features, skip):
    rows = [[0, 0, 0, skip, f, 0] for f in features]
    skips = network.switches(SPACE.decode(np.reshape(rows, -1)))[3]
    return [int(skips[i]) for i in (0, 2)]

  assert SPACE.feature_choices().tolist() == [[8, 8, 16], [16, 16, 24]]
  assert first_layers((0, 2), 1) == [1, 0]
  assert first_layers((2, 1), 2) == [0, 2]


def test_what_a_layer_runs_at_is_the_most_that_its_block_can_have():
  network = _network(width=2.0, numerics=Numerics(init="fan_in"))
  genotype = SPACE.decode([0] * 12)
  params, _ = jax.eval_shape(network.init, jax.random.key(0), genotype)
  # 16 or 32 channels enter, 32 or 48 leave, three times 32 lie between them.
  most = 32 * 96 + 9 * 96 + 2 * 96 * 8 + 96 * 48
  assert params["group_1"]["first"]["kernel"].shape == (most,)
  assert params["head_conv"]["kernel"].shape == (48, 24)
