"""An ONNX model of a graph, written node by node: PyTorch is not needed.

Images are [N, C, H, W], as most users of ONNX have them; batch and side are
free. Padding that depends on the side (SAME at stride 2) is either ONNX's
SAME_UPPER, which is TensorFlow's, or computed in the model.
"""

from typing import Any

import numpy as np

from nasnet_jax.export.graph import Graph, GraphError, Node

OPSET = 18  # ReduceMean and Pad with their axes as inputs; onnxruntime 1.14
_IR_VERSION = 10  # of onnx 1.16; newer files are refused by older runtimes
_FREE = ("batch", None, "height", "width")


def make_model(
  graph: Graph,
  metadata: dict[str, str],
  whiten: tuple[np.ndarray, np.ndarray] | None = None,
):
  """The model, checked.

  Args:
    metadata: kept in the file, `metadata_props`.
    whiten: (factor f32[C], offset f32[C]) that images are multiplied by and
      shifted by; the input is then uint8. None: they come whitened, float32.

  Returns:
    onnx.ModelProto of one input, `images`.
  """
  import onnx
  from onnx import helper

  writer = _Writer()
  channels = graph.shapes[0][-1]
  kind = onnx.TensorProto.UINT8 if whiten else onnx.TensorProto.FLOAT
  free = [channels if name is None else name for name in _FREE]
  images = helper.make_tensor_value_info("images", kind, free)
  writer.values[0] = writer.whiten(*whiten) if whiten else "images"
  for node in graph.nodes:
    writer.write(node)
  outputs = []
  for name, value in graph.outputs.items():
    writer.add("Identity", [writer.values[value]], name, output=name)
    shape = graph.shapes[value]
    axes = ["batch", shape[-1], *(f"{name}_{a}" for a in ("height", "width"))]
    outputs.append(
      helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, axes[: len(shape)]
      )
    )
  made = helper.make_graph(
    writer.nodes, "network", [images], outputs, writer.weights
  )
  model = helper.make_model(
    made,
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=_IR_VERSION,
    producer_name="nasnet_jax",
  )
  helper.set_model_props(model, metadata)
  onnx.checker.check_model(model)
  return model


class _Writer:
  """Nodes and weights as they are added.

  Attributes:
    values: {number in the graph: name in the model}.
  """

  def __init__(self):
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
    padding = {"auto_pad": "SAME_UPPER"} if same else {}
    if dilation > 1:  # which runtimes do not combine with SAME_UPPER
      size = (kernel.shape[-1] - 1) * dilation + 1
      x, padding = self._pad_same(node.name, x, size, strides[0]), {}
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

  def _pad_same(self, name: str, x: str, size: int, stride: int) -> str:
    """x with the zeros that SAME adds around it for square windows; at stride
    2 their number depends on whether the side is even."""
    if stride not in (1, 2):
      raise GraphError(f"a stride of {stride} is not written to ONNX files")
    even, odd = size - stride, size - 1
    half = np.array([even // 2] * 2 + [even - even // 2] * 2, np.int64)
    more = np.array([odd // 2] * 2 + [odd - odd // 2] * 2, np.int64) - half
    sides = self.add("Shape", [x], f"{name}/side", start=2, end=4)
    twice = self.add("Concat", [sides, sides], f"{name}/sides", axis=0)
    two = self.constant(f"{name}/two", np.array(2, np.int64))
    is_odd = self.add("Mod", [twice, two], f"{name}/odd")
    more = self.constant(f"{name}/pad_odd", more)
    half = self.constant(f"{name}/pad_even", half)
    extra = self.add("Mul", [is_odd, more], f"{name}/pad_extra")
    pads = self.add("Add", [half, extra], f"{name}/pads")
    zero = self.constant(f"{name}/zero", np.float32(0))
    axes = self.constant(f"{name}/axes", np.array([2, 3], np.int64))
    return self.add("Pad", [x, pads, zero, axes], f"{name}/pad")

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
    axes = self.constant(f"{name}/axes", np.array(axes, np.int64))
    mean = self.add("ReduceMean", [x, axes], f"{name}/mean")
    centred = self.add("Sub", [x, mean], f"{name}/centred")
    square = self.add("Mul", [centred, centred], f"{name}/square")
    variance = self.add("ReduceMean", [square, axes], f"{name}/variance")
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
    padding = {"auto_pad": "SAME_UPPER"}
    if fields["with_zeros"]:
      x, padding = self._pad_same(node.name, x, size, stride), {}
    op = {"max": "MaxPool", "avg": "AveragePool"}[fields["kind"]]
    return self.add(
      op,
      [x],
      node.name,
      kernel_shape=[size] * 2,
      strides=[stride] * 2,
      **padding,
    )

  def _dense(self, node, x):
    weights = [
      self.constant(f"{node.name}/{n}", node.weights[n])
      for n in ("kernel", "bias")
    ]
    return self.add("Gemm", [x, *weights], node.name)

  def _shift(self, node, x):
    pads = np.array([-1, -1, 1, 1], np.int64)  # below 0: cut off
    pads = self.constant(f"{node.name}/pads", pads)
    zero = self.constant(f"{node.name}/zero", np.float32(0))
    axes = self.constant(f"{node.name}/axes", np.array([2, 3], np.int64))
    return self.add("Pad", [x, pads, zero, axes], node.name)

  def _mean(self, node, x):
    axes = self.constant(f"{node.name}/axes", np.array([2, 3], np.int64))
    return self.add("ReduceMean", [x, axes], node.name, keepdims=0)

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
