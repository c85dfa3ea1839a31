"""Trains a network of published or found cells on CIFAR-10.

Paper:    Zoph et al. 2018 (arXiv 1707.07012), NASNet-A (6 @ 768): 3.3M
          parameters, 3.41 % test error, 2.65 % with cutout; recipe of slim's
          cifar_config. `:pnasnet_5` Liu et al. 2018, 3.41 %; `:amoebanet_a`
          Real et al. 2019, 3.34 %.
Data:     CIFAR-10; its archive is downloaded, or taken from
          --config.data.data_dir; or any images of your own, with
          --config.data.source=folder --config.data.options.path=...
Command:  python launch/main.py --config=configs/train_cifar.py \\
            --workdir=runs/train_cifar
          --config.model.genotype=runs/search/result.json trains the cell that
          a search found; --config.data.augmentation.cutout=16 adds cutout.
          `:small` is a size for two CPU cores, on 16x16 images of an archive
          of class folders; `:tiny` takes digits and seconds.
Hardware: 600 epochs of 1,562 steps: days of one GPU; not run by us.
Result:   `:small` see docs/results/train_cifar_small; of the rest nothing is
          claimed here.
"""

import ml_collections
from ml_collections.config_dict import placeholder

_VARIANTS = ("", "pnasnet_5", "amoebanet_a", "small", "tiny")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; see above for its variants."""
  if variant not in _VARIANTS:
    raise ValueError(
      f"train_cifar has no variant {variant!r}, only:"
      f" {', '.join(_VARIANTS[1:])}"
    )
  config = ml_collections.ConfigDict()
  config.job = "train"
  config.model = ml_collections.ConfigDict()
  config.model.genotype = "nasnet_a"  # or the path of a result.json
  config.model.checkpoint = ""  # folder of a run whose weights to start from
  config.model.keep_head = False  # whether its classifier is taken too
  config.network = _network()
  config.train = _train()
  config.data = _data("cifar10")
  config.mesh = ml_collections.ConfigDict()
  config.mesh.arch = 1
  config.mesh.data = 1  # devices that share a batch
  config.mesh.shard_params = False  # True: each holds a part of the weights
  config.hosts = ml_collections.ConfigDict()
  config.hosts.coordinator = ""  # or "auto" (TPU, Slurm, MPI), or HOST:PORT
  config.hosts.count = 1  # processes, if it is HOST:PORT
  config.hosts.index = 0  # which of them this is
  config.hosts.timeout = 60  # seconds; a host silent for longer is given up
  config.log = ml_collections.ConfigDict()
  config.log.seconds = 60.0  # between lines on work that is under way
  config.profile = ""  # "steps": a trace of a few steps, see docs/pods.md
  if variant == "pnasnet_5":
    config.model.genotype = "pnasnet_5"
    config.network.layout = "pnas"  # Liu et al. 2018: N counts both strides
    config.network.num_cells = 3
    config.network.features = 48
  elif variant == "amoebanet_a":
    config.model.genotype = "amoebanet_a"
    config.network.features = 36  # Real et al. 2019, table 1
    config.train.batch_size = 128  # the same, "Methods", like all below
    config.train.learning_rate = 0.024
    config.train.drop_path_keep = 0.7
    config.train.drop_path_version = "time"  # tensorflow/tpu: v1
    config.train.aux_weight = 0.5
  elif variant == "small":
    _make_small(config)
  elif variant == "tiny":
    _make_tiny(config)
  return config


def _make_small(config):
  """About a quarter of an hour on two CPU cores."""
  config.network.num_cells = 2
  config.network.features = 8
  config.network.aux = False
  config.network.init = "fan_in"  # slim's makes the first logits too large
  config.train.epochs = 15
  config.train.batch_size = 64
  config.train.learning_rate = 0.1  # few steps, so larger ones
  config.train.drop_path_keep = 1.0  # too short a training to need it
  config.train.checkpoint_seconds = 60.0
  config.data.source = "folder"
  config.data.options.path = "cifar10_jpeg_60000.tar.xz"
  config.data.options.image_size = 16
  config.data.options.note = (  # of that archive only
    "cifar10_jpeg_60000.tar.xz: CIFAR-10, JPEG-recompressed, at 16x16"
  )
  config.data.augmentation.pad = 2
  config.data.augmentation.flip = True
  config.data.max_per_class = 1000
  config.data.num_valid = 1000


def _make_tiny(config):
  config.network.num_cells = 1
  config.network.features = 4
  config.network.num_reductions = 1
  config.network.aux = False
  config.train.epochs = 2
  config.train.checkpoint_seconds = 0.0
  config.data.source = "digits"
  config.data.max_per_class = 20
  config.data.num_valid = 50


def _data(source: str) -> ml_collections.ConfigDict:
  """Images: which, how many of them, how they are varied."""
  data = ml_collections.ConfigDict()
  data.source = source
  data.data_dir = placeholder(str)
  data.fraction = 1.0
  data.max_per_class = placeholder(int)
  data.seed = 0
  data.num_valid = 0  # set aside; scored at every point of the curve
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.path = placeholder(str)
  data.options.name = placeholder(str)  # of tfds, like both splits
  data.options.train_split = placeholder(str)
  data.options.test_split = placeholder(str)
  data.options.image_size = placeholder(int)
  data.options.channels = placeholder(int)
  data.options.note = placeholder(str)
  data.augmentation = ml_collections.ConfigDict()
  data.augmentation.pad = placeholder(int)
  data.augmentation.flip = placeholder(bool)
  data.augmentation.cutout = placeholder(int)
  return data


def _network() -> ml_collections.ConfigDict:
  """Sizes: NASNet-A (6 @ 768)."""
  network = ml_collections.ConfigDict()
  network.num_cells = 6  # N, Zoph et al. 2018, table 1
  network.features = 32  # F; 768 = 24 F
  network.stem_multiplier = 3  # slim, nasnet.py, cifar_config
  network.num_reductions = 2
  network.layout = "nasnet"
  network.stem = "cifar"
  network.stem_features = 32  # of the ImageNet stem only
  network.skip_reduction = False  # slim, cifar_config
  network.aux = True  # the same
  network.dropout = 0.0  # the same
  network.remat = False  # True: less memory, more time
  network.scan_cells = False  # True: equal cells in a loop, for TPU
  network.init = "fan_out"  # slim, nasnet_cifar_arg_scope
  network.bn_decay = 0.9  # the same
  network.bn_epsilon = 1e-5  # the same
  return network


def _train() -> ml_collections.ConfigDict:
  """The recipe: NASNet-A on CIFAR-10."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 600  # slim: the length of drop path's ramp
  train.batch_size = 32  # slim, cifar_config
  train.optimizer = "momentum"  # Zoph et al. 2018, A.3
  train.momentum = 0.9  # the same
  train.rms_decay = 0.9  # of rmsprop only
  train.rms_epsilon = 1.0  # of rmsprop only
  train.learning_rate = 0.025  # slim, cifar_config
  train.schedule = "cosine"  # the same, one period
  train.warmup_epochs = 0.0
  train.decay_factor = 0.97  # of the exponential schedule only
  train.decay_epochs = 2.4  # of the exponential schedule only
  train.weight_decay = 5e-4  # slim, nasnet_cifar_arg_scope
  train.clip_norm = 5.0  # slim, cifar_config
  train.aux_weight = 0.4  # the same
  train.label_smoothing = 0.0
  train.drop_path_keep = 0.6  # slim, cifar_config
  train.drop_path_version = "both"  # slim's v3; the paper: "time"
  train.ema_decay = 0.0
  train.micro_batches = 1
  train.bn_group = 0  # examples; 0: the whole batch
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.freeze = False  # True: the classifier alone
  train.steps_per_call = 1  # 1 on CPU; an epoch, 1562, on TPU
  train.eval_batch_size = 500
  train.report_epochs = 1.0
  train.checkpoint_seconds = 600.0
  return train
