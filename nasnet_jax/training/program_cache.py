"""Compiled programs, kept whole between processes.

JAX's own cache spares a second process XLA's work, but not the tracing before
it: for a program with every operation of a space that is the longer part. So
what was compiled is kept as it is, a file per program, named by the program's
text, the versions, the machine and JAX's settings. An index, named by what is
known before tracing (our source, and what the caller says), says which files
those are. After an edit that leaves the programs as they were, they are traced
again, once, and not compiled. All lies in the folder of JAX's cache, which must
be as trustworthy as the code; without one (JAX_COMPILATION_CACHE_DIR) nothing
is kept.

JAX's own cache does not serve these programs: XLA:CPU cannot write again what
it has read (it would load, and miss its functions when it runs), so a program
out of that cache would be traced in every process, for ever.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import pickle
import platform
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from nasnet_jax.training import stop

_log = logging.getLogger(__name__)
_KEEP = 128  # files of each kind in the folder; the least recently used go
_STANDARD = sys.stdlib_module_names - {"__main__"}
_PROGRAM, _INDEX = ".program", ".programs"
# Settings of JAX that change where and what it writes, not what it compiles.
_NO_MATTER = ("cache", "log", "dump", "traceback", "profiler", "debug")


def compile_all(
  functions: dict[str, Callable],
  arguments: Callable,
  devices: Sequence[jax.Device],
  about: Any,
) -> dict[str, jax.stages.Compiled]:
  """Each function compiled, or read from where an earlier process left it.

  Args:
    functions: jitted, by name; the largest first.
    arguments: () -> the arguments of each by name, arrays or their shapes;
      only called if there is something to compile.
    devices: the ones that the functions run on, in the order of their mesh.
    about: everything the functions were made from; its repr must say it all.

  Returns:
    compiled functions by name; other shapes than the arguments' are errors.
  """
  devices = list(devices)
  folder = _folder()
  if folder is None:
    return _compile_all(
      functions, arguments(), lambda lowered: lowered.compile()
    )
  numbers = [device.id for device in devices]
  own = _own_source()
  index = folder / (
    _digest(_source(), own, _surroundings(), sorted(functions), numbers, about)
    + _INDEX
  )
  # What a notebook defined is in no file: its programs go by their text alone.
  programs = None if own is None else _read_all(index, functions, devices)
  if programs is None:
    compile_one = functools.partial(_compile, folder, devices)
    with _without_jaxs_cache():
      made = _compile_all(functions, arguments(), compile_one)
    programs = {name: program for name, (program, _) in made.items()}
    names = {name: path.name for name, (_, path) in made.items()}
    if own is not None:
      _write(index, json.dumps(names).encode())
  return programs


def _compile_all(
  functions: dict[str, Callable],
  shapes: dict[str, tuple],
  compile_one: Callable,
) -> dict[str, Any]:
  """XLA leaves cores idle, and Python while XLA works: one program compiles
  while the next is traced."""
  with stop.losing_nothing(), _threads() as pool:
    futures = {
      name: pool.submit(compile_one, function.lower(*shapes[name]))
      for name, function in functions.items()
    }
    return {name: future.result() for name, future in futures.items()}


@contextlib.contextmanager
def _threads():
  """A pool of threads. An exception, such as a stop, does not wait for them:
  XLA may be busy for minutes."""
  pool = concurrent.futures.ThreadPoolExecutor()
  try:
    yield pool
  except BaseException:
    pool.shutdown(wait=False, cancel_futures=True)
    raise
  pool.shutdown()


def _compile(
  folder: pathlib.Path, devices: list[jax.Device], lowered: jax.stages.Lowered
) -> tuple[jax.stages.Compiled, pathlib.Path]:
  """The program, and the file that it was read from or written to."""
  numbers = [device.id for device in devices]
  trees = (lowered.args_info, lowered.out_tree)  # the text has none
  name = _digest(_surroundings(), numbers, trees, lowered.as_text())
  path = folder / f"{name}{_PROGRAM}"
  program = _read(path, devices)
  if program is None:
    program = lowered.compile()
    try:
      _write(path, pickle.dumps(serialize_executable.serialize(program)))
    except Exception as error:  # a runtime that cannot; of many kinds
      _log.warning(
        "a compiled program cannot be kept, and is compiled again at the next"
        " start: %s",
        error,
      )
  return program, path


@contextlib.contextmanager
def _without_jaxs_cache() -> Iterator[None]:
  name = "jax_enable_compilation_cache"
  before = jax.config.values[name]
  jax.config.update(name, False)
  compilation_cache.reset_cache()  # it asks for the setting only once
  try:
    yield
  finally:
    jax.config.update(name, before)
    compilation_cache.reset_cache()


def _folder() -> pathlib.Path | None:
  folder = jax.config.jax_compilation_cache_dir
  if not folder or "://" in folder:  # a bucket: JAX's own cache must do
    return None
  return pathlib.Path(folder)


def _digest(*parts: Any) -> str:
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def _surroundings() -> str:
  """All that decides what JAX makes of a program's text."""
  settings = {
    key: value
    for key, value in jax.config.values.items()
    if not any(word in key for word in _NO_MATTER)
  }
  client = jax.devices()[0].client
  return repr(
    (
      [m.__version__ for m in (jax, jaxlib, flax, optax, np)],
      platform.python_version(),
      platform.machine(),
      _cpu_features(),
      (client.platform, client.platform_version),
      [(d.id, d.device_kind) for d in jax.devices()],
      jax.process_index(),
      sorted(settings.items(), key=lambda item: item[0]),
      [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
    )
  )


@functools.cache
def _source() -> str:
  """Digest of every source file of this package."""
  digest = hashlib.sha256()
  root = pathlib.Path(__file__).parents[1]
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)}\n".encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()


_own: dict[str, Any] = {}  # parts of programs that are not in this package
# Packages whose versions count already, see `_surroundings`.
_KNOWN = {"jax", "jaxlib", "flax", "optax", "numpy", "nasnet_jax"}


def note(part: Any):
  """Programs from now on may hold this class or function of a user's."""
  _own[part.__qualname__] = part


def _own_source() -> str | None:
  """Digest of the files that users' parts are in and of those of theirs that
  these use; "" without such parts, None if one of them is in no file."""
  if not _own:
    return ""
  found = [files_of(part.__module__) for part in _own.values()]
  if None in found:
    return None
  return _digest(sorted({pair for files in found for pair in files}))


def files_of(module: str) -> list[tuple[str, str]] | None:
  """(module, digest of its file) of a user's module and of those that it uses;
  None if it is in no file."""
  files: dict[str, str] = {}
  return sorted(files.items()) if _add_files(module, files) else None


def _add_files(name: str, files: dict[str, str]) -> bool:
  """Notes a module's file and those of what stands in it; False if there is
  none. files: {module: digest of its file}."""
  if name in files or name.partition(".")[0] in _KNOWN | _STANDARD:
    return True
  module = sys.modules.get(name)
  path = getattr(module, "__file__", None)
  if path is None or not pathlib.Path(path).exists():
    return False
  files[name] = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  if "site-packages" in path:  # what it uses follows from its version
    return True
  for value in vars(module).values():
    used = getattr(value, "__module__", None)
    used = value.__name__ if isinstance(value, types.ModuleType) else used
    if isinstance(used, str) and used in sys.modules:
      _add_files(used, files)
  return True


@functools.cache
def _cpu_features() -> str:
  """A program for another processor would stop at its first instruction."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # not Linux
    return platform.processor()
  wanted = ("flags", "Features", "model name")
  return "\n".join(sorted({s for s in lines if s.startswith(wanted)}))


def _read_all(
  index: pathlib.Path, functions: dict[str, Callable], devices: list[jax.Device]
) -> dict[str, jax.stages.Compiled] | None:
  """The programs that an index names, or None if one of them is missing."""
  try:
    names = json.loads(_content(index))
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    _log.debug("compiling again: %s cannot be used (%s)", index, error)
    return None
  paths = [index.with_name(names[name]) for name in functions]
  with concurrent.futures.ThreadPoolExecutor() as pool:
    programs = list(pool.map(lambda path: _read(path, devices), paths))
  if any(program is None for program in programs):
    return None
  return dict(zip(functions, programs))


def _read(
  path: pathlib.Path, devices: list[jax.Device]
) -> jax.stages.Compiled | None:
  """The program of a file, or None if there is none that works."""
  try:
    return serialize_executable.deserialize_and_load(
      *pickle.loads(_content(path)), execution_devices=devices
    )
  except FileNotFoundError:
    return None
  except Exception as error:  # of many kinds: versions, disks, the runtime
    _log.debug("compiling again: %s cannot be used (%s)", path, error)
    return None


def _content(path: pathlib.Path) -> bytes:
  """What `_write` wrote; ValueError if it is damaged."""
  content = path.read_bytes()
  checksum, body = content[:32], content[32:]
  if hashlib.sha256(body).digest() != checksum:
    raise ValueError("its checksum differs")
  with contextlib.suppress(OSError):  # a folder that can only be read
    os.utime(path)
  return body


def _write(path: pathlib.Path, body: bytes):
  """Whole or not at all; a cache that cannot be written stops nobody."""
  half = path.with_suffix(f".{os.getpid()}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(hashlib.sha256(body).digest() + body)
    os.replace(half, path)
    kept = sorted(
      path.parent.glob(f"*{path.suffix}"), key=lambda p: p.stat().st_mtime
    )
    for old in kept[:-_KEEP]:
      old.unlink(missing_ok=True)
  except OSError as error:  # a full disk, a file in the folder's place
    _log.debug("%s is not kept: %s", path, error)
    with contextlib.suppress(OSError):
      half.unlink(missing_ok=True)
