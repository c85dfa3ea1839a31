"""Chains of a user's modules: children, static networks, and searches."""

import dataclasses
import functools
import importlib.util
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax.cli import shipped
from nasnet_jax.costs import counting
from nasnet_jax.export import torch_module
from nasnet_jax.models import families, feature_maps
from nasnet_jax.models.chain_network import ChainConfig
from nasnet_jax.models.kernels import pools
from nasnet_jax.models.layers import BatchNorm, Conv, Numerics
from nasnet_jax.population import networks
from nasnet_jax.spaces import get, module_chain
from nasnet_jax.training import own_parts, program_cache

_spec = importlib.util.spec_from_file_location(
  "twins", pathlib.Path(__file__).with_name("twins.py")
)
twins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twins)

IMAGE = (6, 5, 3)
CONFIG = ChainConfig(num_classes=5, numerics=Numerics(init="fan_in"))


class Block(nn.Module):
  """Convolution, batch norm, ReLU."""

  features: int
  size: int = 3
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    shape, strides = (self.size, self.size), (self.stride, self.stride)
    x = Conv(Numerics(), self.features, shape, strides, name="conv")(x)
    return nn.relu(BatchNorm(Numerics(), name="norm")(x, train))


class Plain(nn.Module):
  """Flax's own convolution, with a bias, and a pool."""

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    x = nn.Conv(self.features, (1, 1), name="conv")(x)
    return pools.max_pool(x, 3, self.stride)


class Skip(nn.Module):
  """Nothing."""

  def __call__(self, x, train):
    return x


class Narrow(Skip):
  """Half the channels."""

  def __call__(self, x, train):
    return x[..., ::2]


class Normal(nn.Module):
  """Batch norm of Flax, which keeps statistics that are not ours."""

  @nn.compact
  def __call__(self, x, train):
    return nn.BatchNorm(use_running_average=not train)(x)


@pytest.fixture(autouse=True)
def _forget():
  yield
  module_chain._MADE.clear()
  program_cache._own.clear()
  own_parts.forget()


def _space():
  same = Block(4, 1)
  return nas.chain(
    nas.one_of(Block(4, stride=2), Plain(4, stride=2)),
    nas.one_of(same, Skip(), Block(4)),
    same,  # the same object, with weights of its own
  )


@pytest.fixture(name="program", scope="module")
def _program():
  space = _space()
  network, _ = networks.open_network(space, CONFIG, IMAGE)
  return twins.make_program(space, IMAGE, network)


@pytest.mark.parametrize("row", [(0, 0, 0), (1, 1, 0), (0, 2, 0)])
def test_a_child_is_the_static_network_in_two_steps_of_training(program, row):
  genotype = program.space.decode(np.array(row))
  twins.assert_same_network(program, CONFIG, genotype, None)


def test_one_program_runs_the_branch_that_is_chosen(program):
  run = functools.partial(twins.loss(program.network, IMAGE))
  genotype = jax.tree.map(jnp.asarray, program.space.decode([0, 2, 0]))
  state = twins.child(program, genotype)
  sizes = twins.switches(run, state.params, state.batch_stats, genotype)
  assert set(sizes) == {2, 3, 4}  # each with the branch of nothing


def test_costs_are_those_of_the_static_network(program):
  _, make = networks.open_network(program.space, CONFIG, IMAGE)
  count = make(IMAGE)
  for row in [(0, 0, 0), (1, 1, 0), (0, 2, 0)]:
    genotype = program.space.decode(np.array(row))
    network = families.network(program.space, genotype, CONFIG)
    assert count(genotype) == counting.count_module(network, IMAGE)


def test_a_search_ends_with_a_network_that_is_loaded_again(tmp_path):
  rng = np.random.default_rng(0)
  labels = rng.integers(2, size=80)
  images = (
    rng.integers(0, 100, (80, 8, 8, 3)) + 120 * labels[:, None, None, None]
  )
  config = shipped.config("search_digits:tiny").unlock()
  config.search.children = config.search.children_per_round = 3
  config.child.batch_size = config.final.batch_size = 16
  config.final.top_k, config.final.eval_batch_size = 1, 20
  study = nas.search(
    images.astype(np.uint8),
    labels,
    space=_space(),
    folder=tmp_path / "run",
    config=config,
    strategy="random_search",
  )
  assert study.winner.predict(images[:3].astype(np.uint8)).shape == (3, 2)
  won = study.result["winner"]
  assert won["genotype"] == study.genotype(won["id"])
  assert won["params"] == study.children[won["id"]]["params"]
  names = study.result["own_parts"]["operation"]
  assert names["Skip()"]["is"] == f"{__name__}:Skip"
  module_chain._MADE.clear()
  with pytest.raises(ValueError, match="import the file that makes it"):
    nas.load(study.folder)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"dtype": jnp.bfloat16}, "set child.dtype to 'float32'"),
    ({"bn_parts": 2}, "set mesh.data to 1"),
    ({"bn_decay": 0.5}, "give it the numerics of the network"),
  ],
)
def test_what_the_modules_do_not_know_is_refused(changes, words):
  numerics = dataclasses.replace(CONFIG.numerics, **changes)
  config = dataclasses.replace(CONFIG, numerics=numerics)
  with pytest.raises(ValueError, match=words):
    networks.open_network(_space(), config, IMAGE)


def test_what_a_chain_does_not_tell_is_one_line():
  space = _space()
  network = families.network(space, space.decode(np.zeros(3, int)), CONFIG)
  with pytest.raises(ValueError, match="does not tell its strides"):
    feature_maps.of(network)
  with pytest.raises(ValueError, match="export to onnx, stablehlo"):
    torch_module.source(network, IMAGE, (0.5,), (0.2,), about="")


def test_a_chain_is_found_by_its_names_where_it_was_made():
  space = _space()
  assert space.choices[0] == (
    "Block(features=4, stride=2)",
    "Plain(features=4, stride=2)",
  )
  assert get(space.name, **space.options) is space
  genotype = space.decode(np.array([1, 2, 0]))
  again = space.from_json(space.to_json(genotype))
  np.testing.assert_array_equal(again.choice, genotype.choice)
  module_chain._MADE.clear()
  with pytest.raises(ValueError, match="import the file that makes it"):
    get(space.name, **space.options)


@pytest.mark.parametrize(
  ("layers", "words"),
  [
    ([], "no layer"),
    ([()], "nothing to choose"),
    ([(Skip,)], "is no Linen module"),
    ([(Skip(), Skip())], r"has Skip\(\) twice"),
  ],
)
def test_what_is_no_chain_is_one_line(layers, words):
  with pytest.raises(ValueError, match=words):
    nas.chain(*layers)


@pytest.mark.parametrize(
  ("modules", "words"),
  [
    ((Skip(), Narrow()), r"Skip makes \[32, 32, 4\] and Narrow \[32, 32, 2\]"),
    ((Normal(),), "keeps statistics of its own"),
    ((Block(4),), "3 modules in 2 layers"),
  ],
)
def test_a_check_looks_at_each_module(modules, words):
  space = nas.chain(Block(4), nas.one_of(*modules, *_extra(modules)))
  if "3 modules" in words:
    assert words in nas.check(space)
    return
  with pytest.raises(ValueError, match=words) as caught:
    nas.check(space)
  assert "\n" not in str(caught.value)


def _extra(modules):
  return (Skip(),) if isinstance(modules[0], Block) else ()
