"""An ONNX model of a graph, written node by node: PyTorch is not needed.

Images are [N, C, H, W], as most users of ONNX have them; batch and side are
free, or fixed. Padding is constant where it can be: at stride 1, and everywhere
in a model of one side. What depends on the side (SAME at stride 2) is either
ONNX's SAME_UPPER, which is TensorFlow's, or computed in the model.
"""

from typing import Any

import numpy as np

from nasnet_jax.export.graph import Graph, GraphError, Node

OPSET = 18  # onnxruntime 1.14 and what came after
OPSETS = range(13, 22)  # that the nodes below are written for
_IR_VERSION = 8  # of onnx 1.10; newer files are refused by older runtimes
_MEAN_TAKES_AXES = 18  # ReduceMean: as an input, no longer an attribute
_FAR = np.iinfo(np.int32).max  # where a slice ends that goes to the end
_FREE = ("batch", None, "height", "width")


def make_model(
  graph: Graph,
  metadata: dict[str, str],
  whiten: tuple[np.ndarray, np.ndarray] | None = None,
  *,
  opset: int = OPSET,
  batch: int | None = None,
):
  """The model, checked.

  Args:
    opset: one of OPSETS.
    batch: fixed, as is the side then: the one that the graph was traced at.
      None: both are free.
    metadata: kept in the file, `metadata_props`.
    whiten: (factor f32[C], offset f32[C]) that images are multiplied by and
      shifted by; the input is then uint8. None: they come whitened, float32.

  Returns:
    onnx.ModelProto of one input, `images`.

  Raises:
    GraphError: for an operation that is not written, or another opset.
  """
  import onnx
  from onnx import helper

  if opset not in OPSETS:
    raise GraphError(
      f"opset {opset} is not written: give one from {OPSETS[0]} to {OPSETS[-1]}"
    )
  writer = _Writer(opset, graph.shapes if batch else None)
  kind = onnx.TensorProto.UINT8 if whiten else onnx.TensorProto.FLOAT
  axes = _axes(graph.shapes[0], _FREE, batch)
  images = helper.make_tensor_value_info("images", kind, axes)
  writer.values[0] = writer.whiten(*whiten) if whiten else "images"
  for node in graph.nodes:
    writer.write(node)
  outputs = []
  for name, value in graph.outputs.items():
    writer.add("Identity", [writer.values[value]], name, output=name)
    free = ("batch", None, f"{name}_height", f"{name}_width")
    axes = _axes(graph.shapes[value], free, batch)
    outputs.append(
      helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes)
    )
  made = helper.make_graph(
    writer.nodes, "network", [images], outputs, writer.weights
  )
  model = helper.make_model(
    made,
    opset_imports=[helper.make_opsetid("", opset)],
    ir_version=_IR_VERSION,
    producer_name="nasnet_jax",
  )
  helper.set_model_props(model, metadata)
  onnx.checker.check_model(model)
  if batch:  # every value gets its shape, and the outputs' is compared
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
  return model


def _axes(shape, free, batch: int | None) -> list[int | str]:
  """[N, C] or [N, C, H, W] of a value of ours, by names where it is free."""
  _, *side, channels = shape
  if batch:
    return [batch, channels, *side]
  names = [channels if name is None else name for name in free]
  return names[: len(shape)]


class _Writer:
  """Nodes and weights as they are added.

  Attributes:
    opset: that they are of.
    shapes: {number in the graph: [N, H, W, C]} if the side is fixed; or None.
    values: {number in the graph: name in the model}.
  """

  def __init__(self, opset: int, shapes: dict[int, tuple[int, ...]] | None):
    self.opset, self.shapes = opset, shapes
    self.nodes: list[Any] = []
    self.weights: list[Any] = []
    self.values: dict[int, str] = {}

  def add(self, op: str, inputs: list[str], name: str, output="", **fields):
    """The name of a new node's only output."""
    from onnx import helper

    output = output or f"{name}_output"
    self.nodes.append(
      helper.make_node(op, inputs, [output], name=name, **fields)
    )
    return output

  def constant(self, name: str, array) -> str:
    from onnx import numpy_helper

    array = np.ascontiguousarray(array)
    self.weights.append(numpy_helper.from_array(array, name))
    return name

  def write(self, node: Node):
    inputs = [self.values[i] for i in node.inputs]
    writer = getattr(self, f"_{node.op}", None)
    if writer is None:
      raise GraphError(f"{node.op} is not written to ONNX files")
    self.values[node.output] = writer(node, *inputs)

  def whiten(self, factor: np.ndarray, offset: np.ndarray) -> str:
    x = self.add("Cast", ["images"], "whiten/float", to=1)
    shape = (1, -1, 1, 1)
    factor = self.constant("whiten/factor", factor.reshape(shape))
    offset = self.constant("whiten/offset", offset.reshape(shape))
    x = self.add("Mul", [x, factor], "whiten/mul")
    return self.add("Add", [x, offset], "whiten/add")

  # --- one method for each operation ------------------------------------------

  def _conv(self, node, x):
    kernel = node.weights["kernel"].transpose(3, 2, 0, 1)
    fields = node.fields
    same = fields["padding"] == "SAME"
    return self._convolve(node, x, kernel, fields["strides"], 1, same)

  def _depthwise_conv(self, node, x):
    kernel = node.weights["kernel"].transpose(2, 0, 1)[:, None]
    strides = (node.fields["stride"],) * 2
    return self._convolve(node, x, kernel, strides, len(kernel))

  def _pointwise_conv(self, node, x):
    kernel = node.weights["kernel"].T[:, :, None, None]
    return self._convolve(node, x, kernel, (node.fields["stride"],) * 2)

  def _convolve(self, node, x, kernel, strides, group=1, same=True):
    dilation = node.fields.get("dilation", 1)
    reach = [(k - 1) * dilation + 1 for k in kernel.shape[2:]]
    padding = self._padding(node, reach, strides) if same else {}
    if dilation > 1 and "auto_pad" in padding:  # runtimes do not combine them
      x, padding = self._pad_same(node.name, x, reach[0], strides[0]), {}
    return self.add(
      "Conv",
      [x, self.constant(f"{node.name}/kernel", kernel)],
      node.name,
      kernel_shape=list(kernel.shape[2:]),
      strides=list(strides),
      dilations=[dilation] * 2,
      group=group,
      **padding,
    )

  def _padding(self, node, reach, strides) -> dict[str, Any]:
    """Fields of SAME for a window: pixels before and after where they are
    known, so that no runtime has to find them."""
    sides = self.shapes[node.inputs[0]][1:3] if self.shapes else (None, None)
    every = [
      _same_pads(*axis) for axis in zip(reach, strides, sides, strict=True)
    ]
    if None in every:
      return {"auto_pad": "SAME_UPPER"}
    return {"pads": [pads[end] for end in (0, 1) for pads in every]}

  def _pad_same(self, name: str, x: str, size: int, stride: int) -> str:
    """x with the zeros that SAME adds around it for square windows at stride
    2: their number depends on whether the side is even."""
    if stride != 2 or size < 2:
      raise GraphError(
        f"windows of {size} pixels at a stride of {stride} are not written to"
        " ONNX files"
      )
    even, odd = _split(size - 2), _split(size - 1)
    half = _every_axis(*even)
    more = _every_axis(*odd) - half
    sides = self.add("Shape", [x], f"{name}/side")
    twice = self.add("Concat", [sides, sides], f"{name}/sides", axis=0)
    two = self.constant(f"{name}/two", np.array(2, np.int64))
    is_odd = self.add("Mod", [twice, two], f"{name}/odd")
    more = self.constant(f"{name}/pad_odd", more)
    half = self.constant(f"{name}/pad_even", half)
    extra = self.add("Mul", [is_odd, more], f"{name}/pad_extra")
    pads = self.add("Add", [half, extra], f"{name}/pads")
    return self._pad(f"{name}/pad", x, pads)

  def _pad(self, name: str, x: str, pads) -> str:
    """x with zeros around it. pads: int64[8], or the name of such a value."""
    if not isinstance(pads, str):
      pads = self.constant(f"{name}/pads", pads)
    zero = self.constant(f"{name}/zero", np.float32(0))
    return self.add("Pad", [x, pads, zero], name)

  def _reduce_mean(self, x: str, axes, name: str, keepdims: int = 1) -> str:
    if self.opset < _MEAN_TAKES_AXES:
      return self.add("ReduceMean", [x], name, axes=axes, keepdims=keepdims)
    axes = self.constant(f"{name}/axes", np.array(axes, np.int64))
    return self.add("ReduceMean", [x, axes], name, keepdims=keepdims)

  def _batch_norm(self, node, x):
    names = ("scale", "bias", "mean", "var")
    weights = [
      self.constant(f"{node.name}/{n}", node.weights[n]) for n in names
    ]
    epsilon = node.fields["epsilon"]
    return self.add(
      "BatchNormalization", [x, *weights], node.name, epsilon=epsilon
    )

  def _example_norm(self, node, x):
    from nasnet_jax.models.layers import EXAMPLE_NORM_EPSILON

    name = node.name
    axes = [{1: 2, 2: 3, 3: 1}[axis] for axis in node.fields["axes"]]
    mean = self._reduce_mean(x, axes, f"{name}/mean")
    centred = self.add("Sub", [x, mean], f"{name}/centred")
    square = self.add("Mul", [centred, centred], f"{name}/square")
    variance = self._reduce_mean(square, axes, f"{name}/variance")
    epsilon = self.constant(f"{name}/eps", np.float32(EXAMPLE_NORM_EPSILON))
    variance = self.add("Add", [variance, epsilon], f"{name}/above_zero")
    deviation = self.add("Sqrt", [variance], f"{name}/deviation")
    x = self.add("Div", [centred, deviation], f"{name}/normed")
    scale, bias = (
      self.constant(f"{name}/{n}", node.weights[n][None, :, None, None])
      for n in ("scale", "bias")
    )
    x = self.add("Mul", [x, scale], f"{name}/scaled")
    return self.add("Add", [x, bias], name)

  def _pool(self, node, x):
    fields = node.fields
    size, stride = fields["size"], fields["stride"]
    padding = self._padding(node, [size] * 2, [stride] * 2)
    if fields["with_zeros"]:
      x, padding = self._pad_with_zeros(node, x, size, stride, padding), {}
    op = {"max": "MaxPool", "avg": "AveragePool"}[fields["kind"]]
    return self.add(
      op,
      [x],
      node.name,
      kernel_shape=[size] * 2,
      strides=[stride] * 2,
      **padding,
    )

  def _pad_with_zeros(self, node, x, size, stride, padding) -> str:
    """For a window in which the padding counts, which none of ONNX's does."""
    if "pads" not in padding:
      return self._pad_same(node.name, x, size, stride)
    top, left, below, right = padding["pads"]
    pads = np.array([0, 0, top, left, 0, 0, below, right], np.int64)
    return self._pad(f"{node.name}/pad", x, pads)

  def _dense(self, node, x):
    weights = [
      self.constant(f"{node.name}/{n}", node.weights[n])
      for n in ("kernel", "bias")
    ]
    return self.add("Gemm", [x, *weights], node.name)

  def _shift(self, node, x):
    # Not by padding with -1, which OpenCV refuses.
    ends = {"starts": [1, 1], "ends": [_FAR, _FAR], "axes": [2, 3]}
    ends = [
      self.constant(f"{node.name}/{n}", np.array(v, np.int64))
      for n, v in ends.items()
    ]
    x = self.add("Slice", [x, *ends], f"{node.name}/cut")
    return self._pad(node.name, x, _every_axis(0, 1))

  def _mean(self, node, x):
    return self._reduce_mean(x, [2, 3], node.name, keepdims=0)

  def _unpool(self, node, x):
    axes = self.constant(f"{node.name}/axes", np.array([2, 3], np.int64))
    return self.add("Unsqueeze", [x, axes], node.name)

  def _concat(self, node, *xs):
    return self.add("Concat", list(xs), node.name, axis=1)

  def _add(self, node, x, y):
    return self.add("Add", [x, y], node.name)

  def _mul(self, node, x, y):
    return self.add("Mul", [x, y], node.name)

  def _relu(self, node, x):
    return self.add("Relu", [x], node.name)

  def _relu6(self, node, x):
    low = self.constant(f"{node.name}/low", np.float32(0))
    high = self.constant(f"{node.name}/high", np.float32(6))
    return self.add("Clip", [x, low, high], node.name)

  def _sigmoid(self, node, x):
    return self.add("Sigmoid", [x], node.name)

  def _swish(self, node, x):
    sigmoid = self.add("Sigmoid", [x], f"{node.name}/sigmoid")
    return self.add("Mul", [x, sigmoid], node.name)


def _same_pads(reach: int, stride: int, side: int | None):
  """Pixels (before, after) that SAME adds on an axis; None if that depends on
  a side that is not known."""
  if side is not None:
    return _split(max((-(-side // stride) - 1) * stride + reach - side, 0))
  if stride == 1 or reach == 1:
    return _split(reach - 1)
  return None


def _split(total: int) -> tuple[int, int]:
  return total // 2, total - total // 2


def _every_axis(before: int, after: int) -> np.ndarray:
  """int64[8]: padding of H and W, as Pad takes it of [N, C, H, W]."""
  return np.array([0, 0, before, before, 0, 0, after, after], np.int64)
