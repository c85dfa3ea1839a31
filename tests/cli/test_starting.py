"""The first sign of life."""

import pytest

from nasnet_jax.cli import starting


@pytest.fixture
def terminal(monkeypatch, capsys):  # which puts its own stream there
  monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
  monkeypatch.delenv("NASNET_JAX_STARTING", raising=False)


def test_a_terminal_is_told_once_though_two_programs_start(terminal, capsys):
  starting.say(["--workdir=x"])
  starting.hand_over()
  starting.say(["--workdir=x"])
  assert capsys.readouterr().err == "nasnet-jax: starting\n"
  starting.say([])  # a later one starts anew
  assert capsys.readouterr().err == "nasnet-jax: starting\n"


@pytest.mark.parametrize("words", [["--show"], ["-h"]])
def test_what_answers_at_once_says_nothing_before(terminal, capsys, words):
  starting.say(words)
  assert capsys.readouterr().err == ""


def test_a_file_is_told_nothing(capsys):
  starting.say([])
  assert capsys.readouterr().err == ""
