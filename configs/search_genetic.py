"""Genetic CNN: a genetic algorithm over small graphs of convolutions.

Paper:    Xie & Yuille 2017, Genetic CNN (arXiv 1703.01513), section 4.
Data:     CIFAR-10, as in `search_cifar.py`, which has all fields that are not
          named here and their meaning.
Command:  python launch/main.py --config=configs/search_genetic.py \\
            --workdir=runs/search_genetic
          With `:small` behind the file's name: 60 children on 5,000 images at
          16x16, for two CPU cores. With `:tiny` it takes digits, in a minute.
          `--config.search.controller=evolution` searches the same space by
          another strategy.
Hardware: the paper's search took 10 GPUs for 2 days (from memory).
Result:   nothing is claimed here. The paper: 7.1 % error after 50 generations
          (from memory).
"""

import pathlib
import runpy

import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  base = runpy.run_path(
    str(pathlib.Path(__file__).with_name("search_cifar.py"))
  )
  config = base["get_config"](variant)

  config.space = ml_collections.ConfigDict()
  config.space.name = "genetic_cnn"
  config.space.nodes = (3, 4, 5)  # section 4.2: S = 3, 19 bits

  config.network = ml_collections.ConfigDict()
  config.network.features = (64, 128, 256)  # section 4.2, from memory
  config.network.kernel_size = 5  # the same
  config.child.epochs = 120  # 100 + 10 + 5 + 5 at falling rates, from memory
  config.child.batch_size = 100  # not known; ours
  config.child.clip_norm = 5.0  # as in search_cifar, not of this paper

  config.search.controller = "genetic"
  # N = 20 individuals, p_C, q_C and p_M as in search_cifar.
  options = config.search.controller_options.genetic
  options.mutation_decision = 0.05  # q_M, section 4.2, from memory
  config.search.children = 1000  # 20 x 50 generations
  config.search.children_per_round = 20  # a generation

  final = config.final
  final.top_k = 1  # the paper trains the best of the last generation
  final.rank_epochs = config.child.epochs
  final.network = ml_collections.ConfigDict()
  final.network.features = config.network.features
  final.network.kernel_size = config.network.kernel_size
  final.network.dropout = 0.0
  final.network.init = "fan_in"
  final.network.bn_decay = 0.9
  final.network.bn_epsilon = 1e-5
  final.epochs = 120
  final.drop_path_keep = 1.0  # a network of stages has no paths to drop

  if variant == "small":
    config.network.features = final.network.features = (8, 16, 32)
    config.network.kernel_size = final.network.kernel_size = 3
    config.child.epochs = 1
    config.search.children = 60
    final.rank_epochs = final.epochs = 15
  if variant == "tiny":
    config.space.nodes = (3, 3)
    config.network.features = final.network.features = (4, 6)
    config.network.kernel_size = final.network.kernel_size = 3
    config.child.epochs = 1
    config.child.batch_size = 32
    options.population = 3
    config.search.children = 6
    config.search.children_per_round = 3
    final.top_k = 2
    final.rank_epochs = 1
    final.epochs = 2
  return config
