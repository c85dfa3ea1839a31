"""Devices of a CPU: one per core, where that changes no result."""

import pytest

from nasnet_jax.cli import cpu_devices, shipped
from nasnet_jax.training import mesh


@pytest.fixture(autouse=True)
def cores(monkeypatch):
  monkeypatch.setattr(mesh, "cores", lambda: 6)
  monkeypatch.setattr(mesh, "memory_gib", lambda: 31.2)


@pytest.mark.parametrize(
  ("name", "changes", "count"),
  [
    ("search_digits", {}, 6),
    ("search_digits", {"search.children_per_round": 3}, 3),
    ("search_digits", {"mesh.arch": 2}, 2),
    ("search_digits", {"mesh.arch": 2, "mesh.data": 2}, 4),
    ("search_digits", {"mesh.data": 2}, 2),
    ("search_digits", {"search.asynchronous": True}, 1),
    ("search_digits:quick", {}, 1),  # with rungs
    ("search_digits", {"search.weights": "inherit"}, 6),
    ("search_digits", {"search.weights": "shared"}, 1),
    ("train_cifar", {}, 1),
    ("train_cifar", {"mesh.data": 4}, 4),
  ],
)
def test_a_search_has_a_device_per_core_and_other_jobs_what_they_ask_for(
  name, changes, count
):
  config = shipped.config(name)
  config.update_from_flattened_dict(changes)
  assert cpu_devices.count(config) == count


def test_hosts_share_the_devices_of_a_mesh():
  config = shipped.config("search_digits")
  assert cpu_devices.count(config, num_hosts=2) == 1
  config.mesh.arch = 8
  assert cpu_devices.count(config, num_hosts=2) == 4


def test_there_are_never_more_than_memory_bears(monkeypatch):
  monkeypatch.setattr(mesh, "cores", lambda: 64)
  assert mesh.devices_for_children() == mesh.MOST_CPU_DEVICES
  for gib, count in ((7.7, 3), (1.9, 1), (float("inf"), 8)):
    monkeypatch.setattr(mesh, "memory_gib", lambda gib=gib: gib)
    assert mesh.devices_for_children() == count
