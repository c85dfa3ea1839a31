"""Published architectures as literals, with their sources.

A cell is ([(input 1, input 2, operation 1, operation 2), ...], concat). Index
0 is h_i, 1 is h_{i-1} (slim's convention). `CELLS` has the cells, `NETWORKS`
the networks that were built of them, with their sizes.

NASNet-B and NASNet-C are not here: their cells exist as figures only.
"""

from typing import Any, NamedTuple

from nasnet_jax.spaces.amoebanet import AMOEBANET_RELEASED
from nasnet_jax.spaces.genotype import Genotype
from nasnet_jax.spaces.nasnet import NASNET
from nasnet_jax.spaces.pnas import PNAS

# tensorflow/models, research/slim/nets/nasnet/nasnet_utils.py. The paper's
# figure 4 concatenates fewer states; released sizes and weights need these.
NASNET_A = {
  "normal": (
    [
      (0, 1, "sep_conv_5x5", "sep_conv_3x3"),
      (1, 1, "sep_conv_5x5", "sep_conv_3x3"),
      (0, 1, "avg_pool_3x3", "identity"),
      (1, 1, "avg_pool_3x3", "avg_pool_3x3"),
      (0, 0, "sep_conv_3x3", "identity"),
    ],
    [1, 2, 3, 4, 5, 6],
  ),
  "reduction": (
    [
      (0, 1, "sep_conv_5x5", "sep_conv_7x7"),
      (0, 1, "max_pool_3x3", "sep_conv_7x7"),
      (0, 1, "avg_pool_3x3", "sep_conv_5x5"),
      (3, 2, "identity", "avg_pool_3x3"),
      (2, 0, "sep_conv_3x3", "max_pool_3x3"),
    ],
    [3, 4, 5, 6],
  ),
}

# tensorflow/models, research/slim/nets/nasnet/pnasnet.py, PNasNetNormalCell.
PNASNET_5 = {
  "cell": (
    [
      (1, 1, "sep_conv_5x5", "max_pool_3x3"),
      (0, 0, "sep_conv_7x7", "max_pool_3x3"),
      (0, 0, "sep_conv_5x5", "sep_conv_3x3"),
      (4, 0, "sep_conv_3x3", "max_pool_3x3"),
      (1, 0, "sep_conv_3x3", "identity"),
    ],
    [2, 3, 4, 5, 6],
  ),
}

# AmoebaNets: tensorflow/tpu, models/official/amoeba_net/model_specs.py.
AMOEBANET_A = {
  "normal": (
    [
      (0, 0, "avg_pool_3x3", "max_pool_3x3"),
      (1, 1, "sep_conv_3x3", "identity"),
      (0, 1, "identity", "avg_pool_3x3"),
      (0, 2, "sep_conv_3x3", "sep_conv_5x5"),
      (5, 0, "avg_pool_3x3", "sep_conv_3x3"),
    ],
    [1, 3, 4, 6],
  ),
  "reduction": (
    [
      (1, 0, "sep_conv_3x3", "avg_pool_3x3"),
      (0, 2, "max_pool_3x3", "sep_conv_7x7"),
      (1, 0, "max_pool_3x3", "max_pool_3x3"),
      (4, 0, "sep_conv_3x3", "bottleneck_1x7_7x1"),
      (1, 0, "avg_pool_3x3", "sep_conv_7x7"),
    ],
    [2, 3, 4, 5, 6],
  ),
}

AMOEBANET_B = {
  "normal": (
    [
      (1, 1, "conv_1x1", "max_pool_3x3"),
      (1, 0, "identity", "sep_conv_3x3"),
      (1, 0, "conv_1x1", "sep_conv_3x3"),
      (2, 2, "conv_1x1", "identity"),
      (1, 5, "avg_pool_3x3", "conv_1x1"),
    ],
    [0, 3, 4, 6],
  ),
  "reduction": (
    [
      (0, 0, "max_pool_2x2", "max_pool_3x3"),
      (2, 1, "identity", "bottleneck_3x3"),
      # "dil_2_separable_5x5_2" there, whose dilation the code ignores.
      (2, 2, "sep_conv_5x5", "max_pool_3x3"),
      (3, 1, "identity", "sep_conv_3x3"),
      (4, 3, "avg_pool_3x3", "conv_1x1"),
    ],
    [5, 6],
  ),
}

AMOEBANET_C = {
  "normal": (
    [
      (0, 0, "avg_pool_3x3", "sep_conv_3x3"),
      (0, 0, "identity", "sep_conv_3x3"),
      (2, 1, "avg_pool_3x3", "sep_conv_3x3"),
      (0, 1, "identity", "sep_conv_3x3"),
      (3, 0, "avg_pool_3x3", "sep_conv_3x3"),
    ],
    [1, 2, 4, 5, 6],
  ),
  "reduction": (
    [
      (0, 0, "max_pool_3x3", "max_pool_3x3"),
      (2, 0, "sep_conv_7x7", "sep_conv_3x3"),
      (0, 1, "sep_conv_7x7", "max_pool_3x3"),
      (4, 4, "sep_conv_5x5", "sep_conv_5x5"),
      (1, 1, "max_pool_3x3", "sep_conv_3x3"),
    ],
    [0, 2, 3, 4, 5, 6],
  ),
}

AMOEBANET_D = {
  "normal": (
    [
      (1, 1, "conv_1x1", "max_pool_3x3"),
      (1, 0, "identity", "bottleneck_1x7_7x1"),
      (0, 0, "conv_1x1", "bottleneck_1x7_7x1"),
      (2, 2, "max_pool_3x3", "identity"),
      (1, 5, "avg_pool_3x3", "conv_1x1"),
    ],
    [0, 3, 4, 6],
  ),
  "reduction": (
    [
      (0, 0, "max_pool_2x2", "max_pool_3x3"),
      (2, 1, "identity", "bottleneck_3x3"),
      (2, 2, "bottleneck_1x7_7x1", "max_pool_3x3"),
      (3, 1, "identity", "max_pool_2x2"),
      (2, 3, "avg_pool_3x3", "conv_1x1"),
    ],
    [4, 5, 6],
  ),
}

CELLS = {
  "nasnet_a": (NASNET, NASNET_A),
  "pnasnet_5": (PNAS, PNASNET_5),
  "amoebanet_a": (AMOEBANET_RELEASED, AMOEBANET_A),
  "amoebanet_b": (AMOEBANET_RELEASED, AMOEBANET_B),
  "amoebanet_c": (AMOEBANET_RELEASED, AMOEBANET_C),
  "amoebanet_d": (AMOEBANET_RELEASED, AMOEBANET_D),
}


class Published(NamedTuple):
  """A network that was built of published cells.

  Attributes:
    cells: key of `CELLS`.
    side: of its images, in pixels.
    config: fields of `stacked_plan.NetworkConfig`, classes and numerics
      apart.
    num_classes: of the published counts.
    params: trainable parameters, without the auxiliary head; exact.
    paper_params: millions, as printed; None: not given.
    paper_macs: millions of multiply-adds, as printed; None: not given.
    accuracy: (top-1, top-5) in percent on ImageNet, or (top-1, None) on
      CIFAR-10, as printed; None: not given.
  """

  cells: str
  side: int
  config: dict[str, Any]
  num_classes: int
  params: int
  paper_params: float | None
  paper_macs: float | None = None
  accuracy: tuple[float, float | None] | None = None


def _cifar(num_cells: int, features: int, **more) -> dict[str, Any]:
  return {"num_cells": num_cells, "features": features, **more}


def _imagenet(num_cells: int, features: int, stem: int, **more):
  return {
    "num_cells": num_cells,
    "features": features,
    "stem": "imagenet",
    "stem_features": stem,
    **more,
  }


# Sizes and accuracies: Zoph et al. 2018, tables 1 to 3; Liu et al. 2018, tables
# 3 and 5; Real et al. 2019, tables 1 and 2; Huang et al. 2019 (GPipe).
NETWORKS = {
  "nasnet_a_cifar": Published(
    "nasnet_a", 32, _cifar(6, 32), 10, 3_346_538, 3.3, None, (96.59, None)
  ),
  "nasnet_a_mobile": Published(
    "nasnet_a",
    224,
    _imagenet(4, 44, 32),
    1000,
    5_289_978,
    5.3,
    564,
    (74.0, 91.6),
  ),
  "nasnet_a_large": Published(
    "nasnet_a",
    331,
    _imagenet(6, 168, 96, skip_reduction=True),
    1000,
    88_753_150,
    88.9,
    23_800,
    (82.7, 96.2),
  ),
  "pnasnet_5_cifar": Published(
    "pnasnet_5",
    32,
    _cifar(3, 48, layout="pnas"),
    10,
    3_189_082,
    3.2,
    None,
    (96.59, None),
  ),
  "pnasnet_5_mobile": Published(
    "pnasnet_5",
    224,
    _imagenet(3, 54, 32, layout="pnas"),
    1000,
    5_064_487,
    5.1,
    588,
    (74.2, 91.9),
  ),
  "pnasnet_5_large": Published(
    "pnasnet_5",
    331,
    _imagenet(4, 216, 96, layout="pnas"),
    1000,
    86_057_668,
    86.1,
    25_000,
    (82.9, 96.2),
  ),
  "amoebanet_a_cifar": Published(
    "amoebanet_a", 32, _cifar(6, 36), 10, 3_218_266, 3.2, None, (96.66, None)
  ),
  "amoebanet_b_cifar": Published(
    "amoebanet_b", 32, _cifar(6, 36), 10, 2_839_186, 2.8, None, (96.63, None)
  ),
  "amoebanet_a_mobile": Published(
    "amoebanet_a",
    224,
    _imagenet(4, 50, 32),
    1000,
    5_086_930,
    5.1,
    555,
    (74.5, 92.0),
  ),
  "amoebanet_b_mobile": Published(
    "amoebanet_b",
    224,
    _imagenet(3, 62, 32),
    1000,
    5_258_700,
    5.3,
    555,
    (74.0, 91.5),
  ),
  "amoebanet_c_mobile": Published(
    "amoebanet_c",
    224,
    _imagenet(4, 50, 32),
    1000,
    6_353_815,
    6.4,
    570,
    (75.7, 92.4),
  ),
  "amoebanet_a_large": Published(
    "amoebanet_a",
    331,
    _imagenet(6, 190, 32),
    1000,
    86_718_797,
    86.7,
    23_100,
    (82.8, 96.1),
  ),
  "amoebanet_b_large": Published(
    "amoebanet_b",
    331,
    _imagenet(6, 190, 32),
    1000,
    79_008_676,
    84.0,
    22_300,
    (82.3, 96.1),
  ),
  "amoebanet_c_large": Published(
    "amoebanet_c",
    331,
    _imagenet(6, 228, 32),
    1000,
    155_272_667,
    155.3,
    41_100,
    (83.1, 96.3),
  ),
  "amoebanet_b_gpipe": Published(
    "amoebanet_b",
    480,
    _imagenet(6, 512, 32),
    1000,
    557_277_864,
    557,
    None,
    (84.4, 97.0),
  ),
  # The default of the released code; no size was printed.
  "amoebanet_d": Published(
    "amoebanet_d", 299, _imagenet(6, 256, 32), 1001, 121_915_113, None
  ),
}

# Where the released cells do not give the printed size: (ours, printed).
# docs/networks.md says what was tried.
DISAGREEMENTS = {
  "amoebanet_b_large": "79.0M and 20.9B here, 84.0M and 22.3B printed",
  "amoebanet_c_mobile": "676.9M multiply-adds here, 570M printed",
}


def genotype(name: str) -> Genotype:
  """The cells of a published network. Raises ValueError for unknown names."""
  if name not in CELLS:
    raise ValueError(f"{name!r} is not one of: {', '.join(CELLS)}")
  space, literal = CELLS[name]
  return space.from_literal(literal)


def network(name: str) -> Published:
  """A published network. Raises ValueError for unknown names."""
  if name not in NETWORKS:
    raise ValueError(f"{name!r} is not one of: {', '.join(NETWORKS)}")
  return NETWORKS[name]
