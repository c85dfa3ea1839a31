"""A second implementation of the networks: NumPy, float64, loops.

The published ones are written from the tables and rules of slim (nasnet.py,
nasnet_utils.py, pnasnet.py) and of tensorflow/tpu (amoeba_net), those of any
cell and the ones with separate outputs from spaces/nasnet.py and the top of
models/stacked.py, not from our modules; only the names of the variables are
ours. Inference only.
"""

import numpy as np

# cell -> blocks "op(state)+op(state)" and the states that are concatenated.
# State 0: the current input after ReLU, 1x1 and batch norm; 1: the one before.
CELLS = {
  "nasnet_a": {
    "normal": (
      "sep5(0)+sep3(1) sep5(1)+sep3(1) avg3(0)+id(1) avg3(1)+avg3(1)"
      " sep3(0)+id(0)",
      "123456",
    ),
    "reduction": (
      "sep5(0)+sep7(1) max3(0)+sep7(1) avg3(0)+sep5(1) id(3)+avg3(2)"
      " sep3(2)+max3(0)",
      "3456",
    ),
  },
  "pnasnet_5": {
    "normal": (
      "sep5(1)+max3(1) sep7(0)+max3(0) sep5(0)+sep3(0) sep3(4)+max3(0)"
      " sep3(1)+id(0)",
      "23456",
    ),
  },
  "amoebanet_a": {
    "normal": (
      "avg3(0)+max3(0) sep3(1)+id(1) id(0)+avg3(1) sep3(0)+sep5(2)"
      " avg3(5)+sep3(0)",
      "1346",
    ),
    "reduction": (
      "sep3(1)+avg3(0) max3(0)+sep7(2) max3(1)+max3(0) sep3(4)+1x7(0)"
      " avg3(1)+sep7(0)",
      "23456",
    ),
  },
  "amoebanet_b": {
    "normal": (
      "1x1(1)+max3(1) id(1)+sep3(0) 1x1(1)+sep3(0) 1x1(2)+id(2) avg3(1)+1x1(5)",
      "0346",
    ),
    "reduction": (
      "max2(0)+max3(0) id(2)+3x3(1) sep5(2)+max3(2) id(3)+sep3(1)"
      " avg3(4)+1x1(3)",
      "56",
    ),
  },
  "amoebanet_c": {
    "normal": (
      "avg3(0)+sep3(0) id(0)+sep3(0) avg3(2)+sep3(1) id(0)+sep3(1)"
      " avg3(3)+sep3(0)",
      "12456",
    ),
    "reduction": (
      "max3(0)+max3(0) sep7(2)+sep3(0) sep7(0)+max3(1) sep5(4)+sep5(4)"
      " max3(1)+sep3(1)",
      "023456",
    ),
  },
  "amoebanet_d": {
    "normal": (
      "1x1(1)+max3(1) id(1)+1x7(0) 1x1(0)+1x7(0) max3(2)+id(2) avg3(1)+1x1(5)",
      "0346",
    ),
    "reduction": (
      "max2(0)+max3(0) id(2)+3x3(1) 1x7(2)+max3(2) id(3)+max2(1)"
      " avg3(2)+1x1(3)",
      "456",
    ),
  },
}


# Our names of the operations.
OPERATIONS = {
  "identity": "id",
  "sep_conv_3x3": "sep3",
  "sep_conv_5x5": "sep5",
  "sep_conv_7x7": "sep7",
  "conv_1x1": "1x1",
  "conv_3x3": "dense3x3",
  "conv_1x3_3x1": "dense1x3",
  "conv_1x7_7x1": "dense1x7",
  "dil_conv_3x3": "dilated3x3",
  "avg_pool_3x3": "avg3",
  "max_pool_3x3": "max3",
  "max_pool_5x5": "max5",
  "max_pool_7x7": "max7",
}


def named(cell):
  """(blocks, output) of a cell of `CellSpace.to_json`; see `parsed`."""
  blocks = [
    (
      [
        (OPERATIONS[op], state)
        for op, state in zip(block["operations"], block["inputs"])
      ],
      block["combine"],
    )
    for block in cell["blocks"]
  ]
  return blocks, cell.get("outputs") or cell["concat"]


def parsed(cell):
  """([([(op, state), (op, state)], combiner), ...], output) of a table row."""
  blocks, output = cell
  sides = [
    [(part[:-3], int(part[-2])) for part in block.split("+")]
    for block in blocks.split()
  ]
  return [(pair, "add") for pair in sides], list(map(int, output))


def relu(x):
  return np.maximum(x, 0)


def windows(x, kernel, stride, value, valid=False, dilation=1):
  """[N, H', W', kh, kw, C]: all windows, SAME (TensorFlow's) or VALID."""
  pads = [(0, 0)]
  if dilation > 1:  # every so many-th pixel of larger windows
    reach = tuple((k - 1) * dilation + 1 for k in kernel)
    step = slice(None, None, dilation)
    return windows(x, reach, stride, value, valid)[:, :, :, step, step]
  for size, k, s in zip(x.shape[1:3], kernel, stride):
    out = -(-size // s)
    total = 0 if valid else max((out - 1) * s + k - size, 0)
    pads.append((total // 2, total - total // 2))
  x = np.pad(x, (*pads, (0, 0)), constant_values=value)
  (kh, kw), (sh, sw) = kernel, stride
  rows = range(0, x.shape[1] - kh + 1, sh)
  columns = range(0, x.shape[2] - kw + 1, sw)
  return np.stack(
    [
      np.stack([x[:, i : i + kh, j : j + kw] for j in columns], 1) for i in rows
    ],
    1,
  )


class Cells:
  """Operations over the variables of one network.

  Args:
    variables: {"params", "batch_stats"}, nested dicts.
    epsilon: of the batch norms.
  """

  def __init__(self, variables, epsilon):
    self.variables, self.epsilon = variables, epsilon

  def get(self, collection, path):
    node = self.variables[collection]
    for key in path.split("/"):
      node = node[key]
    return np.asarray(node, np.float64)

  def norm(self, x, path):
    scale, bias = (self.get("params", f"{path}/{k}") for k in ("scale", "bias"))
    mean, var = (
      self.get("batch_stats", f"{path}/{k}") for k in ("mean", "var")
    )
    return (x - mean) / np.sqrt(var + self.epsilon) * scale + bias

  def norm_of_examples(self, x, path, axes):
    """Each example by itself; scale and offset per channel."""
    scale, bias = (self.get("params", f"{path}/{k}") for k in ("scale", "bias"))
    rows = []
    for example in x:  # [H, W, C]
      mean, var = (f(axes, keepdims=True) for f in (example.mean, example.var))
      rows.append((example - mean) / np.sqrt(var + 1e-6) * scale + bias)
    return np.stack(rows)

  def conv(self, x, path, stride=(1, 1), valid=False, dilation=1):
    kernel = self.get("params", f"{path}/kernel")
    if kernel.ndim == 2:
      kernel = kernel[None, None]
    w = windows(x, kernel.shape[:2], stride, 0.0, valid, dilation)
    return np.einsum("nhwijc,ijcf->nhwf", w, kernel)

  def depthwise(self, x, path, stride):
    kernel = self.get("params", f"{path}/kernel")
    w = windows(x, kernel.shape[:2], (stride, stride), 0.0)
    return np.einsum("nhwijc,ijc->nhwc", w, kernel)

  def operation(self, op, x, features, stride, path):
    if op == "id":
      if stride == 1 and x.shape[-1] == features:
        return x
      return self.norm(
        self.conv(relu(x), f"{path}/conv", (stride, stride)), f"{path}/norm"
      )
    if op.startswith("sep"):
      for layer, s in enumerate((stride, 1)):
        x = self.depthwise(relu(x), f"{path}/depthwise_{layer}", s)
        x = self.conv(x, f"{path}/pointwise_{layer}")
        x = self.norm(x, f"{path}/norm_{layer}")
      return x
    if op == "1x1":
      x = self.conv(relu(x), f"{path}/conv_0", (stride, stride))
      return self.norm(x, f"{path}/norm_0")
    if op.startswith(("dense", "dilated")):
      steps = [(1, stride), (stride, 1)] if "1x" in op else [(stride, stride)]
      dilation = 2 if op.startswith("dilated") else 1
      for layer, s in enumerate(steps):
        x = self.conv(relu(x), f"{path}/conv_{layer}", s, dilation=dilation)
        x = self.norm(x, f"{path}/norm_{layer}")
      return x
    if op in ("3x3", "1x7"):
      x = self.norm(self.conv(relu(x), f"{path}/reduce"), f"{path}/reduce_norm")
      steps = [(stride, stride)] if op == "3x3" else [(1, stride), (stride, 1)]
      for layer, s in enumerate(steps):
        x = self.conv(relu(x), f"{path}/conv/conv_{layer}", s)
        x = self.norm(x, f"{path}/conv/norm_{layer}")
      x = self.conv(relu(x), f"{path}/expand")
      return self.norm(x, f"{path}/expand_norm")
    size = int(op[3])
    kernel, steps = (size, size), (stride, stride)
    if op.startswith("max"):
      x = windows(x, kernel, steps, -np.inf).max((3, 4))
    else:
      total = windows(x, kernel, steps, 0.0).sum((3, 4))
      x = total / windows(np.ones_like(x), kernel, steps, 0.0).sum((3, 4))
    if x.shape[-1] != features:
      x = self.norm(self.conv(x, f"{path}/conv"), f"{path}/norm")
    return x

  def halve(self, x, path):
    """Two half grids, the second shifted by a pixel, side by side."""
    moved = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    parts = [
      self.conv(image[:, ::2, ::2], f"{path}/conv_{i}")
      for i, image in enumerate((x, moved))
    ]
    return self.norm(np.concatenate(parts, -1), f"{path}/norm")

  def project(self, x, path):
    return self.norm(self.conv(relu(x), f"{path}/conv"), f"{path}/norm")

  def blocks(self, blocks, states, features, stride, name):
    """The states of a cell, its inputs among them."""
    states, inputs = list(states), len(states)
    for b, (sides, combiner) in enumerate(blocks):
      path = f"{name}/block_{b}"
      left, right = (
        self.operation(
          op,
          states[state],
          features,
          stride if state < inputs else 1,
          f"{path}_{side}",
        )
        for side, (op, state) in enumerate(sides)
      )
      if combiner == "concat":
        both = np.concatenate([left, right], -1)
        states.append(self.project(both, f"{path}_combine"))
        continue
      total = left + right
      axes = {"add_layer_norm": (0, 1, 2), "add_instance_norm": (0, 1)}
      if combiner in axes:
        total = self.norm_of_examples(total, f"{path}_combine", axes[combiner])
      states.append(total)
    return states

  def separate(self, cell, inputs, features, stride, name):
    """The outputs of a cell that are passed on separately."""
    blocks, output = cell
    states = []
    for j, x in enumerate(inputs):
      path = f"{name}/inputs/fit_{j}"
      count = 0
      while x.shape[1:3] != inputs[0].shape[1:3]:
        halved = f"{path}/reduce_{count}" if count else f"{path}/reduce"
        x, count = self.halve(relu(x), halved), count + 1
      if j == 0:
        x = self.project(x, f"{name}/inputs/project")
      elif x.shape[-1] != features:
        x = self.project(x, f"{path}/project")
      states.append(x)
    states = self.blocks(blocks, states, features, stride, name)
    return [states[s] for s in output]

  def cell(self, cell, x, previous, features, stride, name):
    if previous is None:
      previous = x
    elif previous.shape[1] != x.shape[1]:
      previous = self.halve(relu(previous), f"{name}/fit_previous/reduce")
    elif previous.shape[-1] != features:
      previous = self.project(previous, f"{name}/fit_previous/project")
    blocks, concat = cell
    states = [self.project(x, f"{name}/project"), previous]
    states = self.blocks(blocks, states, features, stride, name)
    last = states[-1]
    parts = []
    for s in concat:
      state, path = states[s], f"{name}/fit_state_{s}"
      if state.shape[1] != last.shape[1]:
        state = self.halve(state, path)
      elif state.shape[-1] != features:
        state = self.norm(self.conv(state, f"{path}/conv"), f"{path}/norm")
      parts.append(state)
    return np.concatenate(parts, -1)


def logits(
  table, variables, images, num_cells, features, imagenet, skip, epsilon
):
  """f64[N, classes] of a network whose cells have two inputs.

  The loops are slim's: NASNet's (also AmoebaNet's) inserts reduction cells,
  PNASNet's gives every N-th cell stride 2.

  Args:
    table: {"normal", "reduction"} or {"normal"} of `parsed` or `named` cells.
  """
  cells = Cells(variables, epsilon)
  pnas = "reduction" not in table
  stride_2 = table["normal" if pnas else "reduction"]
  x = cells.conv(
    np.float64(images), "stem/conv", (2, 2) if imagenet else (1, 1), imagenet
  )
  x = cells.norm(x, "stem/norm")
  outputs = [None, x]
  if imagenet:
    for i, width in enumerate((features // 4, features // 2)):
      x = cells.cell(stride_2, x, outputs[-2], width, 2, f"stem_cell_{i}")
      outputs.append(x)
  scaling = 1
  for number in range(3 * num_cells):
    reduces = number in (num_cells, 2 * num_cells)
    if pnas:
      scaling *= 2 if reduces else 1
      x = cells.cell(
        table["normal"],
        x,
        outputs[-2],
        features * scaling,
        2 if reduces else 1,
        f"cell_{number}",
      )
      outputs.append(x)
      continue
    before = outputs[-2]
    if reduces:
      scaling *= 2
      which = f"reduction_{number // num_cells - 1}"
      x = cells.cell(stride_2, x, outputs[-2], features * scaling, 2, which)
      outputs.append(x)
    previous = before if skip else outputs[-2]
    x = cells.cell(
      table["normal"], x, previous, features * scaling, 1, f"cell_{number}"
    )
    outputs.append(x)
  return classified(cells, x)


def classified(cells, x):
  pooled = relu(x).mean((1, 2))
  kernel = cells.get("params", "classifier/kernel")
  return pooled @ kernel + cells.get("params", "classifier/bias")


def separate_logits(
  table, variables, images, num_cells, features, imagenet, epsilon
):
  """f64[N, classes] of a network whose cells pass on each output by itself.

  Output j of a layer is input j of the layer j + 1 further on; the stem is
  what every layer before the first would have passed on.
  """
  cells = Cells(variables, epsilon)
  stem = cells.conv(
    np.float64(images), "stem/conv", (2, 2) if imagenet else (1, 1), imagenet
  )
  stem = cells.norm(stem, "stem/norm")
  layers = []  # the outputs of each

  def add(kind, width, name):
    inputs = [
      layers[-1 - j][j] if j < len(layers) else stem
      for j in range(len(table[kind][1]))
    ]
    stride = 2 if kind == "reduction" else 1
    layers.append(cells.separate(table[kind], inputs, width, stride, name))

  if imagenet:
    add("reduction", features // 4, "stem_cell_0")
    add("reduction", features // 2, "stem_cell_1")
  for number in range(3 * num_cells):
    if number in (num_cells, 2 * num_cells):
      features *= 2
      add("reduction", features, f"reduction_{number // num_cells - 1}")
    add("normal", features, f"cell_{number}")
  return classified(cells, np.concatenate(layers[-1], -1))
