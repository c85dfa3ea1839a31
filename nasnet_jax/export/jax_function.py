"""A graph as a JAX function whose batch and side may be symbolic.

Our own modules decide by the side of images in Python (which inputs are halved,
whether they are too small), so they cannot be traced with an unknown side; a
graph has decided. Layers are computed by the same kernels, each with a lowering
for CPU and one for all other devices.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.export.graph import Graph, GraphError, Node
from nasnet_jax.models import layers
from nasnet_jax.models.kernels import convolutions, memory, pools

Array = jax.Array


def make(graph: Graph) -> Callable[[Array], dict[str, Array]]:
  """images f32[N, H, W, C] -> {name of an output: array}."""

  def run(images: Array) -> dict[str, Array]:
    values = {0: images}
    for node in graph.nodes:
      inputs = [values[i] for i in node.inputs]
      if node.op not in _OPS:
        raise GraphError(f"{node.op} is not computed by JAX")
      values[node.output] = _OPS[node.op](node, *inputs)
    return {name: values[value] for name, value in graph.outputs.items()}

  return run


def _conv(node: Node, x: Array) -> Array:
  fields, kernel = node.fields, node.weights["kernel"]
  if fields["padding"] == "VALID":
    return convolutions.valid_conv(x, kernel, fields["strides"])
  return convolutions.conv(x, kernel, fields["strides"], fields["dilation"])


def _depthwise(node: Node, x: Array) -> Array:
  strides = (node.fields["stride"],) * 2
  kernel = jnp.asarray(node.weights["kernel"])
  return convolutions.depthwise_conv(
    x, kernel, strides, node.fields["dilation"]
  )


def _pointwise(node: Node, x: Array) -> Array:
  stride, kernel = node.fields["stride"], jnp.asarray(node.weights["kernel"])
  return convolutions.pointwise_conv(_every(stride, x), kernel)


def _every(stride: int, x: Array) -> Array:
  """Every second pixel. x[:, ::2, ::2] would call the same symbolic side by
  another name than a SAME window does."""
  if stride == 1:
    return x
  n, h, w, c = x.shape
  ends = (stride * (-(-side // stride) - 1) + 1 for side in (h, w))
  x = jnp.pad(x, ((0, 0), (0, stride - 1), (0, stride - 1), (0, 0)))
  return jax.lax.slice(x, (0, 0, 0, 0), (n, *ends, c), (1, stride, stride, 1))


def _batch_norm(node: Node, x: Array) -> Array:
  weights = node.weights
  deviation = jnp.sqrt(weights["var"] + node.fields["epsilon"])
  gain = weights["scale"] / deviation
  return x * gain + (weights["bias"] - weights["mean"] * gain)


def _example_norm(node: Node, x: Array) -> Array:
  norm = layers.ExampleNorm(node.fields["axes"])
  return norm.apply({"params": node.weights}, x)


def _pool(node: Node, x: Array) -> Array:
  fields = node.fields
  kind, window = fields["kind"], (fields["size"], fields["stride"])
  if fields["with_zeros"]:
    return pools.zero_padded_pool(x, kind, *window)
  pool = pools.max_pool if kind == "max" else pools.avg_pool
  return pool(x, *window)


def _dense(node: Node, x: Array) -> Array:
  return x @ node.weights["kernel"] + node.weights["bias"]


_OPS = {
  "conv": _conv,
  "depthwise_conv": _depthwise,
  "pointwise_conv": _pointwise,
  "batch_norm": _batch_norm,
  "example_norm": _example_norm,
  "pool": _pool,
  "dense": _dense,
  "relu": lambda _, x: nn.relu(x),
  "relu6": lambda _, x: nn.relu6(x),
  "swish": lambda _, x: nn.swish(x),
  "sigmoid": lambda _, x: nn.sigmoid(x),
  "add": lambda _, x, y: memory.materialise(x + y),
  "mul": lambda _, x, y: x * y,
  "concat": lambda _, *xs: memory.materialise(jnp.concatenate(xs, -1)),
  "mean": lambda _, x: x.mean((1, 2)),
  "unpool": lambda _, x: x[:, None, None],
  "shift": lambda _, x: layers.shift_by_one(x),
}
