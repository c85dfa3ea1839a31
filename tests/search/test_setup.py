"""From configs to parts; labels that mean nothing teach nothing."""

import jax
import numpy as np
import pytest

from nasnet_jax import controllers, data, inputs
from nasnet_jax.search import setup


@pytest.mark.parametrize(
  ("name", "variant"),
  [
    ("search_digits", ""),
    ("search_digits", "tiny"),
    ("search_cifar", ""),
    ("search_cifar", "small"),
    ("search_cifar", "tiny"),
    ("search_pnas", ""),
    ("search_pnas", "small"),
    ("search_pnas", "tiny"),
  ],
)
def test_every_config_makes_a_space_its_controllers_and_settings(
  harness, name, variant
):
  config = harness.load_config(name, variant)
  for controller in controllers.CONTROLLERS:
    config.search.controller = controller
    if controller == "progressive":
      config.space.min_blocks = 1
    space = setup.get_space(config)
    assert controller in config.search.controller_options
    assert len(setup.get_controller(config, space)) == 3
  assert setup.round_settings(config).children == config.search.children
  final = setup.final_settings(config, 10, None)
  assert final.rank.epochs == config.final.rank_epochs
  assert final.final.epochs == config.final.epochs
  network = setup.child_network(config, 10)
  assert network.features == config.network.features


def test_the_cifar_config_is_the_papers(harness):
  config = harness.load_config("search_cifar", "")
  space = setup.get_space(config)
  assert (len(space.operations), space.num_blocks) == (13, 5)
  assert config.search.children == 20_000
  assert (config.network.num_cells, config.network.features) == (2, 32)
  assert (config.child.epochs, config.data.num_valid) == (20, 5000)


def test_the_pnas_config_is_the_papers(harness):
  config = harness.load_config("search_pnas", "")
  space = setup.get_space(config)
  assert (len(space.operations), space.num_blocks) == (8, 5)
  assert config.search.children == 1160
  assert (config.network.num_cells, config.network.features) == (2, 24)
  assert (config.child.epochs, config.child.learning_rate) == (20, 0.01)


@pytest.mark.parametrize("variant", ["", "small", "tiny"])
def test_a_pnas_search_has_children_for_all_its_levels(harness, variant):
  config = harness.load_config("search_pnas", variant)
  controller = setup.get_controller(config, setup.get_space(config))
  state = controller.init(jax.random.key(0))
  assert len(state.rewards) == config.search.children


def test_what_a_config_leaves_open_is_the_sources_augmentation(harness):
  config = harness.tiny_config()
  images = setup.load_images(config)
  assert inputs.get_augmentation(config.data, images).pad == 1
  config.data.augmentation.pad = 2
  config.data.augmentation.cutout = 4
  aug = inputs.get_augmentation(config.data, images)
  assert (aug.pad, aug.cutout, aug.flip) == (2, 4, False)


def test_train_and_validation_images_are_apart_and_complete(harness):
  images = setup.load_images(harness.tiny_config())
  assert len(images.train.labels) + len(images.valid.labels) == 200
  pixels = np.concatenate([images.train.images, images.valid.images])
  whole = data.load(**images.load).train_images
  assert {p.tobytes() for p in pixels} == {p.tobytes() for p in whole}


def test_the_other_controller_reads_its_own_options(harness):
  config = harness.tiny_config()
  config.search.controller = "random_search"
  config.search.controller_options.random_search.unique = True
  controller = setup.get_controller(config, setup.get_space(config))
  state = controller.init(jax.random.key(0))
  proposals, _ = controller.ask(state, jax.random.key(1), 10_000)
  assert len(proposals) == 2**8  # each cell of one block and two operations


def test_shuffled_labels_give_rewards_at_chance_and_true_ones_do_not(
  run_python,
):
  done = run_python("tests/search/compare_labels.py")
  assert done.returncode == 0, done.stderr
  true, shuffled = map(float, done.stdout.split())
  assert true > 0.3
  # Ten classes; the mean of four children on 300 images strays by 0.02.
  assert shuffled < 0.16
