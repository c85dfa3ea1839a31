"""What is generated of a network computes what the network does: for all
operations of the spaces and all kinds of blocks, at any batch and side."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.detection import backbone
from nasnet_jax.export import (
  graph,
  jax_function,
  keras_module,
  onnx_model,
  outline,
  torch_module,
)
from nasnet_jax.models import ops
from nasnet_jax.training import losses

os.environ.setdefault("KERAS_BACKEND", "jax")

MEAN = STD = (0.5, 0.5, 0.5)


def _same(found, logits):
  """To 1e-5 of the largest logit."""
  np.testing.assert_allclose(found, logits, atol=1e-5 * abs(logits).max())


def _module(source: str) -> types.ModuleType:
  module = types.ModuleType("network")
  exec(compile(source, "network.py", "exec"), module.__dict__)
  return module


def _torch(network, variables, side=(24, 24), cut=None):
  """The generated module with the weights."""
  torch = pytest.importorskip("torch")
  source = torch_module.source(
    network, (*side, 3), MEAN, STD, about="", cut=cut
  )
  model = _module(source).Network()
  found = torch_module.weights(variables)
  own = model.state_dict()
  counters = {n for n in own if n.endswith("num_batches_tracked")}
  assert found.keys() == own.keys() - counters
  weights = {name: torch.from_numpy(array) for name, array in found.items()}
  model.load_state_dict(weights, strict=False)
  return model


def _keras(network, variables, cut=None):
  keras = pytest.importorskip("keras")
  if keras.backend.backend() != "jax":
    pytest.skip("Keras was imported with another backend")
  source = keras_module.source(network, 3, about="A test.", cut=cut)
  model = _module(source).make_network()
  found = keras_module.weights(variables, _layers(network, variables, cut))
  own = {f"{x.name}/{w.name}": w for x in model.layers for w in x.weights}
  assert found.keys() == own.keys()
  for name, array in found.items():
    own[name].assign(array)
  return model


def _layers(network, variables, cut=None):
  """Names of the layers that the output depends on."""

  def output(bound, images):
    if cut is None:
      return {"output": bound(images, train=False)[0]}
    return {"output": backbone.first_half(bound, cut, images, False, None)}

  made = graph.trace(network, variables, (48, 48, 3), output)
  return {node.name for node in made.nodes}


def _first(images):
  return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def test_the_small_networks_have_all_operations_of_the_spaces(small_networks):
  used = set()
  for network in small_networks.values():
    for literal in getattr(network, "cells", ()):
      used.update(op for block in literal[0] for op in block[2:4])
  assert used == set(ops.OPERATIONS)


def test_the_traced_graph_computes_what_the_network_does(small_network):
  made = graph.trace(
    small_network.network, small_network.variables, (24, 24, 3)
  )
  run = jax.jit(lambda x: jax_function.make(made)(x)["logits"])
  for images, logits in small_network.cases:
    _same(run(images), logits)


def test_onnx_computes_what_the_network_does(small_network):
  runtime = pytest.importorskip("onnxruntime")
  pytest.importorskip("onnx")
  made = graph.trace(
    small_network.network, small_network.variables, (24, 24, 3)
  )
  model = onnx_model.make_model(made, {})
  session = runtime.InferenceSession(model.SerializeToString())
  for images, logits in small_network.cases:
    _same(session.run(None, {"images": _first(images)})[0], logits)


def test_the_torch_module_computes_what_the_network_does(small_network):
  torch = pytest.importorskip("torch")
  model = _torch(small_network.network, small_network.variables).eval()
  for images, logits in small_network.cases:
    with torch.no_grad():
      _same(model(torch.from_numpy(_first(images))).numpy(), logits)


def test_the_keras_module_computes_what_the_network_does(
  small_network, keras_logits
):
  model = keras_logits(_keras(small_network.network, small_network.variables))
  for images, logits in small_network.cases:
    _same(np.asarray(model(images)), logits)


@pytest.mark.parametrize("name", ["imagenet", "efficientnet_b0"])
def test_features_for_a_detector_are_those_of_our_first_half(
  name, small_networks, random_variables, keras_logits
):
  network = small_networks[name]
  variables = random_variables(network, 48)
  cut = backbone.halves(network)
  images = np.random.default_rng(0).normal(size=(2, 48, 41, 3))
  images = images.astype(np.float32)

  def first_half(bound, images):
    return {"features": backbone.first_half(bound, cut, images, False, None)}

  @jax.jit
  def ours(images):
    return first_half(network.bind(variables), images)["features"]

  wanted = np.asarray(ours(images))
  made = graph.trace(network, variables, (48, 41, 3), first_half)
  _same(jax.jit(jax_function.make(made))(images)["features"], wanted)
  kept = outline.kept(network, variables, cut)
  assert "classifier" not in kept["params"]
  model = keras_logits(_keras(network, variables, cut))
  _same(np.asarray(model(images)), wanted)
  torch = pytest.importorskip("torch")
  model = _torch(network, kept, cut=cut).eval()
  with torch.no_grad():
    found = model(torch.from_numpy(_first(images))).numpy()
  _same(found.transpose(0, 2, 3, 1), wanted)


# --- training goes on ---------------------------------------------------------


def _loss_and_gradients(network, variables, images, labels, aux_weight=0.4):
  """(loss, {path: gradient}, new statistics) of one step of ours."""

  def loss(params):
    (logits, aux, _), update = network.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      images,
      train=True,
      mutable=["batch_stats"],
    )
    total = losses.cross_entropy(logits, labels).mean()
    if aux is not None:
      total += aux_weight * losses.cross_entropy(aux, labels).mean()
    return total, update["batch_stats"]

  (value, stats), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    variables["params"]
  )
  return float(value), gradients, stats


def _batch(side):
  rng = np.random.default_rng(1)
  images = rng.normal(size=(6, side, side, 3)).astype(np.float32)
  return images, rng.integers(0, 3, 6)


def _close(found: dict, wanted: dict):
  """Each gradient to 1e-3 of its largest entry, or of the largest of all."""
  assert found.keys() == wanted.keys()
  largest = max(abs(array).max() for array in wanted.values())
  for name, array in wanted.items():
    scale = max(abs(array).max(), 1e-3 * largest)
    error = abs(found[name] - array).max() / scale
    assert error < 1e-3, (name, error)


@pytest.mark.slow
def test_a_training_step_of_the_torch_module_has_our_gradients(
  small_networks, random_variables, random_with_aux
):
  torch = pytest.importorskip("torch")
  network = small_networks["imagenet"]
  variables = random_with_aux(random_variables, network, 40)
  images, labels = _batch(40)
  loss, gradients, stats = _loss_and_gradients(
    network, variables, images, labels
  )
  model = _torch(network, variables, (40, 40)).train()
  logits, aux = model(torch.from_numpy(_first(images)), with_aux=True)
  entropy = torch.nn.functional.cross_entropy
  labels = torch.from_numpy(labels)
  total = entropy(logits, labels) + 0.4 * entropy(aux, labels)
  total.backward()
  assert total.item() == pytest.approx(loss, rel=1e-5)
  found = {n: p.grad.numpy() for n, p in model.named_parameters()}
  _close(found, torch_module.weights({"params": gradients}))
  means = torch_module.weights({"batch_stats": stats})
  name = "cell_0.project.norm.running_mean"
  np.testing.assert_allclose(
    model.state_dict()[name].numpy(), means[name], atol=1e-5
  )


@pytest.mark.parametrize(
  "name", ["stages", pytest.param("cells_0", marks=pytest.mark.slow)]
)
def test_a_training_step_of_the_keras_module_has_our_gradients(
  name, small_networks, random_variables
):
  network = small_networks[name]
  variables = random_variables(network, 16)
  images, labels = _batch(16)
  loss, gradients, stats = _loss_and_gradients(
    network, variables, images, labels
  )
  model = _keras(network, variables)
  values = [v.value for v in model.trainable_variables]
  fixed = [v.value for v in model.non_trainable_variables]

  def of(values):
    logits, fixed_after = model.stateless_call(
      values, fixed, images, training=True
    )
    return losses.cross_entropy(logits, jnp.asarray(labels)).mean(), fixed_after

  (value, after), found = jax.jit(jax.value_and_grad(of, has_aux=True))(values)
  assert float(value) == pytest.approx(loss, rel=1e-5)
  layers = {
    w.path: f"{x.name}/{w.name}" for x in model.layers for w in x.weights
  }
  found = {
    layers[v.path]: np.asarray(g)
    for v, g in zip(model.trainable_variables, found, strict=True)
  }
  read = _layers(network, variables)
  _close(found, keras_module.weights({"params": gradients}, read))
  after = {
    layers[v.path]: np.asarray(new)
    for v, new in zip(model.non_trainable_variables, after, strict=True)
    if v.path in layers
  }
  for name, array in keras_module.weights({"batch_stats": stats}, read).items():
    np.testing.assert_allclose(after[name], array, atol=1e-5)


# --- what is written ----------------------------------------------------------


def test_the_torch_module_reads_like_the_cell(small_networks):
  network = small_networks["imagenet"]
  text = torch_module.source(network, (40, 40, 3), MEAN, STD, about="A test.")
  assert "h2 = self.block_0_0(h0) + self.block_0_1(h1)" in text
  assert "cell_0 = self.cell_0(stem_cell_1, stem_cell_0)" in text
  assert "class Pool(" in text
  assert "class MBConv(" not in text  # only what the network needs
  assert "nasnet_jax" not in text
  assert max(map(len, text.splitlines())) < 100


def test_an_operation_that_no_writer_knows_is_an_error():
  import flax.linen as nn

  class Odd(nn.Module):
    config: object = None

    @nn.compact
    def __call__(self, x, train=False):
      return jnp.tanh(x).mean((1, 2)), None, {}

  odd = Odd(small_config())
  with pytest.raises(graph.GraphError, match="tanh, which is not exported"):
    graph.trace(odd, {}, (8, 8, 3))


def small_config():
  from nasnet_jax.models import stacked_plan

  return stacked_plan.NetworkConfig()


def test_the_generated_module_needs_no_package_of_ours(small_networks):
  network = small_networks["efficientnet_b0"]
  text = torch_module.source(network, (24, 24, 3), MEAN, STD, about="A test.")
  imports = {line for line in text.splitlines() if "import " in line}
  assert imports >= {"import torch", "from torch import nn"}
  assert not any("jax" in line for line in imports)
