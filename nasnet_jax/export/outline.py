"""What generated modules say of a network: its cells, widths and strides.

A generated module has a class (or function) per kind of cell and a line per
cell of the network; this is what stands in those lines, for every framework.
"""

import ast
import json
import pathlib
import textwrap
from typing import Any, NamedTuple

from nasnet_jax.models import (
  block_network,
  ops,
  stacked,
  stacked_plan,
  stage_network,
)

# By whether a cell passes on its outputs separately.
CELL_DOC = {
  False: "h0 is the output of the cell before, h1 of the one before that.",
  True: "h0, h1, ...: outputs of cells before; each output goes on by itself.",
}
TEMPLATES = pathlib.Path(__file__).parent / "templates"


class CellUse(NamedTuple):
  """One cell of the network.

  Attributes:
    name: of the module, and of the variable that its output is.
    kind: name of its class.
    features, stride: its own.
    reads: the outputs that are its inputs, by name; None: h_{i-1} of a first
      cell.
    widths: channels of each.
    halvings: strides of 2 from each to the first.
  """

  name: str
  kind: str
  features: int
  stride: int
  reads: tuple[str | None, ...]
  widths: tuple[int | None, ...]
  halvings: tuple[int, ...]

  @property
  def is_first(self) -> bool:
    return self.reads[1:] == (None,)


def cell_kinds(network: stacked.StackedNetwork) -> dict[str, tuple]:
  """{class name: literal}."""
  if len(network.cells) == 1:
    return {"Cell": network.cells[0]}
  return dict(zip(("NormalCell", "ReductionCell"), network.cells, strict=True))


def cells(network: stacked.StackedNetwork) -> tuple[CellUse, ...]:
  """Every cell from stem to head."""
  config, separate = network.config, network.num_separate
  kinds = list(cell_kinds(network))
  names = ["stem"]
  widths = [stacked_plan.stem_features(config)]
  levels = [0]
  uses = []
  for cell in stacked_plan.plan(config):
    reads = cell.reads(separate)
    uses.append(
      CellUse(
        cell.name,
        kinds[cell.kind % len(kinds)],
        cell.features,
        cell.stride,
        tuple(
          None if i is None else _output(names[i], j, separate)
          for j, i in enumerate(reads)
        ),
        tuple(None if i is None else widths[i] for i in reads),
        tuple(0 if i is None else levels[reads[0]] - levels[i] for i in reads),
      )
    )
    literal = network.cells[cell.kind % len(network.cells)]
    names.append(cell.name)
    slots = 1 if separate else len(literal[1])
    widths.append(slots * cell.features)
    levels.append(levels[reads[0]] + cell.stride - 1)
  return tuple(uses)


def _output(name: str, j: int, separate: int) -> str:
  return f"{name}[{j}]" if separate and name != "stem" else name


def head_width(network: stacked.StackedNetwork, uses) -> int:
  """Channels that the classifier reads."""
  literal = cell_kinds(network)[uses[-1].kind]
  return len(literal[1]) * uses[-1].features


def operation(name: str) -> tuple[str, dict[str, Any]]:
  """(class, its arguments) of an operation of the spaces.

  Raises:
    ValueError: one line, for one of a user's own file.
  """
  made = ops.OPERATIONS[name]
  kind, fields = made, {}
  if not isinstance(made, type):
    kind, fields = made.func, made.keywords
  if not kind.__module__.startswith("nasnet_jax."):
    raise ValueError(
      f"operation {name!r} is your own ({kind.__module__}:{kind.__name__}), and"
      " PyTorch, Keras and TFLite get the library's only: export to onnx or"
      " stablehlo, which read what JAX computes, or to safetensors"
    )
  return kind.__name__, fields


def arguments(fields: dict[str, Any]) -> str:
  """', size=3, kind="avg"' of a call; a dilation of 1 is no news."""
  return "".join(
    f", {name}={literal(value)}"
    for name, value in fields.items()
    if (name, value) != ("dilation", 1)
  )


def literal(value) -> str:
  """A value as generated code has it."""
  return json.dumps(value) if isinstance(value, str) else repr(value)


def kept(network, variables: dict[str, Any], cut) -> dict[str, Any]:
  """The variables of what is left of a network.

  Args:
    cut: `detection.backbone.Halves`, whose first half it is; None: all of it.
  """
  if cut is None:
    return variables
  names = ["stem", "stem_conv", "stem_norm"]
  for use in until(network, cut):
    names.append(use.name)
  return {
    collection: {name: tree[name] for name in names if name in tree}
    for collection, tree in variables.items()
  }


def until(network, cut) -> tuple:
  """The cells or blocks up to a cut; all of them if it is None."""
  is_row = isinstance(network, block_network.BlockNetwork)
  uses = rows(network) if is_row else cells(network)
  if cut is None:
    return uses
  names = [use.name for use in uses]
  return uses[: names.index(cut.stop) + 1]


class BlockUse(NamedTuple):
  """One block of a row: `inputs` and `features` channels, and the rest of its
  numbers by name."""

  name: str
  kind: str
  inputs: int
  features: int
  stride: int
  fields: dict[str, Any]


_RESIDUAL = ("basic", "bottleneck")
_BLOCK_CLASSES = {
  "mbconv": "MBConv",
  "separable": "Separable",
  "conv": "PlainConv",
  "basic": "Residual",
  "bottleneck": "Residual",
}


def rows(network: block_network.BlockNetwork) -> tuple[BlockUse, ...]:
  """Every block, in order."""
  arch, config = network.architecture, network.config
  width = block_network.stem_features(arch, config.width)
  uses = []
  for block in block_network.plan(arch, config.width, config.depth):
    make = _residual if block.group.kind in _RESIDUAL else _mobile
    fields = make(block, width)
    uses.append(
      BlockUse(
        block.name,
        _BLOCK_CLASSES[block.group.kind],
        width,
        block.features,
        block.stride,
        fields,
      )
    )
    width = block.features
  return tuple(uses)


def _squeeze(block: block_network.BlockPlan, entering: int) -> dict[str, int]:
  share = block.group.squeeze
  return {"squeeze": max(1, int(entering * share))} if share else {}


def _mobile(block: block_network.BlockPlan, inputs: int) -> dict[str, Any]:
  group = block.group
  fields: dict[str, Any] = {"kernel": group.kernel}
  if group.kind == "separable":
    return fields
  if group.kind == "mbconv" and group.expansion > 1:
    fields["expansion"] = group.expansion
  fields.update(_squeeze(block, inputs))
  if group.skip and inputs == block.features:
    if group.skip_pool:
      fields["skip"] = "pool"
    elif block.stride == 1:
      fields["skip"] = "add"
  return fields


def _residual(block: block_network.BlockPlan, inputs: int) -> dict[str, Any]:
  group, features = block.group, block.features
  if group.kind == "basic":
    fields = {
      "widths": (features, features),
      "kernels": (group.kernel, group.kernel),
      "strided": 0,
    }
  else:
    hidden = features // group.expansion
    fields = {
      "widths": (hidden, hidden, features),
      "kernels": (1, group.kernel, 1),
      "strided": 1,
    }
  return {**fields, **_squeeze(block, features)}


class StageLine(NamedTuple):
  """A line of a stage network's forward pass: `name` is a node of the sum of
  `reads`, with so many channels before and after; or a pool, without channels.
  """

  name: str
  reads: tuple[str, ...]
  inputs: int
  features: int


def stage_lines(
  network: stage_network.StageNetwork, channels: int
) -> tuple[StageLine, ...]:
  """The nodes and pools of all stages, in order."""
  lines, width, last = [], channels, "x"
  for s, (nodes, edges) in enumerate(network.stages):
    features = network.config.features[s]
    if s:
      lines.append(StageLine(f"pool_{s}", (last,), 0, 0))
      last = f"pool_{s}"
    entry = f"stage_{s}_input"
    lines.append(StageLine(entry, (last,), width, features))
    width, last = features, entry
    if not edges:
      continue
    made = []
    for j in range(nodes):
      reads = [i for i, to in edges if to == j]
      if reads or any(i == j for i, _ in edges):
        names = tuple(f"stage_{s}_node_{i}" for i in reads) or (entry,)
        made.append(j)
        name = f"stage_{s}_node_{j}"
        lines.append(StageLine(name, names, features, features))
    unread = tuple(
      f"stage_{s}_node_{j}" for j in made if all(i != j for i, _ in edges)
    )
    last = f"stage_{s}_output"
    lines.append(StageLine(last, unread, features, features))
  return tuple(lines)


# --- generated text ----------------------------------------------------------


def pick(template: str, source: str) -> list[str]:
  """The definitions of a template that a source needs, in their order.

  Args:
    template: file name under `templates`.
    source: Python; names in it are looked up, and names in what they mean.
  """
  text = (TEMPLATES / template).read_text()
  known = {}
  for node in ast.parse(text).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
      known[node.name] = "\n".join(
        text.splitlines()[first - 1 : node.end_lineno]
      ).replace("  # noqa: F821, of the generated module", "")
  needed: set[str] = set()
  waiting = [source]
  while waiting:
    for name in _names(waiting.pop()) & set(known) - needed:
      needed.add(name)
      waiting.append(known[name])
  return [known[name] for name in known if name in needed]


def _names(source: str) -> set[str]:
  tree = ast.parse(textwrap.dedent(source))
  return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def module(about: str, imports, constants: dict[str, Any], parts) -> str:
  """The text of a module.

  Args:
    about: its docstring.
    imports: lines.
    constants: by name; those that no part reads are left out.
    parts: functions and classes.
  """
  text = "\n\n\n".join(parts)
  lines = [
    f"{name} = {literal(value)}"
    for name, value in constants.items()
    if name in text
  ]
  head = [f'"""{about}"""', "", *imports, "", *lines]
  return "\n".join(head) + f"\n\n\n{text}\n"
