"""Searches cells for scikit-learn's digits: the default of `make search`.

Paper:    a small copy of the search of Zoph et al. 2018 (arXiv 1707.07012):
          same space, controller and final stage, smaller in every number.
Data:     1,797 real 8x8 images in scikit-learn's wheel, nothing to download:
          1,200 to train on, 300 to validate, 297 to test.
Command:  python launch/main.py --config=configs/search_digits.py \\
            --workdir=runs/search_digits
          With `:tiny` behind the file's name it is a matter of seconds.
Hardware: two CPU cores: `make search` took 1 min 8 s, and 2 min 16 s from a
          fresh clone, its environment made on the way (2026-11-24).
Result:   a winner with 296 of 297 test images right (95 % interval 98.1 to
          99.9 %) in that run; another machine rounds differently. One seed on
          easy images: that the search runs, and no more.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; variant "tiny" is for tests."""
  if variant not in ("", "tiny"):
    raise ValueError(f"search_digits has no variant {variant!r}, only 'tiny'")
  config = ml_collections.ConfigDict()
  config.job = "search"

  config.space = ml_collections.ConfigDict()
  config.space.name = "nasnet"
  config.space.num_blocks = 3
  config.space.min_blocks = 0  # cells of exactly so many
  config.space.operations = (
    "identity",
    "conv_1x1",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
  )

  # 8x8 images bear one reduction.
  config.network = ml_collections.ConfigDict()
  config.network.num_cells = 1
  config.network.features = 8
  config.network.stem_multiplier = 3
  config.network.num_reductions = 1

  config.child = ml_collections.ConfigDict()
  config.child.epochs = 4
  config.child.batch_size = 64
  config.child.learning_rate = 0.1
  config.child.schedule = "cosine"
  config.child.momentum = 0.9
  config.child.weight_decay = 5e-4
  config.child.clip_norm = 5.0
  config.child.drop_path_keep = 1.0
  config.child.drop_path_version = "both"
  config.child.init = "fan_in"
  config.child.bn_decay = 0.9
  config.child.bn_epsilon = 1e-5
  config.child.bn_group = 0  # examples; 0: the whole batch
  config.child.width = 1
  config.child.steps_per_call = 1
  config.child.eval_batch_size = 300

  config.data = ml_collections.ConfigDict()
  config.data.source = "digits"
  config.data.data_dir = placeholder(str)
  config.data.fraction = 1.0
  config.data.max_per_class = placeholder(int)
  config.data.seed = 0
  config.data.num_valid = 300
  # Of the source; what is None is left to it.
  config.data.options = ml_collections.ConfigDict()
  config.data.options.path = placeholder(str)
  config.data.options.name = placeholder(str)
  config.data.options.image_size = placeholder(int)
  config.data.options.channels = placeholder(int)
  # None: the source's own (digits: shifted by up to one pixel, no flip).
  config.data.augmentation = ml_collections.ConfigDict()
  config.data.augmentation.pad = placeholder(int)
  config.data.augmentation.flip = placeholder(bool)
  config.data.augmentation.cutout = placeholder(int)

  config.mesh = ml_collections.ConfigDict()
  config.mesh.arch = 0  # all devices there are
  config.mesh.data = 1
  config.hosts = ml_collections.ConfigDict()
  config.hosts.coordinator = ""  # or "auto" (TPU, Slurm, MPI), or HOST:PORT
  config.hosts.count = 1  # processes, if it is HOST:PORT
  config.hosts.index = 0  # which of them this is
  config.hosts.timeout = 60  # seconds; a host silent for longer is given up

  config.search = ml_collections.ConfigDict()
  config.search.controller = "ppo"
  # By controller; the one that is named above reads its own.
  config.search.controller_options = ml_collections.ConfigDict()
  config.search.controller_options.ppo = ml_collections.ConfigDict()
  # The paper's 3.5e-4 is for 20,000 children; here are six updates.
  config.search.controller_options.ppo.learning_rate = 5e-3
  config.search.controller_options.ppo.batch_size = 8
  config.search.controller_options.ppo.normalise = True
  config.search.controller_options.random_search = ml_collections.ConfigDict()
  config.search.controller_options.random_search.unique = False
  # The papers' numbers are in search_cifar.py; these are for 48 children.
  config.search.controller_options.evolution = ml_collections.ConfigDict()
  config.search.controller_options.evolution.population = 12
  config.search.controller_options.evolution.sample = 4
  config.search.controller_options.evolution.identity = 0.05
  config.search.controller_options.evolution.ageing = True
  config.search.controller_options.evolution.redraw = True
  config.search.controller_options.genetic = ml_collections.ConfigDict()
  # Xie & Yuille 2017 (arXiv 1703.01513), as on MNIST.
  config.search.controller_options.genetic.population = 8
  config.search.controller_options.genetic.crossover = 0.2
  config.search.controller_options.genetic.crossover_group = 0.3
  config.search.controller_options.genetic.mutation = 0.8
  config.search.controller_options.genetic.mutation_decision = 0.1
  config.search.controller_options.local_search = ml_collections.ConfigDict()
  config.search.controller_options.local_search.first_improvement = True
  config.search.controller_options.local_search.starts = 8
  config.search.controller_options.local_search.memory = 1000
  config.search.controller_options.reinforce = ml_collections.ConfigDict()
  config.search.controller_options.reinforce.hidden = 35
  config.search.controller_options.reinforce.layers = 2
  config.search.controller_options.reinforce.learning_rate = 0.02
  config.search.controller_options.reinforce.batch_size = 8
  config.search.controller_options.reinforce.init_scale = 0.08
  config.search.controller_options.reinforce.baseline_decay = 0.95
  config.search.controller_options.progressive = ml_collections.ConfigDict()
  # The paper's beam is 256; needs space.min_blocks = 1.
  config.search.controller_options.progressive.beam = 12
  config.search.controller_options.progressive.predictor = "mlp"
  config.search.controller_options.progressive.first_level = 24
  config.search.controller_options.progressive.exploration = 0.0
  config.search.controller_options.predictor_search = (
    ml_collections.ConfigDict()
  )
  config.search.controller_options.predictor_search.first = 10
  config.search.controller_options.predictor_search.per_fit = 5
  config.search.controller_options.predictor_search.exploration = 0.5
  config.search.controller_options.predictor_search.near = 0.4
  config.search.children = 48
  config.search.children_per_round = 8
  # True: no rounds; a slot whose child is done takes the next at once, and
  # children_per_round are what lies between two saved states.
  config.search.asynchronous = False
  # What the controller is told: "accuracy", or MnasNet's accuracy x (cost /
  # target)^w, "mnasnet_soft" or "mnasnet_hard" (Tan et al. 2019, section 3.1).
  config.search.reward = ml_collections.ConfigDict()
  config.search.reward.kind = "accuracy"
  # Or "macs", "bytes" (nasnet_jax/traffic), "latency" (nasnet_jax/latency).
  config.search.reward.cost = "params"
  config.search.reward.target = 0.0  # T, in the cost's own unit
  # None: the paper's, -0.07 and -0.07 (soft), 0 and -1 (hard).
  config.search.reward.alpha = placeholder(float)
  config.search.reward.beta = placeholder(float)
  config.search.cost = ml_collections.ConfigDict()
  # Of the images that costs are counted for; 0: those of the children.
  config.search.cost.image_side = 0
  config.search.cost.latency_batch = 1  # images per measured call
  # Successive halving (Li et al. 2020): of the children at a rung the best
  # 1/eta go on. 0: off; 3 or 4 are usual.
  config.search.halving = ml_collections.ConfigDict()
  config.search.halving.eta = 0
  config.search.halving.min_epochs = 1.0  # the first rung; then eta x as far
  config.search.seed = 0
  config.search.shuffle_labels = False  # true: what remains is chance

  config.final = ml_collections.ConfigDict()
  config.final.top_k = 3
  config.final.rank_epochs = 10
  config.final.epochs = 20
  config.final.network = ml_collections.ConfigDict()
  config.final.network.num_cells = 1
  config.final.network.features = 12
  config.final.network.stem_multiplier = 3
  config.final.network.num_reductions = 1
  config.final.network.aux = False
  config.final.network.dropout = 0.0
  config.final.network.init = "fan_in"
  config.final.network.bn_decay = 0.9
  config.final.network.bn_epsilon = 1e-5
  config.final.batch_size = 64
  config.final.learning_rate = 0.1
  config.final.schedule = "cosine"
  config.final.momentum = 0.9
  config.final.weight_decay = 5e-4
  config.final.clip_norm = 5.0
  config.final.aux_weight = 0.4
  config.final.label_smoothing = 0.0
  config.final.drop_path_keep = 0.9
  config.final.drop_path_version = "both"
  config.final.steps_per_call = 1
  config.final.eval_batch_size = 300
  config.final.report_epochs = 1.0
  config.final.checkpoint_seconds = 20.0

  config.log = ml_collections.ConfigDict()
  config.log.seconds = 20.0  # between lines on work that is under way
  config.profile = ""  # "steps": a trace of a few steps, see docs/pods.md

  if variant == "tiny":
    config.space.num_blocks = 2
    config.space.operations = ("identity", "conv_1x1", "avg_pool_3x3")
    config.network.features = 4
    config.child.epochs = 1
    config.search.children = 6
    config.search.children_per_round = 3
    config.search.controller_options.ppo.batch_size = 3
    config.search.controller_options.reinforce.batch_size = 3
    config.search.controller_options.evolution.population = 3
    config.search.controller_options.evolution.sample = 2
    config.search.controller_options.local_search.starts = 3
    config.final.top_k = 2
    config.final.rank_epochs = 1
    config.final.epochs = 2
    config.final.network.features = 4
    config.final.checkpoint_seconds = 0.0
  return config
