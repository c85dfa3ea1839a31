"""The scripts of `benchmarks/` as modules."""

import importlib.util
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))  # as of a script that is started there


@pytest.fixture(scope="session")
def script():
  """script(name) -> the module."""

  def load(name):
    path = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

  return load
