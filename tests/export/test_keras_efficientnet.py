"""Keras's EfficientNets with random weights give our logits, and ours its, of
the same pixels."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.export import keras as ours
from nasnet_jax.export import keras_model, tables
from nasnet_jax.jobs import results
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


def _pixels(side):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (2, side, side, 3), np.uint8)


def _close(found, wanted):
  wanted = np.asarray(wanted)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def small():
  """(Keras's model, our network): B0, narrower and shallower."""
  from keras.src.applications import efficientnet  # the public names are sizes

  sizes = {"width": 0.3, "depth": 0.4}
  model = efficientnet.EfficientNet(
    *sizes.values(),
    default_size=37,
    weights=None,
    input_shape=(37, 37, 3),
    classifier_activation=None,
    classes=5,
  )
  return model, ours.network("efficientnet_b0", num_classes=5, **sizes)


def _adapt(model):
  """Makes it whiten by another mean and std than it was built with."""
  pixels = np.random.default_rng(3).uniform(0, 1, (50, 4, 4, 3)) ** [1, 2, 3]
  # Not by its name, which Keras numbers in the models after the first.
  kind = keras.layers.Normalization
  [layer] = [layer for layer in model.layers if isinstance(layer, kind)]
  layer.adapt(pixels.astype(np.float32))


@pytest.mark.parametrize(
  "name",
  [pytest.param(f"b{i}", marks=[pytest.mark.slow] * (i > 0)) for i in range(8)],
)
def test_pixels_give_the_same_logits_both_ways(
  name, random_variables, keras_logits, tmp_path
):
  """By what `results.save` makes of Keras's model."""
  side = SIDES.get(name, 64)
  model, network = _model(name, side), ours.network(f"efficientnet_{name}")
  if name in COUNTS:
    assert model.count_params() - 7 == COUNTS[name]
  _randomise(model)
  _adapt(model)
  pixels, keras_logits = _pixels(side), keras_logits(model)
  aug = ours.augmentation(model)
  results.save(
    tmp_path,
    f"efficientnet_{name}",
    network,
    ours.from_keras(model, network, aug),
    augmentation=aug,
    side=side,
  )
  found = results.load(tmp_path)
  our_logits = jax.jit(lambda v, x: found._replace(variables=v).predict(x))
  wanted = keras_logits(pixels.astype(np.float32))
  _close(our_logits(found.variables, pixels), wanted)
  variables = random_variables(network, side, seed=2)
  ours.to_keras(variables, model, network, aug)
  given = keras_logits(pixels.astype(np.float32))
  _close(given, our_logits(variables, pixels))


def test_there_and_back_changes_nothing(small):
  model, network = small
  _randomise(model)
  before = {
    name: np.asarray(w) for name, w in keras_model.weights(model).items()
  }
  aug = ours.augmentation(model)
  variables = ours.from_keras(model, network, aug)
  _randomise(model)
  ours.to_keras(variables, model, network, aug)
  for name, weight in keras_model.weights(model).items():
    np.testing.assert_array_equal(weight, before[name])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_classes": 7}, "of another shape: predictions/"),
    ({"depth": 1.1}, "missing: block1b_"),
    ({"width": 2.0}, "of another shape: "),
  ],
)
def test_weights_that_do_not_fit_are_listed(small, changes, words):
  model, network = small
  config = dataclasses.replace(network.config, **changes)
  with pytest.raises(checkpoint.CheckpointError, match=words) as error:
    aug = ours.augmentation(model)
    ours.from_keras(model, network.clone(config=config), aug)
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < 1500


def test_a_model_that_whitens_otherwise_is_refused_or_said(small):
  model, network = small  # made without weights: pixels over 255, no more
  aug = ours.augmentation(model)
  np.testing.assert_allclose((aug.mean, aug.std), ((0,) * 3, (1,) * 3))
  for call in (
    lambda: ours.from_keras(model, network),
    lambda: ours.to_keras({}, model, network),
  ):
    with pytest.raises(checkpoint.CheckpointError, match="whitens pixels by"):
      call()


def _whitened_by(layers):
  """(what our whitening makes of pixels, what Keras's layers make of them)."""
  layers = [keras.Input((4, 4, 3)), *layers]
  model = keras.Sequential([*layers, keras.layers.Conv2D(1, 3)])
  pixels = _pixels(4)
  wanted = keras.Sequential(layers)(pixels.astype(np.float32), training=False)
  return augment.normalise(pixels, ours.augmentation(model)), wanted


def test_layers_before_the_first_convolution_are_followed():
  inner = keras.Sequential([keras.layers.Rescaling([0.5, 0.25, 2.0])])
  layers = [
    keras.layers.RandomFlip(),
    keras.layers.Rescaling(1 / 127.5, offset=-1),
    keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1, 2, 3]),
    inner,
  ]
  found, wanted = _whitened_by(layers)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_arithmetic_before_the_first_convolution_is_followed():
  images = keras.Input((4, 4, 3))
  x = keras.applications.nasnet.preprocess_input(images)
  x = keras.layers.Conv2D(1, 3)(x)
  aug = ours.augmentation(keras.Model(images, x))
  np.testing.assert_allclose(
    augment.normalise(_pixels(4), aug)[0, 0],
    _pixels(4)[0, 0] / 127.5 - 1,
    atol=1e-5,
  )


def test_what_no_mean_and_std_do_is_refused():
  for layer, words in (
    (keras.layers.Resizing(8, 8), "'resizing', a Resizing, before its first"),
    (keras.layers.Rescaling(-1.0), "what no mean and std do"),
  ):
    with pytest.raises(checkpoint.CheckpointError, match=words):
      _whitened_by([layer])
  images = keras.Input((4, 4, 3))
  plain = keras.Model(images, keras.layers.Conv2D(1, 3)(images))
  with pytest.raises(checkpoint.CheckpointError, match="does not whiten"):
    ours.augmentation(plain)


def test_blocks_that_keras_has_not_get_one_clear_line():
  for name in ("efficientnet_lite0", "resnet_50"):
    with pytest.raises(ValueError, match="of Keras's networks of blocks"):
      ours.network(name)
    with pytest.raises(ValueError, match="its ResNets have another stride"):
      ours.table(tables.published_blocks(name))


@pytest.mark.parametrize("name", ["b0", "b4"])
def test_tables_name_every_array_once(name):
  table = ours.table(ours.network(f"efficientnet_{name}"))
  assert len({entry.name for entry in table}) == len(table)
  trainable = sum(int(np.prod(e.shape)) for e in table if e.path[0] == "params")
  assert trainable == zoo.blocks.network(f"efficientnet_{name}").params


def test_a_published_network_has_the_dropout_of_its_training():
  assert tables.published_blocks("efficientnet_b6").config.dropout == 0.5
