"""NASNet-A and PNASNet-5 to and from checkpoints of TF-slim.

By names alone: a checkpoint is {name: NumPy array} here, so that TensorFlow is
needed to read one from disk (`read_checkpoint`) and to write one, and for
nothing else. `slim_names/` has every name and shape, with the line of slim that
makes it, and says what is known of the released checkpoints.
"""

import importlib.resources
import math
import pathlib
from typing import Any

import numpy as np

from nasnet_jax import zoo
from nasnet_jax.data import paths
from nasnet_jax.export import tables
from nasnet_jax.models import stacked, stacked_plan
from nasnet_jax.models.layers import IMAGENET, Numerics
from nasnet_jax.training.checkpoint import CheckpointError

# Networks that slim builds; each has its variables in `slim_names/`.
NAMES = (
  "nasnet_a_cifar",
  "nasnet_a_mobile",
  "nasnet_a_large",
  "pnasnet_5_mobile",
  "pnasnet_5_large",
)
AVERAGE = "/ExponentialMovingAverage"  # tf.train.ExponentialMovingAverage
STEP = "global_step"
# What the papers' optimisers, RMSProp and momentum, keep for each variable.
_SLOTS = ("/RMSProp", "/RMSProp_1", "/Momentum")
_NEVER = -1e9  # logit of a class that is never the answer; its softmax is 0

_NORM = {
  "scale": "gamma",
  "bias": "beta",
  "mean": "moving_mean",
  "var": "moving_variance",
}
# Layers of ours -> scopes of slim, see slim_names/README.md for the lines.
_PROJECT = {"conv": "1x1", "norm": "beginning_bn"}
_PREVIOUS = {"conv": "prev_1x1", "norm": "prev_bn"}
_SAME_SIDE = {"conv": "path_conv", "norm": "path_bn"}
_HALF_SIDE = {
  "conv_0": "path1_conv",
  "conv_1": "path2_conv",
  "norm": "final_path_bn",
}
_PLAIN = {"conv": "1x1", "norm": "bn_1"}
_AUXILIARY = {
  "conv_0": "proj",
  "norm_0": "aux_bn0",
  "conv_1": "Conv",
  "norm_1": "aux_bn1",
  "classifier": "FC",
}
_AUX_CHANNELS = 128  # of the map that aux_head/conv_1 flattens


def network(name: str, **changes) -> stacked.StackedNetwork:
  """Our network for weights of slim's, which it follows in every way.

  Args:
    name: one of NAMES.
    **changes: fields of NetworkConfig that differ.
  """
  if name not in NAMES:
    raise ValueError(f"slim has no {name!r}, only {', '.join(NAMES)}")
  imagenet = zoo.cells.network(name).config.get("stem") == "imagenet"
  numerics = IMAGENET if imagenet else Numerics()
  return tables.published(name, **{"numerics": numerics, **changes})


def from_slim(
  arrays: dict[str, Any],
  network: stacked.StackedNetwork,
  *,
  background: bool = False,
  averages: bool = True,
) -> dict[str, Any]:
  """Our variables with the arrays of a checkpoint.

  Those of optimisers are left out, and those of the auxiliary head if the
  network has none.

  Args:
    arrays: name -> array.
    background: whether class 0 of the checkpoint is a background, as in all
      that were released, which the network does not have.
    averages: whether the moving averages of the weights are read where the
      checkpoint has them, as the papers evaluate; else the weights. The same
      for batch norm's statistics, of which not every checkpoint has averages.

  Raises:
    CheckpointError: one line, listing names that do not fit, or saying which
      network or option does.
    ValueError: for a network that slim cannot build.
  """
  _check_cells(network)
  found = _own(arrays, network)
  _check_classes(found, network, background)
  rows = table(network, _window(found))
  if averages:
    rows = _averaged(rows, found)
  wanted = {_base(row.name): row.name for row in rows}
  found = {
    name: _without_background(name, array) if background else array
    for name, array in found.items()
    if wanted.get(_base(name), name) == name
  }
  try:
    return tables.read(rows, found, "of slim")
  except CheckpointError:
    _check_network(found, network)
    raise


def to_slim(
  variables: dict[str, Any],
  network: stacked.StackedNetwork,
  *,
  background: bool = False,
  step: int = 0,
) -> dict[str, np.ndarray]:
  """A checkpoint's arrays, which slim restores with and without averages.

  Args:
    background: whether the checkpoint gets a class before the network's, of
      probability 0.
    step: slim's global_step.

  Returns:
    name -> array: each variable, its moving average (the same), the step.

  Raises:
    CheckpointError: one line, listing what does not fit.
  """
  kernel = variables["params"].get("aux_head", {}).get("conv_1", {})
  window = 1
  if kernel:
    window = math.isqrt(kernel["kernel"].shape[0] // _AUX_CHANNELS)
  rows = table(network, window)
  arrays = tables.write(rows, variables, "the network")
  if background:
    arrays = {name: _with_background(name, a) for name, a in arrays.items()}
  averages = {name + AVERAGE: array for name, array in arrays.items()}
  return {**arrays, **averages, STEP: np.array(step, np.int64)}


def read_checkpoint(path) -> dict[str, np.ndarray]:
  """Every array of a TensorFlow checkpoint, by name; needs the extra `tf`.

  Args:
    path: as TensorFlow has it, without ".index": ".../model.ckpt".

  Raises:
    CheckpointError: one line, if it is not there or damaged.
  """
  path = str(paths.local(path)).removesuffix(".index")
  if not pathlib.Path(f"{path}.index").exists():
    raise CheckpointError(
      f"there is no checkpoint {path}: give the path of its .index file"
    )
  tf = _tensorflow()
  try:
    reader = tf.train.load_checkpoint(path)
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in sorted(names)}
  except (tf.errors.OpError, RuntimeError) as error:
    first = str(error).partition("\n")[0][:100]
    raise CheckpointError(f"checkpoint {path} is damaged ({first})") from error


def write_checkpoint(path, arrays: dict[str, Any]):
  """The inverse: path.index and path.data-00000-of-00001."""
  tf = _tensorflow()
  path = paths.local(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  tf.raw_ops.SaveV2(
    prefix=str(path),
    tensor_names=list(arrays),
    shape_and_slices=[""] * len(arrays),
    tensors=[tf.constant(array) for array in arrays.values()],
  )


def _tensorflow():
  try:
    import tensorflow
  except ImportError:
    raise CheckpointError(
      "checkpoints of TensorFlow need it: pip install 'nasnet_jax[tf]'"
    ) from None
  return tensorflow


def table(
  network: stacked.StackedNetwork, aux_window: int = 1
) -> list[tables.Entry]:
  """Every array of a network, with its name in slim.

  Args:
    aux_window: side of the map that the auxiliary head's second convolution
      covers, 4 for images of 224 pixels and 6 for 331.

  Raises:
    ValueError: for a network that slim cannot build.
  """
  _check_cells(network)
  rows = []
  for path, shape in tables.shapes_of(network).items():
    ours, theirs = shape, tables.four_axes(path, shape)
    if path[1:] == ("aux_head", "conv_1", "kernel"):
      theirs = (aux_window, aux_window, _AUX_CHANNELS, shape[-1])
      ours = (math.prod(theirs[:-1]), shape[-1])
    rows.append(tables.Entry(path, ours, _name(path[1:], network), theirs))
  return rows


def variables_of(name: str) -> dict[str, tuple[int, ...]]:
  """{variable: shape} of one of NAMES as slim trains it, from `slim_names/`."""
  folder = importlib.resources.files("nasnet_jax.export") / "slim_names"
  shapes = {}
  for line in (folder / f"{name}.txt").read_text().splitlines():
    variable, shape, _ = line.split()
    shapes[variable] = tuple(map(int, shape.split(",")))
  return shapes


def _name(path: tuple[str, ...], network: stacked.StackedNetwork) -> str:
  """slim's name of one of our arrays."""
  module, *inner, leaf = path
  imagenet = network.config.stem == "imagenet"
  if module == "classifier":
    return f"final_layer/FC/{_weight(inner, leaf)}"
  if module == "stem":
    scopes = (
      {"conv": "conv0", "norm": "conv0_bn"}
      if imagenet
      else {"conv": "l1_stem_3x3", "norm": "l1_stem_bn"}
    )
    return f"{scopes[inner[0]]}/{_weight(inner, leaf)}"
  if module == "aux_head":
    scope = f"{_aux_scope(network)}aux_logits/{_AUXILIARY[inner[0]]}"
    return f"{scope}/{_weight(inner, leaf)}"
  cell = module.replace("stem_cell", "cell_stem").replace(
    "reduction", "reduction_cell"
  )
  plan = {p.name: p for p in stacked_plan.plan(network.config)}[module]
  blocks, _ = network.cells[plan.kind % len(network.cells)]
  scope = _layer(inner, blocks, plan.stride)
  return f"{cell}/{scope}/{_weight(inner, leaf)}"


def _weight(inner: list[str], leaf: str) -> str:
  """A variable in the scope of its layer."""
  layer = inner[-1] if inner else "classifier"
  if layer.startswith("norm"):
    return _NORM[leaf]
  if layer.startswith(("depthwise", "pointwise")):
    return f"{layer.partition('_')[0]}_weights"
  return {"kernel": "weights", "bias": "biases"}[leaf]


def _layer(inner: list[str], blocks, stride: int) -> str:
  """A layer's scope in its cell."""
  part, *rest = inner
  if part == "project":
    return _PROJECT[rest[0]]
  if part == "fit_previous":
    return (_PREVIOUS if rest[0] == "project" else _HALF_SIDE)[rest[1]]
  if part.startswith("fit_state"):
    state = part.rpartition("_")[2]
    scopes = _SAME_SIDE if stride == 1 else _HALF_SIDE
    return f"cell_output/reduction_{state}/{scopes[rest[0]]}"
  _, block, side = part.split("_")
  scope = f"comb_iter_{block}/{('left', 'right')[int(side)]}"
  if rest[0] in _PLAIN:
    return f"{scope}/{_PLAIN[rest[0]]}"
  what, _, number = rest[0].rpartition("_")
  size = blocks[int(block)][2 + int(side)].rpartition("_")[2]  # "5x5"
  kind = "bn_sep" if what == "norm" else "separable"
  return f"{scope}/{kind}_{size}_{int(number) + 1}"


def _aux_scope(network: stacked.StackedNetwork) -> str:
  """Of the auxiliary head, which has the number of the cell it reads."""
  position = stacked_plan.aux_position(network.config)
  cell = stacked_plan.plan(network.config)[position].name
  return cell.replace("cell", "aux") + "/"


def _check_cells(network: stacked.StackedNetwork):
  config = network.config
  for name, layout in (("nasnet_a", "nasnet"), ("pnasnet_5", "pnas")):
    space, _ = zoo.cells.CELLS[name]
    cells = stacked.as_cells(space, zoo.cells.genotype(name))
    stems = ("imagenet", "cifar") if layout == "nasnet" else ("imagenet",)
    if (
      network.cells == cells
      and (config.layout, config.num_reductions) == (layout, 2)
      and config.stem in stems
    ):
      return
  raise ValueError(
    "slim has NASNet-A, and PNASNet-5 for ImageNet, with two reductions; make"
    " the network with export.slim.network"
  )


def _base(name: str) -> str:
  return name.removesuffix(AVERAGE)


def _own(arrays, network: stacked.StackedNetwork) -> dict[str, Any]:
  """A checkpoint without what belongs to no network of this kind."""
  aux = _aux_scope(network)
  return {
    name: array
    for name, array in arrays.items()
    if name != STEP
    and not name.endswith(_SLOTS)
    and (network.config.aux or not name.startswith(aux))
  }


def _averaged(rows: list[tables.Entry], found) -> list[tables.Entry]:
  """The rows with the names of averages, for kinds of which found has any.

  Weights are one kind, statistics the other. Among averages a lone weight
  without one is missing, and its last value does not stand in for it.
  """
  kinds = {row.path[0] for row in rows if row.name + AVERAGE in found}
  return [
    row._replace(name=row.name + AVERAGE) if row.path[0] in kinds else row
    for row in rows
  ]


def _window(found) -> int:
  """Side of the auxiliary head's map, from its convolution; 1 without one."""
  for name, array in found.items():
    if _base(name).endswith("aux_logits/Conv/weights"):
      return array.shape[0]
  return 1


def _is_classifier(name: str) -> bool:
  return _base(name).endswith(("/FC/weights", "/FC/biases"))


def _without_background(name: str, array):
  return array[..., 1:] if _is_classifier(name) else array


def _with_background(name: str, array: np.ndarray) -> np.ndarray:
  if not _is_classifier(name):
    return array
  value = _NEVER if array.ndim == 1 else 0.0
  first = np.full_like(array[..., :1], value)
  return np.concatenate([first, array], -1)


def _check_classes(found, network: stacked.StackedNetwork, background: bool):
  counts = {
    array.shape[-1]
    for name, array in found.items()
    if _base(name) == "final_layer/FC/biases"
  }
  ours = network.config.num_classes
  if len(counts) != 1 or counts == {ours + background}:
    return  # the listing of names says what is missing
  (count,) = counts
  if count in (ours, ours + 1):
    fix = f"pass background={not background}"
  else:
    fix = f"make the network with num_classes={count - background}"
  raise CheckpointError(
    f"the checkpoint tells {count} classes apart and the network {ours}: {fix}"
  )


def _check_network(found, network: stacked.StackedNetwork):
  """Raises CheckpointError if this is another one of NAMES."""
  shapes = {_base(name): array.shape for name, array in found.items()}
  for name in NAMES:
    wanted = {
      variable: shape
      for variable, shape in variables_of(name).items()
      if not variable.startswith("aux_") and not _is_classifier(variable)
    }
    if all(shapes.get(v) == shape for v, shape in wanted.items()):
      break
  else:
    return
  other = zoo.cells.network(name)
  config = network.config
  if all(getattr(config, k) == v for k, v in other.config.items()):
    return
  raise CheckpointError(
    f"the checkpoint is of {name}: make the network with"
    f" export.slim.network({name!r})"
  ) from None
