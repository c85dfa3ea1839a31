"""Stopping where it is safe."""

import os
import signal

import pytest

from nasnet_jax.training import stop


@pytest.mark.parametrize(
  ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_at_the_next_check(signum, code):
  with stop.on_signals() as request:
    request.check()
    os.kill(os.getpid(), signum)
    with pytest.raises(stop.Stopped) as caught:
      request.check()
  assert caught.value.exit_code == code


def test_a_second_signal_does_not_wait():
  with stop.on_signals(), pytest.raises(stop.Stopped):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
  before = signal.getsignal(signal.SIGTERM)
  with stop.on_signals():
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_no_except_exception_swallows_a_stop():
  assert not issubclass(stop.Stopped, Exception)
