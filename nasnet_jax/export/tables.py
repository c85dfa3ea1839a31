"""One network's weights under two naming schemes.

A table has a row per array: the path in our variables, the name in the other
scheme, and the shape there. Reading and writing are strict: what is missing,
unexpected or of another shape is listed.
"""

import functools
import logging
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax import zoo
from nasnet_jax.models import block_network, stacked, stacked_plan
from nasnet_jax.training import checkpoint

_log = logging.getLogger(__name__)

# PyTorch's names of our arrays.
TORCH_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
# DataParallel and AveragedModel, torch.compile, Lightning and its kin.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema.")
_OF_WRAPPERS = ("n_averaged",)  # AveragedModel's own
TORCH_COUNTER = "num_batches_tracked"  # of no use in evaluation
_DEPTHWISE = ("depthwise", "conv_dw")  # in names of PyTorch's layers


class Entry(NamedTuple):
  """One array in both schemes; the values stand in the same order.

  Attributes:
    path: in our variables, from the collection on.
    ours: its shape there.
    name: in the other scheme.
    shape: its shape there.
  """

  path: tuple[str, ...]
  ours: tuple[int, ...]
  name: str
  shape: tuple[int, ...]


def published(name: str, **fields) -> stacked.StackedNetwork:
  """A published network.

  Args:
    name: key of `zoo.cells.NETWORKS`.
    **fields: of NetworkConfig, in place of the published ones.
  """
  entry = zoo.cells.network(name)
  fields = {"num_classes": entry.num_classes, **entry.config, **fields}
  space, _ = zoo.cells.CELLS[entry.cells]
  cells = stacked.as_cells(space, zoo.cells.genotype(entry.cells))
  return stacked.StackedNetwork(stacked_plan.NetworkConfig(**fields), cells)


def published_blocks(name: str, **fields) -> block_network.BlockNetwork:
  """A published network of blocks.

  Args:
    name: key of `zoo.blocks.NETWORKS`.
    **fields: of BlockConfig, in place of the published ones.
  """
  entry = zoo.blocks.network(name)
  config = block_network.BlockConfig(**{**entry.config, **fields})
  literal = zoo.blocks.architecture(entry.architecture)
  return block_network.BlockNetwork(config, literal)


def is_efficientnet(network) -> bool:
  """Whether it is an EfficientNet or an EfficientNet-Lite, of any size."""
  literals = (zoo.blocks.EFFICIENTNET, zoo.blocks.EFFICIENTNET_LITE)
  return getattr(network, "architecture", None) in literals


@functools.lru_cache(maxsize=16)  # a network is traced for it, in seconds
def shapes_of(network, side: int = 64) -> dict[tuple[str, ...], tuple]:
  """{path: shape} of a network's variables, for RGB images.

  With those of the auxiliary head, if there is one; its second convolution
  has a kernel of the size that these images leave it.
  """
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  rngs = dict.fromkeys(("params", "dropout"), jax.random.key(0))
  variables = jax.eval_shape(
    lambda rngs, images: network.init(rngs, images, train=True), rngs, images
  )
  return {
    tuple(key.key for key in path): leaf.shape
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
  }


def own(network) -> list[Entry]:
  """Every array of a network under its path here, "params/stem/conv/kernel"."""
  return [
    Entry(path, shape, "/".join(path), shape)
    for path, shape in shapes_of(network).items()
  ]


def four_axes(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
  """A kernel's shape where 1x1 kernels are [1, 1, C, F] and depthwise ones
  [k, k, C, 1]; the classifier's stays [C, F]."""
  if path[-1] != "kernel" or path[-2] == "classifier":
    return shape
  return (1, 1, *shape) if len(shape) == 2 else (*shape, 1)[:4]


def is_dense(path: tuple[str, ...]) -> bool:
  """Whether an array is of a dense layer; a kernel [C, F] that is not is of a
  1x1 convolution."""
  flat = path[-3:-1] == ("aux_head", "conv_1")  # over the whole map
  return path[-2] == "classifier" or "squeeze_excite" in path or flat


def _is_depthwise(name: str) -> bool:
  return any(part in name for part in _DEPTHWISE)


def state_dict(
  state: dict[str, Any], depthwise: Collection[str] = ()
) -> dict[str, np.ndarray]:
  """PyTorch's arrays by their names there, with axes as ours, for `read`.

  Args:
    depthwise: names of depthwise kernels, where names do not say so.
  """
  return {
    name: from_torch(name, np.asarray(array), name in depthwise)
    for name, array in unwrapped(state).items()
    if not name.endswith(TORCH_COUNTER)
  }


def unwrapped(state: dict[str, Any]) -> dict[str, Any]:
  """Arrays by the names of the model itself, where all have those of what it
  was inside of in training, which is told."""
  while True:
    left = {k: v for k, v in state.items() if k not in _OF_WRAPPERS}
    found = [w for w in _WRAPPERS if all(k.startswith(w) for k in left)]
    if not left or not found:
      return state
    _log.info("names begin with %r: it is left out", found[0])
    state = {name.removeprefix(found[0]): v for name, v in left.items()}


def from_torch(
  name: str, array: np.ndarray, depthwise: bool = False
) -> np.ndarray:
  """[out, in, k, k] -> [k, k, in, out]; depthwise, by the name or by the flag,
  [C, 1, k, k] -> [k, k, C, 1]; [out, in] -> [in, out]."""
  if array.ndim == 4:
    depthwise = depthwise or _is_depthwise(name)
    return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
  return array.T


def to_torch(
  name: str, array: np.ndarray, depthwise: bool = False
) -> np.ndarray:
  """The inverse of `from_torch`."""
  if array.ndim == 4:
    depthwise = depthwise or _is_depthwise(name)
    order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    return np.ascontiguousarray(array.transpose(order))
  return np.ascontiguousarray(array.T)


def read(table: list[Entry], found: dict[str, Any], source: str) -> dict:
  """Our variables from another scheme's arrays.

  Args:
    found: name -> array.
    source: where they come from, for messages.

  Raises:
    CheckpointError: one line, listing names that do not fit.
  """
  wanted = {e.name: jax.ShapeDtypeStruct(e.shape, jnp.float32) for e in table}
  checkpoint.compare(source, found, wanted)
  variables: dict = {}
  for entry in table:
    node = variables
    for key in entry.path[:-1]:
      node = node.setdefault(key, {})
    array = np.asarray(found[entry.name], np.float32)
    node[entry.path[-1]] = array.reshape(entry.ours)
  return variables


def write(
  table: list[Entry], variables: dict, source: str
) -> dict[str, np.ndarray]:
  """Another scheme's arrays from our variables.

  Raises:
    CheckpointError: one line, listing names that do not fit.
  """
  have = {
    "/".join(key.key for key in path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
  }
  wanted = {
    "/".join(e.path): jax.ShapeDtypeStruct(e.ours, jnp.float32) for e in table
  }
  checkpoint.compare(source, have, wanted)
  return {
    e.name: np.asarray(have["/".join(e.path)], np.float32).reshape(e.shape)
    for e in table
  }
