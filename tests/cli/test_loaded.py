"""A notebook that loaded packages before it installed newer ones."""

import sys
import types

import pytest

from nasnet_jax.cli import loaded


def test_nothing_is_said_where_what_is_loaded_is_what_is_installed():
  import numpy  # noqa: F401

  assert loaded.stale() == []
  loaded.check()


def test_an_older_module_asks_for_a_new_runtime(monkeypatch):
  old = types.ModuleType("PIL")
  old.__version__ = "9.4.0"
  monkeypatch.setitem(sys.modules, "PIL", old)
  with pytest.raises(
    RuntimeError, match=r"^restart the runtime.*pillow 9\.4\.0"
  ):
    loaded.check()
