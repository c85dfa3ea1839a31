"""Weights of timm's networks, both ways.

timm takes a Python that has it; NASNET_JAX_TORCH_PYTHON names it.
"""

import os
import pathlib
import subprocess

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.export import timm as ours
from nasnet_jax.training.checkpoint import CheckpointError

PEER = pathlib.Path(__file__).with_name("timm_logits.py")
NAMES = {"nasnetalarge": "nasnet_a_large", "pnasnet5large": "pnasnet_5_large"}
# For timm's PNASNet every stride 2 must meet an odd side: 67 -> 33 -> 17 -> 9
# -> 5 -> 3. Its NASNet pads as TensorFlow does, also where it is even.
SIDES = {"nasnetalarge": 75, "pnasnet5large": 67}


def _timm(*arguments):
  python = os.environ.get("NASNET_JAX_TORCH_PYTHON")
  if not python:
    pytest.skip("set NASNET_JAX_TORCH_PYTHON to a Python that has timm")
  command = [python, PEER, *map(str, arguments)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def _logits(network, variables, images):
  return jax.jit(lambda v, x: network.apply(v, x)[0])(variables, images)


def _close(found, wanted):
  atol = 1e-4 * np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_same_both_ways(name, tmp_path, random_variables):
  network = ours.network(NAMES[name])
  _timm("give", name, SIDES[name], tmp_path / "timm.npz")
  with np.load(tmp_path / "timm.npz") as file:
    state = {key: file[key] for key in file.files}
  images, wanted = state.pop("images"), state.pop("logits")
  variables = ours.from_timm(state, network)
  _close(_logits(network, variables, images), wanted)

  variables = random_variables(network, 75)
  arrays = ours.to_timm(variables, network)
  np.savez(tmp_path / "ours.npz", images=images, **arrays)
  _timm("take", name, tmp_path / "ours.npz", tmp_path / "back.npz")
  with np.load(tmp_path / "back.npz") as file:
    _close(_logits(network, variables, images), file["logits"])


@pytest.fixture(scope="module", params=["nasnet_a_large", "pnasnet_5_large"])
def small(request):
  """The large networks with one cell per stack and few channels."""
  return ours.network(request.param, num_cells=1, features=4, num_classes=7)


def test_there_and_back_changes_nothing(small, random_variables):
  variables = random_variables(small, 75)
  state = ours.to_timm(variables, small)
  again = ours.from_timm(state, small)
  for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)
  assert jax.tree.structure(variables) == jax.tree.structure(again)


def test_what_does_not_fit_is_listed(small, random_variables):
  state = ours.to_timm(random_variables(small, 75), small)
  state["cell_0.extra.weight"] = state.pop("last_linear.bias")
  with pytest.raises(CheckpointError) as error:
    ours.from_timm(state, small)
  assert "missing: last_linear.bias" in str(error.value)
  assert "unexpected: cell_0.extra.weight" in str(error.value)
  assert "\n" not in str(error.value)


def test_another_class_count_is_named(small, random_variables):
  state = ours.to_timm(random_variables(small, 75), small)
  state["last_linear.bias"] = np.zeros(5, np.float32)
  with pytest.raises(CheckpointError, match=r"last_linear.bias \(5,\) instead"):
    ours.from_timm(state, small)


def test_counters_of_pytorch_are_left_out(small, random_variables):
  state = ours.to_timm(random_variables(small, 75), small)
  state["cell_0.conv_1x1.bn.num_batches_tracked"] = np.int64(3)
  ours.from_timm(state, small)


def test_a_network_that_timm_has_not_is_refused():
  network = ours.network("nasnet_a_large", stem="cifar")
  with pytest.raises(ValueError, match="for ImageNet only"):
    ours.table(network)


@pytest.mark.parametrize("name", NAMES.values())
def test_tables_name_every_array_once(name):
  table = ours.table(ours.network(name))
  assert len({entry.name for entry in table}) == len(table)
  trainable = sum(
    int(np.prod(e.shape)) for e in table if "running" not in e.name
  )
  assert trainable == zoo.cells.network(name).params
