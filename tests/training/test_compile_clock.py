"""What compiling takes, apart from the work that follows."""

import jax
import numpy as np
import pytest

from nasnet_jax.training import compile_clock


def test_overlapping_intervals_count_once():
  spent = compile_clock.Intervals()
  for start, end in ((0, 2), (1, 3), (5, 6), (4, 7), (10, 11)):
    spent.add(start, end)
  assert spent.seconds() == 3 + 3 + 1
  assert spent.seconds(since=5.5) == 1.5 + 1


def test_jax_reports_what_it_compiles_and_not_what_it_runs():
  fresh = jax.jit(lambda x: x * 2.71828 + 3.14159)
  before = compile_clock.seconds()
  fresh(np.ones(5))
  compiled = compile_clock.seconds()
  assert compiled > before
  fresh(np.ones(5))
  assert compile_clock.seconds() == compiled


@pytest.fixture
def cache(tmp_path, monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  yield tmp_path
  jax.config.update("jax_compilation_cache_dir", before)


def test_the_next_time_is_told_how_long_the_last_one_took(cache, caplog):
  caplog.set_level("INFO", "nasnet_jax")
  compile_clock.begin("the step", ("a network", 32))
  compile_clock.done(61.0, ("a network", 32))
  compile_clock.done(1.0, ("a network", 32))  # read, and not compiled
  compile_clock.begin("the step", ("a network", 32))
  compile_clock.begin("the step", ("another", 32))
  assert [record.getMessage() for record in caplog.records] == [
    "compiling the step",
    "compiled, or read from the cache, in 61 s",
    "compiled, or read from the cache, in 1 s",
    "compiling the step, about 61 s here",
    "compiling the step",
  ]


def test_a_damaged_memory_is_none(cache):
  (cache / "compile_seconds.json").write_text("[1")
  assert compile_clock.expected("x") is None
  compile_clock.done(9.0, "x")
  assert compile_clock.expected("x") == 9.0
