"""NASNet-A, EfficientNet and MobileNet to and from `keras.applications`:
NASNetMobile, NASNetLarge, EfficientNetB0 to B7, MobileNet (V1), MobileNetV2.

Keras's EfficientNets whiten images themselves; ours take images that are
whitened: for ImageNet's weights by `augment.EFFICIENTNET`, and in a model that
was made without weights pixels are over 255 only. `augmentation` reads it off
the model.

In NASNets Keras pads with zeros before it pools at stride 2, so that zeros
count: a network with its weights needs `Numerics.pool_padding="zeros"`. slim,
whose weights Keras's are, pads as TensorFlow's SAME; ours does so by default.
MobileNet (V1) pads as SAME does at stride 2 for even sides only, so that its
logits are ours for images of a multiple of 32 pixels.

Keras's ResNets are not ours: their stride is the first convolution's, and their
convolutions have biases. torchvision's and timm's are.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import numpy as np

from nasnet_jax import zoo
from nasnet_jax.data import augment, image_data
from nasnet_jax.export import keras_model, keras_names, tables
from nasnet_jax.jobs import published
from nasnet_jax.models import block_network
from nasnet_jax.models.layers import IMAGENET
from nasnet_jax.training import checkpoint
from nasnet_jax.training.checkpoint import CheckpointError

_KNOWN = (
  "nasnet_a_mobile",
  "nasnet_a_large",
  *(f"efficientnet_b{i}" for i in range(8)),
  "mobilenet_v1",
  "mobilenet_v2",
)


def network(name: str, **changes) -> nn.Module:
  """Our network for weights of Keras's, with its padding and epsilon.

  Args:
    name: "nasnet_a_mobile" (NASNetMobile), "nasnet_a_large" (NASNetLarge) or
      "efficientnet_b0" (EfficientNetB0) to "efficientnet_b7", "mobilenet_v1"
      (MobileNet), "mobilenet_v2" (MobileNetV2).
    **changes: fields of NetworkConfig, or of BlockConfig, that differ.

  Raises:
    ValueError: for a network that Keras has not, or has otherwise.
  """
  if name not in (*_KNOWN, *zoo.blocks.NETWORKS):
    raise ValueError(
      f"no network for Keras's weights is called {name!r}:"
      f" {image_data.nearest(name, _KNOWN)}"
    )
  if name in zoo.blocks.NETWORKS:
    found = tables.published_blocks(name, **changes)
    _check(found)
    return found
  numerics = dataclasses.replace(IMAGENET, pool_padding="zeros")
  return tables.published(name, **{"numerics": numerics, **changes})


def from_keras(
  model: Any,
  network: nn.Module,
  augmentation: augment.Augmentation | None = None,
  *,
  source: str = "",
  more: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Our variables with a Keras model's weights.

  Args:
    model: of `keras.applications`, or one that has such a model in it, as with
      a Dense layer of its own after include_top=False.
    network: ours, of the same sizes.
    augmentation: how images for our network will be whitened; None: as
      `results.save` has it by default. A model that whitens images itself must
      do the same: `augmentation` of this module says what it does.
    source: where the model comes from, for messages.
    more: arrays by Keras's names that the model has not, as of a classifier.

  Raises:
    CheckpointError: one line, listing layers that do not fit, or what whitens
      images otherwise.
  """
  keras_model.check_whitening(model, augmentation or _whitening(network))
  arrays = {
    name: np.asarray(weight)
    for name, weight in keras_model.weights(model).items()
  }
  arrays = {**_as_dense(arrays), **(more or {})}
  source = source or f"the Keras model {model.name}"
  return tables.read(table(network), arrays, source)


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


_BLOCKS = {
  zoo.blocks.architecture(name): name
  for name in ("efficientnet", "mobilenet_v1", "mobilenet_v2")
}


def _check(network: block_network.BlockNetwork):
  if network.architecture not in _BLOCKS:
    raise ValueError(
      "of Keras's networks of blocks EfficientNet, MobileNet (V1) and"
      " MobileNetV2 are read; its ResNets have another stride and biases: take"
      " torchvision's or timm's"
    )


def _whitening(network: nn.Module) -> augment.Augmentation:
  name = _BLOCKS.get(getattr(network, "architecture", None), "nasnet_a")
  return published.whitening(name)


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
  theirs = _as_dense({name: np.asarray(w) for name, w in weights.items()})
  checkpoint.compare(f"the Keras model {model.name}", theirs, arrays)
  for name, weight in weights.items():
    weight.assign(arrays[name].reshape(weight.shape))


def _as_dense(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """With the kernel of a classifier that is a 1x1 convolution as [C, F]."""
  name = f"{keras_model.CLASSIFIER}/kernel"
  if name not in arrays:
    return arrays
  kernel = arrays[name]
  return {**arrays, name: kernel.reshape(kernel.shape[-2:])}


def table(network: nn.Module) -> list[tables.Entry]:
  """Every array of a network, with its name in Keras.

  Raises:
    ValueError: for a network that Keras has not.
  """
  if isinstance(network, block_network.BlockNetwork):
    name = _names_of_blocks(network)
  else:
    config = network.config
    if config.stem != "imagenet" or config.layout != "nasnet" or config.aux:
      raise ValueError(
        "Keras has NASNet-A for ImageNet only, without an auxiliary head"
      )
    name = functools.partial(keras_names.nasnet, num_cells=config.num_cells)
  rows = []
  for path, shape in tables.shapes_of(network).items():
    layer, weight = name(path[1:])
    rows.append(
      tables.Entry(
        path, shape, f"{layer}/{weight}", tables.four_axes(path, shape)
      )
    )
  return rows


def _names_of_blocks(network: block_network.BlockNetwork):
  """(path) -> (layer, weight) in Keras."""
  _check(network)
  if network.architecture == zoo.blocks.EFFICIENTNET:
    return keras_names.efficientnet
  config = network.config
  planned = block_network.plan(network.architecture, config.width, config.depth)
  numbers = {block.name: block.index for block in planned}
  return functools.partial(
    getattr(keras_names, _BLOCKS[network.architecture]), numbers=numbers
  )
