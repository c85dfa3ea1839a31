"""From configs to parts; labels that mean nothing teach nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from nasnet_jax import controllers, data, search, zoo
from nasnet_jax.jobs import job_config
from nasnet_jax.search import search_config


@pytest.mark.parametrize(
  ("name", "variant"),
  [
    ("search_digits", ""),
    ("search_digits", "tiny"),
    ("search_cifar", ""),
    ("search_cifar", "small"),
    ("search_cifar", "tiny"),
    ("search_enas", ""),
    ("search_enas", "small"),
    ("search_enas", "tiny"),
    ("search_genetic", ""),
    ("search_genetic", "small"),
    ("search_genetic", "tiny"),
    ("search_mnasnet", ""),
    ("search_mnasnet", "small"),
    ("search_mnasnet", "tiny"),
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
      if name in ("search_genetic", "search_mnasnet"):  # no cells
        continue
      config.space.min_blocks = 1
    space = search_config.get_space(config)
    assert controller in config.search.controller_options
    assert search_config.get_controller(config, space).init is not None
  assert search_config.round_settings(config).children == config.search.children
  final = search_config.final_settings(config, 10, None, space)
  assert final.rank.epochs == config.final.rank_epochs
  assert final.final.epochs == config.final.epochs
  network = search_config.child_network(config, 10, space)
  for field, value in config.network.items():
    assert getattr(network, field) == value


def test_rewards_halving_and_rounds_come_from_the_config(harness):
  config = harness.tiny_config()
  config.search.reward.kind = "mnasnet_soft"
  config.search.reward.cost = "bytes"
  config.search.reward.target = 1e6
  config.search.reward.beta = -0.5
  config.search.halving.eta = 2
  config.search.halving.min_epochs = 0.25
  config.search.asynchronous = True
  settings = search_config.round_settings(config)
  assert settings.reward == ("mnasnet_soft", "bytes", 1e6, -0.07, -0.5)
  assert settings.halving == (2, 0.25)
  assert settings.asynchronous
  config.search.halving.eta = 1
  with pytest.raises(ValueError, match="give 2 or more"):
    search_config.round_settings(config)


def test_an_evaluator_that_cannot_stop_children_is_one_line(harness):
  config = harness.tiny_config()
  search_config.check_evaluator(
    harness.FakeEvaluator(), search_config.round_settings(config)
  )
  config.search.asynchronous = True
  with pytest.raises(ValueError, match="answers in rounds only"):
    search_config.check_evaluator(
      harness.FakeEvaluator(), search_config.round_settings(config)
    )


def test_the_cifar_config_is_the_papers(harness):
  config = harness.load_config("search_cifar", "")
  space = search_config.get_space(config)
  assert (len(space.operations), space.num_blocks) == (13, 5)
  assert config.search.children == 20_000
  assert (config.network.num_cells, config.network.features) == (2, 32)
  assert (config.child.epochs, config.data.num_valid) == (20, 5000)
  assert config.search.controller_options.ppo.to_dict() == {
    "learning_rate": 3.5e-4,
    "batch_size": 20,
    "entropy_weight": 1e-5,
    "baseline_decay": 0.95,
    "normalise": False,
  }


def test_the_pnas_config_is_the_papers(harness):
  config = harness.load_config("search_pnas", "")
  space = search_config.get_space(config)
  assert (len(space.operations), space.num_blocks) == (8, 5)
  assert config.search.children == 1160
  assert (config.network.num_cells, config.network.features) == (2, 24)
  assert (config.child.epochs, config.child.learning_rate) == (20, 0.01)


def test_the_mnasnet_config_is_efficientnets(harness):
  config = harness.load_config("search_mnasnet", "")
  space = search_config.get_space(config)
  b0 = dataclasses.replace(zoo.blocks.EFFICIENTNET, fixed=("head",))
  assert space.architecture(space.decode(space.encode(b0))) == b0
  reward = search_config.get_reward(config)
  assert reward == ("mnasnet_soft", "macs", 4e8, -0.07, -0.07)
  assert search_config.get_costs(config) == ("macs", 224, 1, False)
  assert (config.child.epochs, config.search.children) == (5, 8000)


@pytest.mark.parametrize("variant", ["", "small", "tiny"])
def test_a_pnas_search_has_children_for_all_its_levels(harness, variant):
  config = harness.load_config("search_pnas", variant)
  controller = search_config.get_controller(
    config, search_config.get_space(config)
  )
  state = controller.init(jax.random.key(0))
  assert len(state.rewards) == config.search.children


def test_what_a_config_leaves_open_is_the_sources_augmentation(harness):
  config = harness.tiny_config()
  images = search_config.load_images(config)
  assert job_config.get_augmentation(config.data, images).pad == 1
  config.data.augmentation.pad = 2
  config.data.augmentation.cutout = 4
  aug = job_config.get_augmentation(config.data, images)
  assert (aug.pad, aug.cutout, aug.flip) == (2, 4, False)


def test_train_and_validation_images_are_apart_and_complete(harness):
  images = search_config.load_images(harness.tiny_config())
  assert len(images.train.labels) + len(images.valid.labels) == 200
  pixels = np.concatenate([images.train.images, images.valid.images])
  whole = data.load(**images.load).train_images
  assert {p.tobytes() for p in pixels} == {p.tobytes() for p in whole}


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("space.name", "nasnt", "did you mean 'nasnet'"),
    ("space.num_blocks", 0, "space.num_blocks is 0: give 1 or more"),
    ("space.operations", ("identiti",), "did you mean 'identity'"),
    ("space.operations", ("identity",) * 2, "an operation is there twice"),
    ("network.num_cells", 0, "network.num_cells is 0: give 1 or more"),
    ("network.features", -3, "network.features is -3: give 1 or more"),
    ("network.stem_multiplier", 0, "network.stem_multiplier is 0"),
    ("network.num_reductions", -1, "network.num_reductions is -1"),
    ("network.num_reductions", 5, "too small for 5 reductions"),
    ("child.epochs", 0, "epochs is 0: give 1 or more"),
    ("child.width", -1, "width is -1: give 1 or more"),
    ("child.steps_per_call", -1, "steps_per_call is -1: give 1 or more"),
    ("child.batch_size", 0, "batch_size is 0: give 1 or more"),
    ("child.eval_batch_size", -1, "eval_batch_size is -1: give 1"),
    ("child.schedule", "cosin", "'cosin' is not one of: cosine"),
    ("child.init", "fanin", "init is 'fanin', not one of: fan_out, fan_in"),
    ("child.learning_rate", -0.1, "learning_rate is -0.1: give 0 or more"),
    ("child.learning_rate", float("inf"), "learning_rate is inf: give 0"),
    ("child.weight_decay", -1.0, "weight_decay is -1.0: give 0 or more"),
    ("child.momentum", 1.0, "momentum is 1.0: give 0 or more, below 1"),
    ("data.augmentation.mean", (0.5, 0.5), "images have 1 channel"),
    ("data.augmentation.mean", (127.5,), "so give numbers of 0..1"),
    ("data.augmentation.std", (58.4,), "so give numbers of 0..1"),
    ("child.drop_path_keep", 0.0, "give a number above 0, 1 at most"),
    ("child.drop_path_version", "v3", "'v3' is not one of: time, layer"),
    ("data.num_valid", 0, "rewards take validation images"),
    ("data.seed", -1, "the seed of the images is -1: give 0 or more"),
    ("search.seed", -1, "search.seed is -1: give 0 or more"),
    ("search.controller", "pop", "did you mean 'ppo'"),
    ("final.top_k", 0, "must be 1 or more"),
    # These used to be found out after all children were trained.
    ("final.schedule", "cosin", "'cosin' is not one of: cosine"),
    ("final.network.num_reductions", 9, "too small for 9 reductions"),
    ("final.network.features", 0, "network.features is 0: give 1 or more"),
    ("final.network.init", "fan", "init is 'fan', not one of"),
    ("final.network.dropout", 1.5, "give 0 or more, below 1"),
    ("final.label_smoothing", 2.0, "give 0 or more, below 1"),
    ("final.steps_per_call", -1, "steps_per_call is -1: give 1 or more"),
    ("mesh.arch", 3, "must divide 8"),
  ],
)
def test_what_makes_no_search_gets_one_clear_line_before_it_starts(
  harness, tmp_path, field, value, words
):
  config = harness.load_config("search_digits", "tiny")
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=words) as error:
    search.run(config, tmp_path)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "config.json").exists()


def test_the_other_controller_reads_its_own_options(harness):
  config = harness.tiny_config()
  config.search.controller = "random_search"
  config.search.controller_options.random_search.unique = True
  controller = search_config.get_controller(
    config, search_config.get_space(config)
  )
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
