"""MnasNet's space: its size, its published members, equal networks, JSON."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.controllers import make
from nasnet_jax.costs import counting
from nasnet_jax.models import block_network, families
from nasnet_jax.spaces import base
from nasnet_jax.spaces.mnasnet import MNASNET, MNASNET_RELEASED, MnasSpace

SMALL = MnasSpace(
  "mnasnet",
  features=(8, 16),
  layers=(1, 2),
  strides=(1, 2),
  stem=8,
  stem_stride=1,
  head=24,
)


def test_a_block_has_the_papers_432_ways_and_mobilenet_v2s_sizes():
  assert isinstance(MNASNET, base.SearchSpace)
  assert math.prod(MNASNET.num_choices) == 432**7
  net = zoo.blocks.MOBILENET_V2
  assert MNASNET.features == tuple(g.features for g in net.groups)
  assert MNASNET.layers == tuple(g.repeats for g in net.groups)
  assert MNASNET.strides == tuple(g.stride for g in net.groups)
  assert (MNASNET.stem, MNASNET.head) == (net.stem, net.head)
  assert MNASNET.layer_choices()[[0, 3]].tolist() == [[1, 1, 2], [3, 4, 5]]
  assert MNASNET.feature_choices()[3].tolist() == [48, 64, 80]
  names = MNASNET.decision_names
  assert (names[6], names[11]) == ("block 1 operation", "block 1 layers")
  assert MNASNET.groups[6] == MNASNET.groups[11] == 1


@pytest.mark.parametrize("name", ["mnasnet_a1", "mnasnet_b1"])
def test_the_released_networks_are_in_their_space_to_the_parameter(name):
  literal, published = zoo.blocks.architecture(name), zoo.blocks.network(name)
  genotype = MNASNET_RELEASED.decode(MNASNET_RELEASED.encode(literal))
  assert MNASNET_RELEASED.architecture(genotype) == literal
  network = families.network(
    MNASNET_RELEASED, genotype, block_network.BlockConfig()
  )
  params, macs = counting.count_module(network, (224, 224, 3))
  assert params == published.params
  count = counting.make_block_counter(
    block_network.BlockConfig(), MNASNET_RELEASED, (224, 224, 3)
  )
  assert count(genotype) == (params, macs)


def test_efficientnet_b0_is_in_the_space_but_for_its_activation():
  space = spaces.get("mnasnet_released", blocks={"activation": "swish"})
  b0 = dataclasses.replace(zoo.blocks.EFFICIENTNET, fixed=("head",))
  assert space.architecture(space.decode(space.encode(b0))) == b0


def test_the_texts_space_has_no_block_of_112_channels():
  with pytest.raises(ValueError, match="block 4 has features 112, and space"):
    MNASNET.encode(zoo.blocks.MNASNET_A1)


def test_decoding_is_undone_by_encoding_and_survives_json():
  decisions = MNASNET.sample(np.random.default_rng(0), 50)
  genotype = MNASNET.decode(decisions)
  np.testing.assert_array_equal(MNASNET.encode(genotype), decisions)
  one = MNASNET.decode(decisions[3])
  again = MNASNET.from_json(json.loads(json.dumps(MNASNET.to_json(one))))
  assert MNASNET.architecture(again) == MNASNET.architecture(one)
  assert spaces.get("mnasnet", **SMALL.options) == SMALL
  assert spaces.get("mnasnet", **json.loads(json.dumps(SMALL.options))) == SMALL


def _wiring(space, decisions, config):
  """What a network computes with: shapes of its weights, and its skips."""
  arch = space.architecture(space.decode(decisions))
  width = arch.stem
  rows = []
  for block in block_network.plan(arch, config.width, config.depth):
    group = block.group
    skip = ""
    if group.skip and width == block.features:
      skip = "pool" if group.skip_pool else "identity"
    if skip == "identity" and block.stride > 1:
      skip = ""
    rows.append(
      (
        group.kind,
        group.kernel,
        group.expansion,
        group.squeeze,
        block.features,
        block.stride,
        skip,
      )
    )
    width = block.features
  return tuple(rows)


def test_networks_are_equal_exactly_where_their_canonical_forms_are():
  # Few choices of all but what can be without effect, so that some meet.
  rng = np.random.default_rng(0)
  rows = SMALL.sample(rng, 3000)
  rows[:, [0, 1, 2, 6, 7, 8]] = 0
  canonical = SMALL.canonical(rows)
  np.testing.assert_array_equal(SMALL.canonical(canonical), canonical)
  by_form, by_wiring = {}, {}
  for row, form in zip(rows, canonical):
    wiring = _wiring(SMALL, row, block_network.BlockConfig())
    assert by_form.setdefault(tuple(form), wiring) == wiring
    assert by_wiring.setdefault(wiring, tuple(form)) == tuple(form)
  assert 20 < len(by_form) < len(np.unique(rows, axis=0))
  assert SMALL.key(rows[0]) == SMALL.key(canonical[0])


# Decisions without a choice are decisions still.
NARROW = dataclasses.replace(
  SMALL, operations=("mbconv6",), kernels=(3,), skips=("pool", "identity")
)


def test_of_restricted_choices_equal_networks_are_equal_too():
  assert NARROW.num_choices == (1, 1, 2, 2, 3, 3) * 2
  rows = NARROW.sample(np.random.default_rng(0), 2000)
  rows[:, [2, 8]] = 0
  by_form, by_wiring = {}, {}
  for row, form in zip(rows, NARROW.canonical(rows)):
    wiring = _wiring(NARROW, row, block_network.BlockConfig())
    assert by_form.setdefault(tuple(form), wiring) == wiring
    assert by_wiring.setdefault(wiring, tuple(form)) == tuple(form)
  assert len(by_form) < len(np.unique(rows, axis=0))
  assert spaces.get("mnasnet", **NARROW.options) == NARROW
  with pytest.raises(ValueError, match="block 0 has kernel 5, and space"):
    NARROW.encode(SMALL.architecture(SMALL.decode([3, 1, 0, 1, 0, 0] * 2)))


@pytest.mark.parametrize("space", [SMALL, NARROW], ids=["all", "narrow"])
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("random_search", {}),
    ("evolution", {"redraw": False, "population": 2, "sample": 2}),
    ("genetic", {}),
    ("local_search", {}),
    ("ppo", {"hidden": 8}),
    ("predictor_search", {}),
    ("reinforce", {"hidden": 8}),
  ],
)
def test_strategies_propose_rows_of_blocks(name, options, space):
  controller = make(name, space, **options)
  state = controller.init(jax.random.key(0))
  proposals, state = controller.ask(state, jax.random.key(1), 4)
  assert len(proposals)
  decoded = space.decode(proposals.decisions)
  assert decoded.layers.shape == (len(proposals), 2)
  rewards = np.linspace(0, 1, len(proposals), dtype=np.float32)
  state = controller.tell(
    state, proposals, rewards, np.zeros(len(rewards), int)
  )
  proposals, _ = controller.ask(state, jax.random.key(2), 4)
  space.decode(proposals.decisions)


@pytest.mark.parametrize(
  ("blocks_", "words"),
  [
    ({"layers": (1,)}, "7 features, 1 layers and 7 strides: give each block"),
    ({"feature": (8,)}, "no 'feature', only.*did you mean 'features'"),
    ({"activation": "gelu"}, "activation 'gelu' is not one of"),
    ({"operations": ("conv", "sep")}, "operations is conv, sep: give one or"),
    ({"skips": ()}, "skips is empty: give one or more, each once, of: none"),
    ({"kernels": ()}, "kernels is empty: give one or more"),
  ],
)
def test_what_makes_no_row_of_blocks_gets_one_clear_line(blocks_, words):
  with pytest.raises(ValueError, match=words):
    spaces.get("mnasnet", blocks=blocks_)


def test_other_spaces_have_no_blocks_to_choose():
  with pytest.raises(ValueError, match="leave out blocks"):
    spaces.get("nasnet", blocks={"stem": 8})
