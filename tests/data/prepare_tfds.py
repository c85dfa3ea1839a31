"""Prepares a small set with TensorFlow; run by test_tfds.py, not by pytest.

python prepare_tfds.py IMAGES.npz DATA_DIR FILE_FORMAT
"""

import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

IMAGES, DATA_DIR, FILE_FORMAT = sys.argv[1:]


class TinyDigits(tfds.core.GeneratorBasedBuilder):
  """Images and labels of an .npz."""

  VERSION = tfds.core.Version("1.0.0")
  pkg_dir_path = epath.Path(__file__).parent  # a script has no package

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(8, 8, 1)),
      "label": tfds.features.ClassLabel(num_classes=10),
    }
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager):
    return {part: self._generate_examples(part) for part in ("train", "test")}

  def _generate_examples(self, part):
    with np.load(IMAGES) as file:
      rows = zip(file[f"x_{part}"], file[f"y_{part}"])
      for i, (image, label) in enumerate(rows):
        yield i, {"image": image, "label": int(label)}


builder = TinyDigits(data_dir=DATA_DIR, file_format=FILE_FORMAT)
builder.download_and_prepare()
