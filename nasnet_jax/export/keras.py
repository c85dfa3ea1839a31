"""NASNet-A and EfficientNet to and from `keras.applications`: NASNetMobile,
NASNetLarge, EfficientNetB0 to B7.

Keras's EfficientNets whiten images themselves; ours take images that are
whitened: for ImageNet's weights by `augment.EFFICIENTNET`, and in a model that
was made without weights pixels are over 255 only. `augmentation` reads it off
the model.

In NASNets Keras pads with zeros before it pools at stride 2, so that zeros
count: a network with its weights needs `Numerics.pool_padding="zeros"`. slim,
whose weights Keras's are, pads as TensorFlow's SAME; ours does so by default.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import numpy as np

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.export import keras_model, tables
from nasnet_jax.jobs import published
from nasnet_jax.models import block_network
from nasnet_jax.models.layers import IMAGENET
from nasnet_jax.training import checkpoint
from nasnet_jax.training.checkpoint import CheckpointError

# The separable convolutions of a cell: (block, side) -> name in Keras's
# keras/src/applications/nasnet.py, _normal_a_cell and _reduction_a_cell.
_NORMAL = {
  (0, 0): "normal_left1",
  (0, 1): "normal_right1",
  (1, 0): "normal_left2",
  (1, 1): "normal_right2",
  (4, 0): "normal_left5",
}
_REDUCTION = {
  (0, 0): "reduction_left1",
  (0, 1): "reduction_right1",
  (1, 1): "reduction_right2",
  (2, 1): "reduction_right3",
  (4, 0): "reduction_left4",
}
_NORM = {
  "scale": "gamma",
  "bias": "beta",
  "mean": "moving_mean",
  "var": "moving_variance",
}


def network(name: str, **changes) -> nn.Module:
  """Our network for weights of Keras's, with its padding and epsilon.

  Args:
    name: "nasnet_a_mobile" (NASNetMobile), "nasnet_a_large" (NASNetLarge) or
      "efficientnet_b0" (EfficientNetB0) to "efficientnet_b7".
    **changes: fields of NetworkConfig, or of BlockConfig, that differ.
  """
  if name in zoo.blocks.NETWORKS:
    return tables.published_blocks(name, **changes)
  numerics = dataclasses.replace(IMAGENET, pool_padding="zeros")
  return tables.published(name, **{"numerics": numerics, **changes})


def from_keras(
  model: Any,
  network: nn.Module,
  augmentation: augment.Augmentation | None = None,
) -> dict[str, Any]:
  """Our variables with a Keras model's weights.

  Args:
    model: of `keras.applications`, or one that has such a model in it, as with
      a Dense layer of its own after include_top=False.
    network: ours, of the same sizes.
    augmentation: how images for our network will be whitened; None: as
      `results.save` has it by default. A model that whitens images itself must
      do the same: `augmentation` of this module says what it does.

  Raises:
    CheckpointError: one line, listing layers that do not fit, or what whitens
      images otherwise.
  """
  keras_model.check_whitening(model, augmentation or _whitening(network))
  arrays = {
    name: np.asarray(weight)
    for name, weight in keras_model.weights(model).items()
  }
  return tables.read(table(network), arrays, f"the Keras model {model.name}")


def augmentation(model: Any) -> augment.Augmentation:
  """How a Keras model whitens pixels of 0..255 itself, for `from_keras` and
  `results.save`.

  Raises:
    CheckpointError: if it does not, or in a way that is not one of ours.
  """
  found = keras_model.whitening(model)
  if found is None:
    raise CheckpointError(
      f"the Keras model {model.name} does not whiten images itself: pass the"
      " augmentation that it was trained with, such as augment.PHOTOGRAPHS for"
      " pixels from -1 to 1"
    )
  return found


def _whitening(network: nn.Module) -> augment.Augmentation:
  is_blocks = isinstance(network, block_network.BlockNetwork)
  return published.whitening("efficientnet" if is_blocks else "nasnet_a")


def to_keras(
  variables: dict[str, Any],
  model: Any,
  network: nn.Module,
  augmentation: augment.Augmentation | None = None,
):
  """Puts our variables into a Keras model.

  Args:
    augmentation: how images for our network are whitened, as in `from_keras`.

  Raises:
    CheckpointError: one line, listing what does not fit, before anything is
      changed.
  """
  keras_model.check_whitening(model, augmentation or _whitening(network))
  arrays = tables.write(table(network), variables, "the network")
  weights = keras_model.weights(model)
  checkpoint.compare(f"the Keras model {model.name}", weights, arrays)
  for name, weight in weights.items():
    weight.assign(arrays[name])


def table(network: nn.Module) -> list[tables.Entry]:
  """Every array of a network, with its name in Keras.

  Raises:
    ValueError: for a network that Keras has not.
  """
  if isinstance(network, block_network.BlockNetwork):
    if network.architecture != zoo.blocks.EFFICIENTNET:
      raise ValueError("of networks of blocks only EfficientNet is read here")
    name = _efficientnet_name
  else:
    config = network.config
    if config.stem != "imagenet" or config.layout != "nasnet" or config.aux:
      raise ValueError(
        "Keras has NASNet-A for ImageNet only, without an auxiliary head"
      )
    name = functools.partial(_nasnet_name, num_cells=config.num_cells)
  rows = []
  for path, shape in tables.shapes_of(network).items():
    layer, weight = name(path[1:])
    rows.append(
      tables.Entry(
        path, shape, f"{layer}/{weight}", tables.four_axes(path, shape)
      )
    )
  return rows


# keras/src/applications/efficientnet.py, block.
_BLOCK = {
  "expand": "expand_conv",
  "norm_0": "expand_bn",
  "depthwise": "dwconv",
  "norm_1": "bn",
  "project": "project_conv",
  "norm_2": "project_bn",
}
_ENDS = {
  "stem_conv": "stem_conv",
  "stem_norm": "stem_bn",
  "head_conv": "top_conv",
  "head_norm": "top_bn",
  "classifier": "predictions",
}


def _efficientnet_name(path: tuple[str, ...]) -> tuple[str, str]:
  """(layer, weight) in Keras of one of our arrays."""
  module, *inner, leaf = path
  if module in _ENDS:
    norm = module.endswith("norm")
    return _ENDS[module], _NORM[leaf] if norm else leaf
  _, group, _, number = module.split("_")
  block = f"block{int(group) + 1}{chr(ord('a') + int(number))}"
  if inner[0] == "squeeze_excite":
    return f"{block}_se_{inner[1]}", leaf
  weight = _NORM[leaf] if inner[0].startswith("norm") else leaf
  return f"{block}_{_BLOCK[inner[0]]}", weight


def _nasnet_name(path: tuple[str, ...], num_cells: int) -> tuple[str, str]:
  """(layer, weight) in Keras of one of our arrays."""
  module, *inner, leaf = path
  weight = _NORM.get(leaf, leaf)
  if module == "classifier":
    return "predictions", leaf
  if module == "stem":
    return ("stem_conv1" if inner == ["conv"] else "stem_bn1"), weight
  kind, block = _block_id(module, num_cells)
  if inner[0] == "project":
    layer = "conv" if inner[1] == "conv" else "bn"
    return f"{kind}_{layer}_1_{block}", weight
  if inner[0] == "fit_previous":
    layer = {
      "conv": "adjust_conv_projection",
      "conv_0": "adjust_conv_1",
      "conv_1": "adjust_conv_2",
      "norm": "adjust_bn",
    }[inner[2]]
    return f"{layer}_{block}", weight
  _, b, side = inner[0].split("_")
  part = (_NORMAL if kind == "normal" else _REDUCTION)[int(b), int(side)]
  what, _, layer = inner[1].rpartition("_")
  number = int(layer) + 1
  if what == "norm":
    return f"separable_conv_{number}_bn_{part}_{block}", weight
  return f"separable_conv_{number}_{part}_{block}", f"{what}_kernel"


def _block_id(module: str, num_cells: int) -> tuple[str, str]:
  """(kind, Keras's id) of one of our cells.

  Normal cells are numbered on after a reduction as if it were one; the second
  reduction is not counted.
  """
  name, _, number = module.rpartition("_")
  if name == "stem_cell":
    return "reduction", f"stem_{int(number) + 1}"
  if name == "reduction":
    return "reduction", f"reduce_{num_cells * (int(number) + 1)}"
  after = int(number) >= num_cells
  return "normal", str(int(number) + after)
