"""Maps by their stride, held to what the networks themselves give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.export import named_weights
from nasnet_jax.models import families, feature_maps
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.models.stage_network import StageConfig

SIDE = 64
_SMALL = {"num_cells": 1, "features": 8, "stem_features": 4}
_STEPS = {"width": 0.1, "depth": 0.1}
PUBLISHED = {
  "nasnet_a_mobile": _SMALL,
  "pnasnet_5_mobile": _SMALL | {"num_cells": 2},
  "amoebanet_b_cifar": {"num_cells": 1, "features": 4},
  "efficientnet_b0": _STEPS,
  "resnet_18": _STEPS,
}


def _searched(name, config):
  """The network of a space's first architecture."""
  space = spaces.get(name)
  genotype = space.decode(np.zeros(len(space.num_choices), np.int32))
  return families.network(space, genotype, config)


NETWORKS = {
  name: lambda name=name, sizes=sizes: named_weights.network(name, **sizes)
  for name, sizes in PUBLISHED.items()
} | {
  "separate outputs": lambda: _searched(
    "nasnet_b", NetworkConfig(num_cells=1, features=4)
  ),
  "stages": lambda: _searched("genetic_cnn", StageConfig(features=(4, 6, 8))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_strides_and_channels_are_those_of_the_networks_maps(name):
  network = NETWORKS[name]()
  found = feature_maps.of(network)
  images = jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32)

  def run(images):
    variables = network.init(jax.random.key(0), images)
    return feature_maps.read(found, network.apply(variables, images)[2])

  for one, made in zip(found, jax.eval_shape(run, images), strict=True):
    side = SIDE // one.stride
    assert made.shape == (2, side, side, one.channels)
  strides = [one.stride for one in found]
  assert strides == [strides[0] * 2**i for i in range(len(strides))]


def test_every_network_for_photographs_has_strides_4_to_32():
  for name in (*zoo.cells.NETWORKS, *zoo.blocks.NETWORKS):
    strides = [m.stride for m in feature_maps.of(named_weights.network(name))]
    photographs = [4, 8, 16, 32]
    wanted = [1, 2, 4] if name.endswith("_cifar") else photographs
    assert strides == wanted, name


def test_maps_have_the_channels_that_timm_lists():
  """timm, nasnet.py and efficientnet.py: feature_info of nasnetalarge and
  tf_efficientnet_b0 from stride 4 on."""
  for name, wanted in (
    ("nasnet_a_large", [168, 1008, 2016, 4032]),
    ("efficientnet_b0", [24, 40, 112, 320]),
  ):
    found = feature_maps.of(named_weights.network(name))
    assert [one.channels for one in found] == wanted
