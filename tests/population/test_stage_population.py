"""Children of Genetic CNN's space: any graph in one program."""

import jax
import numpy as np
import pytest

from nasnet_jax.costs import counting
from nasnet_jax.data import augment
from nasnet_jax.models import families, stage_network
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population import population
from nasnet_jax.population.evaluator import PopulationEvaluator
from nasnet_jax.population.extract import extract
from nasnet_jax.spaces.stages import StageSpace
from nasnet_jax.training import mesh

SPACE = StageSpace("small", (3, 3))
CONFIG = stage_network.StageConfig(
  features=(4, 5),
  kernel_size=3,
  num_classes=3,
  numerics=Numerics(init="fan_in"),
)
RECIPE = population.ChildRecipe(
  epochs=2, batch_size=8, learning_rate=0.1, eval_batch_size=10
)
AUGMENTATION = augment.Augmentation(mean=(0.4,), std=(0.25,))
DECISIONS = np.array(
  [[0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 1, 0]], np.int32
)


def _images(n, seed):
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % 3
  images = rng.integers(0, 200, (n, 6, 5, 1)) + 20 * labels[:, None, None, None]
  return images.astype(np.uint8), labels.astype(np.int32)


@pytest.fixture(scope="module")
def evaluator():
  return PopulationEvaluator(
    SPACE,
    CONFIG,
    RECIPE,
    AUGMENTATION,
    _images(32, 0),
    _images(30, 1),
    mesh.make_mesh(2, 1),
  )


def test_a_trained_child_is_the_static_network_that_it_extracts_to(evaluator):
  evaluator.compile()
  pop = evaluator.population
  genotypes = SPACE.decode(DECISIONS[1:])
  everyone = np.ones(2, bool)
  state = pop.refill(
    pop.empty(), everyone, np.uint32([4, 5]), np.int32([6, 6]), genotypes
  )
  for _ in range(6):
    state, _ = pop.train(state, genotypes, evaluator.train_data)
  correct = pop.count_correct(state, everyone, genotypes, evaluator.valid_data)
  evaluator._state = None
  images, labels = _images(30, 1)
  x = augment.normalise(images, AUGMENTATION)
  for i in range(2):
    genotype = SPACE.decode(DECISIONS[1 + i])
    child = jax.tree.map(lambda leaf, i=i: leaf[i], jax.device_get(state))
    variables = extract(pop.network, genotype, child)
    network = families.network(SPACE, genotype, CONFIG)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    jax.tree.map(
      lambda a, b: np.testing.assert_equal(a.shape, b.shape), variables, shapes
    )
    logits, _, _ = jax.jit(network.apply)(variables, x)
    assert int((logits.argmax(-1) == labels).sum()) == int(correct[i])


def test_outcomes_depend_on_no_neighbour_and_count_as_the_network_does(
  evaluator,
):
  seeds, budgets = np.uint32([1, 2, 3]), np.ones(3, np.float32)
  together = evaluator.evaluate(DECISIONS, seeds, budgets)
  alone = evaluator.evaluate(DECISIONS[1:2], seeds[1:2], budgets[1:2])
  assert alone[0].reward == together[1].reward
  for row, outcome in zip(DECISIONS, together):
    network = families.network(SPACE, SPACE.decode(row), CONFIG)
    size = counting.count_module(network, (6, 5, 1))
    assert (outcome.params, outcome.macs) == size


def test_paths_are_not_dropped_in_a_network_of_stages():
  genotype = SPACE.decode(DECISIONS[0])
  network = families.network(SPACE, genotype, CONFIG)
  with pytest.raises(ValueError, match="no paths to drop"):
    network.init(jax.random.key(0), np.zeros((1, 6, 5, 1)), False, drop=1)


def test_a_space_without_networks_says_so():
  with pytest.raises(ValueError, match="by its table only"):
    families.of(type("Space", (), {"name": "other"})())
