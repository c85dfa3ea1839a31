"""The first sign of life on a terminal: JAX alone takes seconds to import."""

import os
import sys

_SAID = "NASNET_JAX_STARTING"  # by the process that this one takes over from
_QUICK = {"--show", "--help", "--helpfull", "--helpshort", "-h"}


def say(arguments: list[str]):
  """Says it once, and only to a person: a file or a pipe stays as it is."""
  said = os.environ.pop(_SAID, "")
  if said or _QUICK & set(arguments) or not sys.stderr.isatty():
    return
  print("nasnet-jax: starting", file=sys.stderr, flush=True)


def hand_over():
  """Tells the program that takes over this process that it was said."""
  os.environ[_SAID] = "1"
