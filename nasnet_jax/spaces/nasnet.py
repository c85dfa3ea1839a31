"""The NASNet spaces (Zoph et al. 2018, section 3.1, figure 2, appendix).

B = 5 blocks in a normal and a reduction cell, 13 operations, combiners add and
concatenate. All published cells of the space add, so add-only is the default.

NASNet-B and NASNet-C come from spaces of their own, with two more combiners:
addition followed by layer or by instance normalisation. `NASNET_C` has two
inputs and concatenates what no block reads, as above. In `NASNET_B` nothing is
concatenated: a cell takes 4 states and gives 4, every block's output, also one
that another block reads. Both cells exist as figures only, so they are not
here.

What the text leaves open about NASNet-B, and how it is read here:

- Outputs 0 to 3 feed the next four layers in that order (the figure's caption,
  from memory). So output j of a cell is read by the cell j + 1 layers on, and
  input j of a cell is output j of the cell j + 1 layers back.
- Output j is that of block j. (In a figure the labels may stand in another
  order; such a cell is written with its blocks in the order of their labels,
  which works where no block reads one of a later label.)
- The number of blocks is that of inputs and outputs, for fewer blocks too.

`models/stacked.py` says what the first cells and the head read. NASNet-C has
B = 4 by its figure's caption, also from memory.
"""

from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.genotype import COMBINERS

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
NASNET_B = CellSpace(
  "nasnet_b",
  OPERATIONS,
  num_blocks=4,
  combiners=COMBINERS,
  output="separate",
)
NASNET_C = CellSpace("nasnet_c", OPERATIONS, num_blocks=4, combiners=COMBINERS)
