"""Compound scaling: depth, width and resolution grown together.

Tan & Le 2019 (EfficientNet), section 3: depth alpha^phi, width beta^phi,
resolution gamma^phi. Multiply-adds grow with depth, and with the squares of the
other two, so with alpha beta^2 gamma^2 near 2 they double with each phi.
NumPy only.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Coefficients(NamedTuple):
  """Of depth, width and resolution. EfficientNet's: 1.2, 1.1, 1.15."""

  alpha: float
  beta: float
  gamma: float

  @property
  def cost(self) -> float:
    """By what multiply-adds grow, before rounding."""
    return self.alpha * self.beta**2 * self.gamma**2


EFFICIENTNET = Coefficients(1.2, 1.1, 1.15)  # Tan & Le 2019, section 3.3


class Factors(NamedTuple):
  """What a network grows by."""

  depth: float
  width: float
  resolution: float


def factors(coefficients: Coefficients, phi: float) -> Factors:
  """The compound rule; phi 0 is the baseline."""
  return Factors(*(c**phi for c in coefficients))


def grid(
  target: float = 2.0, tolerance: float = 0.1, step: float = 0.05
) -> list[Coefficients]:
  """All coefficients of 1 and more, in steps, whose cost is near the target.

  Args:
    target: 2 in the paper.
    tolerance: how far the cost may be from it. The paper says "about 2", and
      its own choice has 1.92.
    step: between values of a coefficient; the paper does not say. Its choice
      lies on steps of 0.05.

  Raises:
    ValueError: for numbers that make no grid, or an empty one.
  """
  if not (target >= 1 and tolerance >= 0 and step > 0):
    raise ValueError(
      f"target {target}, tolerance {tolerance} and step {step} must be at least"
      " 1, 0 and above 0"
    )
  most = target + tolerance
  count = int((most - 1) / step + 1e-6) + 1
  values = [round(1 + i * step, 10) for i in range(count)]
  points = [
    Coefficients(a, b, g)
    for a in values
    for b in values
    if a * b * b <= most
    for g in values
  ]
  near = [p for p in points if abs(p.cost - target) <= tolerance + 1e-9]
  if not near:
    raise ValueError(
      f"no coefficients in steps of {step} are within {tolerance} of {target}:"
      " raise tolerance or lower step"
    )
  return near


def best(accuracies: Sequence[float], costs: Sequence[float]) -> int:
  """Index of the highest accuracy; of equal ones the cheapest, then the first.

  Args:
    accuracies: of each point, on validation images.
    costs: multiply-adds of each.
  """
  order = [(-a, c, i) for i, (a, c) in enumerate(zip(accuracies, costs))]
  return min(order)[-1]


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


def round_side(side: int, resolution: float, multiple: int = 2) -> int:
  """Pixels at a resolution, to the nearest multiple; at 1 nothing is rounded.

  The paper has no rule for it; the released sides, 240 to 600, are even.
  """
  if resolution == 1:
    return side
  return max(multiple, round(side * resolution / multiple) * multiple)
