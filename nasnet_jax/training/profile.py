"""What the devices do: a trace of a few calls, their memory, compilations."""

import jax

from nasnet_jax.data import paths

KINDS = ("", "steps")
_FIRST, _CALLS = 3, 3  # calls before the trace, which compile; calls in it

_COMPILED = "/jax/core/compile/backend_compile_duration"
_compilations = 0


def _note(event: str, duration: float, **_):
  global _compilations
  del duration
  _compilations += event == _COMPILED


jax.monitoring.register_event_duration_secs_listener(_note)


def numbers() -> dict[str, float | None]:
  """For metrics: `compilations` of this process so far (programs read from a
  cache are among them), and `hbm_bytes`, the most that one local device ever
  held; None where the backend does not say (CPU)."""
  found = [device.memory_stats() or {} for device in jax.local_devices()]
  most = [stats.get("peak_bytes_in_use") for stats in found]
  held = max((m for m in most if m is not None), default=None)
  return {"compilations": _compilations, "hbm_bytes": held}


class StepTrace:
  """Writes a trace of a few device calls, once; a context manager.

  Reading it: docs/pods.md.
  """

  def __init__(self, folder=None, kind: str = "steps"):
    """folder: where the trace goes; kind: one of KINDS; "" writes none.

    Raises:
      ValueError: for another kind.
    """
    if kind not in KINDS:
      raise ValueError(f"config.profile is {kind!r}: give 'steps', or nothing")
    wanted = folder is not None and kind
    self._folder = str(paths.local(folder)) if wanted else None
    self._calls = 0

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._folder and _FIRST <= self._calls < _FIRST + _CALLS:
      self._stop()

  def tick(self):
    """To be called after every device call."""
    if self._folder is None:
      return
    self._calls += 1
    if self._calls == _FIRST:
      jax.profiler.start_trace(self._folder)
    elif self._calls == _FIRST + _CALLS:
      self._stop()

  def _stop(self):
    self._folder = None
    jax.profiler.stop_trace()
