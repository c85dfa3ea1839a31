"""Trains EfficientNets and what they were measured against on ImageNet.

Paper:    Tan & Le 2019 (arXiv 1905.11946): EfficientNet-B0, the default, 5.3M
          parameters, 77.1 % top-1, to `:efficientnet_b7`, 66M, 84.3 %. Every
          other network of `nasnet_jax.zoo.blocks.NETWORKS` by its name:
          `:efficientnet_lite0` (75.1 %), `:mnasnet_a1` (Tan et al. 2019, 75.2
          %), `:mobilenet_v2`, `:resnet_50`, ... The recipe is EfficientNet's
          (section 5.2 and tensorflow/tpu's code), for MnasNet with what its
          code says differently; for the others it is not their papers'.
Data:     ImageNet through tfds, prepared once into array_record files; or
          class folders or a .tar of them, read from the disk as they are:
          --config.data.source=folder --config.data.options.path=...
          25,022 training images are set aside, and the weights that do best on
          them are tested once on the validation set, as in the paper.
Command:  python launch/main.py --config=configs/train_efficientnet.py \\
            --workdir=runs/efficientnet_b0
          RandAugment in place of AutoAugment, as for later checkpoints (B5:
          magnitude 17; B7: 28):
          --config.data.augmentation.policy=randaugment
          --config.data.augmentation.magnitude=17
          `:tiny` takes made-up images, and seconds.
Hardware: 350 epochs of 613 steps of 2,048 images: a TPU slice with
          --config.mesh.data=...; not run by us. A batch that does not fit:
          --config.network.remat=True, then --config.train.micro_batches=4.
Result:   nothing is claimed here.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from nasnet_jax import zoo


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; variant: a network by its name, or "tiny"."""
  name = "efficientnet_b0" if variant in ("", "tiny") else variant
  if name not in zoo.blocks.NETWORKS:
    raise ValueError(
      f"train_efficientnet has no variant {variant!r}, only: tiny,"
      f" {', '.join(zoo.blocks.NETWORKS)}"
    )
  published = zoo.blocks.network(name)
  config = ml_collections.ConfigDict()
  config.job = "train"
  config.model = ml_collections.ConfigDict()
  config.model.genotype = published.architecture  # or a result.json's path
  config.model.checkpoint = ""  # folder of a run whose weights to start from
  config.model.keep_head = False  # whether its classifier is taken too
  config.network = _network(published)
  config.train = _train()
  config.data = _data(published)
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
  if published.architecture.startswith("mnasnet"):  # mnasnet_main.py
    config.train.batch_size = 1024
    config.train.learning_rate = 0.064  # 0.016 per 256
    config.train.drop_path_keep = 1.0
    config.data.augmentation.policy = ""
  if variant == "tiny":
    _make_tiny(config)
  return config


def _make_tiny(config):
  config.network.width = 0.25
  config.network.depth = 0.1  # a block per group
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.train.epochs = 4
  config.train.batch_size = 8
  config.train.learning_rate = 0.005
  config.train.warmup_epochs = 1.0
  config.train.ema_decay = 0.5
  config.train.eval_batch_size = 8
  config.train.patience_epochs = 2.0
  config.train.checkpoint_seconds = 0.0
  config.data.source = "fake"
  config.data.num_valid = 8
  config.data.options.num_images = 40
  config.data.options.num_classes = 3
  config.data.stream.image_size = 32
  config.data.stream.workers = 0
  config.data.augmentation.policy = "randaugment"


def _network(published) -> ml_collections.ConfigDict:
  """Sizes: those of the published network."""
  network = ml_collections.ConfigDict()
  network.width = published.width
  network.depth = published.depth
  network.dropout = published.dropout
  network.remat = False  # True: less memory, more time
  network.init = "fan_out"  # efficientnet_model.py, like both below
  network.bn_decay = 0.99
  network.bn_epsilon = 1e-3
  return network


def _train() -> ml_collections.ConfigDict:
  """The recipe: Tan & Le 2019, section 5.2, and their code, main.py."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 350  # main.py: 218,949 steps of 2,048 images
  train.batch_size = 2048  # the same
  train.optimizer = "rmsprop"
  train.momentum = 0.9
  train.rms_decay = 0.9
  train.rms_epsilon = 1e-3  # utils.py, build_optimizer
  train.learning_rate = 0.128  # 0.016 per 256; the paper: 0.256 at 4,096
  train.schedule = "exponential"
  train.warmup_epochs = 5.0
  train.decay_factor = 0.97
  train.decay_epochs = 2.4
  # Theirs decays biases too, of squeeze-excite and of the classifier.
  train.weight_decay = 1e-5
  train.clip_norm = 0.0
  train.aux_weight = 0.0  # there is no auxiliary head
  train.label_smoothing = 0.1
  train.drop_path_keep = 0.8
  train.drop_path_version = "depth"
  train.ema_decay = 0.9999
  train.micro_batches = 1
  train.bn_group = 0  # examples; theirs: those of 8 or more replicas
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.freeze = False  # True: the classifier alone
  train.steps_per_call = 1  # a stream gives one batch per call
  train.eval_batch_size = 200
  train.report_epochs = 1.0
  # The paper stops early and does not say when; this keeps the best epoch.
  train.patience_epochs = 350.0
  train.checkpoint_seconds = 600.0
  return train


def _data(published) -> ml_collections.ConfigDict:
  """Photographs on disk, and how they are cut and varied."""
  side = published.side
  lite = published.architecture == "efficientnet_lite"
  data = ml_collections.ConfigDict()
  data.source = "tfds"  # or "folder", or "fake" to measure speed
  data.data_dir = placeholder(str)
  data.seed = 0
  data.num_valid = 25_022  # README of the code: 20 of 1,024 files
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.name = placeholder(str)  # of tfds: imagenet2012 if None
  data.options.train_split = placeholder(str)  # of tfds: train
  data.options.test_split = placeholder(str)  # of tfds: validation
  data.options.path = placeholder(str)
  data.options.test_fraction = placeholder(float)
  data.options.note = placeholder(str)
  data.options.num_images = placeholder(int)  # of fake
  data.options.num_classes = placeholder(int)  # of fake
  data.stream = ml_collections.ConfigDict()
  data.stream.image_size = side
  data.stream.min_area = 0.08  # preprocessing.py, like all below
  data.stream.max_aspect = 4 / 3
  data.stream.center = side / (side + 32)
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  data.augmentation = ml_collections.ConfigDict()
  data.augmentation.flip = True
  data.augmentation.color = False
  data.augmentation.cutout = placeholder(int)
  data.augmentation.policy = "autoaugment"  # or "randaugment" or ""
  data.augmentation.layers = 2  # of randaugment, like the next
  data.augmentation.magnitude = 10.0
  data.augmentation.mean = (127 / 255,) if lite else (0.485, 0.456, 0.406)
  data.augmentation.std = (128 / 255,) if lite else (0.229, 0.224, 0.225)
  return data
