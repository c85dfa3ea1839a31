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


def test_what_loses_nothing_is_not_finished_first():
  with stop.on_signals() as request:
    with pytest.raises(stop.Stopped) as caught, stop.losing_nothing():
      os.kill(os.getpid(), signal.SIGINT)
      pytest.fail("went on")
    assert caught.value.alone
    request.check()  # it has been met


def test_a_stop_asked_for_before_is_met_before_what_loses_nothing():
  with stop.on_signals():
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(stop.Stopped), stop.losing_nothing():
      pytest.fail("went on")


def test_one_of_many_hosts_does_not_stop_alone(monkeypatch):
  monkeypatch.setattr(stop.hosts, "count", lambda: 2)
  with stop.on_signals() as request, stop.losing_nothing():
    os.kill(os.getpid(), signal.SIGINT)
    assert request.signum == signal.SIGINT


def test_handlers_are_put_back():
  before = signal.getsignal(signal.SIGTERM)
  with stop.on_signals():
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_no_except_exception_swallows_a_stop():
  assert not issubclass(stop.Stopped, Exception)
