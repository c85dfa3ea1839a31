"""Reads the tensors of an old PyTorch file (.pth) without PyTorch.

The form of before version 1.6: five pickles, then the raw numbers. Newer ones
are zip files, which PyTorch itself reads: `torch.load(path)`.
"""

import collections
import pathlib
import pickle
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.training.checkpoint import CheckpointError

_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
_TYPES = {
  "FloatStorage": np.dtype("<f4"),
  "DoubleStorage": np.dtype("<f8"),
  "HalfStorage": np.dtype("<f2"),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
}


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
    if module == "torch" and name in _TYPES:
      return _TYPES[name]
    raise CheckpointError(f"the file has a {module}.{name}, which is no tensor")

  def persistent_load(self, pid) -> str:
    _, dtype, key, *_ = pid
    self.types[key] = dtype
    return key


def read(path) -> dict[str, np.ndarray]:
  """The state dict of a file, as NumPy arrays.

  Raises:
    CheckpointError: if it is another kind of file, cut short, or has something
      other than tensors in it.
  """
  path = pathlib.Path(path)
  with path.open("rb") as file:
    try:
      if _Unpickler(file).load() != _MAGIC:
        raise CheckpointError(f"{path} is no old PyTorch file")
      for _ in range(2):  # version and sizes of C's types
        _Unpickler(file).load()
      reader = _Unpickler(file)
      state = reader.load()
      storages = _storages(file, _Unpickler(file).load(), reader.types)
      return {name: _view(storages, t) for name, t in state.items()}
    except (
      pickle.UnpicklingError,
      EOFError,
      ValueError,
      KeyError,
      AttributeError,
    ) as error:
      raise CheckpointError(
        f"{path} is no old PyTorch file, or is damaged: {error}"
      ) from None


def _storages(file, keys, types) -> dict[str, np.ndarray]:
  """In the order of the file: how many numbers, then the numbers."""
  result = {}
  for key in keys:
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
