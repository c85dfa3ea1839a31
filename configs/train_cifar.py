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
          --config.model.genotype=runs/search trains the cell that
          a search found; --config.data.augmentation.cutout=16 adds cutout.
          `:small` is a size for two CPU cores, on 16x16 images of an archive
          of class folders; `:tiny` takes digits and seconds.
Hardware: 600 epochs of 1,562 steps: days of one GPU; not run by us.
Result:   `:small` see docs/results/train_cifar_small; of the rest nothing is
          claimed here.
"""

from nasnet_jax import fields

_VARIANTS = ("", "pnasnet_5", "amoebanet_a", "small", "tiny")


def get_config(variant: str = ""):
  """The config; see above for its variants."""
  if variant not in _VARIANTS:
    raise ValueError(
      f"train_cifar has no variant {variant!r}, only:"
      f" {', '.join(_VARIANTS[1:])}"
    )
  config = fields.jobs.training(
    fields.networks.trained_cells(),
    fields.recipes.nasnet_cifar(),
    fields.images.in_memory("cifar10"),
  )
  config.model.genotype = "nasnet_a"  # or a run, RUN#12, RUN#2nd
  network, train = config.network, config.train
  if variant == "pnasnet_5":
    config.model.genotype = "pnasnet_5"
    network.layout = "pnas"  # Liu et al. 2018: N counts both strides
    network.num_cells = 3  # N, Liu et al. 2018
    network.features = 48  # F, Liu et al. 2018
  elif variant == "amoebanet_a":
    config.model.genotype = "amoebanet_a"
    network.features = 36  # F, Real et al. 2019, table 1
    train.batch_size = 128  # Real et al. 2019, "Methods"
    train.learning_rate = 0.024  # Real et al. 2019, "Methods"
    train.drop_path_keep = 0.7  # Real et al. 2019, "Methods"
    train.drop_path_version = "time"  # tensorflow/tpu: v1
    train.aux_weight = 0.5  # Real et al. 2019, "Methods"
  elif variant == "small":
    _make_small(config)
  elif variant == "tiny":
    network.num_cells = 1
    network.features = 4
    network.num_reductions = 1
    network.aux = False
    train.epochs = 2
    train.checkpoint_seconds = 0.0
    fields.images.make_tiny(config.data)
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
  fields.images.make_small(config.data, max_per_class=1000, num_valid=1000)
