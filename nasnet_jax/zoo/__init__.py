"""Published architectures as literals, each with its source.

`cells` has networks that are stacks of cells, `blocks` those that are rows of
blocks. NumPy only.
"""

from nasnet_jax.zoo import blocks, cells

__all__ = ["blocks", "cells"]
