"""What has to be settled before JAX starts, for callers who know nothing of
it, and lines of a job that somebody can see."""

import contextlib
import logging
import sys

from nasnet_jax.training import mesh

_log = logging.getLogger(__name__)


def prepare():
  """Sets up the host as commands do, as far as JAX has not started yet; what
  comes too late is said."""
  import jax  # imported by what called this, and not started by that

  one = _started() and jax.default_backend() == "cpu"
  if one and jax.device_count() == 1 < mesh.cores():
    _log.warning(
      "JAX runs already, with one CPU device, so children train one after"
      " another: call nas.search before anything else uses JAX and each of"
      " the %d cores trains one",
      mesh.cores(),
    )
  mesh.prepare_host(1 if _started() else mesh.devices_for_children())


def _started() -> bool:
  bridge = sys.modules.get("jax._src.xla_bridge")
  return bridge is not None and bridge.backends_are_initialized()


@contextlib.contextmanager
def spoken():
  """What a job says is printed, unless the caller has set up logging."""
  ours = logging.getLogger("nasnet_jax")
  # A handler alone says nothing: libraries add one to the root in passing.
  if ours.hasHandlers() and ours.isEnabledFor(logging.INFO):
    yield
    return
  lines = logging.StreamHandler(sys.stdout)
  lines.setLevel(logging.INFO)
  before = ours.level, ours.propagate
  ours.addHandler(lines)
  ours.setLevel(logging.DEBUG)  # log.txt has more than is printed
  ours.propagate = False
  try:
    yield
  finally:
    ours.removeHandler(lines)
    ours.level, ours.propagate = before
