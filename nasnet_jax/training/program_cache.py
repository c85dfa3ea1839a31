"""Compiled programs, kept whole between processes.

JAX's own cache spares a second process XLA's work, but not the tracing before
it: for a program with every operation of a space that is the longer part. So
what was compiled is kept as it is, under a name that changes with everything
it was made from: our source, the versions, the machine, JAX's settings and
what the caller says. They lie in the folder of JAX's cache, which must be as
trustworthy as the code; without one (JAX_COMPILATION_CACHE_DIR) nothing is
kept.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import pickle
import platform
import threading
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax
from jax.experimental import serialize_executable

_log = logging.getLogger(__name__)
_KEEP = 32  # programs in the folder; the least recently used go
_SUFFIX = ".program"
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
  numbers = [device.id for device in devices]
  path = _path(repr((sorted(functions), numbers, about)))
  programs = _read(path, devices) if path else None
  if programs is None:
    shapes = arguments()
    # XLA leaves cores idle, and Python while XLA works: one program compiles
    # while the next is traced.
    with concurrent.futures.ThreadPoolExecutor() as pool:
      futures = {
        name: pool.submit(_compile, function.lower(*shapes[name]))
        for name, function in functions.items()
      }
      results = {name: future.result() for name, future in futures.items()}
    programs = {name: program for name, (program, _) in results.items()}
    if path and not any(was_read for _, was_read in results.values()):
      _write(path, programs)
  return programs


_reads = threading.local()


def _note_reads(event: str, **_):
  if event == "/jax/compilation_cache/cache_hits":
    _reads.count = getattr(_reads, "count", 0) + 1


jax.monitoring.register_event_listener(_note_reads)


def _compile(lowered) -> tuple[jax.stages.Compiled, bool]:
  """(program, whether JAX had it in its own cache).

  XLA:CPU cannot serialise a program that it has read from a cache: it would
  load, and lack its functions when it runs.
  """
  _reads.count = 0
  return lowered.compile(), _reads.count > 0


def _path(about: str) -> pathlib.Path | None:
  folder = jax.config.jax_compilation_cache_dir
  if not folder or "://" in folder:  # in a bucket only JAX's own cache works
    return None
  name = hashlib.sha256(f"{_surroundings()}\n{about}".encode()).hexdigest()
  return pathlib.Path(folder) / f"{name}{_SUFFIX}"


def _surroundings() -> str:
  """All that decides what JAX compiles, except our arguments."""
  settings = {
    key: value
    for key, value in jax.config.values.items()
    if not any(word in key for word in _NO_MATTER)
  }
  client = jax.devices()[0].client
  return repr(
    (
      _source(),
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


@functools.cache
def _cpu_features() -> str:
  """A program for another processor would stop at its first instruction."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # not Linux
    return platform.processor()
  wanted = ("flags", "Features", "model name")
  return "\n".join(sorted({s for s in lines if s.startswith(wanted)}))


def _read(
  path: pathlib.Path, devices: list[jax.Device]
) -> dict[str, jax.stages.Compiled] | None:
  """The programs of a file, or None if there are none that work."""
  try:
    content = path.read_bytes()
    checksum, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != checksum:
      raise ValueError("its checksum differs")
    load = functools.partial(
      serialize_executable.deserialize_and_load, execution_devices=devices
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
      futures = {
        name: pool.submit(load, *parts)
        for name, parts in pickle.loads(body).items()
      }
      programs = {name: future.result() for name, future in futures.items()}
    os.utime(path)
    return programs
  except FileNotFoundError:
    return None
  except Exception as error:  # of many kinds: versions, disks, the runtime
    _log.debug("compiling again: %s cannot be used (%s)", path, error)
    return None


def _write(path: pathlib.Path, programs: dict[str, jax.stages.Compiled]):
  """Writes the programs, whole or not at all; a failure is not an error."""
  half = path.with_suffix(f".{os.getpid()}")
  try:
    body = pickle.dumps(
      {
        name: serialize_executable.serialize(program)
        for name, program in programs.items()
      }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(hashlib.sha256(body).digest() + body)
    os.replace(half, path)
    kept = sorted(
      path.parent.glob(f"*{_SUFFIX}"), key=lambda p: p.stat().st_mtime
    )
    for old in kept[:-_KEEP]:
      old.unlink(missing_ok=True)
  except Exception as error:  # a full disk; a runtime that cannot serialise
    _log.debug("the compiled program is not kept: %s", error)
    with contextlib.suppress(OSError):
      half.unlink(missing_ok=True)
