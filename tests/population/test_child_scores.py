"""Children's scores are those of the static networks that they are."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.data import batches
from nasnet_jax.data.augment import DEFAULTS, normalise
from nasnet_jax.models import families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import child_scores, networks
from nasnet_jax.population.extract import extract
from nasnet_jax.scores import formulas
from nasnet_jax.training.mesh import make_mesh
from nasnet_jax.training.state import TrainState

SPACE = spaces.get(
  "nasnet_concat",
  num_blocks=2,
  operations=("identity", "sep_conv_3x3", "avg_pool_3x3", "conv_1x1"),
)
# Groups of three images, which a score must not see: it is of one batch.
NETWORK = NetworkConfig(
  num_cells=1,
  num_reductions=1,
  features=4,
  num_classes=5,
  numerics=Numerics(init="fan_in", bn_parts=2, bn_epsilon=1e-3),
)
SETTINGS = child_scores.ScoreSettings(formulas.NAMES, 6)
CHILDREN = SPACE.sample(np.random.default_rng(3), 3)
SEEDS = np.array([7, 8, 9], np.uint32)
SHAPE = (8, 8, 1)


def _images():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (10, *SHAPE)).astype(np.uint8)
  return images, np.arange(10, dtype=np.int32) % 5


@functools.cache
def _scores(arch=1):
  made = child_scores.ChildScores(
    SPACE, NETWORK, DEFAULTS["digits"], _images(), make_mesh(arch, 1), SETTINGS
  )
  return made.of(CHILDREN, SEEDS)


@functools.cache
def _init():
  build, _ = networks.open_network(SPACE, NETWORK, SHAPE)
  return build, jax.jit(build.init)


def variables_of(child):
  """(genotype, variables of the static network) as training begins."""
  build, init = _init()
  genotype = jax.tree.map(lambda g: g[child], SPACE.decode(CHILDREN))
  params, stats = init(jax.random.key(SEEDS[child]), genotype)
  state = TrainState(params, stats, (), 0, 0, 0)
  return genotype, extract(build, genotype, state)


def batch():
  """(images, labels) that all children are scored by."""
  images, labels = _images()
  chosen = np.asarray(batches.batch_indices(0, 0, 10, SETTINGS.images))
  return normalise(images[chosen], DEFAULTS["digits"]), labels[chosen]


def _static_scores(child):
  genotype, variables = variables_of(child)

  def applied(numerics):
    config = dataclasses.replace(NETWORK, numerics=numerics)
    network = families.network(SPACE, genotype, config)

    def apply(params, images):
      found = {**variables, "params": params}
      (logits, *_), _ = network.apply(found, images, True, mutable=True)
      return logits

    return apply

  def measure(params, images, labels):
    model = formulas.Model(
      params,
      applied(child_scores.in_batch(NETWORK.numerics)),
      applied(child_scores.without_norms(NETWORK.numerics)),
    )
    return formulas.measure(formulas.NAMES, model, images, labels)

  return formulas.finish(jax.jit(measure)(variables["params"], *batch()))


@pytest.mark.parametrize("child", [0, 1])
def test_a_childs_scores_are_those_of_its_static_network(child):
  wanted = _static_scores(child)
  assert None not in wanted.values()
  assert _scores()[child] == pytest.approx(wanted, rel=1e-4)


def test_scores_tell_children_apart():
  for name in formulas.NAMES:
    assert len({row[name] for row in _scores()}) == len(CHILDREN), name


@pytest.mark.slow  # the program once more
def test_scores_have_the_same_bits_on_any_number_of_devices():
  assert _scores(2) == _scores(1)


def test_only_spaces_of_cells_have_scores():
  stages = spaces.get("genetic_cnn")
  with pytest.raises(ValueError, match=r"no cells.*take a space of cells"):
    child_scores.check_space(("snip",), stages)
  child_scores.check_space((), stages)


def test_synflow_is_refused_where_blocks_are_normalised():
  space = spaces.get("nasnet_c")
  with pytest.raises(ValueError, match=r"not defined.*add_layer_norm"):
    child_scores.check_space(("synflow",), space)
  child_scores.check_space(("snip",), space)
