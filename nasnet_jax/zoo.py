"""Published architectures as literals, with their sources.

A cell is ([(input 1, input 2, operation 1, operation 2), ...], concat). Index
0 is h_i, 1 is h_{i-1} (slim's convention).
"""

from nasnet_jax.spaces.genotype import Genotype
from nasnet_jax.spaces.nasnet import NASNET

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

ZOO = {"nasnet_a": (NASNET, NASNET_A)}


def genotype(name: str) -> Genotype:
  """The cells of a published network. Raises ValueError for unknown names."""
  if name not in ZOO:
    raise ValueError(f"{name!r} is not one of: {', '.join(ZOO)}")
  space, literal = ZOO[name]
  return space.from_literal(literal)
