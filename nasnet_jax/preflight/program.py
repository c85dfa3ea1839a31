"""Compiling a job's step for a TPU slice that one does not hold."""

import contextlib
import os
import re
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from nasnet_jax.preflight.plans import Step


class PreflightError(ValueError):
  """What cannot be planned; the message is one line that names the fix."""


def get_devices(topology: str) -> list:
  """The devices of a slice that one does not hold.

  Raises:
    PreflightError: without libtpu, or for a topology that libtpu does not know.
  """
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or it asks Google's cloud
  # Its lock is for those who use chips; several compilers may run at a time.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  try:
    import libtpu  # noqa: F401
  except ImportError as error:
    raise PreflightError(
      "the TPU compiler is not installed: pip install 'nasnet_jax[tpu]'"
    ) from error
  options = {}
  if topology.endswith(":1x1"):  # the library's hosts have more chips
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    with quiet():
      found = topologies.get_topology_desc(
        topology_name=topology, platform="tpu", **options
      )
  except Exception as error:
    text = str(error).splitlines()[0]
    raise PreflightError(f"no topology {topology!r}: {text}") from error
  return list(found.devices)


@contextlib.contextmanager
def quiet():
  """Hides what the TPU's library writes to stderr."""
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


class OutOfMemory(NamedTuple):
  """What the compiler says of a program that does not fit.

  Attributes:
    needed, limit: bytes of HBM per chip.
    text: its first line.
  """

  needed: float
  limit: float
  text: str


class Compiled(NamedTuple):
  """A compiled step, or why there is none.

  Attributes:
    program: None where memory did not suffice.
    out_of_memory: None where it did.
    lower_seconds, compile_seconds: how long that took on this machine.
  """

  program: jax.stages.Compiled | None
  out_of_memory: OutOfMemory | None
  lower_seconds: float
  compile_seconds: float


def lower(step: Step) -> tuple[Any, float]:
  """(what the compiler is given, seconds)."""
  start = time.perf_counter()
  with quiet():
    lowered = step.function.lower(*step.arguments)
  return lowered, time.perf_counter() - start


def compile_step(step: Step, *, brief: bool = False) -> Compiled:
  """Compiles for the step's topology; minutes for large programs.

  Args:
    brief: lets the compiler optimise as little as it can. For the CIFAR search
      that takes a third of the minutes; the estimated time is then 2.6 times
      as long, and the memory nearly the same (docs/pods.md).
  """
  lowered, lowering = lower(step)
  start = time.perf_counter()
  program = trouble = None
  # Of -1 to 1; 0 is the compiler's own choice.
  jax.config.update("jax_exec_time_optimization_effort", -1.0 * brief)
  try:
    with quiet():
      program = lowered.compile()
  except Exception as error:
    trouble = _out_of_memory(str(error))
    if trouble is None:
      raise
  return Compiled(program, trouble, lowering, time.perf_counter() - start)


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


# Each pass of the compiler has its own words for it.
_SIZE = r"([\d.]+)([KMGT]?)"


_REFUSALS = (
  rf"Used {_SIZE} of {_SIZE} hbm",
  rf"HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)",
)


def _out_of_memory(text: str) -> OutOfMemory | None:
  matches = (re.search(words, text) for words in _REFUSALS)
  found = next(filter(None, matches), None)
  if not found:
    return None
  used, unit, limit, limit_unit = found.groups()
  return OutOfMemory(
    float(used) * _UNITS[unit],
    float(limit) * _UNITS[limit_unit],
    text.splitlines()[0],
  )
