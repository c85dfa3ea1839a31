"""Published architectures as literals, each with its source.

`cells` has networks that are stacks of cells, `blocks` those that are rows of
blocks, `imagenet` the names of its classes. NumPy only.
"""

from nasnet_jax.zoo import blocks, cells, imagenet

__all__ = ["blocks", "cells", "imagenet"]
