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

from nasnet_jax import fields

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


def get_config(variant: str = ""):
  """The config; see above for the variants; "tiny" is for tests."""
  if variant not in ("", "photographs", "tiny", *_SETS):
    raise ValueError(
      f"finetune has no variant {variant!r}, only: photographs, tiny,"
      f" {', '.join(_SETS)}"
    )
  photographs = variant == "photographs" or variant in _SETS
  config = fields.jobs.training(
    _network(),
    fields.recipes.finetuning(),
    fields.images.photographs(224)  # the checkpoint's own side, as a rule
    if photographs
    else fields.images.in_memory("cifar100"),
  )
  if photographs:
    config.train.eval_batch_size = 100
  if variant == "tiny":
    config.train.epochs = 2
    config.train.checkpoint_seconds = 0.0
    fields.images.make_tiny(config.data)
  elif variant in _SETS:
    _choose(config.data, variant)
  return config


def _choose(data, variant: str):
  """One of the eight sets."""
  if _SETS[variant] is None:
    data.source = "folder"
    data.options.path = variant
    return
  options = data.options
  options.name, options.train_split, options.test_split = _SETS[variant]


def _network():
  """What may differ from the checkpoint's network; all else is its own."""
  network = ml_collections.ConfigDict()
  network.aux = False
  network.dropout = 0.0
  network.remat = False  # True: less memory, more time
  # slim, nasnet_cifar_arg_scope. An ImageNet network's own, 0.9997, forgets
  # nothing in a few hundred steps, and evaluation would read statistics of
  # images long gone.
  network.bn_decay = 0.9
  return network
