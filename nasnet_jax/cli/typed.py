"""What somebody typed to start a program."""

import os
import shlex
import sys

_VARIABLE = "NASNET_JAX_TYPED"


def tell(words: list[str]):
  """Tells the program that takes over what was typed in its place."""
  os.environ[_VARIABLE] = shlex.join(words)


def line() -> str:
  """The command with which this program was started: of `nasnet-jax`, or of
  Python. What it starts in turn was typed by nobody."""
  return os.environ.pop(_VARIABLE, "") or shlex.join(["python", *sys.argv])
