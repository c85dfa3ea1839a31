"""Exported weights as a network of ours again, and as the folder of a run.

Of formats torch and safetensors, whose weights have our names. They may have
been trained further in between: what the network is stands in config.json
beside them, or in the file itself.
"""

import json
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from nasnet_jax.data import places
from nasnet_jax.export import tables, torch_file, torch_module
from nasnet_jax.jobs import results
from nasnet_jax.training import checkpoint, workdir
from nasnet_jax.training.checkpoint import CheckpointError

_CONFIG, _WEIGHTS, _METADATA = (
  "config.json",
  "weights.safetensors",
  "nasnet_jax",
)
_TORCH_FILES = (".pt", ".pth", ".bin")


class Imported(NamedTuple):
  """A network as it was exported, with the weights of the file.

  Attributes:
    network, variables: as in `results.Trained`.
    result: of the run that it was exported from.
  """

  network: nn.Module
  variables: dict[str, Any]
  result: dict[str, Any]


def is_export(path: pathlib.Path) -> bool:
  """Whether a folder, or a file of weights, says what its network is, as
  exports do."""
  if path.is_dir():
    return (path / _WEIGHTS).exists()
  beside = path.with_name(_CONFIG)
  if beside.exists() and "result" in workdir.read_json(beside):
    return True
  if path.suffix != ".safetensors":
    return False
  return read_safetensors(path)[1] is not None


def as_trained(path) -> results.Trained:
  """`read`, as a run's network would be."""
  found = read(path)
  result = _result(found.result, path)
  aug = results.augmentation_of(result)
  path = places.fetched(path)
  return results.Trained(found.network, found.variables, aug, result, path)


def read(path) -> Imported:
  """A network of an exported folder, or of a file of weights.

  Args:
    path: a folder of format torch or safetensors; a .safetensors file; or a
      state dict saved by `torch.save` (.pt, .pth, .bin), see `torch_file`.

  Raises:
    CheckpointError: one line: no such file, no config.json that says what the
      network is, or weights that are missing, unexpected or of another shape.
  """
  path = places.fetched(path)
  path = path / _WEIGHTS if path.is_dir() else path
  if not path.is_file():
    raise CheckpointError(
      f"{path} is not there: give an exported folder of format torch or"
      " safetensors, or a file of weights"
    )
  if path.suffix in _TORCH_FILES:
    arrays, inside = torch_file.read(path), None
  else:
    arrays, inside = read_safetensors(path)
  result = _described(path, inside)["result"]
  network = results.build(result)
  wanted = results.template_of(network, result["data"]["image_shape"])
  return Imported(network, _variables(path, arrays, wanted), result)


def read_safetensors(path) -> tuple[dict[str, np.ndarray], str | None]:
  """(arrays by name, what the file says of the network)."""
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, "numpy") as file:
      names = file.keys()
      arrays = {name: file.get_tensor(name) for name in names}
      return arrays, (file.metadata() or {}).get(_METADATA)
  except SafetensorError as error:
    raise CheckpointError(f"{path} is no safetensors file: {error}") from None


def _described(path: pathlib.Path, inside: str | None) -> dict[str, Any]:
  """config.json of a file of weights."""
  beside = path.with_name(_CONFIG)
  if inside is not None:
    return json.loads(inside)
  found = workdir.read_json(beside) if beside.exists() else None
  if isinstance(found, dict) and "result" in found:  # and not another's
    return found
  raise CheckpointError(
    f"{path} does not say what its network is: put the config.json of the"
    " exported folder beside it"
  )


def _variables(path, arrays, wanted) -> dict[str, Any]:
  """Our variables from arrays by our names or by PyTorch's."""
  leaves, order = jax.tree_util.tree_flatten_with_path(wanted)
  paths = [tuple(key.key for key in keys) for keys, _ in leaves]
  shapes = [leaf.shape for _, leaf in leaves]
  if any("/" in name for name in arrays):
    names = ["/".join(p) for p in paths]
    theirs = shapes
  else:
    ends = tables.TORCH_COUNTER
    arrays = tables.unwrapped(arrays)
    arrays = {k: a for k, a in arrays.items() if not k.endswith(ends)}
    names = [torch_module.name_of(p) for p in paths]
    theirs = [torch_module.shape_of(p[1:], s) for p, s in zip(paths, shapes)]
  expected = {
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in zip(names, theirs, strict=True)
  }
  checkpoint.compare(path, arrays, expected)
  if names and "/" not in names[0]:
    found = [
      torch_module.from_torch(p[1:], shape, arrays[name])
      for p, shape, name in zip(paths, shapes, names)
    ]
  else:
    found = [arrays[name] for name in names]
  found = [np.asarray(array, np.float32) for array in found]
  return jax.tree_util.tree_unflatten(order, found)


def to_run(path, run_dir) -> Imported:
  """Writes the folder of a run with these weights, which `results.load` reads
  and fine-tuning starts from.

  Raises:
    CheckpointError: as `read`.
    ValueError: if the folder has a run.
  """
  with places.sent(run_dir) as folder:
    if (folder / results.RESULT).exists():
      raise ValueError(f"{folder} has a run already: take another folder")
    found = read(path)
    checkpoint.write(folder / results.WEIGHTS, found.variables)
    workdir.write_json(folder / results.RESULT, _result(found.result, path))
  return found


# Of a result: what still holds when its weights were trained further.
_KEPT = ("version", "space", "space_options", "winner", "network")


def _result(result: dict[str, Any], path) -> dict[str, Any]:
  data = result["data"]
  loaded = data.get("load", data)
  kept = {k: data[k] for k in ("name", "classes", "image_shape")}
  center = loaded.get("stream", loaded).get("center")
  if center is not None:
    kept["center"] = center
  return {
    **{field: result[field] for field in _KEPT},
    "job": "import",
    "augmentation": result["augmentation"],
    "data": kept,
    "source": str(path),
  }
