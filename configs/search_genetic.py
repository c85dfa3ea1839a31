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

from nasnet_jax import fields


def get_config(variant: str = ""):
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  if variant not in ("", "small", "tiny"):
    raise ValueError(
      f"search_genetic has no variant {variant!r}: small or tiny"
    )
  config = _search_cifar(variant)
  config.space = fields.spaces.genetic_cnn()
  config.network = fields.networks.stages()
  config.final.network = fields.networks.final_stages()
  child, search, final = config.child, config.search, config.final
  child.epochs = 120  # 100 + 10 + 5 + 5 at falling rates, from memory
  child.batch_size = 100  # not known; ours
  search.controller = "genetic"
  # q_M, Xie & Yuille 2017, section 4.2, from memory; the rest as on MNIST.
  search.controller_options.genetic.mutation_decision = 0.05
  search.children = 1000  # 20 x 50 generations
  search.children_per_round = 20  # a generation
  final.top_k = 1  # the paper trains the best of the last generation
  final.rank_epochs = 120  # as the children
  final.epochs = 120  # as the children
  final.drop_path_keep = 1.0  # a network of stages has no paths to drop
  if variant == "small":
    config.network.features = final.network.features = (8, 16, 32)
    config.network.kernel_size = final.network.kernel_size = 3
    child.epochs = 1
    search.children = 60
    final.rank_epochs = final.epochs = 15
  if variant == "tiny":
    fields.jobs.make_tiny_search(config)
    config.space.nodes = (3, 3)
    config.network.features = final.network.features = (4, 6)
    config.network.kernel_size = final.network.kernel_size = 3
    child.batch_size = 32
    search.controller_options.genetic.population = 3
  return config


def _search_cifar(variant: str):
  """The config of the file beside this one; configs are no package."""
  path = pathlib.Path(__file__).with_name("search_cifar.py")
  return runpy.run_path(str(path))["get_config"](variant)
