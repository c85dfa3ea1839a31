"""The first sign of life."""

import io
import types

import pytest

from nasnet_jax.cli import starting


class _Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def stderr(monkeypatch):
  monkeypatch.delenv("NASNET_JAX_STARTING", raising=False)
  stream = _Terminal()
  monkeypatch.setattr(starting, "sys", types.SimpleNamespace(stderr=stream))
  return stream


def test_a_terminal_is_told_once_though_two_programs_start(stderr):
  starting.say(["--workdir=x"])
  starting.hand_over()
  starting.say(["--workdir=x"])
  assert stderr.getvalue() == "nasnet-jax: starting\n"
  starting.say([])  # a later one starts anew
  assert stderr.getvalue() == 2 * "nasnet-jax: starting\n"


@pytest.mark.parametrize("words", [["--show"], ["-h"]])
def test_what_answers_at_once_says_nothing_before(stderr, words):
  starting.say(words)
  assert stderr.getvalue() == ""


def test_a_file_is_told_nothing(stderr, monkeypatch):
  monkeypatch.setattr(stderr, "isatty", lambda: False)
  starting.say([])
  assert stderr.getvalue() == ""
