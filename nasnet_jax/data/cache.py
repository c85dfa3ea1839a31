"""Decoded images on disk, so that the second run starts at once."""

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nasnet_jax.data import paths

# Part of every key: raise it when decoding changes.
VERSION = 2

Arrays = dict[str, np.ndarray]


def cache_dir() -> Path:
  """Environment variable NASNET_JAX_CACHE, else ~/.cache/nasnet_jax."""
  chosen = os.environ.get("NASNET_JAX_CACHE")
  if chosen:
    return paths.local(chosen)
  return Path.home() / ".cache" / "nasnet_jax"


def place_of(address: str) -> Path:
  """Where copies of what lies at an address are kept, under its last name."""
  key = hashlib.sha256(address.encode()).hexdigest()[:12]
  return cache_dir() / "remote" / key / address.rpartition("/")[2]


def cached(key: dict, build: Callable[[], Arrays]) -> Arrays:
  """The arrays that `build` makes, or made at an earlier call.

  A file that is damaged is made anew; a cache that cannot be written is done
  without. Both are said in one line of the log.

  Args:
    key: everything the arrays depend on, as JSON can hold it.
    build: () -> {name: array without objects}.
  """
  text = json.dumps([VERSION, key], sort_keys=True)
  name = hashlib.sha256(text.encode()).hexdigest()[:24]
  path = cache_dir() / f"images-{name}.npz"
  arrays = _read(path)
  if arrays is None:
    arrays = build()
    _write(path, arrays)
  return arrays


def _read(path: Path) -> Arrays | None:
  if not path.exists():
    return None
  try:
    # An .npz is a zip, and reading a member checks its CRC-32.
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
    logging.warning("cache file %s is damaged (%s): made anew", path, error)
    return None


def _write(path: Path, arrays: Arrays):
  try:
    with atomic_file(path) as file:
      np.savez(file, **arrays)
  except OSError as error:
    logging.warning(
      "cannot cache decoded images in %s (%s): set NASNET_JAX_CACHE to a"
      " folder that can be written",
      path.parent,
      error.strerror or error,
    )


@contextlib.contextmanager
def atomic_file(path: Path):
  """`with atomic_file(path) as f`: path appears whole at the end, or not."""
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f"{path.name}.{os.getpid()}.part")
  try:
    with part.open("wb") as file:
      yield file
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
