"""The search of Zoph et al. 2018 on CIFAR-10, at the paper's settings.

Paper:    Learning Transferable Architectures for Scalable Image Recognition
          (arXiv 1707.07012), section 3 and appendix A.
Data:     CIFAR-10: 45,000 images to train on, a random 5,000 to validate,
          10,000 to test. The official binary archive is downloaded, or taken
          from --config.data.data_dir; or any images of your own, with
          --config.data.source=folder --config.data.options.path=...
Command:  python launch/main.py --config=configs/search_cifar.py \\
            --workdir=runs/search_cifar
          With `:small` behind the file's name: 64 children that two CPU
          cores train in about half an hour, on 5,000 images of an archive of
          class folders, at 16x16 (see docs/results/search_cifar_small/).
          With `:tiny` it takes digits instead and a minute or so.
Hardware: the paper's search took 500 P100 GPUs for 4 days. Two CPU cores
          manage what `:small` asks for. On TPUs add
          --config.child.steps_per_call=1406 and --config.child.fold=4; what
          they gain by the compiler's count stands in docs/pods.md.
Result:   see docs/results; nothing is claimed here.

Where the paper gives no number, the comment beside it says so.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  if variant not in ("", "small", "tiny"):
    raise ValueError(
      f"search_cifar has no variant {variant!r}, only 'small' and 'tiny'"
    )
  config = ml_collections.ConfigDict()
  config.job = "search"

  config.space = ml_collections.ConfigDict()
  config.space.name = "nasnet"  # add only, as all published cells turned out
  config.space.num_blocks = 5  # B, section 3.1; 4 for nasnet_b and nasnet_c
  config.space.min_blocks = 0  # cells of exactly B blocks
  config.space.operations = ()  # all 13 of section 3.1

  config.network = ml_collections.ConfigDict()
  config.network.num_cells = 2  # N, appendix A
  config.network.features = 32  # F: not in the paper's text, from memory
  config.network.stem_multiplier = 3  # slim, nasnet.py, cifar_config
  config.network.num_reductions = 2  # figure 2

  config.child = ml_collections.ConfigDict()
  config.child.epochs = 20  # appendix A
  config.child.batch_size = 32  # not in the paper; slim, cifar_config
  config.child.learning_rate = 0.025  # not in the paper; the same
  config.child.schedule = "cosine"  # appendix A: one period
  config.child.momentum = 0.9  # appendix A
  config.child.weight_decay = 5e-4  # the paper: "L2"; the number is slim's
  config.child.clip_norm = 5.0  # not in the paper; slim, cifar_config
  config.child.drop_path_keep = 1.0  # off: not said of children in the paper
  config.child.drop_path_version = "both"
  config.child.init = "fan_out"  # slim, nasnet_cifar_arg_scope
  config.child.bn_decay = 0.9  # the same
  config.child.bn_epsilon = 1e-5  # the same
  config.child.bn_group = 0  # examples; 0: the whole batch
  config.child.width = 1  # children at once per device, as memory allows
  config.child.steps_per_call = 1  # 1 on CPU; an epoch, 1406, on TPU
  config.child.eval_batch_size = 500
  config.child.dtype = "float32"  # "bfloat16" on TPU: activations only
  config.child.fold = 1  # examples side by side; 4 on TPU (docs/pods.md)

  config.data = ml_collections.ConfigDict()
  config.data.source = "cifar10"
  config.data.data_dir = placeholder(str)
  config.data.fraction = 1.0
  config.data.max_per_class = placeholder(int)
  config.data.seed = 0
  config.data.num_valid = 5000  # appendix A: "a random 5,000"
  # Of the source; what is None is left to it.
  config.data.options = ml_collections.ConfigDict()
  config.data.options.path = placeholder(str)
  config.data.options.name = placeholder(str)
  config.data.options.image_size = placeholder(int)
  config.data.options.channels = placeholder(int)
  config.data.options.note = placeholder(str)
  # None: the source's own. For CIFAR: whitening, padded to 40 and cropped to
  # 32 at random, flipped (appendix A); no cutout.
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
  config.search.controller_options.ppo.learning_rate = 3.5e-4  # appendix A
  config.search.controller_options.ppo.batch_size = 20  # appendix A
  config.search.controller_options.ppo.entropy_weight = 1e-5  # appendix A
  config.search.controller_options.ppo.baseline_decay = 0.95  # appendix A
  config.search.controller_options.ppo.normalise = False
  config.search.controller_options.random_search = ml_collections.ConfigDict()
  config.search.controller_options.random_search.unique = False
  config.search.controller_options.evolution = ml_collections.ConfigDict()
  # Real et al. 2019 (arXiv 1802.01548), section 3: P, S and the mutations.
  config.search.controller_options.evolution.population = 100
  config.search.controller_options.evolution.sample = 25
  config.search.controller_options.evolution.identity = 0.05
  config.search.controller_options.evolution.ageing = True
  config.search.controller_options.evolution.redraw = True
  config.search.controller_options.genetic = ml_collections.ConfigDict()
  # Xie & Yuille 2017 (arXiv 1703.01513), as on MNIST.
  config.search.controller_options.genetic.population = 20
  config.search.controller_options.genetic.crossover = 0.2
  config.search.controller_options.genetic.crossover_group = 0.3
  config.search.controller_options.genetic.mutation = 0.8
  config.search.controller_options.genetic.mutation_decision = 0.1
  config.search.controller_options.local_search = ml_collections.ConfigDict()
  # White et al. 2020 (arXiv 2005.02960): one start, whole neighbourhoods.
  config.search.controller_options.local_search.first_improvement = False
  config.search.controller_options.local_search.starts = 1
  config.search.controller_options.local_search.memory = 20_000  # all children
  config.search.controller_options.reinforce = ml_collections.ConfigDict()
  # Zoph & Le 2017 (arXiv 1611.01578), section 4.1.
  config.search.controller_options.reinforce.hidden = 35
  config.search.controller_options.reinforce.layers = 2
  config.search.controller_options.reinforce.learning_rate = 6e-4
  config.search.controller_options.reinforce.batch_size = 8
  config.search.controller_options.reinforce.init_scale = 0.08
  # Not in that paper; as for PPO.
  config.search.controller_options.reinforce.baseline_decay = 0.95
  config.search.controller_options.progressive = ml_collections.ConfigDict()
  # Liu et al. 2018 (arXiv 1712.00559); needs space.min_blocks = 1. Epochs and
  # batch size are not known to us.
  config.search.controller_options.progressive.beam = 256
  config.search.controller_options.progressive.predictor = "mlp"
  config.search.controller_options.progressive.members = 5
  config.search.controller_options.progressive.first_level = 512
  config.search.controller_options.progressive.exploration = 0.0
  config.search.controller_options.progressive.embedding = 100
  config.search.controller_options.progressive.hidden = 100
  config.search.controller_options.progressive.first_learning_rate = 0.01
  config.search.controller_options.progressive.learning_rate = 0.002
  config.search.controller_options.progressive.epochs = 20
  config.search.controller_options.progressive.batch_size = 32
  config.search.controller_options.predictor_search = (
    ml_collections.ConfigDict()
  )
  # Ours; tuned on NAS-Bench-201.
  config.search.controller_options.predictor_search.first = 10
  config.search.controller_options.predictor_search.per_fit = 5
  config.search.controller_options.predictor_search.exploration = 0.5
  config.search.controller_options.predictor_search.near = 0.4
  config.search.controller_options.predictor_search.max_children = 4096
  config.search.children = 20_000  # appendix A
  # Asked for at a time: what the controller learns from, its batch of 20.
  config.search.children_per_round = 20
  # True: no rounds, as the paper's queue has none; a slot whose child is done
  # takes the next, and children_per_round lie between two saved states.
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
  config.final.top_k = 250  # appendix A
  # Not in the paper's text. PNAS's table of costs implies 13.5 million
  # examples for each of the 250: 300 epochs of 45,000.
  config.final.rank_epochs = 300
  config.final.epochs = 600  # slim's length of ScheduledDropPath's ramp
  config.final.network = ml_collections.ConfigDict()
  config.final.network.num_cells = 6  # NASNet-A (6 @ 768), table 1
  config.final.network.features = 32  # the same: 768 = 24 F
  config.final.network.stem_multiplier = 3  # slim, nasnet.py, cifar_config
  config.final.network.num_reductions = 2
  config.final.network.aux = True  # slim, cifar_config
  config.final.network.dropout = 0.0  # the same
  config.final.network.init = "fan_out"  # slim, nasnet_cifar_arg_scope
  config.final.network.bn_decay = 0.9  # the same
  config.final.network.bn_epsilon = 1e-5  # the same
  config.final.batch_size = 32  # slim, cifar_config
  config.final.learning_rate = 0.025  # the same
  config.final.schedule = "cosine"  # the same
  config.final.momentum = 0.9  # appendix A
  config.final.weight_decay = 5e-4  # slim, nasnet_cifar_arg_scope
  config.final.clip_norm = 5.0  # slim, cifar_config
  config.final.aux_weight = 0.4  # the same
  config.final.label_smoothing = 0.0
  config.final.drop_path_keep = 0.6  # the same
  config.final.drop_path_version = "both"  # slim's v3
  config.final.steps_per_call = 1  # 1 on CPU; an epoch on TPU
  config.final.eval_batch_size = 500
  config.final.report_epochs = 1.0
  config.final.checkpoint_seconds = 600.0

  config.log = ml_collections.ConfigDict()
  config.log.seconds = 60.0  # between lines on work that is under way
  config.profile = ""  # "steps": a trace of a few steps, see docs/pods.md

  if variant == "small":
    config.network.num_cells = 1
    config.network.features = 8
    config.child.epochs = 1
    config.child.batch_size = 64
    config.child.learning_rate = 0.1  # few steps, so larger ones
    config.child.init = "fan_in"  # slim's makes the first logits too large
    config.data.source = "folder"
    config.data.options.path = "cifar10_jpeg_60000.tar.xz"
    config.data.options.image_size = 16
    config.data.options.note = (  # of that archive only
      "cifar10_jpeg_60000.tar.xz: CIFAR-10, JPEG-recompressed, at 16x16"
    )
    config.data.augmentation.pad = 2
    config.data.augmentation.flip = True
    config.data.max_per_class = 500
    config.data.num_valid = 1000
    # 64 children are three updates: the paper's 3.5e-4 would change nothing.
    config.search.controller_options.ppo.learning_rate = 5e-3
    config.search.controller_options.ppo.normalise = True
    config.search.controller_options.reinforce.learning_rate = 0.02
    # Too few children for the papers' population and for a neighbourhood.
    config.search.controller_options.evolution.population = 16
    config.search.controller_options.evolution.sample = 4
    config.search.controller_options.local_search.first_improvement = True
    config.search.controller_options.local_search.starts = 20
    config.search.children = 64
    config.search.children_per_round = 20
    config.mesh.arch = 2  # a core for each child
    config.final.top_k = 2
    config.final.rank_epochs = 5
    config.final.epochs = 15
    config.final.batch_size = 64
    config.final.learning_rate = 0.1
    config.final.drop_path_keep = 1.0
    config.final.checkpoint_seconds = 60.0
    config.final.network.num_cells = 1
    config.final.network.features = 12
    config.final.network.aux = False
    config.final.network.init = "fan_in"
  if variant == "tiny":
    config.space.num_blocks = 2
    config.space.operations = ("identity", "conv_1x1", "max_pool_3x3")
    config.network.num_cells = 1
    config.network.features = 4
    config.network.num_reductions = 1
    config.child.epochs = 1
    config.data.source = "digits"
    config.data.max_per_class = 20
    config.data.num_valid = 50
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
    config.final.network.num_cells = 1
    config.final.network.features = 4
    config.final.network.num_reductions = 1
    config.final.network.aux = False
    config.final.checkpoint_seconds = 0.0
  return config
