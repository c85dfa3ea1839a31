"""Fine-tunes a trained network on other images: new head, old features.

Paper:    the transfer of Zoph et al. 2018 and of its successors: weights of
          one data set, a new classifier, all weights trained on at a lower
          rate. --config.train.freeze=True trains the classifier alone.
Data:     cifar100, --config.data.source=tfds with its options.name, or
          --config.data.source=folder with options.path, in memory, all images
          of options.image_size; `:photographs`: from the disk, in Inception
          crops, for networks of photographs. Behind the file's name also the
          eight sets of Tan & Le 2019 (EfficientNet), table 5, which are
          `:photographs` with the set filled in: cifar10, cifar100, birdsnap,
          cars, flowers, aircraft, pets, food. tfds has no Birdsnap and no
          FGVC Aircraft: those two are class folders, each with a `train` and
          a `test` folder in it (--config.data.options.path).
Command:  python launch/main.py --config=configs/finetune.py \\
            --config.model.checkpoint=runs/train_cifar \\
            --workdir=runs/finetune
          The checkpoint is the folder of a finished training or search; its
          cells and sizes are taken from there. `:tiny` takes digits.
Hardware: that of training the network, for fewer epochs.
Result:   see docs/results/train_cifar_small; nothing else is claimed here.
          result.json has test_mean_per_class beside test_accuracy: it is what
          is compared on flowers, aircraft and pets (Kornblith et al. 2019,
          from memory, whose sets table 5 takes).
"""

import ml_collections
from ml_collections.config_dict import placeholder

# Name and splits in tfds; None: not there. Behind them images to train on and
# to test with, and classes, as Tan & Le 2019 prints them (pets: 3,669 in tfds,
# from memory, and 3,369 there).
_SETS = {
  "cifar10": ("cifar10", "train", "test"),  # 50,000, 10,000, 10
  "cifar100": ("cifar100", "train", "test"),  # 50,000, 10,000, 100
  "birdsnap": None,  # 47,386, 2,443, 500
  "cars": ("cars196", "train", "test"),  # 8,144, 8,041, 196
  "flowers": ("oxford_flowers102", "train+validation", "test"),  # 6,149, 102
  "aircraft": None,  # 6,667, 3,333, 100
  "pets": ("oxford_iiit_pet", "train", "test"),  # 3,680, 37
  "food": ("food101", "train", "validation"),  # 75,750, 25,250, 101
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; see above for the variants; "tiny" is for tests."""
  if variant not in ("", "photographs", "tiny", *_SETS):
    raise ValueError(
      f"finetune has no variant {variant!r}, only: photographs, tiny,"
      f" {', '.join(_SETS)}"
    )
  config = ml_collections.ConfigDict()
  config.job = "train"
  config.model = ml_collections.ConfigDict()
  config.model.genotype = ""  # "": the checkpoint's own
  config.model.checkpoint = ""  # folder of a finished run: say which
  config.model.keep_head = False  # True: the same classes again
  config.network = _network()
  config.train = _train()
  config.data = _data("cifar100")
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
  if variant == "photographs" or variant in _SETS:
    config.data = _photographs()
    config.train.eval_batch_size = 100
  if variant in _SETS and _SETS[variant] is None:
    config.data.source = "folder"
    config.data.options.path = variant
  elif variant in _SETS:
    name, train_split, test_split = _SETS[variant]
    config.data.options.name = name
    config.data.options.train_split = train_split
    config.data.options.test_split = test_split
  if variant == "tiny":
    config.train.epochs = 2
    config.train.checkpoint_seconds = 0.0
    config.data.source = "digits"
    config.data.max_per_class = 20
    config.data.num_valid = 50
  return config


def _network() -> ml_collections.ConfigDict:
  """What may differ from the checkpoint's network; all else is its own."""
  network = ml_collections.ConfigDict()
  network.aux = False
  network.dropout = 0.0
  network.remat = False  # True: less memory, more time
  # An ImageNet network's own, 0.9997, forgets nothing in a few hundred steps,
  # and evaluation would read statistics of images long gone.
  network.bn_decay = 0.9  # slim, nasnet_cifar_arg_scope
  return network


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


def _photographs() -> ml_collections.ConfigDict:
  """Photographs on disk, as in `transfer_imagenet.py`."""
  data = ml_collections.ConfigDict()
  data.source = "tfds"  # or "folder"
  data.data_dir = placeholder(str)
  data.seed = 0
  data.num_valid = 0  # set aside; scored at every point of the curve
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.name = placeholder(str)  # of tfds, like both splits
  data.options.train_split = placeholder(str)
  data.options.test_split = placeholder(str)
  data.options.path = placeholder(str)  # of a folder, like all below
  data.options.test_fraction = placeholder(float)
  data.options.note = placeholder(str)
  data.stream = ml_collections.ConfigDict()
  data.stream.image_size = 224  # the checkpoint's own, as a rule
  data.stream.min_area = 0.08  # Szegedy et al. 2015
  data.stream.max_aspect = 4 / 3  # the same
  data.stream.center = 0.875  # slim, inception_preprocessing
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  data.augmentation = ml_collections.ConfigDict()
  data.augmentation.flip = placeholder(bool)
  data.augmentation.color = placeholder(bool)
  data.augmentation.cutout = placeholder(int)
  return data


def _train() -> ml_collections.ConfigDict:
  """The recipe; no paper of this line gives one, so these are ours."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 20
  train.batch_size = 64
  train.optimizer = "momentum"
  train.momentum = 0.9
  train.rms_decay = 0.9  # of rmsprop only
  train.rms_epsilon = 1.0  # of rmsprop only
  train.learning_rate = 0.01
  train.schedule = "cosine"
  train.warmup_epochs = 0.0
  train.decay_factor = 0.97  # of the exponential schedule only
  train.decay_epochs = 2.4  # of the exponential schedule only
  train.weight_decay = 5e-4
  train.clip_norm = 5.0
  train.aux_weight = 0.4
  train.label_smoothing = 0.0
  train.drop_path_keep = 1.0
  train.drop_path_version = "both"
  train.ema_decay = 0.0
  train.micro_batches = 1
  train.bn_group = 0  # examples; 0: the whole batch
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.freeze = False  # True: the classifier alone
  train.steps_per_call = 1  # 1 on CPU; an epoch on TPU
  train.eval_batch_size = 500
  train.report_epochs = 1.0
  train.checkpoint_seconds = 600.0
  return train
