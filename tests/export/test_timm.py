"""Weights of timm's and torchvision's networks both ways, and of
EfficientNet-PyTorch's.

They take a Python that has them; NASNET_JAX_TORCH_PYTHON names it.
"""

import json
import os
import pathlib
import subprocess
import types

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.export import lite, torch_file, torchvision
from nasnet_jax.export import timm as ours
from nasnet_jax.jobs import results
from nasnet_jax.models import block_network
from nasnet_jax.training.checkpoint import CheckpointError

PEER = pathlib.Path(__file__).with_name("timm_logits.py")
# Network of timm's -> (ours, side). For timm's PNASNet and its networks of
# blocks without tf_ every stride 2 must meet an odd side: 67 -> 33 -> 17 -> 9
# -> 5 -> 3. The others pad as TensorFlow does, also where it is even.
TIMM = {
  "nasnetalarge": ("nasnet_a_large", 75),
  "pnasnet5large": ("pnasnet_5_large", 67),
  "tf_efficientnet_b0": ("efficientnet_b0", 64),
  "tf_efficientnet_b0.ap_in1k": ("efficientnet_b0", 64),  # pixels from -1 to 1
  "tf_efficientnet_b2": ("efficientnet_b2", 76),
  "efficientnet_b0": ("efficientnet_b0", 65),
  "tf_efficientnet_lite0": ("efficientnet_lite0", 64),
  "mobilenetv1_100": ("mobilenet_v1", 65),
  "mobilenetv2_100": ("mobilenet_v2", 65),
  "mnasnet_100": ("mnasnet_b1", 65),
  "semnasnet_100": ("mnasnet_a1", 65),
  "mnasnet_small": ("mnasnet_small", 65),
  "resnet18": ("resnet_18", 65),
  "seresnet50": ("se_resnet_50", 65),
}
TORCHVISION = {
  "efficientnet_b0": ("efficientnet_b0", 65),
  "efficientnet_b5": ("efficientnet_b5", 65),  # with TensorFlow's epsilon
  "mobilenet_v2": ("mobilenet_v2", 65),
  "mnasnet1_0": ("mnasnet_b1", 65),
  "resnet18": ("resnet_18", 65),
  "resnet50": ("resnet_50", 65),
}


def _timm(*arguments):
  python = os.environ.get("NASNET_JAX_TORCH_PYTHON")
  if not python:
    pytest.skip("set NASNET_JAX_TORCH_PYTHON to a Python that has timm")
  command = [python, PEER, *map(str, arguments)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def _close(found, wanted):
  atol = 1e-4 * np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def _saved(folder, name, network, variables, **prepared):
  """The program that answers pixels, of a folder that `results.save` made."""
  results.save(folder, name, network, variables, **prepared)
  found = results.load(folder)
  return found, jax.jit(lambda v, x: found._replace(variables=v).predict(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_pixels_give_the_same_logits_both_ways(
  name, tmp_path, random_variables
):
  published, side = TIMM[name]
  network = ours.network(name)
  _timm("give", name, side, tmp_path / "theirs")
  with np.load(tmp_path / "theirs.npz") as file:
    config = json.loads(str(file["config"]))
  state = torch_file.read(tmp_path / "theirs.pth")
  variables = ours.from_timm(state, network)
  prepared = ours.preparation(config)._replace(side=side)
  saved = _saved(
    tmp_path / "run", published, network, variables, **prepared._asdict()
  )
  other = random_variables(network, 75)
  _compare_both_ways(name, saved, other, ours.to_timm(other, network), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_pixels_give_the_logits_of_torchvision_both_ways(
  name, tmp_path, random_variables
):
  published, side = TORCHVISION[name]
  network = torchvision.network(name)
  _timm("give", f"torchvision/{name}", side, tmp_path / "theirs")
  state = torch_file.read(tmp_path / "theirs.pth")
  variables = torchvision.from_torchvision(state, network)
  saved = _saved(
    tmp_path / "run",
    published,
    network,
    variables,
    augmentation=augment.EFFICIENTNET,
    side=side,
  )
  other = random_variables(network, 75)
  arrays = torchvision.to_torchvision(other, network)
  _compare_both_ways(f"torchvision/{name}", saved, other, arrays, tmp_path)


def _compare_both_ways(name, saved, other, arrays, folder):
  """saved: their weights as a run; other: variables of ours, arrays: the same
  by their names."""
  found, logits = saved
  with np.load(folder / "theirs.npz") as file:
    pixels, wanted = file["pixels"], file["logits"]
  # Or the pixels would hardly matter.
  assert np.abs(wanted[0] - wanted[1]).max() > 0.01 * np.abs(wanted).max()
  _close(logits(found.variables, pixels), wanted)
  np.savez(folder / "ours.npz", pixels=pixels, **arrays)
  _timm("take", name, folder / "ours.npz", folder / "back.npz")
  with np.load(folder / "back.npz") as file:
    _close(logits(other, pixels), file["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["b0", "b1"])
def test_pixels_give_the_logits_of_efficientnet_pytorch(size, tmp_path):
  side = 64
  _timm("give", f"efficientnet-{size}", side, tmp_path / "torch")
  network = lite.network(f"efficientnet_{size}")
  state = torch_file.read(tmp_path / "torch.pth")
  variables = lite.from_lite(state, network)
  run, name = tmp_path / "run", f"efficientnet_{size}"
  found, logits = _saved(run, name, network, variables, side=side)
  with np.load(tmp_path / "torch.npz") as file:
    _close(logits(found.variables, file["pixels"]), file["logits"])


# The large networks with one cell per stack and few channels, and
# EfficientNets of few channels.
_CELLS = {"num_cells": 1, "features": 4, "num_classes": 7}
_BLOCKS = {"width": 0.25, "num_classes": 7}
SMALL = {
  "nasnet_a_large": _CELLS,
  "pnasnet_5_large": _CELLS,
  "tf_efficientnet_b0": _BLOCKS,
  "tf_efficientnet_lite0": _BLOCKS,
  "mobilenetv1_100": _BLOCKS,
  "seresnet50": _BLOCKS,
}


@pytest.fixture(scope="module", params=SMALL)
def small(request):
  return ours.network(request.param, **SMALL[request.param])


@pytest.fixture(scope="module")
def nasnet():
  return ours.network("nasnet_a_large", **_CELLS)


def test_there_and_back_changes_nothing(small, random_variables):
  variables = random_variables(small, 75)
  state = ours.to_timm(variables, small)
  again = ours.from_timm(state, small)
  for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)
  assert jax.tree.structure(variables) == jax.tree.structure(again)


def test_what_does_not_fit_is_listed(nasnet, random_variables):
  state = ours.to_timm(random_variables(nasnet, 75), nasnet)
  state["cell_0.extra.weight"] = state.pop("last_linear.bias")
  with pytest.raises(CheckpointError) as error:
    ours.from_timm(state, nasnet)
  assert "missing: last_linear.bias" in str(error.value)
  assert "unexpected: cell_0.extra.weight" in str(error.value)
  assert "\n" not in str(error.value)


def test_another_class_count_is_named(nasnet, random_variables):
  state = ours.to_timm(random_variables(nasnet, 75), nasnet)
  state["last_linear.bias"] = np.zeros(5, np.float32)
  with pytest.raises(CheckpointError, match=r"last_linear.bias \(5,\) instead"):
    ours.from_timm(state, nasnet)


def test_counters_of_pytorch_are_left_out(nasnet, random_variables):
  state = ours.to_timm(random_variables(nasnet, 75), nasnet)
  state["cell_0.conv_1x1.bn.num_batches_tracked"] = np.int64(3)
  ours.from_timm(state, nasnet)


# timm 1.0.31, the state dict of tf_efficientnet_b0: two of its blocks, and
# what is around them. Arrays of a batch norm are named once.
EFFICIENTNET = [
  "conv_stem.weight",
  "bn1",
  "conv_head.weight",
  "bn2",
  "classifier.weight",
  "classifier.bias",
  *(
    f"blocks.{block}.se.conv_{part}.{leaf}"
    for block in ("0.0", "1.1")
    for part in ("reduce", "expand")
    for leaf in ("weight", "bias")
  ),
  "blocks.0.0.conv_dw.weight",
  "blocks.0.0.bn1",
  "blocks.0.0.conv_pw.weight",
  "blocks.0.0.bn2",
  "blocks.1.1.conv_pw.weight",
  "blocks.1.1.bn1",
  "blocks.1.1.conv_dw.weight",
  "blocks.1.1.bn2",
  "blocks.1.1.conv_pwl.weight",
  "blocks.1.1.bn3",
]


def test_efficientnets_have_timms_names():
  names = {e.name for e in ours.table(ours.network("tf_efficientnet_b0"))}
  assert len(names) == 360 - 49  # without the counters of its 49 batch norms
  some = set()
  for name in EFFICIENTNET:
    ends = ("weight", "bias", "running_mean", "running_var")
    is_norm = name.rpartition(".")[2].startswith("bn")
    some |= {f"{name}.{end}" for end in ends} if is_norm else {name}
  others = ("blocks.0.0.", "blocks.1.1.")
  assert some == {
    n for n in names if not n.startswith("blocks.") or n.startswith(others)
  }


def test_the_two_kinds_of_efficientnet_differ(caplog):
  tensorflow = ours.network("tf_efficientnet_b0.ns_jft_in1k")
  assert tensorflow.config.numerics.bn_epsilon == 1e-3
  assert not caplog.records
  own = ours.network("efficientnet_b1")
  assert own.config.numerics.bn_epsilon == 1e-5
  assert "such as 257 in place of 240" in caplog.text


def test_timms_preparation_is_taken_over(caplog):
  config = {
    "architecture": "efficientnet_b0",
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
  }
  found = ours.preparation(config)
  assert (found.side, found.center) == (225, 0.9)
  assert found.augmentation.mean == (0.1, 0.2, 0.3)
  assert found.augmentation.std == (0.4, 0.5, 0.6)
  assert not caplog.records
  other = {"architecture": "tf_efficientnet_b0", "interpolation": "bilinear"}
  assert ours.preparation({**config, **other}).side == 224
  assert "interpolation 'bilinear'" in caplog.text


# timm 1.0.31 and torchvision 0.28.0: some names of their state dicts, and how
# many there are without counters.
SOME = {
  ("timm", "mobilenetv1_100"): (
    137,
    "blocks.0.0.conv_pw.weight",
    "blocks.4.1.bn2.running_var",
  ),
  ("timm", "seresnet50"): (
    331,
    "layer1.0.se.fc1.bias",
    "layer4.0.downsample.1.weight",
    "layer3.5.conv3.weight",
  ),
  ("torchvision", "mobilenet_v2"): (
    262,
    "features.0.0.weight",
    "features.1.conv.0.1.running_mean",
    "features.1.conv.1.weight",
    "features.17.conv.2.weight",
    "features.17.conv.3.running_var",
    "features.18.1.bias",
    "classifier.1.bias",
  ),
  ("torchvision", "mnasnet1_0"): (
    262,
    "layers.4.weight",
    "layers.13.0.layers.7.running_var",
    "layers.14.weight",
  ),
  ("torchvision", "efficientnet_b1"): (
    439,
    "features.1.1.block.1.fc2.bias",
    "features.2.0.block.3.1.running_var",
    "features.8.0.weight",
  ),
}


@pytest.mark.parametrize(("library", "name"), SOME)
def test_blocks_have_their_librarys_names(library, name):
  reader = {"timm": ours, "torchvision": torchvision}[library]
  names = {entry.name for entry in reader.table(reader.network(name))}
  count, *some = SOME[library, name]
  assert len(names) == count
  assert set(some) <= names


def test_torchvision_there_and_back_changes_nothing(random_variables):
  network = torchvision.network("mobilenet_v2", **_BLOCKS)
  variables = random_variables(network, 33)
  state = torchvision.to_torchvision(variables, network)
  assert state["features.2.conv.1.0.weight"].shape == (48, 1, 3, 3)
  again = torchvision.from_torchvision(state, network)
  for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)


def test_torchvisions_preparation_is_taken_over(caplog):
  transforms = types.SimpleNamespace(
    crop_size=[224],
    resize_size=[232],
    mean=[0.1, 0.2, 0.3],
    std=[0.4, 0.5, 0.6],
    interpolation=types.SimpleNamespace(value="bilinear"),
  )
  found = torchvision.preparation(transforms)
  assert (found.side, found.center) == (225, 224 / 232)
  assert found.augmentation.std == (0.4, 0.5, 0.6)
  assert "by interpolation 'bilinear'" in caplog.text


def test_a_network_that_timm_has_not_is_refused():
  network = ours.network("nasnet_a_large", stem="cifar")
  cifar = block_network.BlockNetwork(
    block_network.BlockConfig(), zoo.blocks.RESNET_20
  )
  for other in (network, cifar):
    for call in (ours.from_timm, ours.to_timm):
      with pytest.raises(ValueError, match="of timm's networks NASNet-A"):
        call({}, other)
    with pytest.raises(ValueError, match="of torchvision's networks"):
      torchvision.table(other)
  for name in ("mobilenet_v2", "efficientnet_b9", "nasnet", "tf_resnet50"):
    with pytest.raises(ValueError, match="is not read from timm: give"):
      ours.network(name)
  with pytest.raises(ValueError, match="is not read from torchvision: give"):
    torchvision.network("resnet200")


@pytest.mark.parametrize("name", SMALL)
def test_tables_name_every_array_once(name):
  table = ours.table(ours.network(name))
  assert len({entry.name for entry in table}) == len(table)
  trainable = sum(
    int(np.prod(e.shape)) for e in table if "running" not in e.name
  )
  published, _ = TIMM.get(name, (name, None))
  known = {**zoo.cells.NETWORKS, **zoo.blocks.NETWORKS}
  assert trainable == known[published].params
