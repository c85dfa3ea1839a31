"""A network as a short list of primitive operations, for writers of files.

The list is not written down a second time: the network itself is traced. Its
layers (convolutions, batch norms, pools, dense ones) are stopped at, with the
names of their weights, and what stands between them is read from JAX's own
trace. So every family of networks goes through the same few lines, and an
operation that no writer knows is an error and not another network.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from nasnet_jax.models import blocks, layers, ops, stacked

# Layers that a writer gets whole, with the fields that it must know.
LAYERS: dict[type, tuple[str, tuple[str, ...]]] = {
  layers.Conv: ("conv", ("shape", "strides", "dilation", "padding")),
  layers.DepthwiseConv: ("depthwise_conv", ("size", "stride", "dilation")),
  layers.PointwiseConv: ("pointwise_conv", ("stride",)),
  layers.BatchNorm: ("batch_norm", ()),
  layers.ExampleNorm: ("example_norm", ("axes",)),
  ops.Window: ("pool", ("kind", "size", "stride", "with_zeros")),
  stacked.Classifier: ("dense", ()),
  blocks.Dense: ("dense", ()),
}
# Functions of JAX that are one operation to everybody.
FUNCTIONS = {
  "relu": "relu",
  "relu6": "relu6",
  "silu": "swish",
}


class Node(NamedTuple):
  """One operation.

  Attributes:
    op: a name of LAYERS or FUNCTIONS; "sigmoid", "add", "mul", "concat" (along
      channels), "mean" (over H and W), "unpool" ([N, C] -> [N, 1, 1, C]) or
      "shift" (one pixel up and left, zeros enter below and right).
    inputs: numbers of values; 0 is the images.
    output: number of the value that it makes.
    name: unique; of a layer, its place in the network: "cell_0/block_0_1/conv".
    fields: of the layer, by name.
    weights: of the layer, by leaf: kernel, bias, scale, mean, var.
  """

  op: str
  inputs: tuple[int, ...]
  output: int
  name: str
  fields: dict[str, Any]
  weights: dict[str, np.ndarray]


class Graph(NamedTuple):
  """A network of one input, the images [N, H, W, C].

  Attributes:
    nodes: in an order in which they can be run.
    outputs: {name: number of the value}.
    shapes: {number: shape} at the side that was traced, batch of 1.
  """

  nodes: tuple[Node, ...]
  outputs: dict[str, int]
  shapes: dict[int, tuple[int, ...]]


class GraphError(ValueError):
  """A network has something that no file format is written for."""


_LAYER = jex.Primitive("layer")


@_LAYER.def_abstract_eval
def _(x, *, path, shape):
  del path
  return jax.core.ShapedArray(shape, x.dtype)


def for_inference(network: nn.Module) -> nn.Module:
  """The network without what matters in training only."""
  config = network.config
  fields = {"remat": False} if hasattr(config, "remat") else {}
  return network.clone(config=dataclasses.replace(config, **fields))


def trace(
  network: nn.Module,
  variables: dict[str, Any],
  image_shape: tuple[int, int, int],
  outputs: Callable[[nn.Module, Any], dict[str, Any]] | None = None,
) -> Graph:
  """The graph of a network in evaluation.

  Args:
    image_shape: (H, W, C) to trace at; the graph serves other sides.
    outputs: (network, images) -> {name: array}; None: {"logits": ...}.

  Raises:
    GraphError: naming an operation that is not known here.
  """
  network = for_inference(network)
  if outputs is None:
    outputs = _logits
  found: dict[tuple[str, ...], nn.Module] = {}
  own: set[str] = set()

  def intercept(call, args, kwargs, context):
    module = context.module
    if not type(module).__module__.startswith(("nasnet_jax.", "flax.")):
      own.add(type(module).__name__)
    y = call(*args, **kwargs)  # for its shape; nobody reads its value
    if context.method_name != "__call__" or type(module) not in LAYERS:
      return y
    found[module.path] = module
    return _LAYER.bind(args[0], path=module.path, shape=y.shape)

  def run(images):
    with nn.intercept_methods(intercept):
      bound = network.bind(variables)
      return outputs(bound, images)

  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  closed, names = jax.make_jaxpr(run, return_shape=True)(images)
  reader = _Reader(found, variables)
  reader.bind(closed.jaxpr.invars[0], 0, images.shape)
  reader.read(closed.jaxpr)
  values = [reader.value(v) for v in closed.jaxpr.outvars]
  for value in values:
    if not isinstance(value, int):
      raise GraphError(
        f"the network has {value.what}, which is not exported{_whose(own)}"
      )
  _, order = jax.tree.flatten(names)
  outputs = jax.tree.unflatten(order, values)
  return Graph(_needed(reader.nodes, values), outputs, reader.shapes)


def _whose(own: set[str]) -> str:
  """A hint, where modules of users are in the network."""
  if not own:
    return ""
  return (
    f"; {', '.join(sorted(own))} is your own: build it of the layers of"
    " nasnet_jax.models.layers, ops.Window (pools), sums, products and ReLUs,"
    " or take the format safetensors"
  )


def _logits(network, images):
  return {"logits": network(images, train=False)[0]}


def _needed(nodes: list[Node], outputs: list[int]) -> tuple[Node, ...]:
  """Those that an output depends on."""
  needed, kept = set(outputs), []
  for node in reversed(nodes):
    if node.output in needed:
      needed.update(node.inputs)
      kept.append(node)
  return tuple(reversed(kept))


class _Unknown(NamedTuple):
  """Stands for a value that no writer can make; it may not matter."""

  what: str


class _Sum(NamedTuple):
  """A sum over H and W that waits for its division."""

  of: int


class _Padded(NamedTuple):
  """A row and a column of zeros below and right; the first ones are cut off
  next."""

  of: int


class _Reader:
  """Walks a jaxpr and notes what it finds.

  Attributes:
    values: {variable: number of a value, or one of the classes above}.
  """

  def __init__(self, modules, variables):
    self.modules, self.variables = modules, variables
    self.nodes: list[Node] = []
    self.values: dict[Any, Any] = {}
    self.shapes: dict[int, tuple[int, ...]] = {}

  def bind(self, variable, value, shape=None):
    self.values[variable] = value
    if isinstance(value, int):
      self.shapes[value] = tuple(shape or variable.aval.shape)

  def read(self, jaxpr):
    for eqn in jaxpr.eqns:
      inputs = [self.value(v) for v in eqn.invars]
      self.equation(eqn, inputs)

  def value(self, variable):
    if isinstance(variable, jex.Literal):
      return _Unknown("a number")
    return self.values.get(variable, _Unknown("a constant"))

  def equation(self, eqn, inputs):
    name = eqn.primitive.name
    handler = getattr(self, f"_{name}", None)
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if handler is not None:
      value = handler(eqn, inputs)
    elif eqn.params.get("name") in FUNCTIONS:
      value = self.add(FUNCTIONS[eqn.params["name"]], inputs)
    elif inner is not None:
      return self.inline(eqn, inner, inputs)
    elif name == "cond":  # `platform_dependent`: the last one is the plain one
      return self.inline(eqn, eqn.params["branches"][-1], inputs[1:])
    else:
      value = _Unknown(name)
    for variable in eqn.outvars:
      self.bind(variable, value)
    return None

  def inline(self, eqn, inner, inputs):
    inner = getattr(inner, "jaxpr", inner)
    for variable, value in zip(inner.invars, inputs, strict=True):
      self.bind(variable, value)
    self.read(inner)
    for outer, variable in zip(eqn.outvars, inner.outvars, strict=True):
      self.bind(outer, self.value(variable))

  def add(self, op, inputs, name="", fields=None, weights=None) -> Any:
    for value in inputs:
      if not isinstance(value, int):
        known = isinstance(value, _Unknown)
        return value if known else _Unknown("half of an operation")
    output = len(self.nodes) + 1
    name = name or f"{op}_{output}"
    self.nodes.append(
      Node(op, tuple(inputs), output, name, fields or {}, weights or {})
    )
    return output

  # --- what a primitive of JAX means here -------------------------------------

  def _layer(self, eqn, inputs):
    path = eqn.params["path"]
    module = self.modules[path]
    op, fields = LAYERS[type(module)]
    fields = {field: getattr(module, field) for field in fields}
    if op == "batch_norm":
      fields["epsilon"] = module.numerics.bn_epsilon
    weights = {}
    for collection in ("params", "batch_stats"):
      node = self.variables.get(collection, {})
      for key in path:
        node = node.get(key, {})
      weights.update({leaf: np.asarray(array) for leaf, array in node.items()})
    return self.add(op, inputs, "/".join(path), fields, weights)

  def _convert_element_type(self, eqn, inputs):
    del eqn  # evaluation is float32 throughout
    return inputs[0]

  def _add(self, eqn, inputs):
    del eqn
    return self.add("add", inputs)

  def _logistic(self, eqn, inputs):
    del eqn
    return self.add("sigmoid", inputs)

  def _mul(self, eqn, inputs):
    del eqn
    return self.add("mul", inputs)

  def _concatenate(self, eqn, inputs):
    rank = len(eqn.outvars[0].aval.shape)
    if eqn.params["dimension"] != rank - 1:
      return _Unknown("a concatenation of something other than channels")
    return self.add("concat", inputs)

  def _reduce_sum(self, eqn, inputs):
    if isinstance(inputs[0], _Unknown):
      return inputs[0]
    if eqn.params["axes"] != (1, 2) or not isinstance(inputs[0], int):
      return _Unknown("a sum")
    return _Sum(inputs[0])

  def _div(self, eqn, inputs):
    if isinstance(inputs[0], _Unknown):
      return inputs[0]
    if not isinstance(inputs[0], _Sum):
      return _Unknown("a division")
    _, h, w, _ = self.shapes[inputs[0].of]
    by = eqn.invars[1]
    if not isinstance(by, jex.Literal) or float(by.val) != h * w:
      return _Unknown("a division of a sum by something else than its pixels")
    return self.add("mean", [inputs[0].of])

  def _broadcast_in_dim(self, eqn, inputs):
    before = eqn.invars[0].aval.shape
    after = eqn.outvars[0].aval.shape
    if len(before) == len(after):  # which operations do by themselves
      return inputs[0]
    if len(before) == 2 and after == (before[0], 1, 1, before[1]):
      return self.add("unpool", inputs)
    return _Unknown("a broadcast")

  def _pad(self, eqn, inputs):
    if eqn.params["padding_config"] != _PAD_BELOW or len(inputs) != 2:
      return _Unknown("padding")
    return _Padded(inputs[0])

  def _slice(self, eqn, inputs):
    shape = eqn.invars[0].aval.shape
    found = tuple(
      eqn.params[name] for name in ("start_indices", "limit_indices", "strides")
    )
    shifted = found == ((0, 1, 1, 0), shape, None)
    if not isinstance(inputs[0], _Padded) or not shifted:
      return _Unknown("a slice")
    return self.add("shift", [inputs[0].of])


_PAD_BELOW = ((0, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 0))
