"""Genetic CNN's network: wiring, graphs as data, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.costs import counting
from nasnet_jax.models import stage_network
from nasnet_jax.models.layers import Numerics
from nasnet_jax.spaces.stages import StageGenotype, StageSpace

SPACE = StageSpace("small", (3, 4))
CONFIG = stage_network.StageConfig(
  features=(4, 6),
  kernel_size=3,
  num_classes=5,
  numerics=Numerics(init="fan_in"),
)
IMAGES = np.random.default_rng(0).normal(size=(4, 9, 8, 3)).astype(np.float32)


def genotype(*edges):
  """Of edges per stage, as strings: "01 12"."""
  table = np.zeros((2, 4, 4), bool)
  for s, text in enumerate(edges):
    for i, j in text.split():
      table[s, int(i), int(j)] = True
  return StageGenotype(table)


GRAPHS = {
  "nothing": genotype("", ""),
  "an isolated node": genotype("02", "13"),
  "two ends": genotype("01 02", "02 12 03"),
  "everything": genotype("01 02 12", "01 02 12 03 13 23"),
  "one stage only": genotype("", "01 23"),
}
every_graph = pytest.mark.parametrize("graph", GRAPHS)


# A second implementation: NumPy, float64, loops over pixels.


def _conv(x, kernel):
  size = kernel.shape[0]
  pad = size // 2
  padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  y = np.zeros((*x.shape[:3], kernel.shape[-1]))
  for i in range(size):
    for j in range(size):
      part = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
      y += part @ kernel[i, j].astype(np.float64)
  return y


def _node(variables, name, x):
  params = variables["params"][name]
  stats = variables["batch_stats"][name]["norm"]
  y = _conv(x, params["conv"]["kernel"])
  norm = params["norm"]
  y = (y - stats["mean"]) / np.sqrt(np.float64(stats["var"]) + 1e-5)
  return np.maximum(y * norm["scale"] + norm["bias"], 0)


def _pool(x):
  n, h, w, c = x.shape
  padded = np.full((n, h + h % 2, w + w % 2, c), -np.inf)
  padded[:, :h, :w] = x
  return padded.reshape(n, (h + 1) // 2, 2, (w + 1) // 2, 2, c).max((2, 4))


def _reference(variables, graphs, images):
  x = images.astype(np.float64)
  for s, nodes in enumerate(SPACE.nodes):
    x = _node(variables, f"stage_{s}_input", _pool(x) if s else x)
    edges = [tuple(e) for e in np.argwhere(graphs.edges[s])]
    if not edges:
      continue
    outputs = {}
    for j in range(nodes):
      before = [i for i, to in edges if to == j]
      after = [to for i, to in edges if i == j]
      if not before and not after:
        continue
      inputs = [outputs[i] for i in before] or [x]
      outputs[j] = _node(variables, f"stage_{s}_node_{j}", sum(inputs))
    ends = [outputs[j] for j in outputs if not any(i == j for i, _ in edges)]
    x = _node(variables, f"stage_{s}_output", sum(ends))
  head = variables["params"]["classifier"]
  return x.mean((1, 2)) @ head["kernel"] + head["bias"]


def network_of(graph):
  return stage_network.StageNetwork(
    CONFIG, stage_network.as_stages(SPACE, graph)
  )


@every_graph
def test_the_network_is_its_description(graph, random_variables):
  network = network_of(GRAPHS[graph])
  variables = random_variables(network, 8)
  logits, none, _ = jax.jit(network.apply)(variables, IMAGES)
  assert none is None
  expected = _reference(variables, GRAPHS[graph], IMAGES)
  np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)


def _child(graph):
  any_stages = stage_network.AnyStages(CONFIG, SPACE.nodes)
  edges = jnp.asarray(GRAPHS[graph].edges)
  init = jax.jit(any_stages.init, static_argnums=2)
  return any_stages, edges, init(jax.random.key(1), edges, 3)


def _loss(logits):
  return (logits * jnp.arange(1.0, 6)).sum()


@every_graph
def test_a_graph_as_data_is_the_static_network(graph):
  any_stages, edges, (params, stats) = _child(graph)
  network = network_of(GRAPHS[graph])

  def of_any(params):
    logits, new = any_stages.apply(params, stats, edges, IMAGES, True)
    return _loss(logits), (logits, new)

  def of_static(params):
    variables = {"params": params, "batch_stats": start["batch_stats"]}
    (logits, _, _), new = network.apply(
      variables, IMAGES, True, mutable=["batch_stats"]
    )
    return _loss(logits), (logits, new["batch_stats"])

  start = any_stages.extract(params, stats, edges)
  (_, (logits, new)), grads = jax.jit(jax.value_and_grad(of_any, has_aux=True))(
    params
  )
  (_, (expected, expected_new)), expected_grads = jax.jit(
    jax.value_and_grad(of_static, has_aux=True)
  )(start["params"])
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  found = any_stages.extract(grads, new, edges)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4),
    found,
    {"params": expected_grads, "batch_stats": expected_new},
  )
  evaluated, _ = jax.jit(any_stages.apply, static_argnums=4)(
    params, stats, edges, IMAGES, False
  )
  np.testing.assert_allclose(
    evaluated, jax.jit(network.apply)(start, IMAGES)[0], atol=1e-5
  )


@every_graph
def test_what_a_graph_leaves_out_is_0_and_learns_nothing(graph):
  any_stages, edges, (params, stats) = _child(graph)

  def loss(params):
    logits, new = any_stages.apply(params, stats, edges, IMAGES, True)
    return _loss(logits), new

  grads, new = jax.jit(jax.grad(loss, has_aux=True))(params)
  for name, used in any_stages.used(edges).items():
    if not used:
      assert not np.any(params[name]["conv"]["kernel"])
      assert all(not np.any(g) for g in jax.tree.leaves(grads[name]))
      jax.tree.map(np.testing.assert_array_equal, new[name], stats[name])
    else:
      assert np.any(grads[name]["conv"]["kernel"])


def test_any_graph_trains_in_one_program(compilations):
  any_stages, _, (params, stats) = _child("everything")
  step = jax.jit(
    lambda edges: any_stages.apply(params, stats, edges, IMAGES, True)
  )
  first, *others = GRAPHS.values()
  step(jnp.asarray(first.edges))
  del compilations[:]
  for graph in others:
    step(jnp.asarray(graph.edges))
  assert not compilations


def test_parameters_of_the_papers_network_by_hand():
  space = StageSpace("paper", (3, 4, 5))
  config = stage_network.StageConfig()
  everything = space.decode(np.ones(19, int))
  network = stage_network.StageNetwork(
    config, stage_network.as_stages(space, everything)
  )
  params, macs = counting.count_module(network, (32, 32, 3))
  expected, macs_by_hand, width, side = 0, 0, 3, 32
  for features, nodes in zip((64, 128, 256), (3, 4, 5)):
    kernels = 25 * features * (width + features * (nodes + 1))
    expected += kernels + (nodes + 2) * 2 * features
    macs_by_hand += kernels * side**2
    width, side = features, side // 2
  assert params == expected + 256 * 10 + 10
  assert macs == macs_by_hand + 2560


def test_images_too_small_for_the_stages_are_refused():
  with pytest.raises(ValueError, match="too small for 2 stages"):
    network_of(GRAPHS["nothing"]).init(
      jax.random.key(0), np.zeros((1, 1, 8, 3))
    )


def test_widths_must_be_as_many_as_stages():
  with pytest.raises(ValueError, match="2 widths for 3 stages"):
    stage_network.AnyStages(CONFIG, (3, 4, 5))
