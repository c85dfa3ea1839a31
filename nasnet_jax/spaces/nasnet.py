"""The NASNet space (Zoph et al. 2018, section 3.1 and figure 2).

B = 5 blocks in a normal and a reduction cell, 13 operations, combiners add and
concatenate. All published cells of the space add, so add-only is the default.
"""

from nasnet_jax.spaces.cells import CellSpace

# Zoph et al. 2018, section 3.1, in the paper's order.
OPERATIONS = (
  "identity",
  "conv_1x3_3x1",
  "conv_1x7_7x1",
  "dil_conv_3x3",
  "avg_pool_3x3",
  "max_pool_3x3",
  "max_pool_5x5",
  "max_pool_7x7",
  "conv_1x1",
  "conv_3x3",
  "sep_conv_3x3",
  "sep_conv_5x5",
  "sep_conv_7x7",
)

NASNET = CellSpace("nasnet", OPERATIONS)
NASNET_CONCAT = CellSpace(
  "nasnet_concat", OPERATIONS, combiners=("add", "concat")
)
