"""Reads the tensors of a PyTorch file (.pth, .pt, .bin) without PyTorch.

Since version 1.6 it is a zip file: a pickle, and the raw numbers of each
storage as a file. Before it was five pickles, then the raw numbers.
"""

import collections
import logging
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nasnet_jax.data import places
from nasnet_jax.training.checkpoint import CheckpointError

_log = logging.getLogger(__name__)

_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
_TYPES = {
  "FloatStorage": np.dtype("<f4"),
  "DoubleStorage": np.dtype("<f8"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(jnp.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
_ZIP = b"PK\x03\x04"
# Where checkpoints of trainings keep the weights, beside other things.
_INSIDE = ("state_dict", "model_state_dict", "model")


class _Tensor(NamedTuple):
  """A view of a storage, whose numbers come later in the file."""

  key: str
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
  """Makes dicts, numbers and `_Tensor`s, and nothing else: a pickle from
  elsewhere could run anything."""

  def __init__(self, file):
    super().__init__(file)
    self.types: dict[str, np.dtype] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return lambda key, offset, shape, strides, *_: _Tensor(
        key, offset, shape, strides
      )
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return lambda tensor, *_: tensor
    if module == "torch" and name in _TYPES:
      return _TYPES[name]
    raise CheckpointError(
      f"it has a {module}.{name}, which is no tensor: save the"
      " state_dict() of the model, of float32"
    )

  def persistent_load(self, pid) -> str:
    _, dtype, key, *_ = pid
    self.types[key] = dtype
    return key


def read(path) -> dict[str, np.ndarray]:
  """The state dict of a file, as NumPy arrays.

  Of a checkpoint that has more in it, what stands under "state_dict",
  "model_state_dict" or "model", or the only one under any other name.

  Raises:
    CheckpointError: if it is another kind of file, cut short, or has something
      other than tensors in it.
  """
  path = places.fetched(path)
  try:
    with path.open("rb") as file:
      is_zip = file.read(len(_ZIP)) == _ZIP
      file.seek(0)
      state, storages = (_read_zip if is_zip else _read_old)(file)
    return {
      name: _view(storages, tensor)
      for name, tensor in _tensors(path, state).items()
    }
  except (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
  ) as error:
    if isinstance(error, CheckpointError):
      raise CheckpointError(f"{path}: {error}") from None
    raise CheckpointError(
      f"{path} is no PyTorch file, or is damaged: {error}"
    ) from None


def _read_zip(file) -> tuple[Any, dict[str, np.ndarray]]:
  """(what was saved, the numbers of its storages). The names in the zip begin
  with that of a folder, which may be any."""
  with zipfile.ZipFile(file) as archive:
    names = archive.namelist()
    (main,) = (n for n in names if n.endswith("/data.pkl"))
    top = main.removesuffix("data.pkl")
    order = f"{top}byteorder"
    if order in names and archive.read(order) != b"little":
      raise ValueError("its numbers are big-endian")
    with archive.open(main) as pickled:
      reader = _Unpickler(pickled)
      state = reader.load()
    return state, {
      key: np.frombuffer(archive.read(f"{top}data/{key}"), dtype)
      for key, dtype in reader.types.items()
    }


def _read_old(file) -> tuple[Any, dict[str, np.ndarray]]:
  if _Unpickler(file).load() != _MAGIC:
    raise ValueError("it does not begin as one")
  for _ in range(2):  # version and sizes of C's types
    _Unpickler(file).load()
  reader = _Unpickler(file)
  state = reader.load()
  return state, _storages(file, _Unpickler(file).load(), reader.types)


def _tensors(path, state: Any) -> dict[str, _Tensor]:
  """Those of a state dict, or of the one inside a checkpoint."""
  name = _inside(state) if isinstance(state, Mapping) else None
  if name is not None:
    rest = ", ".join(str(key) for key in state if key != name)
    _log.warning("%s: read %r, left out: %s", path, name, rest or "nothing")
    state = state[name]
  if not isinstance(state, Mapping):
    raise ValueError(f"it holds a {type(state).__name__} and no state dict")
  for name, value in state.items():
    if not isinstance(value, _Tensor):
      raise ValueError(f"{name!r} in it is no tensor")
  return dict(state)


def _inside(state: Mapping) -> str | None:
  """Under which name a checkpoint has the weights; None: it has no state dict
  in it.

  Raises:
    ValueError: if several may be meant.
  """
  for name in _INSIDE:
    if isinstance(state.get(name), Mapping):
      return name
  found = [name for name, value in state.items() if _is_state(value)]
  if len(found) > 1:
    raise ValueError(
      f"it has several state dicts ({', '.join(map(repr, found))}): save one"
    )
  return found[0] if found else None


def _is_state(value: Any) -> bool:
  if not isinstance(value, Mapping) or not value:
    return False
  return all(isinstance(one, _Tensor) for one in value.values())


def _storages(file, keys, types) -> dict[str, np.ndarray]:
  """In the order of the file: how many numbers, then the numbers."""
  result = {}
  for key in keys:
    if key not in types:  # of no tensor, so its size is not known
      break
    count = int.from_bytes(file.read(8), "little")
    content = file.read(count * types[key].itemsize)
    # A short read has too few bytes, which frombuffer refuses.
    result[key] = np.frombuffer(content, types[key], count)
  return result


def _view(storages, tensor: _Tensor) -> np.ndarray:
  numbers = storages[tensor.key][tensor.offset :]
  last = sum(
    (n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)
  )
  if last >= len(numbers):
    raise ValueError(f"a tensor of {tensor.shape} reaches beyond its numbers")
  strides = [s * numbers.itemsize for s in tensor.strides]
  view = np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides)
  return np.ascontiguousarray(view)
