"""Fashion-MNIST, from Debian's package dataset-fashion-mnist, as an .npz for
source 'folder': 16x16, three channels, the first 100 training images of each
class and all test images.

python fashion_npz.py FOLDER_OF_UBYTE_GZ fashion.npz
"""

import gzip
import pathlib
import sys

import numpy as np
from PIL import Image

FOLDER, OUT = pathlib.Path(sys.argv[1]), sys.argv[2]
NAMES = "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot"


def read(part):
  """(uint8[N, 16, 16, 3], uint8[N]): shrunk with smoothing, grey thrice."""
  with gzip.open(FOLDER / f"{part}-images-idx3-ubyte.gz") as file:
    images = np.frombuffer(file.read(), np.uint8, offset=16)
  with gzip.open(FOLDER / f"{part}-labels-idx1-ubyte.gz") as file:
    labels = np.frombuffer(file.read(), np.uint8, offset=8)
  small = [
    Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)
    for image in images.reshape(-1, 28, 28)
  ]
  return np.repeat(np.stack(small)[..., None], 3, -1), labels


x_train, y_train = read("train")
first = np.concatenate([np.flatnonzero(y_train == c)[:100] for c in range(10)])
x_test, y_test = read("t10k")
np.savez_compressed(
  OUT,
  x_train=x_train[first],
  y_train=y_train[first],
  x_test=x_test,
  y_test=y_test,
  class_names=np.array(NAMES.split()),
)
