"""Finds coefficients of depth, width and resolution, and scales by them.

Paper:    Tan & Le 2019 (arXiv 1905.11946), section 3.3: a small grid search on
          EfficientNet-B0 at phi = 1 under alpha beta^2 gamma^2 near 2 gave
          alpha = 1.2, beta = 1.1, gamma = 1.15; with these fixed, phi is
          raised. How the points were trained is not said: here for a tenth of
          the epochs of `train_efficientnet.py`.
Data:     ImageNet as in `train_efficientnet.py`. `:cell` scales NASNet-A's cell
          on CIFAR-10: N is depth, F width; or one that a search found, with
          --config.model.genotype=runs/search.
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

from nasnet_jax import fields

# Baselines for two cores, and points of about twice their multiply-adds after
# rounding (1.9 to 2.2 times): depth, width and resolution alone, and all.
_BOTH = ((1.0, 1.0, 1.4), (1.2, 1.1, 1.15))
_SMALL = {
  "small_mbconv": (
    "mobilenet_v2_cifar",
    {"width": 0.5, "depth": 0.34},
    # Its groups are short: depth has a point on each side, 1.6 and 2.5.
    ((2.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 1.45, 1.0), *_BOTH),
  ),
  "small_resnet": (
    "resnet_20",
    {},
    ((2.0, 1.0, 1.0), (1.0, 1.4, 1.0), *_BOTH),
  ),
  "small_cell": (
    "docs/results/search_cifar_small/pnas/result.json",
    {"num_cells": 2, "features": 16},
    ((2.5, 1.0, 1.0), (1.0, 1.5, 1.0), *_BOTH),
  ),
}
_VARIANTS = ("", "cell", *_SMALL, "tiny")


def get_config(variant: str = ""):
  """The config; see above for its variants."""
  if variant not in _VARIANTS:
    raise ValueError(
      f"scale_grid has no variant {variant!r}, only: {', '.join(_VARIANTS[1:])}"
    )
  cells = variant in ("cell", "small_cell", "tiny")
  config = fields.jobs.scaling(
    fields.networks.child_network() if cells else fields.networks.blocks(),
    fields.recipes.scaling_cifar() if variant else fields.recipes.scaling(),
    fields.images.in_memory("cifar10")
    if variant
    else fields.images.efficientnet_photographs(224),
  )
  if cells:
    config.model.genotype = "nasnet_a"  # or a run, RUN#12
  if variant:
    config.data.num_valid = 5000  # what coefficients are chosen by
  else:
    config.data.augmentation.policy = ""  # or "autoaugment", "randaugment"
  if variant in _SMALL:
    _make_small(config, *_SMALL[variant])
  elif variant == "tiny":
    config.scale.points = ((2.0, 1.0, 1.0), (1.0, 1.4, 1.0), (1.0, 1.0, 1.4))
    config.scale.phis = (2.0,)
    config.network.num_cells = 1
    config.network.features = 4
    config.network.num_reductions = 1
    config.train.epochs = 2
    config.train.checkpoint_seconds = 0.0
    fields.images.make_tiny(config.data)
  return config


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
  fields.images.make_small(config.data, max_per_class=500, num_valid=500)
