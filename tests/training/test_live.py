"""The line on a terminal that is written again in place."""

import io
import logging

import pytest

from nasnet_jax.cli import entry
from nasnet_jax.training import live


class _Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def terminal(monkeypatch):
  monkeypatch.setenv("TERM", "xterm")
  monkeypatch.setenv("COLUMNS", "40")
  monkeypatch.setattr(live, "_SECONDS", 1e-3)
  return _Terminal()


def _lines(stream) -> list[str]:
  """What a reader has seen on the live line, in order."""
  return [text for text in stream.getvalue().split(live._CLEAR) if text]


def test_the_line_is_written_again_and_taken_away(terminal):
  with live.to(terminal):
    live.show("round 1", left=120.0, then=", then more")
    live.show("a" * 60)
  seen = _lines(terminal)
  assert seen[0] == "round 1, 2.0 min to go, then more"
  assert seen[-1] in ("a" * 39, seen[0])  # cut to the terminal
  assert terminal.getvalue().endswith(live._CLEAR)


@pytest.mark.parametrize("kind", ["a file", "a dumb terminal"])
def test_nothing_is_written_where_a_line_cannot_be_taken_away(
  terminal, monkeypatch, kind
):
  monkeypatch.setenv("TERM", "dumb")
  stream = io.StringIO() if kind == "a file" else terminal
  with live.to(stream):
    live.show("round 1")
    with live.above():
      pass
  assert stream.getvalue() == ""


def test_other_lines_stand_above_it(terminal, monkeypatch):
  monkeypatch.setattr(live, "_SECONDS", 1e9)  # only what is said is written
  record = logging.LogRecord(
    "x", logging.INFO, "", 0, "round 1 is over", (), None
  )
  with live.to(terminal):
    live.show("round 2", left=5.0)
    entry._Lines(terminal).emit(record)
  before, after = terminal.getvalue().split("round 1 is over\n")
  assert before == f"{live._CLEAR}round 2, 5 s to go{live._CLEAR}"
  assert after.startswith(f"{live._CLEAR}round 2, 5 s to go")


def test_seconds_are_counted_down_and_compilation_up():
  content = live._Content("round 2", 100.0, None, 90.0, "")
  assert content.text(130.0) == "round 2, 60 s to go"
  assert content.text(300.0) == "round 2, 0 s to go"
  content = live._Content("compiling", 100.0, 60.0, None, "")
  assert content.text(112.0) == "compiling: 12 s of about 60 s"
  assert content._replace(expected=None).text(112.0) == "compiling: 12 s"
