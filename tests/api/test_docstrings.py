"""The examples in docstrings, run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["checks", "models", "parts", "study"])
def test_examples_of_docstrings_are_true(name):
  module = importlib.import_module(f"nasnet_jax.api.{name}")
  found = doctest.testmod(module)
  assert found.attempted
  assert not found.failed
