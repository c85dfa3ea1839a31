"""Ctrl-C and SIGTERM ask for a stop; the job stops where it is safe."""

import contextlib
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):  # no `except Exception` may swallow it
  """A stop that was asked for.

  Attributes:
    signum: the signal that asked.
  """

  def __init__(self, signum: int):
    super().__init__(f"stopped by {signal.Signals(signum).name}")
    self.signum = signum

  @property
  def exit_code(self) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, as shells have it."""
    return 128 + self.signum


class StopRequest:
  """Whether a stop was asked for."""

  def __init__(self):
    self.signum = 0

  def check(self):
    """Raises Stopped if one was. Call it wherever stopping loses little."""
    if self.signum:
      raise Stopped(self.signum)


@contextlib.contextmanager
def on_signals():
  """`with on_signals() as request:` turns the signals into a request.

  The second signal does not wait for the next safe moment. Outside the main
  thread, where Python sets no handlers, the request never comes.
  """
  request = StopRequest()

  def handle(signum, frame):
    del frame
    if request.signum:
      raise Stopped(signum)
    request.signum = signum

  if threading.current_thread() is not threading.main_thread():
    yield request
    return
  before = {s: signal.signal(s, handle) for s in SIGNALS}
  try:
    yield request
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)
