"""The PNAS space (Liu et al. 2018, section 3): 8 operations, add only.

One cell for both strides: a "reduction" is the same cell with stride 2 where
it reads the cell's inputs. The output concatenates all blocks, as in the
released PNASNet-5 (tensorflow/models, research/slim/nets/nasnet/pnasnet.py).
"""

from nasnet_jax.spaces.cells import CellSpace

OPERATIONS = (
  "sep_conv_3x3",
  "sep_conv_5x5",
  "sep_conv_7x7",
  "conv_1x7_7x1",
  "identity",
  "avg_pool_3x3",
  "max_pool_3x3",
  "dil_conv_3x3",
)

PNAS = CellSpace("pnas", OPERATIONS, cells=("cell",), output="all")
