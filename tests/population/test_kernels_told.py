"""Kernels that were asked for and have no use are named in a line."""

import types

import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population import networks


def _told(caplog, space, platform, kernels="pallas"):
  device = types.SimpleNamespace(platform=platform)
  mesh = types.SimpleNamespace(devices=np.array([[device]]))
  network = types.SimpleNamespace(numerics=Numerics(kernels=kernels))
  with caplog.at_level("WARNING"):
    networks.tell_unused_kernels(spaces.get(space), network, mesh)
  return caplog.text


@pytest.mark.parametrize(
  ("space", "platform", "why"),
  [
    ("nasnet", "cpu", "a cpu has XLA's form"),
    ("nasbench201", "tpu", "space nasbench201 has no separable convolutions"),
    ("mnasnet", "tpu", "space mnasnet has no separable convolutions"),
  ],
)
def test_a_search_says_why_its_kernels_have_no_use(
  space, platform, why, caplog
):
  assert why in _told(caplog, space, platform)


def test_kernels_that_are_used_or_off_need_no_line(caplog):
  assert _told(caplog, "nasnet", "tpu") == ""
  assert _told(caplog, "nasnet", "cpu", "xla") == ""
