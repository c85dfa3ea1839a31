"""How the pictures of published networks are prepared for evaluation.

Weights mean something only together with it. What stands here holds for the
weights that were released with each network; others of the same network may
have been trained otherwise, and whoever saves them says so.
"""

from typing import Any, NamedTuple

from nasnet_jax import zoo
from nasnet_jax.data import augment


class Preparation(NamedTuple):
  """From a picture to a network's input.

  Attributes:
    augmentation: its mean and std whiten the pixels.
    side: of the square that the network reads, in pixels.
    center: share of the picture's shorter side that this square shows; None:
      the whole picture.
  """

  augmentation: augment.Augmentation
  side: int
  center: float | None


# What is cut off beside the square: as many pixels of a picture that is scaled
# to this side and as many more (tensorflow/tpu, CROP_PADDING).
_PADDING = 32
# slim's Inception preprocessing, central_fraction.
_SLIM_CENTER = 0.875
_SLIM = ("nasnet_a", "pnasnet_5", "amoebanet", "mobilenet")


def of(
  name: str,
  augmentation: augment.Augmentation | None = None,
  side: int | None = None,
  center: float | None = None,
) -> Preparation:
  """That of a published network.

  Args:
    name: key of `zoo.cells.NETWORKS` or `zoo.blocks.NETWORKS`.
    augmentation, side, center: what is otherwise than with the weights that
      were released.

  Raises:
    ValueError: if there is no such network; or if no weights of it were
      released, so that nobody knows how their pictures are whitened.
  """
  if name in zoo.blocks.NETWORKS:
    entry = zoo.blocks.network(name)
    cells, imagenet = entry.architecture, True
  else:
    entry = zoo.cells.network(name)
    cells, imagenet = entry.cells, entry.config.get("stem") == "imagenet"
  side = side or entry.side
  if imagenet:
    augmentation = augmentation or whitening(cells)
    center = center or _center(cells, side)
  elif augmentation is None:
    raise ValueError(
      f"no weights of {name} were released, so how its pictures are whitened"
      " is not known: pass augmentation=, with the mean and std of pixels in"
      " 0..1 that the weights were trained with"
    )
  return Preparation(augmentation, side, center)


def _center(cells: str, side: int) -> float:
  if cells.startswith(_SLIM):
    return _SLIM_CENTER
  return side / (side + _PADDING)


def whitening(cells: str) -> augment.Augmentation:
  """That of the released weights of an architecture.

  slim's networks see pixels from -1 to 1; those of tensorflow/tpu
  (EfficientNet, MnasNet) and of torchvision (ResNet) ImageNet's mean colour
  taken away, over its deviation; EfficientNet-Lite two numbers of its own.

  Args:
    cells: key of `zoo.cells.CELLS` or `zoo.blocks.ARCHITECTURES`.
  """
  if cells == "efficientnet_lite":
    return augment.EFFICIENTNET_LITE
  if cells.startswith(_SLIM):
    return augment.PHOTOGRAPHS
  return augment.EFFICIENTNET


# Of a published config: what is no size, so that it may be another.
_FREE = ("num_classes", "dropout", "aux", "numerics")


def check_sizes(name: str, config):
  """Raises ValueError for a network of the sizes of another published one,
  such as EfficientNet-B1 under the name of B0: its pictures would be prepared
  at that one's side.

  Args:
    name: as in `of`.
    config: NetworkConfig or BlockConfig.
  """
  names = zoo.blocks if name in zoo.blocks.NETWORKS else zoo.cells
  field = "architecture" if names is zoo.blocks else "cells"
  cells = getattr(names.network(name), field)
  fits = [
    other
    for other, entry in names.NETWORKS.items()
    if getattr(entry, field) == cells and _fits(entry.config, config)
  ]
  if fits and name not in fits:
    raise ValueError(
      f"the network has the sizes of {fits[0]}: save it by that name and not as"
      f" {name}"
    )


def _fits(published: dict[str, Any], config) -> bool:
  return all(
    getattr(config, field) == value
    for field, value in published.items()
    if field not in _FREE
  )
