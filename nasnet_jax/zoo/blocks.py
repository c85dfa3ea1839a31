"""Published networks of blocks as literals, with their sources.

`ARCHITECTURES` has them as they were written, `NETWORKS` with the factors that
scale them. `models.block_network.BlockNetwork` builds them.
"""

import dataclasses
from typing import Any, NamedTuple

from nasnet_jax.spaces.blocks import Architecture, Group


def _mbconv(repeats, kernel, stride, expansion, features, squeeze=0.0, **more):
  return Group(
    "mbconv", repeats, features, kernel, stride, expansion, squeeze, **more
  )


# Tan & Le 2019, table 1; strides and squeeze: tensorflow/tpu,
# models/official/efficientnet/efficientnet_builder.py.
EFFICIENTNET = Architecture(
  stem=32,
  groups=(
    _mbconv(1, 3, 1, 1, 16, 0.25),
    _mbconv(2, 3, 2, 6, 24, 0.25),
    _mbconv(2, 5, 2, 6, 40, 0.25),
    _mbconv(3, 3, 2, 6, 80, 0.25),
    _mbconv(3, 5, 1, 6, 112, 0.25),
    _mbconv(4, 5, 2, 6, 192, 0.25),
    _mbconv(1, 3, 1, 6, 320, 0.25),
  ),
  head=1280,
  activation="swish",
)

# tensorflow/tpu, models/official/efficientnet/lite: no squeeze-excite, ReLU6;
# stem, head and the depth of the two outer groups stay as they are.
EFFICIENTNET_LITE = dataclasses.replace(
  EFFICIENTNET,
  groups=tuple(
    dataclasses.replace(group, squeeze=0.0) for group in EFFICIENTNET.groups
  ),
  activation="relu6",
  fixed=("stem", "head", "first", "last"),
)

# Tan et al. 2019, figure 7; tensorflow/tpu, models/official/mnasnet/
# mnasnet_models.py, like the two below.
MNASNET_A1 = Architecture(
  stem=32,
  groups=(
    _mbconv(1, 3, 1, 1, 16, skip=False),
    _mbconv(2, 3, 2, 6, 24),
    _mbconv(3, 5, 2, 3, 40, 0.25),
    _mbconv(4, 3, 2, 6, 80),
    _mbconv(2, 3, 1, 6, 112, 0.25),
    _mbconv(3, 5, 2, 6, 160, 0.25),
    _mbconv(1, 3, 1, 6, 320),
  ),
  head=1280,
  fixed=("head",),
)

MNASNET_B1 = Architecture(
  stem=32,
  groups=(
    _mbconv(1, 3, 1, 1, 16, skip=False),
    _mbconv(3, 3, 2, 3, 24),
    _mbconv(3, 5, 2, 3, 40),
    _mbconv(3, 5, 2, 6, 80),
    _mbconv(2, 3, 1, 6, 96),
    _mbconv(4, 5, 2, 6, 192),
    _mbconv(1, 3, 1, 6, 320, skip=False),
  ),
  head=1280,
  fixed=("head",),
)

MNASNET_SMALL = Architecture(
  stem=8,
  groups=(
    _mbconv(1, 3, 1, 1, 8),
    _mbconv(1, 3, 2, 3, 16),
    _mbconv(2, 3, 2, 6, 16),
    _mbconv(4, 5, 2, 6, 32, 0.25),
    _mbconv(3, 3, 1, 6, 32, 0.25),
    _mbconv(3, 5, 2, 6, 88, 0.25),
    _mbconv(1, 3, 1, 6, 144),
  ),
  head=1280,
  fixed=("head",),
)


def _separable(repeats: int, stride: int, features: int) -> Group:
  return Group("separable", repeats, features, stride=stride)


# Howard et al. 2017, table 1. ReLU6 in place of ReLU: the released code,
# tensorflow/models, research/slim/nets/mobilenet_v1.py.
MOBILENET_V1 = Architecture(
  stem=32,
  groups=(
    _separable(1, 1, 64),
    _separable(2, 2, 128),
    _separable(2, 2, 256),
    _separable(6, 2, 512),
    _separable(2, 2, 1024),
  ),
  activation="relu6",
)

# Sandler et al. 2018, table 2.
MOBILENET_V2 = Architecture(
  stem=32,
  groups=(
    _mbconv(1, 3, 1, 1, 16),
    _mbconv(2, 3, 2, 6, 24),
    _mbconv(3, 3, 2, 6, 32),
    _mbconv(4, 3, 2, 6, 64),
    _mbconv(3, 3, 1, 6, 96),
    _mbconv(3, 3, 2, 6, 160),
    _mbconv(1, 3, 1, 6, 320),
  ),
  head=1280,
  activation="relu6",
)


# For images of 32 pixels: as is usual there, the first two strides are 1 (the
# paper has no such network).
MOBILENET_V2_CIFAR = dataclasses.replace(
  MOBILENET_V2,
  groups=tuple(
    dataclasses.replace(group, stride=1) if g == 1 else group
    for g, group in enumerate(MOBILENET_V2.groups)
  ),
  stem_stride=1,
)

# He et al. 2016, section 4.2, n = 3; shortcuts of 1x1 convolutions where the
# paper pads with zeros.
RESNET_20 = Architecture(
  stem=16,
  groups=tuple(
    Group("basic", 3, 16 * 2**g, stride=2 if g else 1) for g in range(3)
  ),
  stem_stride=1,
)


def _resnet(kind: str, repeats, squeeze: float = 0.0) -> Architecture:
  """He et al. 2016, table 1; repeats: blocks of its four groups."""
  expansion = 4 if kind == "bottleneck" else 1
  return Architecture(
    stem=64,
    groups=tuple(
      Group(
        kind,
        count,
        expansion * 64 * 2**g,
        stride=2 if g else 1,
        expansion=expansion,
        squeeze=squeeze,
      )
      for g, count in enumerate(repeats)
    ),
    stem_kernel=7,
    stem_pool=True,
  )


_SE = 1 / 16  # Hu et al. 2018, section 3

ARCHITECTURES = {
  "efficientnet": EFFICIENTNET,
  "efficientnet_lite": EFFICIENTNET_LITE,
  "mnasnet_a1": MNASNET_A1,
  "mnasnet_b1": MNASNET_B1,
  "mnasnet_small": MNASNET_SMALL,
  "mobilenet_v1": MOBILENET_V1,
  "mobilenet_v2": MOBILENET_V2,
  "mobilenet_v2_cifar": MOBILENET_V2_CIFAR,
  "resnet_20": RESNET_20,
  "resnet_18": _resnet("basic", (2, 2, 2, 2)),
  "resnet_34": _resnet("basic", (3, 4, 6, 3)),
  "resnet_50": _resnet("bottleneck", (3, 4, 6, 3)),
  "resnet_101": _resnet("bottleneck", (3, 4, 23, 3)),
  "resnet_152": _resnet("bottleneck", (3, 8, 36, 3)),
  # He et al. 2016b, whose blocks are pre-activated; here as the others.
  "resnet_200": _resnet("bottleneck", (3, 24, 36, 3)),
  "se_resnet_50": _resnet("bottleneck", (3, 4, 6, 3), _SE),
  "se_resnet_101": _resnet("bottleneck", (3, 4, 23, 3), _SE),
  "se_resnet_152": _resnet("bottleneck", (3, 8, 36, 3), _SE),
}


class Published(NamedTuple):
  """A network of ImageNet's 1000 classes.

  Attributes:
    architecture: key of `ARCHITECTURES`.
    side: of its images, in pixels.
    params: trainable parameters; exact.
    paper_params: millions, as printed; None: not given.
    paper_macs: millions of multiply-adds, as printed; None: not given.
    accuracy: (top-1, top-5) in percent on ImageNet, as printed; None: not
      given.
    width, depth: factors, see `scaling`.
    dropout: of the published training.
  """

  architecture: str
  side: int
  params: int
  paper_params: float | None = None
  paper_macs: float | None = None
  accuracy: tuple[float, float | None] | None = None
  width: float = 1.0
  depth: float = 1.0
  dropout: float = 0.0

  @property
  def config(self) -> dict[str, Any]:
    """Fields of `block_network.BlockConfig` that differ from its defaults."""
    return {
      "width": self.width,
      "depth": self.depth,
      "dropout": self.dropout,
    }


def _scaled(architecture, width, depth, side, dropout, *published):
  return Published(
    architecture,
    side,
    *published,
    width=width,
    depth=depth,
    dropout=dropout,
  )


def _b(*numbers):
  return _scaled("efficientnet", *numbers)


def _lite(*numbers):
  return _scaled("efficientnet_lite", *numbers)


# Factors, side and dropout: tensorflow/tpu, efficientnet_builder.py and
# lite/efficientnet_lite_builder.py. Printed sizes and accuracies: Tan & Le
# 2019, table 2; the README of Lite there; Tan et al. 2019, table 1, and the
# README of MnasNet; Howard et al. 2017, table 8; Sandler et al. 2018, table 4;
# He et al. 2016 and 2016b and Hu et al. 2018 as far as Tan & Le print them.
# Exact parameters: tensorflow/tpu's, Keras's (EfficientNet, MobileNet),
# torchvision's (ResNet-18 to 152, MobileNetV2, MnasNet-B1), timm's (Lite,
# MnasNet-small, ResNet-200) and imgclsmob's (SE-ResNet).
NETWORKS = {
  "efficientnet_b0": _b(1.0, 1.0, 224, 0.2, 5_288_548, 5.3, 390, (77.1, 93.3)),
  "efficientnet_b1": _b(1.0, 1.1, 240, 0.2, 7_794_184, 7.8, 700, (79.1, 94.4)),
  "efficientnet_b2": _b(
    1.1, 1.2, 260, 0.3, 9_109_994, 9.2, 1_000, (80.1, 94.9)
  ),
  "efficientnet_b3": _b(
    1.2, 1.4, 300, 0.3, 12_233_232, 12, 1_800, (81.6, 95.7)
  ),
  "efficientnet_b4": _b(
    1.4, 1.8, 380, 0.4, 19_341_616, 19, 4_200, (82.9, 96.4)
  ),
  "efficientnet_b5": _b(
    1.6, 2.2, 456, 0.4, 30_389_784, 30, 9_900, (83.6, 96.7)
  ),
  "efficientnet_b6": _b(
    1.8, 2.6, 528, 0.5, 43_040_704, 43, 19_000, (84.0, 96.8)
  ),
  "efficientnet_b7": _b(
    2.0, 3.1, 600, 0.5, 66_347_960, 66, 37_000, (84.3, 97.0)
  ),
  "efficientnet_b8": _b(2.2, 3.6, 672, 0.5, 87_413_142),
  # Xie et al. 2020; trained with labels that another network made up.
  "efficientnet_l2": _b(4.3, 5.3, 800, 0.5, 480_309_308, 480),
  "efficientnet_lite0": _lite(
    1.0, 1.0, 224, 0.2, 4_652_008, 4.7, 407, (75.1, None)
  ),
  "efficientnet_lite1": _lite(
    1.0, 1.1, 240, 0.2, 5_416_680, 5.4, 631, (76.7, None)
  ),
  "efficientnet_lite2": _lite(
    1.1, 1.2, 260, 0.3, 6_092_072, 6.1, 899, (77.6, None)
  ),
  "efficientnet_lite3": _lite(
    1.2, 1.4, 280, 0.3, 8_197_096, 8.2, 1_440, (79.8, None)
  ),
  "efficientnet_lite4": _lite(
    1.4, 1.8, 300, 0.3, 13_006_568, 13.0, 2_640, (81.5, None)
  ),
  "mnasnet_a1": Published(
    "mnasnet_a1", 224, 3_887_038, 3.9, 312, (75.2, 92.5), dropout=0.2
  ),
  "mnasnet_b1": Published(
    "mnasnet_b1", 224, 4_383_312, 4.4, 315, (74.5, None), dropout=0.2
  ),
  "mnasnet_small": Published("mnasnet_small", 224, 2_030_264, 2.0, 68),
  "mobilenet_v1": Published(
    "mobilenet_v1", 224, 4_231_976, 4.2, 569, (70.6, 89.5)
  ),
  "mobilenet_v2": Published(
    "mobilenet_v2", 224, 3_504_872, 3.4, 300, (72.0, 91.0), dropout=0.2
  ),
  "resnet_18": Published("resnet_18", 224, 11_689_512, 11.7, 1_814),
  "resnet_34": Published("resnet_34", 224, 21_797_672, 21.8, 3_664),
  "resnet_50": Published("resnet_50", 224, 25_557_032, 26, 4_100, (76.0, 93.0)),
  "resnet_101": Published("resnet_101", 224, 44_549_160, 44.5, 7_801),
  "resnet_152": Published(
    "resnet_152", 224, 60_192_808, 60, 11_514, (77.8, 93.8)
  ),
  "resnet_200": Published("resnet_200", 224, 64_673_832, 64.7),
  "se_resnet_50": Published("se_resnet_50", 224, 28_088_024, 28.1, 4_092),
  "se_resnet_101": Published("se_resnet_101", 224, 49_326_872, 49.3),
  "se_resnet_152": Published("se_resnet_152", 224, 66_821_848, 66.8),
}

# Where a printed size is not ours within 3 %.
DISAGREEMENTS = {
  "efficientnet_b4": "4,394M multiply-adds here, 4.2B printed",
  "efficientnet_b5": "10,266M multiply-adds here, 9.9B printed",
  "efficientnet_lite0": "385M multiply-adds here, 407M printed",
  "efficientnet_lite1": "600M multiply-adds here, 631M printed",
  "efficientnet_lite2": "860M multiply-adds here, 899M printed",
  "efficientnet_lite3": "1,383M multiply-adds here, 1.44B printed",
  "efficientnet_lite4": "2,553M multiply-adds here, 2.64B printed",
  "mobilenet_v2": "3.50M parameters here, 3.4M printed",
}


def architecture(name: str) -> Architecture:
  """A published architecture. Raises ValueError for unknown names."""
  if name not in ARCHITECTURES:
    raise ValueError(f"{name!r} is not one of: {', '.join(ARCHITECTURES)}")
  return ARCHITECTURES[name]


def network(name: str) -> Published:
  """A published network. Raises ValueError for unknown names."""
  if name not in NETWORKS:
    raise ValueError(f"{name!r} is not one of: {', '.join(NETWORKS)}")
  return NETWORKS[name]
