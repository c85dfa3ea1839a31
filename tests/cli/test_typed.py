"""What was typed, as the run's page says it."""

import sys

from nasnet_jax.cli import commands, typed


def test_a_run_knows_what_was_typed_and_its_folder(monkeypatch):
  monkeypatch.setattr(commands.os, "execv", lambda *_: None)
  monkeypatch.setattr(sys, "argv", ["launch/main.py", "--config=a b"])
  monkeypatch.delenv("NASNET_JAX_TYPED", raising=False)
  commands.main(["search", "--config=search_digits:tiny"])
  assert typed.line() == (
    "nasnet-jax search --config=search_digits:tiny"
    " --workdir=runs/search_digits_tiny"
  )
  # A program that this one starts was not typed.
  assert typed.line() == "python launch/main.py '--config=a b'"
  commands.main(["train", "--workdir=x", "--config=train_cifar:tiny"])
  assert typed.line() == (
    "nasnet-jax train --workdir=x --config=train_cifar:tiny"
  )
