"""One line on a terminal that says how far a job is, written again in place.

A program turns it on (`to`); elsewhere, in a file or a notebook, nothing of it
is seen. Other lines are written above it (`above`).
"""

import contextlib
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, TextIO

_SECONDS = 0.5  # from one writing to the next
_CLEAR = "\r\x1b[2K"


def duration(seconds: float) -> str:
  """ "42 s", "3.5 min" or "2.1 h"."""
  if seconds < 100:
    return f"{seconds:.0f} s"
  if seconds < 6000:
    return f"{seconds / 60:.1f} min"
  return f"{seconds / 3600:.1f} h"


class _Content(NamedTuple):
  """What the line says, and when that was true."""

  words: str
  since: float
  expected: float | None
  left: float | None
  then: str

  def text(self, now: float) -> str:
    passed = now - self.since
    if self.left is not None:
      left = duration(max(0.0, self.left - passed))
      return f"{self.words}, {left} to go{self.then}"
    if self.expected:
      return f"{self.words}: {passed:.0f} s of about {duration(self.expected)}"
    return f"{self.words}: {passed:.0f} s"


class _Line:
  """The line of a stream; None of it is there before the first `show`."""

  def __init__(self, stream: TextIO):
    self.lock = threading.RLock()
    self._stream, self._content = stream, None
    self._written = -math.inf
    self._thread = threading.Thread(target=self._keep_writing, daemon=True)
    self._thread.start()

  def set(self, content: _Content | None):
    with self.lock:
      self._content = content
      # It may be said at each of thousands of calls.
      if content is None or time.monotonic() - self._written > _SECONDS:
        self.write()

  def write(self):
    """The line as it is now."""
    self._written = time.monotonic()
    if self._content is None:
      self._put(_CLEAR)
      return
    width = shutil.get_terminal_size().columns - 1
    self._put(_CLEAR + self._content.text(time.monotonic())[:width])

  def clear(self):
    if self._content is not None:
      self._put(_CLEAR)

  def _put(self, text: str):
    with contextlib.suppress(OSError, ValueError):  # the terminal has gone
      self._stream.write(text)
      self._stream.flush()

  def _keep_writing(self):
    while True:
      time.sleep(_SECONDS)
      with self.lock:
        if self._content is not None:
          self.write()


_line: _Line | None = None


def is_terminal(stream) -> bool:
  """Whether a line can be written again there."""
  try:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
  except (AttributeError, ValueError):
    return False


@contextlib.contextmanager
def to(stream: TextIO = sys.stdout) -> Iterator[None]:
  """Turns the line on, if the stream is a terminal."""
  global _line
  if is_terminal(stream):
    _line = _Line(stream)
  try:
    yield
  finally:
    hide()
    _line = None


def show(
  words: str,
  *,
  expected: float | None = None,
  left: float | None = None,
  then: str = "",
):
  """What the line says from now on.

  Args:
    expected: seconds that this may take; those that have passed are shown.
    left: seconds to go, counted down.
    then: what comes after them.
  """
  if _line is not None:
    _line.set(_Content(words, time.monotonic(), expected, left, then))


def hide():
  if _line is not None:
    _line.set(None)


@contextlib.contextmanager
def above() -> Iterator[None]:
  """`with above():` writes whole lines; the live one then stands below them."""
  if _line is None:
    yield
    return
  line = _line
  with line.lock:
    line.clear()
    try:
      yield
    finally:
      line.write()
