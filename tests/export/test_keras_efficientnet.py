"""Keras's EfficientNets with random weights give our logits, and ours its."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.export import keras as ours
from nasnet_jax.export import tables
from nasnet_jax.training import checkpoint

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="needs the extra keras")

# All weights with Keras's statistics of batch norm: its count_params, without
# the seven numbers that whiten images.
COUNTS = {"b0": 5_330_564, "b7": 66_658_680}
SIDES = {"b0": 37}  # odd maps and even ones: 37, 19, 10, 5, 3, 2


def _model(name, side):
  make = getattr(keras.applications, f"EfficientNet{name.upper()}")
  return make(
    weights=None,
    input_shape=(side, side, 3),
    classifier_activation=None,
  )


def _randomise(model):
  """Every weight at random, gamma, beta and statistics too."""
  rng = np.random.default_rng(0)
  for layer in model.layers:
    for weight in layer.weights:
      shape = weight.shape
      if layer.name.startswith("normalization"):
        continue
      if weight.name in ("gamma", "moving_variance"):
        weight.assign(rng.uniform(0.5, 1.5, shape))
      elif weight.name in ("beta", "bias", "moving_mean"):
        weight.assign(rng.normal(0, 0.3, shape))
      else:
        depthwise = "dwconv" in layer.name
        fan = np.prod(shape[:2] if depthwise else shape[:-1])
        weight.assign(rng.normal(0, fan**-0.5, shape))


def _images(side):
  """As Keras's take them: 0..255."""
  rng = np.random.default_rng(1)
  return rng.uniform(0, 255, (2, side, side, 3)).astype(np.float32)


def _logits(network):
  """(variables, images) -> logits."""
  run = jax.jit(lambda v, x: network.apply(v, x)[0])
  return lambda variables, images: run(variables, images / 255)


def _keras_logits(model):
  """(images) -> logits with the weights of the moment, compiled once."""
  run = jax.jit(
    lambda weights, rest, x: model.stateless_call(weights, rest, x)[0]
  )

  def call(images):
    weights, rest = (
      [variable.value for variable in variables]
      for variables in (
        model.trainable_variables,
        model.non_trainable_variables,
      )
    )
    return run(weights, rest, images)

  return call


def _close(found, wanted):
  wanted = np.asarray(wanted)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def b0():
  """(Keras's model, our network)."""
  return _model("b0", SIDES["b0"]), ours.network("efficientnet_b0")


@pytest.mark.parametrize(
  "name",
  [pytest.param(f"b{i}", marks=[pytest.mark.slow] * (i > 0)) for i in range(8)],
)
def test_logits_are_the_same_both_ways(name, random_variables):
  side = SIDES.get(name, 64)
  model, network = _model(name, side), ours.network(f"efficientnet_{name}")
  if name in COUNTS:
    assert model.count_params() - 7 == COUNTS[name]
  images = _images(side)
  our_logits, keras_logits = _logits(network), _keras_logits(model)
  _randomise(model)
  variables = ours.from_keras(model, network)
  _close(our_logits(variables, images), keras_logits(images))
  variables = random_variables(network, side, seed=2)
  ours.to_keras(variables, model, network)
  _close(keras_logits(images), our_logits(variables, images))


def test_there_and_back_changes_nothing(b0):
  model, network = b0
  _randomise(model)
  before = {name: np.asarray(w) for name, w in ours._weights(model).items()}
  variables = ours.from_keras(model, network)
  _randomise(model)
  ours.to_keras(variables, model, network)
  for name, weight in ours._weights(model).items():
    np.testing.assert_array_equal(weight, before[name])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_classes": 7}, "of another shape: predictions/"),
    ({"depth": 1.1}, "missing: block1b_"),
    ({"width": 2.0}, "of another shape: "),
  ],
)
def test_weights_that_do_not_fit_are_listed(b0, changes, words):
  model, network = b0
  config = dataclasses.replace(network.config, **changes)
  with pytest.raises(checkpoint.CheckpointError, match=words) as error:
    ours.from_keras(model, network.clone(config=config))
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < 1500


def test_blocks_that_keras_has_not_get_one_clear_line():
  with pytest.raises(ValueError, match="only EfficientNet is read here"):
    ours.table(ours.network("efficientnet_lite0"))


@pytest.mark.parametrize("name", ["b0", "b4"])
def test_tables_name_every_array_once(name):
  table = ours.table(ours.network(f"efficientnet_{name}"))
  assert len({entry.name for entry in table}) == len(table)
  trainable = sum(int(np.prod(e.shape)) for e in table if e.path[0] == "params")
  assert trainable == zoo.blocks.network(f"efficientnet_{name}").params


def test_a_published_network_has_the_dropout_of_its_training():
  assert tables.published_blocks("efficientnet_b6").config.dropout == 0.5
