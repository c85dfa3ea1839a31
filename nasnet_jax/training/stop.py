"""Ctrl-C and SIGTERM ask for a stop; the job stops where it is safe.

A signal at one of many hosts stops all of them at the same place.
"""

import contextlib
import signal
import threading
import time

import numpy as np

from nasnet_jax.training import hosts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):  # no `except Exception` may swallow it
  """A stop that was asked for.

  Attributes:
    signum: the signal that asked.
    alone: whether other hosts do not know of it.
  """

  def __init__(self, signum: int, alone: bool = False):
    super().__init__(f"stopped by {signal.Signals(signum).name}")
    self.signum, self.alone = signum, alone

  @property
  def exit_code(self) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, as in shells."""
    return 128 + self.signum


_current: "StopRequest | None" = None
_nothing_lost = False

# Hosts ask each other about this often, and not at more calls than so many.
_SECONDS = 0.5
_MOST_CALLS = 64


class StopRequest:
  """Whether a stop was asked for, on any host."""

  def __init__(self):
    self.signum = 0
    self._about = None
    self._every = self._left = 1  # calls from one question to the next
    self._asked = time.monotonic()

  def check(self, about: str = ""):
    """Raises Stopped if a stop was asked for, on all hosts at the same call.
    Call it wherever stopping loses little, on all hosts alike.

    Args:
      about: what is under way; calls of one kind take about the same time.
    """
    signum = self.signum if hosts.count() == 1 else self._ask(about)
    if signum:
      raise Stopped(signum)

  def _ask(self, about: str) -> int:
    """Any host's signal; 0 if none, or if it is not yet time to ask again."""
    if about != self._about:
      self._about, self._every, self._left = about, 1, 1
    self._left -= 1
    if self._left:
      return 0
    now = time.monotonic()
    each = (now - self._asked) / self._every
    wanted = min(_MOST_CALLS, 2 * self._every, int(_SECONDS / max(each, 1e-6)))
    found = hosts.gather(np.array([self.signum, max(1, wanted)], np.int32))
    self._every = self._left = int(found[0, 1])
    self._asked = time.monotonic()
    return int(found[:, 0].max())


@contextlib.contextmanager
def on_signals():
  """`with on_signals() as request:` turns the signals into a request.

  The second signal does not wait for the next safe moment, nor does the first
  one inside of `losing_nothing`. Outside the main thread, where Python sets no
  handlers, the request never comes.
  """
  global _current
  request = StopRequest()

  def handle(signum, frame):
    del frame
    if request.signum or (_nothing_lost and hosts.count() == 1):
      raise Stopped(signum, alone=True)
    request.signum = signum

  if threading.current_thread() is not threading.main_thread():
    yield request
    return
  before = {s: signal.signal(s, handle) for s in SIGNALS}
  outer, _current = _current, request
  try:
    yield request
  finally:
    _current = outer
    for signum, handler in before.items():
      signal.signal(signum, handler)


@contextlib.contextmanager
def losing_nothing():
  """In here a signal stops one host at once: what is under way, such as a
  compilation, can be begun again. Of many hosts the others would wait.

  Raises:
    Stopped: also for a request that has not been met yet.
  """
  global _nothing_lost
  if _current and _current.signum and hosts.count() == 1:
    raise Stopped(_current.signum, alone=True)
  before, _nothing_lost = _nothing_lost, True
  try:
    yield
  finally:
    _nothing_lost = before
