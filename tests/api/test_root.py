"""The root package: names that come when they are asked for."""

import subprocess
import sys

import pytest

import nasnet_jax as nas

_HEAVY = ("jax", "flax", "numpy", "nasnet_jax.search", "nasnet_jax.report")


def _python(code: str) -> str:
  return subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  ).stdout


def test_the_import_brings_nothing_else_in():
  code = f"import sys, nasnet_jax; print(sys.modules.keys() & {{*{_HEAVY!r}}})"
  assert _python(code).strip() == "set()"


@pytest.mark.parametrize("name", sorted(nas._CALLED))
def test_a_package_of_a_functions_name_is_both(name):
  package = getattr(nas, name)
  assert callable(package)
  assert package.__name__ == f"nasnet_jax.{name}"


def test_packages_stay_importable_and_callable_in_any_order():
  code = (
    "import nasnet_jax.export.tables, nasnet_jax as nas;"
    "from nasnet_jax import export, spaces;"
    "from nasnet_jax.export import card;"
    "assert nas.export is export and callable(export);"
    "print(export.tables.__name__)"
  )
  assert _python(code).strip() == "nasnet_jax.export.tables"


def test_an_unknown_name_is_said_to_be_one():
  with pytest.raises(AttributeError, match="no attribute 'serch'"):
    nas.serch  # noqa: B018
