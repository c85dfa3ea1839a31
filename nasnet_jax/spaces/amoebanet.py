"""The AmoebaNet spaces (Real et al. 2019): NASNet's with fewer operations.

`AMOEBANET` is the space of the paper's search: 8 operations, add only, states
that no block reads are concatenated. The released cells B and D came from
other searches and use more operations; `AMOEBANET_RELEASED` holds them all
(tensorflow/tpu, models/official/amoeba_net/model_specs.py).
"""

from nasnet_jax.spaces.cells import CellSpace

# Real et al. 2019, "Methods". Dense convolutions have the bottleneck of the
# released code (network_utils.py).
OPERATIONS = (
  "identity",
  "sep_conv_3x3",
  "sep_conv_5x5",
  "sep_conv_7x7",
  "avg_pool_3x3",
  "max_pool_3x3",
  "dil_sep_conv_3x3",
  "bottleneck_1x7_7x1",
)
# model_specs.py: those of the cells A to D.
RELEASED_OPERATIONS = (
  *OPERATIONS,
  "conv_1x1",
  "bottleneck_3x3",
  "max_pool_2x2",
)

AMOEBANET = CellSpace("amoebanet", OPERATIONS)
AMOEBANET_RELEASED = CellSpace("amoebanet_released", RELEASED_OPERATIONS)
