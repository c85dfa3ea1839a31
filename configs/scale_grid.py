"""Finds coefficients of depth, width and resolution, and scales by them.

Paper:    Tan & Le 2019 (arXiv 1905.11946), section 3.3: a small grid search on
          EfficientNet-B0 at phi = 1 under alpha beta^2 gamma^2 near 2 gave
          alpha = 1.2, beta = 1.1, gamma = 1.15; with these fixed, phi is
          raised. How the points were trained is not said: here for a tenth of
          the epochs of `train_efficientnet.py`.
Data:     ImageNet as in `train_efficientnet.py`. `:cell` scales NASNet-A's cell
          on CIFAR-10: N is depth, F width; or one that a search found, with
          --config.model.genotype=runs/search/result.json.
Command:  python launch/main.py --config=configs/scale_grid.py \\
            --workdir=runs/scale_grid
          One axis at a time, at about the same multiply-adds (table 3):
          --config.scale.points="((2,1,1),(1,1.4,1),(1,1,1.4),(1.2,1.1,1.15))"
          `:small_mbconv`, `:small_resnet` and `:small_cell` (of a cell that
          our search found) are that for three baselines on two CPU cores, on
          CIFAR-10 out of an archive of class folders, at 16x16; `:tiny` takes
          digits.
Hardware: 22 points on steps of 0.1, 111 on those of 0.05 as the paper's choice
          needs; each of 35 epochs of ImageNet. Not run by us. The three small
          ones together: roughly two hours of processor time.
Result:   of the small ones docs/results/scaling; nothing is claimed of others.
"""

import ml_collections
from ml_collections.config_dict import placeholder

# Baselines for two cores, and points of about twice their multiply-adds after
# rounding (1.9 to 2.2 times): depth, width and resolution alone, and all. Of
# the first, whose groups are short, depth has a point on each side: 1.6, 2.5.
_SMALL = {
  "small_mbconv": (
    "mobilenet_v2_cifar",
    {"width": 0.5, "depth": 0.34},
    (
      (2.0, 1.0, 1.0),
      (3.0, 1.0, 1.0),
      (1.0, 1.45, 1.0),
      (1.0, 1.0, 1.4),
      (1.2, 1.1, 1.15),
    ),
  ),
  "small_resnet": (
    "resnet_20",
    {},
    ((2.0, 1.0, 1.0), (1.0, 1.4, 1.0), (1.0, 1.0, 1.4), (1.2, 1.1, 1.15)),
  ),
  "small_cell": (
    "docs/results/search_cifar_small/pnas/result.json",
    {"num_cells": 2, "features": 16},
    ((2.5, 1.0, 1.0), (1.0, 1.5, 1.0), (1.0, 1.0, 1.4), (1.2, 1.1, 1.15)),
  ),
}
_VARIANTS = ("", "cell", *_SMALL, "tiny")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; see above for its variants."""
  if variant not in _VARIANTS:
    raise ValueError(
      f"scale_grid has no variant {variant!r}, only: {', '.join(_VARIANTS[1:])}"
    )
  config = ml_collections.ConfigDict()
  config.job = "scale"
  config.scale = ml_collections.ConfigDict()
  config.scale.target = 2.0  # Tan & Le 2019, section 3.3
  config.scale.tolerance = 0.1  # their choice: 1.92
  config.scale.step = 0.05
  config.scale.points = ()  # (alpha, beta, gamma), ... in place of the grid
  config.scale.phis = (2.0, 3.0)  # trained with the best of them
  config.scale.seeds = 1  # trainings of each network
  config.model = ml_collections.ConfigDict()
  config.model.genotype = "efficientnet"  # or cells, or a result.json's path
  cells = variant in ("cell", "small_cell", "tiny")
  config.network = _cells() if cells else _blocks()
  config.train = _train()
  config.data = _images() if variant else _photographs()
  config.mesh = ml_collections.ConfigDict()
  config.mesh.arch = 1
  config.mesh.data = 1  # devices that share a batch
  config.log = ml_collections.ConfigDict()
  config.log.seconds = 60.0  # between lines on work that is under way
  if cells:
    config.model.genotype = "nasnet_a"
  if variant:
    _make_cifar(config)
  if variant in _SMALL:
    _make_small(config, *_SMALL[variant])
  elif variant == "tiny":
    _make_tiny(config)
  return config


def _make_cifar(config):
  """The recipe of a search's children: Zoph et al. 2018, A.3."""
  config.train.update(
    {
      "epochs": 20,
      "batch_size": 32,
      "optimizer": "momentum",
      "learning_rate": 0.025,
      "schedule": "cosine",
      "warmup_epochs": 0.0,
      "weight_decay": 5e-4,
      "clip_norm": 5.0,
      "label_smoothing": 0.0,
      "drop_path_keep": 1.0,
      "ema_decay": 0.0,
      "eval_batch_size": 500,
    }
  )


def _make_small(config, genotype: str, sizes, points):
  """Sizes that two cores can bear."""
  config.scale.points = points
  config.scale.phis = ()
  config.scale.seeds = 2
  config.model.genotype = genotype
  config.network.update(sizes)
  config.network.dropout = 0.0
  config.network.init = "fan_in"  # fan_out makes the first logits too large
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.train.batch_size = 64
  config.train.epochs = 10
  config.train.learning_rate = 0.1
  config.data.source = "folder"
  config.data.options.path = "cifar10_jpeg_60000.tar.xz"
  config.data.options.image_size = 16
  config.data.options.note = (  # of that archive only
    "cifar10_jpeg_60000.tar.xz: CIFAR-10, JPEG-recompressed, at 16x16"
  )
  config.data.augmentation.pad = 2
  config.data.augmentation.flip = True
  config.data.max_per_class = 500
  config.data.num_valid = 500


def _make_tiny(config):
  config.scale.points = ((2.0, 1.0, 1.0), (1.0, 1.4, 1.0), (1.0, 1.0, 1.4))
  config.scale.phis = (2.0,)
  config.network.num_cells = 1
  config.network.features = 4
  config.network.num_reductions = 1
  config.train.epochs = 2
  config.train.checkpoint_seconds = 0.0
  config.data.source = "digits"
  config.data.max_per_class = 20
  config.data.num_valid = 50


def _blocks() -> ml_collections.ConfigDict:
  """The baseline: EfficientNet-B0."""
  network = ml_collections.ConfigDict()
  network.width = 1.0
  network.depth = 1.0
  network.dropout = 0.2
  network.remat = False  # True: less memory, more time
  network.init = "fan_out"  # efficientnet_model.py, like both below
  network.bn_decay = 0.99
  network.bn_epsilon = 1e-3
  return network


def _cells() -> ml_collections.ConfigDict:
  """The baseline: a child of the search, N = 2, F = 32."""
  network = ml_collections.ConfigDict()
  network.num_cells = 2  # Zoph et al. 2018, appendix A
  network.features = 32
  network.stem_multiplier = 3  # slim, nasnet.py, cifar_config
  network.num_reductions = 2
  network.layout = "nasnet"
  network.stem = "cifar"
  network.stem_features = 32  # of the ImageNet stem only
  network.skip_reduction = False
  network.aux = False
  network.dropout = 0.0
  network.remat = False  # True: less memory, more time
  network.init = "fan_out"  # slim, nasnet_cifar_arg_scope
  network.bn_decay = 0.9  # the same
  network.bn_epsilon = 1e-5  # the same
  return network


def _train() -> ml_collections.ConfigDict:
  """How each point is trained: EfficientNet's recipe, shorter."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 35  # a tenth; the paper does not say
  train.batch_size = 2048
  train.optimizer = "rmsprop"
  train.momentum = 0.9
  train.rms_decay = 0.9
  train.rms_epsilon = 1e-3
  train.learning_rate = 0.128  # 0.016 per 256
  train.schedule = "exponential"
  train.warmup_epochs = 0.5
  train.decay_factor = 0.97
  train.decay_epochs = 0.24  # a tenth of theirs, like the warm-up
  train.weight_decay = 1e-5
  train.clip_norm = 0.0
  train.aux_weight = 0.0
  train.label_smoothing = 0.1
  train.drop_path_keep = 1.0  # too short a training to need it
  train.drop_path_version = "depth"
  train.ema_decay = 0.999
  train.micro_batches = 1
  train.bn_group = 0  # examples; 0: the whole batch
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.steps_per_call = 1
  train.eval_batch_size = 200
  train.report_epochs = 1.0
  train.patience_epochs = 0.0  # every point to its end
  train.checkpoint_seconds = 600.0
  return train


def _images() -> ml_collections.ConfigDict:
  """Images in memory; they are scaled from what is read, or read anew where
  options.image_size is given."""
  data = ml_collections.ConfigDict()
  data.source = "cifar10"
  data.data_dir = placeholder(str)
  data.fraction = 1.0
  data.max_per_class = placeholder(int)
  data.seed = 0
  data.num_valid = 5000  # set aside: what coefficients are chosen by
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


def _photographs() -> ml_collections.ConfigDict:
  """ImageNet on disk, as in `train_efficientnet.py`."""
  data = ml_collections.ConfigDict()
  data.source = "tfds"  # or "folder"
  data.data_dir = placeholder(str)
  data.seed = 0
  data.num_valid = 25_022  # set aside: what coefficients are chosen by
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.name = placeholder(str)  # of tfds: imagenet2012 if None
  data.options.train_split = placeholder(str)  # of tfds: train
  data.options.test_split = placeholder(str)  # of tfds: validation
  data.options.path = placeholder(str)
  data.options.test_fraction = placeholder(float)
  data.options.note = placeholder(str)
  data.stream = ml_collections.ConfigDict()
  data.stream.image_size = 224  # of the baseline
  data.stream.min_area = 0.08
  data.stream.max_aspect = 4 / 3
  data.stream.center = 0.875
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  data.augmentation = ml_collections.ConfigDict()
  data.augmentation.flip = True
  data.augmentation.color = False
  data.augmentation.policy = ""  # or "autoaugment", "randaugment"
  data.augmentation.mean = (0.485, 0.456, 0.406)
  data.augmentation.std = (0.229, 0.224, 0.225)
  return data
