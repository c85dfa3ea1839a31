"""Images for training: sources, seeded splits, augmentation, batches.

    data = load("digits")
    train_index, valid_index = split(data.train_labels, 300, seed=0)

`augment` and `batches` run on the device and import JAX; nothing here imports
TensorFlow, scikit-learn or Pillow before a source needs it.
"""

from nasnet_jax.data.image_data import (
  DataError,
  ImageData,
  split,
  stratified_split,
)
from nasnet_jax.data.sources import SOURCES, load

__all__ = [
  "SOURCES",
  "DataError",
  "ImageData",
  "load",
  "split",
  "stratified_split",
]
