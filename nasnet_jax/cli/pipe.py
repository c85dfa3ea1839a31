"""Output whose reader has gone, as that of `... | head`."""

import contextlib
import os
import select
import sys

_CODE = 141  # 128 + SIGPIPE, as of a program that the signal ended


@contextlib.contextmanager
def quiet():
  """Ends the process without a word where nobody reads its output any more."""
  try:
    try:
      yield
    finally:
      sys.stdout.flush()  # or the interpreter does at its end, and complains
  except BrokenPipeError:
    if not reader_gone():
      raise
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_CODE)


def reader_gone() -> bool:
  """Whether it is the standard output that is broken, not another pipe."""
  poll = select.poll()
  poll.register(sys.stdout.fileno(), select.POLLOUT)
  return any(event & select.POLLERR for _, event in poll.poll(0))
