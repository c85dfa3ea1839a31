"""Checkpoints of TF-slim, both ways.

What slim's own code says stands in `slim_names/` and in slim_logits.json; both
were made by slim_logits.py, which needs a Python that has tensorflow, tf_keras
and tf_slim, and a checkout of tensorflow/models. The slow tests run it again if
NASNET_JAX_SLIM_PYTHON and NASNET_JAX_SLIM (the checkout's research/slim) say
where they are.
"""

import itertools
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from nasnet_jax.export import slim as ours
from nasnet_jax.export import tables
from nasnet_jax.training.checkpoint import CheckpointError

PEER = pathlib.Path(__file__).with_name("slim_logits.py")
REFERENCES = json.loads(PEER.with_suffix(".json").read_text())
peer = types.SimpleNamespace(**runpy.run_path(str(PEER)))
TINY = peer.SMALL[0]


def _network(spec, **changes):
  """Our network for one of slim's as slim_logits.py names it."""
  name, fields, _, classes = peer.parse(spec)
  config = {"num_classes": classes}
  for field, value in fields.items():
    if field == "num_cells":  # all of slim's cells, ours of one of three stacks
      config["num_cells"] = value // 3
    elif field == "num_conv_filters":
      config["features"] = value
    else:
      assert field == "stem_multiplier"
      config["stem_features"] = int(32 * value)
  return ours.network(name, **{**config, **changes})


def _aux_window(spec):
  """Side of the map before the head's last convolution: pooled 5x5, by 3."""
  name, _, side, _ = peer.parse(spec)
  halvings = 1 if "cifar" in name else 3
  side = side if "cifar" in name else (side - 3) // 2 + 1
  for _ in range(halvings):
    side = -(-side // 2)
  return (side - 5) // 3 + 1


def _checkpoint(spec, **changes):
  """What slim saves of it while it trains, by the values of `peer.weights`."""
  network = _network(spec, aux=True, **changes)
  arrays = {ours.STEP: np.int64(7)}
  for entry in ours.table(network, _aux_window(spec)):
    for name in (entry.name, entry.name + ours.AVERAGE):
      arrays[name] = peer.weights(name, entry.shape)
    if entry.path[0] == "params":
      for slot in ("/RMSProp", "/RMSProp_1", "/Momentum"):
        arrays[entry.name + slot] = np.zeros(entry.shape, np.float32)
  return arrays


@pytest.fixture(scope="module")
def tiny():
  """(a small CIFAR network of five classes, its checkpoint)."""
  return _network(TINY), _checkpoint(TINY)


def _equal(one, two):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two)):
    np.testing.assert_array_equal(a, b)


def _apply(network, variables, side):
  images = peer.images(side)
  return jax.jit(lambda v, x: network.apply(v, x)[0])(variables, images)


def _close(found, wanted, share=1e-4):
  wanted = np.asarray(wanted)
  atol = share * np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


# The names.


def _mostly_slow(first, others):
  """Parameters of which only the first few are fast enough for every day."""
  slow = [pytest.param(other, marks=pytest.mark.slow) for other in others]
  return [*first, *slow]


@pytest.mark.parametrize(
  "name",
  _mostly_slow(
    ["nasnet_a_mobile", "pnasnet_5_mobile"],
    ["nasnet_a_cifar", "nasnet_a_large", "pnasnet_5_large"],
  ),
)
def test_names_and_shapes_are_those_of_slims_own_graph(name):
  _, _, _, classes = peer.parse(name)
  network = ours.network(name, num_classes=classes, aux=True)
  table = ours.table(network, _aux_window(name))
  assert {entry.name: entry.shape for entry in table} == ours.variables_of(name)
  assert len({entry.name for entry in table}) == len(table)
  assert len({entry.path for entry in table}) == len(table)


@pytest.mark.parametrize("name", ours.NAMES)
def test_every_listed_variable_has_the_line_that_makes_it(name):
  folder = pathlib.Path(ours.__file__).with_name("slim_names")
  lines = (folder / f"{name}.txt").read_text().splitlines()
  assert len(lines) == len(ours.variables_of(name))
  pattern = r"\S+ [\d,]+ (nasnet|nasnet_utils|pnasnet)\.py:\d+"
  assert all(re.fullmatch(pattern, line) for line in lines)


# What the names mean: slim's own logits, for values that come from the names.


@pytest.mark.parametrize(
  "spec", _mostly_slow([TINY, peer.SMALL[3]], peer.SMALL[1:3])
)
def test_logits_are_slims(spec):
  network = _network(spec)
  variables = ours.from_slim(_checkpoint(spec), network)
  *_, side, _ = peer.parse(spec)
  _close(_apply(network, variables, side), REFERENCES[spec]["logits"])


@pytest.mark.parametrize("spec", _mostly_slow([TINY], peer.SMALL[1:]))
def test_the_auxiliary_heads_logits_are_slims(spec):
  network = _network(spec, aux=True)
  variables = ours.from_slim(_checkpoint(spec), network)
  *_, side, _ = peer.parse(spec)
  (_, auxiliary, _), _ = jax.jit(
    lambda v, x: network.apply(v, x, True, stop="cell_1", mutable=True)
  )(variables, peer.images(side))
  # Four examples normalise each other, so rounding grows.
  _close(auxiliary, REFERENCES[spec]["auxiliary"], 1e-3)


def test_two_variables_of_one_shape_cannot_be_taken_for_each_other(tiny):
  network, arrays = tiny
  images = peer.images(peer.parse(TINY)[2])
  apply = jax.jit(lambda v, x: network.apply(v, x)[0])
  leaves, tree = jax.tree.flatten(ours.from_slim(arrays, network))
  wanted = np.asarray(REFERENCES[TINY]["logits"])
  by_shape = {}
  for number, leaf in enumerate(leaves):
    by_shape.setdefault(leaf.shape, []).append(number)
  pairs = [p for group in by_shape.values() for p in itertools.pairwise(group)]
  assert len(pairs) > 200
  for one, two in pairs:
    swapped = list(leaves)
    swapped[one], swapped[two] = leaves[two], leaves[one]
    found = np.asarray(apply(jax.tree.unflatten(tree, swapped), images))
    difference = np.abs(found - wanted).max()
    assert difference > 1e-3 * np.abs(wanted).max(), (one, two)


def _slim(*arguments):
  """Runs slim_logits.py on the checkout."""
  python = os.environ.get("NASNET_JAX_SLIM_PYTHON")
  nets = os.environ.get("NASNET_JAX_SLIM")
  if not python or not nets:
    pytest.skip(
      "set NASNET_JAX_SLIM_PYTHON to a Python that has tf_slim, and"
      " NASNET_JAX_SLIM to research/slim of tensorflow/models"
    )
  command = [python, PEER, arguments[0], nets, *map(str, arguments[1:])]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ours.NAMES)
def test_the_whole_network_has_slims_logits_both_ways(
  name, tmp_path, random_variables
):
  *_, side, classes = peer.parse(name)
  network = ours.network(name, num_classes=classes)
  _slim("logits", name, tmp_path / "slim.npz")
  arrays = {
    entry.name + ours.AVERAGE: peer.weights(
      entry.name + ours.AVERAGE, entry.shape
    )
    for entry in ours.table(network)
  }
  variables = ours.from_slim(arrays, network)
  with np.load(tmp_path / "slim.npz") as file:
    _close(_apply(network, variables, side), file["logits"])

  variables = random_variables(network, side)
  np.savez(tmp_path / "ours.npz", **ours.to_slim(variables, network))
  _slim("logits", name, tmp_path / "back.npz", tmp_path / "ours.npz")
  with np.load(tmp_path / "back.npz") as file:
    _close(_apply(network, variables, side), file["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ours.NAMES)
def test_slim_names_are_what_slim_makes_today(name):
  folder = pathlib.Path(ours.__file__).with_name("slim_names")
  assert _slim("names", name) == (folder / f"{name}.txt").read_text()


@pytest.mark.slow
def test_the_references_are_what_slim_makes_today():
  assert json.loads(_slim("references")) == REFERENCES


# Both ways.


@pytest.mark.parametrize("spec", [TINY, peer.SMALL[3]])
def test_there_and_back_changes_nothing(spec, random_variables):
  network = _network(spec)
  variables = random_variables(network, peer.parse(spec)[2])
  arrays = ours.to_slim(variables, network, step=3)
  assert arrays[ours.STEP] == 3
  assert arrays[ours.STEP].dtype == np.int64
  _equal(ours.from_slim(arrays, network), variables)
  _equal(ours.from_slim(arrays, network, averages=False), variables)


def test_back_and_there_gives_every_variable_and_its_average(tiny):
  _, arrays = tiny
  network = _network(TINY, aux=True)
  again = ours.to_slim(ours.from_slim(arrays, network), network)
  names = {entry.name for entry in ours.table(network)}
  averages = {name + ours.AVERAGE for name in names}
  assert set(again) == names | averages | {ours.STEP}
  for name in averages:
    np.testing.assert_array_equal(again[name], arrays[name])


def test_a_whole_checkpoint_fills_every_variable_once(random_variables):
  """NASNet-A mobile, from the list of slim's variables."""
  network = ours.network("nasnet_a_mobile")
  shapes = ours.variables_of("nasnet_a_mobile")
  arrays = {name: peer.weights(name, shape) for name, shape in shapes.items()}
  variables = ours.from_slim(arrays, network, background=True)
  wanted = random_variables(network, 64)
  assert jax.tree.structure(variables) == jax.tree.structure(wanted)
  leaves = jax.tree.leaves(variables)
  assert [x.shape for x in leaves] == [x.shape for x in jax.tree.leaves(wanted)]
  # No two variables have a value in common, so none was taken twice.
  firsts = {float(leaf.flat[0]) for leaf in leaves}
  assert len(firsts) == len(leaves)
  assert len(leaves) == sum(not name.startswith("aux_") for name in shapes)


# Moving averages.


def _values(arrays, averaged):
  """The values of one kind, by the name of the variable."""
  return {
    name.removesuffix(ours.AVERAGE): value
    for name, value in arrays.items()
    if name.endswith(ours.AVERAGE) == averaged
  }


def test_averages_are_read_before_last_values(tiny):
  network, arrays = tiny
  found = ours.from_slim(arrays, network)
  _equal(found, ours.from_slim(_values(arrays, True), network))
  with pytest.raises(AssertionError):
    _equal(found, ours.from_slim(arrays, network, averages=False))


def test_last_values_are_read_when_asked_for(tiny):
  network, arrays = tiny
  found = ours.from_slim(arrays, network, averages=False)
  _equal(found, ours.from_slim(_values(arrays, False), network))


def test_statistics_without_averages_are_read_as_they_are(tiny):
  network, arrays = tiny
  some = {
    name: value
    for name, value in arrays.items()
    if not name.endswith(ours.AVERAGE) or "/moving_" not in name
  }
  found = ours.from_slim(some, network)
  _equal(found["params"], ours.from_slim(arrays, network)["params"])
  last = ours.from_slim(arrays, network, averages=False)
  _equal(found["batch_stats"], last["batch_stats"])


def test_a_checkpoint_of_averages_alone_is_read(tiny):
  network, arrays = tiny
  averages = {k: v for k, v in arrays.items() if k.endswith(ours.AVERAGE)}
  _equal(ours.from_slim(averages, network), ours.from_slim(arrays, network))
  with pytest.raises(CheckpointError, match="missing: cell_0/1x1/weights,"):
    ours.from_slim(averages, network, averages=False)


def test_a_lone_last_value_among_averages_is_missing(tiny):
  network, arrays = tiny
  name = "cell_0/1x1/weights" + ours.AVERAGE
  less = {k: v for k, v in arrays.items() if k != name}
  with pytest.raises(CheckpointError, match=f"missing: {name}$"):
    ours.from_slim(less, network)


# Classes.


def test_the_background_is_left_out_and_put_back(tiny):
  _, arrays = tiny
  network = _network(TINY, num_classes=4, aux=True)
  variables = ours.from_slim(arrays, network, background=True)
  full = ours.from_slim(arrays, _network(TINY, aux=True))
  for head in (("classifier",), ("aux_head", "classifier")):
    one, all_ = variables["params"], full["params"]
    for key in head:
      one, all_ = one[key], all_[key]
    np.testing.assert_array_equal(one["kernel"], all_["kernel"][:, 1:])
    np.testing.assert_array_equal(one["bias"], all_["bias"][1:])
  again = ours.to_slim(variables, network, background=True)
  assert again["final_layer/FC/biases"].shape == (5,)
  _equal(ours.from_slim(again, network, background=True), variables)


def test_a_background_that_was_put_in_is_never_the_answer(tiny):
  network, arrays = tiny
  variables = ours.from_slim(arrays, network)
  wide = _network(TINY, num_classes=6)
  again = ours.from_slim(
    ours.to_slim(variables, network, background=True), wide
  )
  pooled = 10 * np.random.default_rng(0).normal(size=(3, 96))
  logits = [
    pooled @ v["params"]["classifier"]["kernel"]
    + v["params"]["classifier"]["bias"]
    for v in (variables, again)
  ]
  chances = [np.asarray(jax.nn.softmax(x)) for x in logits]
  np.testing.assert_array_equal(chances[1][:, 0], 0)
  np.testing.assert_allclose(chances[1][:, 1:], chances[0], rtol=1e-5)


@pytest.mark.parametrize(
  ("classes", "background", "words"),
  [
    (4, False, "5 classes apart and the network 4: pass background=True"),
    (5, True, "5 classes apart and the network 5: pass background=False"),
    (8, False, "the network 8: make the network with num_classes=5"),
    (8, True, "the network 8: make the network with num_classes=4"),
  ],
)
def test_another_class_count_names_the_option(tiny, classes, background, words):
  network = _network(TINY, num_classes=classes)
  with pytest.raises(CheckpointError, match=words):
    ours.from_slim(tiny[1], network, background=background)


# What does not fit.


def test_what_does_not_fit_is_listed(tiny):
  network, arrays = tiny
  arrays = dict(arrays)
  for ending in ("", ours.AVERAGE):
    arrays["cell_0/extra/weights" + ending] = arrays.pop(
      "final_layer/FC/biases" + ending
    )
    name = "cell_1/1x1/weights" + ending
    arrays[name] = arrays[name][..., :1]
  with pytest.raises(CheckpointError) as error:
    ours.from_slim(arrays, network)
  text = str(error.value)
  assert "missing: final_layer/FC/biases" in text
  assert "unexpected: cell_0/extra/weights" in text
  assert "cell_1/1x1/weights/ExponentialMovingAverage (1, 1, 32, 1)" in text
  assert "\n" not in text


def test_an_unknown_variable_of_an_optimiser_is_unexpected(tiny):
  network, arrays = tiny
  name = "cell_0/1x1/weights/Adam"
  arrays = {**arrays, name: np.zeros(1, np.float32)}
  with pytest.raises(CheckpointError, match=f"unexpected: {name}$"):
    ours.from_slim(arrays, network)


def test_an_auxiliary_head_that_is_not_all_there_is_listed(tiny):
  """As in released checkpoints, whose heads lack their batch norms."""
  network, arrays = tiny
  less = {k: v for k, v in arrays.items() if "aux_bn" not in k}
  _equal(ours.from_slim(less, network), ours.from_slim(arrays, network))
  with pytest.raises(CheckpointError, match="missing: aux_1/aux_logits/aux_bn"):
    ours.from_slim(less, _network(TINY, aux=True))


@pytest.mark.parametrize(
  ("name", "other"),
  [
    ("nasnet_a_large", "nasnet_a_mobile"),
    ("nasnet_a_mobile", "pnasnet_5_mobile"),
  ],
)
def test_weights_of_another_network_are_named(name, other):
  network = ours.network(other)
  arrays = {
    variable: np.broadcast_to(np.float32(0), shape)
    for variable, shape in ours.variables_of(name).items()
  }
  with pytest.raises(CheckpointError, match=f"checkpoint is of {name}: make"):
    ours.from_slim(arrays, network, background=True)


def test_networks_that_slim_has_not_are_refused():
  with pytest.raises(ValueError, match="slim has no 'pnasnet_5_cifar', only"):
    ours.network("pnasnet_5_cifar")
  odd = [
    ours.network("pnasnet_5_mobile", stem="cifar"),
    ours.network("nasnet_a_cifar", layout="pnas"),
    ours.network("nasnet_a_cifar", num_reductions=1),
    tables.published("amoebanet_a_cifar"),
  ]
  for network in odd:
    for use in (ours.table, lambda network: ours.from_slim({}, network)):
      with pytest.raises(ValueError, match=r"network with export\.slim\.netw"):
        use(network)


# Files.


def test_a_path_without_a_checkpoint_gets_one_clear_line(tmp_path):
  with pytest.raises(CheckpointError, match=r"no checkpoint .*ckpt: give"):
    ours.read_checkpoint(tmp_path / "model.ckpt")


def test_files_without_tensorflow_name_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  (tmp_path / "model.ckpt.index").touch()
  for use in (
    lambda path: ours.read_checkpoint(path),
    lambda path: ours.write_checkpoint(path, {}),
  ):
    with pytest.raises(CheckpointError, match=r"pip install 'nasnet_jax\[tf\]"):
      use(tmp_path / "model.ckpt")


@pytest.mark.slow
def test_files_of_tensorflow_give_back_what_was_written(tiny, tmp_path):
  tf = pytest.importorskip("tensorflow", reason="needs the extra tf")
  network, arrays = tiny
  path = tmp_path / "folder" / "model.ckpt"
  ours.write_checkpoint(path, arrays)
  assert dict(tf.train.list_variables(str(path))).keys() == arrays.keys()
  found = ours.read_checkpoint(path)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype
  _equal(ours.from_slim(found, network), ours.from_slim(arrays, network))

  index = path.with_name("model.ckpt.index")
  index.write_bytes(index.read_bytes()[:100])
  with pytest.raises(CheckpointError, match="is damaged"):
    ours.read_checkpoint(path)
