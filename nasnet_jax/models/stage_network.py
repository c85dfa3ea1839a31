"""The network of Genetic CNN: stages of small graphs of convolutions.

Xie & Yuille 2017, section 3.1. `StageNetwork` has its graphs as literals;
`AnyStages` is its traced twin, for which they are data.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models.kernels import memory, pools
from nasnet_jax.models.layers import (
  BatchNorm,
  Conv,
  Numerics,
  drop_features,
)
from nasnet_jax.models.ops import Window
from nasnet_jax.models.stacked import Classifier
from nasnet_jax.spaces import compound_scaling

Array = jax.Array

NO_PATHS = "a network of stages has no paths to drop: set drop_path_keep to 1"


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """Sizes of a stage network.

  Attributes:
    features: channels of each stage. The CIFAR-10 search of the paper: 64,
      128, 256 (from memory).
    kernel_size: of every convolution; 5 there (from memory).
    num_classes: outputs.
    dropout: probability of dropping a feature before the classifier.
  """

  features: tuple[int, ...] = (64, 128, 256)
  kernel_size: int = 5
  num_classes: int = 10
  dropout: float = 0.0
  numerics: Numerics = dataclasses.field(default_factory=Numerics)

  def __post_init__(self):
    # JSON and configs have lists; a module's fields must be hashable.
    object.__setattr__(self, "features", tuple(self.features))

  @property
  def summary(self) -> str:
    """The sizes in a few words."""
    return f"F={', '.join(map(str, self.features))}"


class Node(nn.Module):
  """Convolution, batch norm, ReLU, in the order of the paper."""

  numerics: Numerics
  features: int
  kernel_size: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    shape = (self.kernel_size, self.kernel_size)
    x = Conv(self.numerics, self.features, shape, name="conv")(x)
    return nn.relu(BatchNorm(self.numerics, name="norm")(x, train))


def check_side(config: StageConfig, side: tuple[int, int]):
  """Raises ValueError for images too small to be halved after each stage but
  the last."""
  stages = len(config.features)
  if min(side) < 2 ** (stages - 1):
    raise ValueError(
      f"images of {side[0]}x{side[1]} are too small for {stages} stages: take"
      " larger images or fewer stages"
    )


def scaled(
  config: StageConfig, factors: compound_scaling.Factors
) -> StageConfig:
  """Stages cannot be repeated: ValueError, in a line."""
  raise ValueError(
    "networks of stages have no depth to scale: take cells or blocks"
  )


def check_stages(config: StageConfig, stages: int):
  """Raises ValueError unless there is a width for each stage."""
  if len(config.features) != stages:
    raise ValueError(
      f"network.features has {len(config.features)} widths for {stages} stages"
    )


class StageNetwork(nn.Module):
  """A network of given graphs.

  In a stage the default input node comes first. Nodes that no other node of
  the stage is connected with are left out. Of the rest, those that read no
  node read the default input node; the default output node convolves the sum
  of those that no node reads. Without any edge the stage is its input node
  alone: one convolution, not two.

  Between stages a 2x2 max pool halves the side, rounding up. After the last
  come a mean over the map and the classifier: the paper flattens, which would
  tie the weights to one size of image.

  Attributes:
    stages: of each stage (number of nodes, ((i, j), ...)): node j reads i < j.
  """

  config: StageConfig
  stages: tuple

  @property
  def num_layers(self) -> int:
    """Stages; no paths are dropped."""
    return len(self.stages)

  @nn.compact
  def __call__(
    self,
    images: Array,
    train: bool = False,
    drop=None,
    positions: Array | None = None,
  ) -> tuple[Array, None, dict[str, Any]]:
    """images: [N, H, W, C], whitened. drop: must be None, no path is dropped.
    positions: int[N], for dropout, as in `layers.drop_features`.

    Returns:
      logits f32[N, classes]; None, there is no auxiliary head; endpoints.
    """
    config, num = self.config, self.config.numerics
    if drop is not None:
      raise ValueError(NO_PATHS)
    check_stages(config, len(self.stages))
    check_side(config, images.shape[1:3])
    endpoints = {}
    x = images.astype(num.dtype)
    for s, stage in enumerate(self.stages):
      if s:
        x = Window("max", 2, 2, False, name=f"pool_{s}")(x)
      x = endpoints[f"stage_{s}"] = self._stage(s, stage, x, train)
    pooled = endpoints["pooled"] = x.astype(jnp.float32).mean((1, 2))
    if config.dropout and train:
      rng = self.make_rng("dropout")
      pooled = drop_features(rng, pooled, config.dropout, positions)
    classifier = Classifier(num, config.num_classes, name="classifier")
    return classifier(pooled), None, endpoints

  def _stage(self, s: int, stage, x: Array, train: bool) -> Array:
    nodes, edges = stage
    config = self.config

    def node(name, x):
      module = Node(
        config.numerics,
        config.features[s],
        config.kernel_size,
        name=f"stage_{s}_{name}",
      )
      return module(x, train)

    x = node("input", x)
    if not edges:
      return x
    outputs = {}
    for j in range(nodes):
      reads = [i for i, to in edges if to == j]
      if reads or any(i == j for i, _ in edges):
        total = _total([outputs[i] for i in reads]) if reads else x
        outputs[j] = node(f"node_{j}", total)
    unread = [y for j, y in outputs.items() if all(i != j for i, _ in edges)]
    return node("output", _total(unread))


def _total(states: list[Array]) -> Array:
  """Their sum; Python's `sum` would add a 0 to it."""
  return functools.reduce(jnp.add, states)


def pool(x: Array) -> Array:
  """2x2 max pool of stride 2; an odd side is rounded up."""
  return pools.max_pool(x, 2, 2)


def as_stages(space, genotype) -> tuple:
  """A genotype as the literal that a module can hold."""
  return tuple(
    (stage["nodes"], tuple(map(tuple, stage["edges"])))
    for stage in space.to_json(genotype)["stages"]
  )


# --- graphs as data ----------------------------------------------------------


class AnyStages:
  """A stage network whose graphs are data: functions of traced edges.

  Every node of every stage has weights; those that a graph leaves out are 0,
  get gradient 0 and stay 0, and their statistics stay as they were. A sum over
  masked inputs replaces the choice of edges, so one program trains any graph.
  """

  def __init__(self, config: StageConfig, nodes: tuple[int, ...]):
    """nodes: of each stage."""
    check_stages(config, len(nodes))
    if config.dropout:
      raise ValueError("a child has no dropout")
    self.config, self.nodes = config, tuple(nodes)

  def names(self, stage: int) -> list[str]:
    """Of a stage's modules, as `StageNetwork` calls them."""
    parts = ["input", *(f"node_{j}" for j in range(self.nodes[stage]))]
    return [f"stage_{stage}_{part}" for part in (*parts, "output")]

  def used(self, edges: Array) -> dict[str, Array]:
    """{module: bool[]} of the graphs bool[S, K, K]."""
    result = {}
    for s, nodes in enumerate(self.nodes):
      graph = edges[s, :nodes, :nodes]
      joined = graph.any(0) | graph.any(1)
      flags = [jnp.ones((), bool), *joined, graph.any()]
      result.update(zip(self.names(s), flags, strict=True))
    return result

  def init(self, rng: Array, edges: Array, channels: int) -> tuple[dict, dict]:
    """(params, batch_stats) for images of so many channels."""
    config = self.config
    used = self.used(edges)
    params, stats = {}, {}
    keys = iter(jax.random.split(rng, len(used) + 1))
    for s, features in enumerate(config.features):
      for name in self.names(s):
        width = channels if name.endswith("input") else features
        image = jnp.zeros((1, 1, 1, width))
        made = self._node(s).init(next(keys), image, False)
        # An unused kernel must be 0, or weight decay would see it.
        made["params"]["conv"] = jax.tree.map(
          lambda k, name=name: k * used[name], made["params"]["conv"]
        )
        params[name], stats[name] = made["params"], made["batch_stats"]
      channels = features
    head = Classifier(config.numerics, config.num_classes)
    found = head.init(next(keys), jnp.zeros((1, channels)))
    params["classifier"] = found["params"]
    return params, stats

  def _node(self, stage: int) -> Node:
    config = self.config
    features = config.features[stage]
    return Node(config.numerics, features, config.kernel_size)

  def apply(
    self, params: dict, stats: dict, edges: Array, images: Array, train: bool
  ) -> tuple[Array, dict]:
    """(logits f32[N, classes], batch_stats) of images f32[N, H, W, C]."""
    check_side(self.config, images.shape[1:3])
    used = self.used(edges)
    new = {}

    def node(s, name, x):
      found = {"params": params[name], "batch_stats": stats[name]}
      if not train:
        return self._node(s).apply(found, x, False)
      y, update = self._node(s).apply(found, x, True, mutable=["batch_stats"])
      new[name] = jax.tree.map(
        lambda fresh, old: jnp.where(used[name], fresh, old),
        update["batch_stats"],
        stats[name],
      )
      return memory.materialise(y)

    x = images.astype(self.config.numerics.dtype) if train else images
    for s, nodes in enumerate(self.nodes):
      graph = edges[s, :nodes, :nodes]
      x = node(s, self.names(s)[0], pool(x) if s else x)
      x = self._graph(s, graph, x, lambda name, y, s=s: node(s, name, y))
    pooled = x.astype(jnp.float32).mean((1, 2))
    head = params["classifier"]
    return pooled @ head["kernel"] + head["bias"], new if train else stats

  def _graph(self, s: int, graph: Array, x: Array, node) -> Array:
    """The stage behind its input node's output x."""
    _, *names, output = self.names(s)
    joined = graph.any(0) | graph.any(1)
    ys = []
    for j, name in enumerate(names):
      # The first that read nothing read x; sums follow the static network's
      # order, with zeros in between.
      total = jnp.where(graph[:, j].any(), 0.0, x)
      for i, y in enumerate(ys):
        total = total + jnp.where(graph[i, j], y, 0.0)
      ys.append(node(name, total))
    unread = joined & ~graph.any(1)
    total = sum(jnp.where(unread[j], y, 0.0) for j, y in enumerate(ys))
    return jnp.where(graph.any(), node(output, total), x)

  def extract(self, params: dict, stats: dict, edges) -> dict[str, Any]:
    """The variables of the `StageNetwork` of these graphs."""
    used = {k: bool(v) for k, v in self.used(jnp.asarray(edges)).items()}
    kept = [name for name in params if used.get(name, True)]
    return {
      "params": {name: params[name] for name in kept},
      "batch_stats": {name: stats[name] for name in kept if name in stats},
    }
