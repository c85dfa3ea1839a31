"""How long this process has compiled, and how long it took here last time.

Estimates of what is to come leave that time out, and who waits for it is told
how long it may take.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from nasnet_jax.training import live
from nasnet_jax.training.live import duration

_log = logging.getLogger(__name__)
_EVENTS = "/jax/core/compile/"  # tracing, lowering and XLA's work
_FILE = "compile_seconds.json"  # beside JAX's compiled programs
_KEPT = 200  # entries of that file
_SHORT = 5.0  # seconds; less is reading, or not worth a word


class Intervals:
  """Seconds covered by intervals that may overlap, as threads and nested calls
  report them, each when it ends."""

  def __init__(self):
    self._lock = threading.Lock()
    self._parts: list[tuple[float, float]] = []
    self._before = 0.0  # of parts that are left out of the list

  def add(self, start: float, end: float):
    with self._lock:
      while self._parts and self._parts[-1][1] >= start:
        first, last = self._parts.pop()
        start, end = min(start, first), max(end, last)
      self._parts.append((start, end))
      if len(self._parts) > 1000:  # the oldest will not be joined any more
        first, last = self._parts.pop(0)
        self._before += last - first

  def seconds(self, since: float | None = None) -> float:
    """In all, or after a moment of the recent past."""
    with self._lock:
      if since is None:
        return self._before + sum(end - start for start, end in self._parts)
      return sum(
        max(0.0, end - max(start, since)) for start, end in self._parts
      )


_spent = Intervals()


def _note(event: str, duration: float, **_):
  if event.startswith(_EVENTS):
    now = time.monotonic()
    _spent.add(now - duration, now)


jax.monitoring.register_event_duration_secs_listener(_note)


def seconds(since: float | None = None) -> float:
  """Of this process so far, or after a moment of `time.monotonic`."""
  return _spent.seconds(since)


@contextlib.contextmanager
def compiling(what: str, about: Any) -> Iterator[None]:
  """Says that something is compiled, and about how long that takes here.

  Args:
    what: in words.
    about: whatever it is made from; its repr names it.
  """
  start = time.monotonic()
  begin(what, about)
  yield
  end = time.monotonic()
  _spent.add(start, end)
  done(end - start, about)


def begin(what: str, about: Any, say: bool = True):
  """The first half of `compiling`, for what ends elsewhere.

  Args:
    say: False: on the live line only.
  """
  known = expected(about)
  words = f", about {duration(known)} here" if known else ""
  if say:
    _log.info("compiling %s%s", what, words)
  live.show(f"compiling {what}", expected=known)


def done(spent: float, about: Any, say: bool = True):
  """The second half: after so many seconds."""
  live.hide()
  if say:
    _log.info("compiled, or read from the cache, in %.0f s", spent)
  if spent > _SHORT:
    _remember(about, spent)


def expected(about: Any) -> float | None:
  """Seconds that it took here when it was last compiled, if that is known."""
  known = _read().get(_key(about))
  return float(known) if isinstance(known, int | float) else None


def _remember(about: Any, spent: float):
  known = _read()
  known.pop(_key(about), None)
  known[_key(about)] = round(spent, 1)
  path = _path()
  if path is None:
    return
  part = path.with_name(f"{path.name}.{os.getpid()}")
  with contextlib.suppress(OSError):  # a folder that can only be read
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(dict(list(known.items())[-_KEPT:])))
    os.replace(part, path)


def _read() -> dict[str, Any]:
  path = _path()
  try:
    found = json.loads(path.read_text()) if path else {}
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def _path() -> pathlib.Path | None:
  folder = jax.config.jax_compilation_cache_dir
  if not folder or "://" in folder:
    return None
  return pathlib.Path(folder) / _FILE


def _key(about: Any) -> str:
  device = jax.devices()[0].device_kind
  text = repr((about, device, jax.device_count(), os.cpu_count()))
  return hashlib.sha256(text.encode()).hexdigest()[:16]
