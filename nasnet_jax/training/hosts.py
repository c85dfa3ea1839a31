"""Many hosts, one run: who they are and what they agree on.

A host is a process of its own, with its own devices. All run the same program
and all compute; the first alone writes text, all take part in checkpoints.
Whatever decides what comes next (a stop, a signal, a reward) is the same on
all: it is computed from the same files and answers, or told by `gather`.

Without `start` there is one host, and nothing here does anything. All hosts
must call the functions that wait (`gather` and what is built on it) in the
same order.
"""

import contextlib
import hashlib
import os
from typing import Any

import numpy as np

# How long a process that ends regularly waits for the others to end.
_SHUTDOWN_SECONDS = 10


class HostsError(RuntimeError):
  """Hosts that cannot go on together; the message is one line."""


class _Hosts:
  count, index = 1, 0


def start(coordinator: str = "", count: int = 1, index: int = 0, timeout=60):
  """Joins the other hosts. Call it before JAX is first used.

  Args:
    coordinator: "": this host is alone; "auto": whatever JAX finds out by
      itself (a TPU slice, Slurm, MPI); else HOST:PORT of the first host.
    count, index: hosts in all, and which of them this is; of HOST:PORT only.
    timeout: seconds after which the others give up a host that is silent:
      they end, so that the same command can go on.

  Raises:
    ValueError: in one line, for numbers that make no run, or if "auto" finds
      nothing.
  """
  if not coordinator:
    if count != 1:
      raise ValueError(
        f"hosts.count is {count} and hosts.coordinator is empty: give HOST:PORT"
        ' of the first host, or "auto"'
      )
    return
  import jax

  arguments = {
    "heartbeat_timeout_seconds": int(timeout),
    "shutdown_timeout_seconds": _SHUTDOWN_SECONDS,
  }
  if coordinator != "auto":
    if ":" not in coordinator or not 0 <= index < count:
      raise ValueError(
        f"hosts.coordinator is {coordinator!r}, hosts.index {index} and"
        f" hosts.count {count}: give HOST:PORT, and an index below the count"
      )
    arguments |= {
      "coordinator_address": coordinator,
      "num_processes": count,
      "process_id": index,
      "cluster_detection_method": "deactivate",
    }
  try:
    jax.distributed.initialize(**arguments)
  except ValueError as error:
    raise ValueError(
      "hosts.coordinator is 'auto', and nothing here says who the other hosts"
      f" are ({error}): give HOST:PORT, hosts.count and hosts.index"
    ) from error
  _Hosts.count, _Hosts.index = jax.process_count(), jax.process_index()


def count() -> int:
  """How many hosts there are."""
  return _Hosts.count


def index() -> int:
  """The number of this host."""
  return _Hosts.index


def is_first() -> bool:
  """Whether this is the first host, which writes text."""
  return _Hosts.index == 0


def gather(value) -> np.ndarray:
  """[hosts, ...], everyone's value, of one shape everywhere; waits for all.

  Args:
    value: bools, or numbers of 32 bits or less.

  Raises:
    HostsError: if one of them is gone.
  """
  value = np.asarray(value)
  if count() == 1:
    return value[None]
  from jax.experimental import multihost_utils

  with _noticing_losses():
    return np.asarray(multihost_utils.process_allgather(value))


def fetch(array) -> np.ndarray:
  """The whole of an array that lies over all hosts; waits for them.

  Raises:
    HostsError: if one of them is gone.
  """
  if count() == 1 or getattr(array, "is_fully_replicated", True):
    return np.asarray(array)
  from jax.experimental import multihost_utils

  with _noticing_losses():
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@contextlib.contextmanager
def _noticing_losses():
  import jax

  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    first = str(error).partition("\n")[0][:100]
    raise HostsError(f"another host is gone ({first})") from error


def of_first(value):
  """The first host's number or bool, for all."""
  return gather(value)[0].item()


def wait():
  """Waits until all hosts are here."""
  gather(np.int32(0))


@contextlib.contextmanager
def after_first():
  """The first host goes through the block alone, then the others do."""
  if not is_first():
    wait()
  try:
    yield
  finally:
    if is_first():
      wait()


def agree(what: str, content: Any):
  """Stops a run whose hosts have come to differ; waits for all.

  Args:
    what: for the message: "the controller's state after round 3".
    content: bytes, or a pytree of arrays; compared by its digest.

  Raises:
    HostsError: on every host, naming those that differ from the first.
  """
  if count() == 1:
    return
  found = gather(np.frombuffer(digest(content), np.uint32))
  others = np.flatnonzero((found != found[0]).any(1)).tolist()
  if others:
    names = ", ".join(map(str, others))
    raise HostsError(
      f"hosts differ in {what}: {names} from host 0; all must run the same"
      " code, versions and kind of machine; the run stops before they part"
    )


def digest(content: Any) -> bytes:
  """SHA-256 of bytes, or of a pytree of arrays, their types and shapes."""
  if isinstance(content, bytes):
    return hashlib.sha256(content).digest()
  import jax

  result = hashlib.sha256()
  for leaf in jax.tree.leaves(content):
    array = np.asarray(leaf)
    result.update(f"{array.dtype}{array.shape}".encode())
    result.update(np.ascontiguousarray(array).tobytes())
  return result.digest()


def leave(code: int):
  """Ends this process at once if other hosts would wait for it in vain; they
  notice within the timeout. Without other hosts it does nothing."""
  if count() > 1:
    os._exit(code)
