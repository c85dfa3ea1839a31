"""Keras's NASNet with random weights gives our logits, and ours its."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from nasnet_jax.export import keras as ours
from nasnet_jax.export import keras_model
from nasnet_jax.jobs import results
from nasnet_jax.training import checkpoint

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="needs the extra keras")


def _randomise(model):
  """Every weight at random, gamma, beta and statistics too."""
  rng = np.random.default_rng(0)
  for layer in keras_model.operations(model):
    for weight in getattr(layer, "weights", ()):
      shape = weight.shape
      if weight.name in ("gamma", "moving_variance"):
        weight.assign(rng.uniform(0.5, 1.5, shape))
      elif weight.name in ("beta", "bias", "moving_mean"):
        weight.assign(rng.normal(0, 0.3, shape))
      else:
        depthwise = weight.name == "depthwise_kernel"
        fan = np.prod(shape[:2] if depthwise else shape[:-1])
        weight.assign(rng.normal(0, fan**-0.5, shape))


def _small(skip_reduction, num_cells=2, **top):
  """(Keras's model, our network): F = 4, side 33."""
  from keras.src.applications import nasnet  # the public names are two sizes

  model = nasnet.NASNet(
    input_shape=(33, 33, 3),
    penultimate_filters=96,
    num_blocks=num_cells,
    stem_block_filters=6,
    skip_reduction=skip_reduction,
    filter_multiplier=2,
    weights=None,
    **{"classes": 5, "classifier_activation": None, **top},
  )
  network = ours.network(
    "nasnet_a_mobile",
    num_cells=num_cells,
    features=4,
    num_classes=5,
    stem_features=6,
    skip_reduction=skip_reduction,
  )
  return model, network


@pytest.fixture(scope="module")
def small():
  model, network = _small(True)
  _randomise(model)
  return model, network


def _close(found, wanted):
  wanted = np.asarray(wanted)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def _compare(model, network, side, keras_logits):
  images = np.random.default_rng(1).uniform(-1, 1, (2, side, side, 3))
  images = images.astype(np.float32)
  variables = ours.from_keras(model, network)
  logits = jax.jit(lambda v, x: network.apply(v, x)[0])(variables, images)
  _close(logits, keras_logits(model)(images))


@pytest.mark.parametrize("skip_reduction", [False, True])
def test_keras_weights_give_keras_logits(skip_reduction, keras_logits):
  model, network = _small(skip_reduction)
  _randomise(model)
  _compare(model, network, 33, keras_logits)


def test_our_weights_give_our_logits_in_keras(
  small, random_variables, keras_logits
):
  _, network = small
  model, _ = _small(True)
  variables = random_variables(network, 33)
  ours.to_keras(variables, model, network)
  images = np.random.default_rng(1).uniform(-1, 1, (2, 33, 33, 3))
  images = images.astype(np.float32)
  logits = jax.jit(lambda v, x: network.apply(v, x)[0])(variables, images)
  _close(keras_logits(model)(images), logits)


def test_there_and_back_changes_nothing(small):
  model, network = small
  variables = ours.from_keras(model, network)
  other, _ = _small(True)
  ours.to_keras(variables, other, network)
  for one, two in zip(model.weights, other.weights, strict=True):
    np.testing.assert_array_equal(one, two)


def _own_head(*layers, scale=1 / 127.5):
  """(a model of one's own, our network): pixels in, another classifier."""
  base, network = _small(True, 1, include_top=False, pooling="avg")
  model = keras.Sequential(
    [
      keras.Input((33, 33, 3)),
      keras.layers.Rescaling(scale, offset=-1),
      base,
      *layers,
      keras.layers.Dense(5, name="head"),
    ]
  )
  return model, network


def test_a_model_with_a_head_of_its_own_answers_pixels_as_in_keras(
  keras_logits, tmp_path
):
  model, network = _own_head(keras.layers.Dropout(0.5))
  _randomise(model)
  variables = ours.from_keras(model, network)
  results.save(tmp_path, "nasnet_a_mobile", network, variables, side=33)
  pixels = np.random.default_rng(1).integers(0, 256, (2, 33, 33, 3), np.uint8)
  found = jax.jit(results.load(tmp_path).predict)(pixels)
  _close(found, keras_logits(model)(pixels.astype(np.float32)))


def test_what_stands_around_the_network_and_cannot_be_kept_is_refused():
  for layers, words in (
    ([keras.layers.Dense(7)], "unexpected: dense/bias, dense/kernel"),
    ([keras.layers.LeakyReLU()], "'leaky_re_lu', a LeakyReLU, behind"),
  ):
    model, network = _own_head(*layers)
    with pytest.raises(checkpoint.CheckpointError, match=words):
      ours.from_keras(model, network)
  model, network = _own_head(scale=1 / 255)
  with pytest.raises(checkpoint.CheckpointError, match="pass augmentation="):
    ours.from_keras(model, network)


def test_an_ending_other_than_softmax_is_said(caplog):
  images = keras.Input((4, 4, 3))
  x = keras.layers.Conv2D(2, 3)(images)
  x = keras.layers.GlobalAveragePooling2D()(x)
  for activation, count in (("softmax", 0), (None, 0), ("sigmoid", 1)):
    caplog.clear()
    end = keras.layers.Dense(2, activation=activation)(x)
    keras_model.weights(keras.Model(images, end))
    assert len(caplog.records) == count


def test_slims_padding_is_not_keras(keras_logits):
  """What the option is for: without it logits differ."""
  model, network = _small(True, 1)
  _randomise(model)
  numerics = dataclasses.replace(network.config.numerics, pool_padding="same")
  same = network.clone(
    config=dataclasses.replace(network.config, numerics=numerics)
  )
  images = np.random.default_rng(1).uniform(-1, 1, (2, 33, 33, 3))
  images = images.astype(np.float32)
  variables = ours.from_keras(model, network)
  logits = jax.jit(lambda v, x: same.apply(v, x)[0])(variables, images)
  assert np.abs(logits - keras_logits(model)(images)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "make", "count"),
  [
    ("nasnet_a_mobile", "NASNetMobile", 5_326_716),
    ("nasnet_a_large", "NASNetLarge", 88_949_818),
  ],
)
def test_the_whole_network_has_keras_logits(name, make, count, keras_logits):
  model = getattr(keras.applications, make)(
    weights=None, classifier_activation=None
  )
  assert model.count_params() == count
  _randomise(model)
  _compare(model, ours.network(name), model.input_shape[1], keras_logits)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_classes": 7}, "of another shape: predictions/bias"),
    ({"num_cells": 1}, "unexpected: "),
    ({"num_cells": 3}, "missing: "),
    ({"features": 8}, "of another shape: "),
  ],
)
def test_weights_that_do_not_fit_are_listed(small, changes, words):
  model, network = small
  config = dataclasses.replace(network.config, **changes)
  other = network.clone(config=config)
  with pytest.raises(checkpoint.CheckpointError, match=words) as error:
    ours.from_keras(model, other)
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < 1500


def test_a_network_that_keras_has_not_gets_one_clear_line(small):
  _, network = small
  config = dataclasses.replace(network.config, stem="cifar")
  with pytest.raises(ValueError, match="NASNet-A for ImageNet only"):
    ours.table(network.clone(config=config))


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("EfficientNetB0", "did you mean 'efficientnet_b0'"),
    ("pnasnet_5_large", "known: nasnet_a_mobile, nasnet_a_large, efficientnet"),
  ],
)
def test_a_network_that_keras_has_not_is_refused_with_those_it_has(name, words):
  with pytest.raises(ValueError, match=words):
    ours.network(name)
