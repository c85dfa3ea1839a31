"""Compound scaling: depth, width and resolution grown together.

Tan & Le 2019 (EfficientNet), section 3. NumPy only.
"""

import math


def round_features(features: int, width: float, divisor: int = 8) -> int:
  """Channels at a width, as tensorflow/tpu's round_filters has them.

  The nearest multiple of `divisor`, the next one where that would take away
  more than a tenth. At width 1 nothing is rounded.
  """
  if width == 1:
    return features
  wanted = features * width
  rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * wanted else rounded


def round_repeats(repeats: int, depth: float) -> int:
  """Layers at a depth: rounded up, tensorflow/tpu's round_repeats."""
  return math.ceil(depth * repeats)
