"""Searches cells for scikit-learn's digits: the default of `make search`.

Paper:    a small copy of the search of Zoph et al. 2018 (arXiv 1707.07012):
          same space and final stage, smaller in every number. The strategy is
          predictor search (after Liu et al. 2018), whose later children are
          better with each of ten seeds (docs/results/demonstration); the
          paper's is --config.search.controller=ppo.
Data:     1,797 real 8x8 images in scikit-learn's wheel, nothing to download:
          1,200 to train on, 300 to validate, 297 to test.
Command:  python launch/main.py --config=configs/search_digits.py \\
            --workdir=runs/search_digits
          With `:quick` behind the file's name evolution proposes, most
          children stop early, and one of them is trained on. `:tiny` is a
          matter of seconds.
          --config.search.hours=1 ends it in time for the final stage; so do
          --config.search.epochs and .patience, which are reproducible, as
          hours are not. The same folder takes more children later.
Hardware: two CPU cores: `make search` took 4 min 3 s from a fresh clone, its
          environment made on the way, and 1 min 32 s with programs kept. One
          child after another, and ranked one by one, it took 3 min 49 s right
          after that, half a minute of it for compiling (2026-12-01, load 2).
          `:quick` took 48 s and 1 min 5 s (docs/results/cheap).
Result:   over ten seeds the mean reward of the last twelve children is 0.898,
          of the first twelve 0.821, and the winner has 99.4 % of 297 test
          images right (docs/results/demonstration). Random search's winner
          has as many: easy images show that the search runs and learns.
"""

from nasnet_jax import fields


def get_config(variant: str = ""):
  """The config; variant "quick" stops early, "tiny" is for tests."""
  if variant not in ("", "quick", "tiny"):
    raise ValueError(f"search_digits has no variant {variant!r}: quick or tiny")
  config = fields.jobs.search(
    fields.spaces.nasnet(),
    fields.networks.child_cells(),
    fields.recipes.child(),
    fields.images.in_memory("digits"),
    fields.recipes.final(fields.networks.final_cells()),
  )
  config.space.num_blocks = 3
  config.space.operations = (
    "identity",
    "conv_1x1",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
  )
  config.network.num_cells = 1
  config.network.features = 8
  config.network.num_reductions = 1  # 8x8 images bear one
  config.child.epochs = 4
  config.child.batch_size = 64
  config.child.learning_rate = 0.1  # few steps, so larger ones
  config.child.init = "fan_in"  # slim's makes the first logits too large
  config.child.eval_batch_size = 300
  config.data.num_valid = 300
  config.search.children = 48
  config.search.children_per_round = 8
  config.search.controller = "predictor_search"
  _strategies(config.search.controller_options)
  config.final.top_k = 3
  config.final.rank_epochs = 10
  config.final.rank_together = True
  config.final.epochs = 20
  config.final.network.num_cells = 1
  config.final.network.features = 12
  config.final.network.num_reductions = 1  # 8x8 images bear one
  config.final.network.aux = False
  config.final.network.init = "fan_in"  # as of the children
  config.final.batch_size = 64
  config.final.learning_rate = 0.1  # few steps, so larger ones
  config.final.drop_path_keep = 0.9
  config.final.eval_batch_size = 300
  config.final.checkpoint_seconds = 20.0
  config.log.seconds = 20.0
  if variant == "quick":
    config.search.controller = "evolution"  # measured with halving
    config.search.epochs = 64.0  # a third of 48 children's
    config.search.halving.eta = 4
    config.search.halving.min_epochs = 1.0
    config.final.top_k = 1  # a network's program takes longest of all
    config.final.rank_epochs = 1  # there is nothing to rank
    config.final.rank_together = False  # nor anybody to train with
  elif variant == "tiny":
    fields.jobs.make_tiny_search(config)
    config.search.controller = "ppo"  # the paper's
    config.space.num_blocks = 2
    config.space.operations = ("identity", "conv_1x1", "avg_pool_3x3")
    config.network.features = config.final.network.features = 4
  return config


def _strategies(options):
  """For 48 children; the papers' are for thousands."""
  options.ppo.learning_rate = 5e-3  # six updates
  options.ppo.batch_size = 8
  options.ppo.normalise = True
  options.evolution.update(population=12, sample=4)
  options.genetic.population = 8
  options.local_search.update(first_improvement=True, starts=8, memory=1000)
  options.reinforce.learning_rate = 0.02
  options.progressive.beam = 12
  options.progressive.first_level = 24
