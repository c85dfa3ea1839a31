"""Meshes, and what is set before JAX starts."""

import os

import jax
import pytest

from nasnet_jax.training import mesh


@pytest.mark.parametrize(
  ("arch", "data", "shape"),
  [(0, 1, (8, 1)), (0, 2, (4, 2)), (1, 1, (1, 1)), (2, 2, (2, 2))],
)
def test_a_mesh_takes_all_devices_or_as_many_as_asked(arch, data, shape):
  made = mesh.make_mesh(arch, data)
  assert made.axis_names == ("arch", "data")
  assert made.devices.shape == shape
  assert set(made.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("shape", [(3, 1), (0, 3), (0, 16), (16, 1)])
def test_a_mesh_that_does_not_fit_is_refused_in_a_line(shape):
  with pytest.raises(ValueError, match="8 device"):
    mesh.make_mesh(*shape)


def test_what_the_user_set_stays(monkeypatch):
  monkeypatch.setenv(
    "XLA_FLAGS", "--xla_cpu_collective_call_warn_stuck_timeout_seconds=7"
  )
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
  monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", False)
  mesh.prepare_host(4)
  flags = os.environ["XLA_FLAGS"].split()
  assert sorted(flags) == [
    "--xla_cpu_collective_call_terminate_timeout_seconds=3600",
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=7",
    "--xla_force_host_platform_device_count=4",
  ]
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
  assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
