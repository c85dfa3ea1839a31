"""Keras's MobileNets with random weights give our logits, and ours its, of the
same pixels."""

import os

import jax
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.export import keras as ours
from nasnet_jax.export import keras_model
from nasnet_jax.jobs import results
from nasnet_jax.training import checkpoint

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="needs the extra keras")

MODELS = {"mobilenet_v1": "MobileNet", "mobilenet_v2": "MobileNetV2"}
SIDE = 64
every_model = pytest.mark.parametrize("name", MODELS)


def _model(name, **options):
  make = getattr(keras.applications, MODELS[name])
  options = {"classifier_activation": None, **options}
  return make(weights=None, input_shape=(SIDE, SIDE, 3), **options)


def _randomise(model):
  rng = np.random.default_rng(0)
  for layer in keras_model.operations(model):
    for weight in getattr(layer, "weights", ()):
      shape = weight.shape
      if weight.name in ("gamma", "moving_variance"):
        weight.assign(rng.uniform(0.5, 1.5, shape))
      elif weight.name in ("beta", "bias", "moving_mean"):
        weight.assign(rng.normal(0, 0.3, shape))
      else:
        depthwise = "Depthwise" in type(layer).__name__
        fan = np.prod(shape[:2] if depthwise else shape[:-1])
        weight.assign(rng.normal(0, fan**-0.5, shape))


def _close(found, wanted):
  wanted = np.asarray(wanted)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
@every_model
def test_pixels_give_the_same_logits_both_ways(
  name, random_variables, tmp_path
):
  """By what `results.save` makes of Keras's model; Keras sees them from -1 to
  1, as its preprocess_input does."""
  model, network = _model(name), ours.network(name)
  _randomise(model)
  results.save(
    tmp_path, name, network, ours.from_keras(model, network), side=SIDE
  )
  found = results.load(tmp_path)
  our_logits = jax.jit(lambda v, x: found._replace(variables=v).predict(x))
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
  images = pixels.astype(np.float32) / 127.5 - 1
  _close(our_logits(found.variables, pixels), model.predict(images, verbose=0))
  variables = random_variables(network, SIDE, seed=2)
  ours.to_keras(variables, model, network)
  given = model.predict(images, verbose=0)
  _close(given, our_logits(variables, pixels))


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
  """(Keras's model, our network), of few channels where Keras scales them as
  ours does."""
  if request.param == "mobilenet_v1":
    model = _model(request.param, alpha=0.25, classes=5)
    return model, ours.network(request.param, width=0.25, num_classes=5)
  return _model(request.param, classes=5), ours.network(
    request.param, num_classes=5
  )


def _weights(model):
  return {name: np.asarray(w) for name, w in keras_model.weights(model).items()}


def test_there_and_back_changes_nothing(pair):
  model, network = pair
  _randomise(model)
  before = _weights(model)
  variables = ours.from_keras(model, network)
  for weight in keras_model.weights(model).values():
    weight.assign(np.zeros(weight.shape))
  ours.to_keras(variables, model, network)
  after = _weights(model)
  assert set(after) == set(before)
  for name, array in before.items():
    np.testing.assert_array_equal(after[name], array)


def test_a_classifier_of_ones_own_is_read():
  inner = _model("mobilenet_v1", alpha=0.25, include_top=False, pooling="avg")
  dense = keras.layers.Dense(3, name="mine")
  model = keras.Sequential(
    [keras.layers.Rescaling(1 / 127.5, -1), inner, dense]
  )
  model.build((None, SIDE, SIDE, 3))
  network = ours.network("mobilenet_v1", width=0.25, num_classes=3)
  variables = ours.from_keras(model, network)
  kernel = variables["params"]["classifier"]["kernel"]
  np.testing.assert_array_equal(kernel, dense.kernel)


def test_another_width_is_listed(pair):
  model, network = pair
  with pytest.raises(checkpoint.CheckpointError, match="of another shape: "):
    ours.from_keras(model, ours.network(_name_of(network), width=2.0))


def _name_of(network) -> str:
  v1 = network.architecture == zoo.blocks.MOBILENET_V1
  return "mobilenet_v1" if v1 else "mobilenet_v2"


def test_a_convolution_before_the_mean_is_no_classifier():
  images = keras.Input((SIDE, SIDE, 3))
  x = keras.layers.Conv2D(4, 3, use_bias=False)(images)
  x = keras.layers.BatchNormalization()(x)
  x = keras.layers.Conv2D(2, 1, name="more", activation="relu")(x)
  x = keras.layers.GlobalAveragePooling2D()(x)
  with pytest.raises(checkpoint.CheckpointError, match="has 'more', a Conv2D"):
    keras_model.weights(keras.Model(images, x))
