"""What stands in a Keras model around the network that is read from it.

Its weights by name, whichever model is inside which, and what it does with
pixels before its first convolution. Keras itself is not imported here.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from nasnet_jax.data import augment
from nasnet_jax.training.checkpoint import CheckpointError

_log = logging.getLogger(__name__)

CLASSIFIER = "predictions"  # its name in keras.applications

# Classes of what may stand before the first convolution, and what they do in
# evaluation: arithmetic, or nothing to the colours.
_LAYERS = ("Rescaling", "Normalization")
_ARITHMETIC = (
  *_LAYERS,
  "TrueDivide",
  "Divide",
  "Multiply",
  "Add",
  "Subtract",
)
_NOTHING = (
  "InputLayer",
  "ZeroPadding2D",
  "Identity",
  "GaussianNoise",
  "RandomFlip",
  "RandomRotation",
  "RandomTranslation",
  "RandomZoom",
  "RandomContrast",
  "RandomBrightness",
  "RandomErasing",
)
# Where the network ends, but for an activation: with a batch norm, or with the
# sum or the concatenation of a NASNet's last cell.
_ENDS = ("BatchNormalization", "Add", "Concatenate")
# And what may stand behind: the mean, the classifier, nothing else.
_MEAN = "GlobalAveragePooling2D"
_HEAD = (
  "InputLayer",
  "Activation",
  "ReLU",
  _MEAN,
  "Reshape",
  "Flatten",
  "Dropout",
  "Dense",
  "Softmax",
  "Identity",
)
_TOLERANCE = 2e-5  # of a whitened pixel: float32, and square roots of variances


def operations(model: Any) -> Iterator[Any]:
  """Layers and other operations in order; a model inside gives its own."""
  if not hasattr(model, "layers"):
    raise CheckpointError(
      f"{type(model).__name__} is no Keras model: give a Sequential or a"
      " functional one"
    )
  for one in getattr(model, "operations", model.layers):
    if hasattr(one, "layers"):
      yield from operations(one)
    else:
      yield one


def weights(model: Any) -> dict[str, Any]:
  """{"layer/weight": Keras's variable}, without those that whiten images.

  The last Dense layer, or 1x1 convolution of the mean, is the classifier,
  whatever its name is.

  Raises:
    CheckpointError: if two layers have one name, or something stands between
      the network and its classifier that ours has not.
  """
  layers = [one for one in operations(model) if getattr(one, "weights", ())]
  _check_head(model)
  last = layers[-1] if layers else None
  result = {}
  for layer in layers:
    if _kind(layer) == "Normalization":
      continue
    name = layer.name
    if layer is last and (_kind(layer) == "Dense" or _is_pointwise(layer)):
      name = CLASSIFIER
    for weight in layer.weights:
      if f"{name}/{weight.name}" in result:
        raise CheckpointError(
          f"the Keras model {model.name} has two layers {name!r}: a network"
          " with one classifier is read"
        )
      result[f"{name}/{weight.name}"] = weight
  return result


def _kind(operation: Any) -> str:
  return type(operation).__name__


def _is_pointwise(operation: Any) -> bool:
  """Whether it is a 1x1 convolution with a bias, as a classifier has."""
  return (
    _kind(operation) == "Conv2D"
    and tuple(operation.kernel_size) == (1, 1)
    and operation.use_bias
  )


def _check_head(model: Any):
  found = list(operations(model))
  ends = [i for i, one in enumerate(found) if _kind(one) in _ENDS]
  pooled = False
  for one in found[ends[-1] + 1 :] if ends else ():
    pooled |= _kind(one) == _MEAN
    classifier = pooled and _is_pointwise(one)
    if _kind(one) not in _HEAD and not classifier:
      raise CheckpointError(
        f"the Keras model {model.name} has {one.name!r}, a {_kind(one)}, behind"
        " the network, where ours has a mean and a classifier"
      )
  last = getattr(found[-1], "activation", None)
  name = getattr(last, "__name__", "softmax")
  if name not in ("softmax", "linear"):
    _log.warning(
      "the Keras model %s ends with %s: our network gives what stands before"
      " it, and predictions take its softmax",
      model.name,
      name,
    )


def whitening(model: Any) -> augment.Augmentation | None:
  """What a model does with pixels of 0..255 before its first convolution.

  Returns:
    its mean and std; None: nothing, it takes whitened images.

  Raises:
    CheckpointError: if that is no mean and std per channel.
  """
  entrance = _entrance(model)
  if not any(_kind(one) in _ARITHMETIC for one in entrance):
    return None
  levels = np.array([0, 128, 255], np.float32)
  x = np.tile(levels[:, None, None, None], (1, 1, 1, 3))
  for one in entrance:
    if _kind(one) in _ARITHMETIC:
      x = _applied(one, x)
  low, middle, high = np.asarray(x, np.float64).reshape(3, -1)
  slope = (high - low) / 255
  if not (slope > 0).all() or np.abs(low + 128 * slope - middle).max() > 1e-3:
    raise CheckpointError(
      f"the Keras model {model.name} does with pixels what no mean and std do"
    )
  std = 1 / (255 * slope)
  return augment.Augmentation(
    mean=tuple(map(float, 0 - low * std)), std=tuple(map(float, std))
  )


def _entrance(model: Any) -> list[Any]:
  """What stands before the first convolution."""
  result: list[Any] = []
  for one in operations(model):
    kind = _kind(one)
    if getattr(one, "weights", ()) and kind not in _ARITHMETIC:
      return result
    if kind not in _ARITHMETIC + _NOTHING:
      raise CheckpointError(
        f"the Keras model {model.name} has {one.name!r}, a {kind}, before its"
        " first convolution: do that to the images, and give the model that"
        " stands behind it"
      )
    result.append(one)
  raise CheckpointError(f"the Keras model {model.name} has no weights")


def _applied(operation: Any, x):
  """A layer, or an operation with a number such as `x / 127.5`."""
  if _kind(operation) in _LAYERS:
    return operation(x)
  arguments = operation._inbound_nodes[-1].arguments
  given = [*arguments.args, *arguments.kwargs.values()]
  tensors = [one for one in given if hasattr(one, "_keras_history")]
  if len(tensors) != 1 or arguments.kwargs:
    raise CheckpointError(
      f"{operation.name!r} of the Keras model joins several inputs: give a"
      " model of one image"
    )
  return operation(*(x if one is tensors[0] else one for one in given))


def check_whitening(model: Any, wanted: augment.Augmentation):
  """Raises CheckpointError unless a model that whitens images itself does it as
  our network's will be."""
  found = whitening(model)
  if found is None:
    return
  ends = np.array([[[[0] * 3]], [[[255] * 3]]], np.uint8)
  one, two = (np.asarray(augment.normalise(ends, a)) for a in (found, wanted))
  if np.abs(one - two).max() <= _TOLERANCE:
    return
  raise CheckpointError(
    f"the Keras model {model.name} whitens pixels by mean {_said(found.mean)}"
    f" and std {_said(found.std)}, and ours would be whitened by"
    f" {_said(wanted.mean)} and {_said(wanted.std)}: pass"
    " augmentation=nasnet_jax.export.keras.augmentation(model) here and to"
    " results.save"
  )


def _said(numbers) -> str:
  return f"({', '.join(f'{n:.4g}' for n in numbers)})"
