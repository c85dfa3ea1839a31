"""Traces of a few device calls, and numbers of the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.training import profile


def _calls(trace, count):
  step = jax.jit(lambda x: x @ x)
  x = jnp.ones((64, 64))
  for _ in range(count):
    x = step(x).block_until_ready()
    trace.tick()


def test_a_trace_of_a_few_calls_is_written_once(tmp_path):
  with profile.StepTrace(tmp_path) as trace:
    _calls(trace, 5)
    assert not list(tmp_path.rglob("*.xplane.pb"))
    _calls(trace, 20)
  assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_job_that_ends_within_the_trace_still_gets_it(tmp_path):
  with profile.StepTrace(tmp_path) as trace:
    _calls(trace, 4)
  assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_nothing_is_traced_unless_asked_for(tmp_path):
  with profile.StepTrace(tmp_path, "") as trace:
    _calls(trace, 10)
  assert not list(tmp_path.iterdir())


def test_an_unknown_kind_of_profile_is_refused(tmp_path):
  with pytest.raises(ValueError, match="'everything': give 'steps'"):
    profile.StepTrace(tmp_path, "everything")


def test_compilations_are_counted():
  before = profile.numbers()["compilations"]
  fresh = jax.jit(lambda x: x * 3.14159 + 2.71828)
  fresh(np.ones(7))
  fresh(np.ones(7))
  assert profile.numbers()["compilations"] == before + 1
  fresh(np.ones(9))
  assert profile.numbers()["compilations"] == before + 2


def test_cpu_says_nothing_of_its_memory():
  assert profile.numbers()["hbm_bytes"] is None
