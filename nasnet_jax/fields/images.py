"""Images to classify: which, how many of them, how they are varied.

Every option of every source is a field. One that is None is left to the source,
and one that the chosen source has not is an error.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def in_memory(source: str) -> ConfigDict:
  """All images in memory, of one size.

  Args:
    source: a key of `data.SOURCES`.
  """
  data = _data(source)
  data.fraction = 1.0  # share of each class to keep
  data.max_per_class = placeholder(int)  # at most so many, of each split
  data.options = ConfigDict()
  data.options.path = placeholder(str)  # of folder: a directory or archive
  data.options.name = placeholder(str)  # of tfds, such as "cifar10"
  data.options.train_split = placeholder(str)  # of tfds; None: train
  data.options.test_split = placeholder(str)  # of tfds; None: test
  data.options.image_size = placeholder(int)  # of folder and tfds: one side
  data.options.channels = placeholder(int)  # of folder: 1, 3 or 4
  # Of folder: the share to test with where there is no test split; None: 0.15.
  data.options.test_fraction = placeholder(float)
  data.options.num_test = placeholder(int)  # of digits; None: 297
  data.options.download = placeholder(bool)  # of cifar10, cifar100; None: True
  data.options.labels = placeholder(str)  # of folder: a CSV or Parquet file
  # Of folder: broken files that may be left out; None: 0.
  data.options.max_broken = placeholder(int)
  # Of folder and tfds: stands beside each figure.
  data.options.note = placeholder(str)
  # None: the source's own. For CIFAR: whitening, padded to 40 and cropped to
  # 32 at random, flipped (Zoph et al. 2018, appendix A); digits: moved by up to
  # a pixel.
  data.augmentation = ConfigDict()
  data.augmentation.pad = placeholder(int)  # CIFAR: 4; digits: 1; else 0
  data.augmentation.flip = placeholder(bool)  # CIFAR: True; else False
  data.augmentation.cutout = placeholder(int)  # None: 0, none
  _whitening(data.augmentation)
  return data


def photographs(side: int) -> ConfigDict:
  """ImageNet, or another set that stays on the disk, cut as for NASNet.

  Args:
    side: of the square that a network sees.
  """
  data = _stream(side)
  data.stream.min_area = 0.08  # Szegedy et al. 2015
  data.stream.max_aspect = 4 / 3  # Szegedy et al. 2015
  data.stream.center = 0.875  # slim, inception_preprocessing
  data.augmentation = ConfigDict()
  data.augmentation.flip = placeholder(bool)  # None: True
  data.augmentation.color = placeholder(bool)  # None: True
  data.augmentation.cutout = placeholder(int)  # None: 0, none
  _whitening(data.augmentation)
  return data


def efficientnet_photographs(side: int, lite: bool = False) -> ConfigDict:
  """ImageNet as Tan & Le 2019 cut and vary it; 25,022 of its training images
  are set aside.

  Args:
    side: of the square that a network sees.
    lite: whether as for EfficientNet-Lite.
  """
  data = _stream(side)
  data.num_valid = 25_022  # README of the code: 20 of 1,024 files
  data.stream.min_area = 0.08  # tensorflow/tpu, preprocessing.py
  data.stream.max_aspect = 4 / 3  # tensorflow/tpu, preprocessing.py
  data.stream.center = side / (side + 32)  # tensorflow/tpu, preprocessing.py
  data.augmentation = ConfigDict()
  data.augmentation.flip = True  # tensorflow/tpu, preprocessing.py
  data.augmentation.color = False  # tensorflow/tpu, preprocessing.py
  data.augmentation.cutout = placeholder(int)  # None: 0, none
  # Tan & Le 2019, section 5.2; or "randaugment" or "".
  data.augmentation.policy = "autoaugment"
  data.augmentation.layers = 2  # of randaugment
  data.augmentation.magnitude = 10.0  # of randaugment
  # tensorflow/tpu, efficientnet and its lite/: of pixels from 0 to 1.
  data.augmentation.mean = (127 / 255,) if lite else (0.485, 0.456, 0.406)
  data.augmentation.std = (128 / 255,) if lite else (0.229, 0.224, 0.225)
  return data


def make_small(data: ConfigDict, max_per_class: int, num_valid: int):
  """CIFAR-10 at 16x16 for two CPU cores, from an archive of class folders."""
  data.source = "folder"
  data.options.path = "cifar10_jpeg_60000.tar.xz"
  data.options.image_size = 16
  data.options.note = (  # of that archive only
    "cifar10_jpeg_60000.tar.xz: CIFAR-10, JPEG-recompressed, at 16x16"
  )
  data.augmentation.pad = 2
  data.augmentation.flip = True
  data.max_per_class = max_per_class
  data.num_valid = num_valid


def make_own(data: ConfigDict, image_size: int):
  """Pictures of one's own, in class folders or an archive of them.

  Args:
    image_size: the side to which they are scaled and cut.
  """
  data.source = "folder"
  data.options.image_size = image_size
  data.num_valid = 0
  data.valid_fraction = 0.2
  data.augmentation.pad = image_size // 8  # as for CIFAR
  data.augmentation.flip = True  # False for letters and digits


def make_tiny(data: ConfigDict):
  """A few digits, for tests."""
  data.source = "digits"
  data.max_per_class = 20
  data.num_valid = 50


def _whitening(augmentation: ConfigDict):
  """Of pixels from 0 to 1, a number or one per channel; None: the source's
  own."""
  augmentation.mean = placeholder(tuple)
  augmentation.std = placeholder(tuple)


def _data(source: str) -> ConfigDict:
  data = ConfigDict()
  data.source = source
  data.data_dir = placeholder(str)  # where files lie; None: the source's own
  data.seed = 0  # of each split that is made at random
  data.num_valid = 0  # set aside, for rewards and for points of a curve
  # In place of num_valid: the share of the training images; None: num_valid.
  data.valid_fraction = placeholder(float)
  return data


def _stream(side: int) -> ConfigDict:
  data = _data("tfds")  # or "folder", or "fake" to measure speed
  data.options = ConfigDict()
  data.options.name = placeholder(str)  # of tfds; None: imagenet2012
  data.options.train_split = placeholder(str)  # of tfds; None: train
  data.options.test_split = placeholder(str)  # of tfds; None: validation
  data.options.path = placeholder(str)  # of folder: a directory or .tar
  # Of folder: the share to test with where there is no test split; None: 0.1.
  data.options.test_fraction = placeholder(float)
  data.options.labels = placeholder(str)  # of folder: a CSV or Parquet file
  # Of folder: rows of labels whose files may be missing; None: 0.
  data.options.max_broken = placeholder(int)
  # Of folder and tfds: stands beside each figure.
  data.options.note = placeholder(str)
  data.options.num_images = placeholder(int)  # of fake; None: 10,000
  data.options.num_classes = placeholder(int)  # of fake; None: 1,000
  data.options.width = placeholder(int)  # of fake; None: 500
  data.options.height = placeholder(int)  # of fake; None: 375
  data.stream = ConfigDict()
  data.stream.image_size = side  # of the square that a network sees
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  return data
