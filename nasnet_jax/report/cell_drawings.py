"""Drawings of cells, and cells as text. No graphviz program is needed.

A cell is what `CellSpace.to_json` writes for each kind of cell:
{"blocks": [{"inputs", "operations", "combine"}...], "concat": [states...]}, or
with "outputs" in place of "concat" where they are passed on separately.
"""

import functools
import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from nasnet_jax.report import block_drawings, stage_drawings, style
from nasnet_jax.report import layout as lt

FAMILIES = {
  "separable": "separable convolution",
  "conv": "convolution",
  "pool": "pooling",
  "identity": "identity",
  "other": "other",
}
COMBINERS = {
  "add": "add",
  "concat": "concat",
  "add_layer_norm": "add + LN",
  "add_instance_norm": "add + IN",
}
_DIGITS = "₀₁₂₃₄₅₆₇₈₉"
# Edges from h_i, h_{i-1}, ...; those from blocks have "accent".
_INPUT_COLORS = ("ink", "previous", "second", "good")


def op_label(operation: str) -> str:
  """A short name: "sep_conv_5x5" -> "sep 5x5", "conv_1x7_7x1" -> "1x7-7x1"."""
  sizes = re.findall(r"\d+x\d+", operation)
  kind = operation.split("_")[0]
  if len(sizes) > 1:
    return "-".join(sizes)
  if sizes and kind in ("sep", "dil", "avg", "max", "conv"):
    return f"{kind} {sizes[0]}"
  return operation.replace("_", " ")


def op_family(operation: str) -> str:
  """The key of `FAMILIES` that an operation's colour goes by."""
  if operation.startswith("sep"):
    return "separable"
  if "pool" in operation:
    return "pool"
  if "conv" in operation:
    return "conv"
  return "identity" if operation in ("identity", "skip_connect") else "other"


def num_inputs(cell: dict[str, Any]) -> int:
  """States that a cell reads: 2, or as many as it passes on separately."""
  return len(cell["outputs"]) if "outputs" in cell else 2


def state_label(state: int, inputs: int = 2, plain: bool = False) -> str:
  """h_i, h_i-1 or "block k"; `plain` is ASCII for terminals.

  Args:
    inputs: see `num_inputs`.
  """
  if state >= inputs:
    return f"block {state - inputs}"
  if plain:
    return f"h_i-{state}" if state else "h_i"
  back = "".join(_DIGITS[int(digit)] for digit in str(state))
  return f"hᵢ₋{back}" if state else "hᵢ"


def is_read(cell: dict[str, Any], state: int) -> bool:
  """Whether a block or the output reads a state."""
  members = cell.get("outputs") or cell["concat"]
  return state in members or any(state in b["inputs"] for b in cell["blocks"])


def cell_text(cell: dict[str, Any]) -> list[str]:
  """A cell in words, a line per block and one for the output."""
  lines = []
  label = functools.partial(state_label, inputs=num_inputs(cell), plain=True)
  for k, block in enumerate(cell["blocks"]):
    words = block_text(block, num_inputs(cell), plain=True)
    lines.append(f"block {k}: {words}")
  if "outputs" in cell:
    return [*lines, f"outputs: {', '.join(map(label, cell['outputs']))}"]
  members = ", ".join(map(label, cell["concat"]))
  return [*lines, f"output: concat({members})"]


def block_text(block: dict[str, Any], inputs: int, plain: bool = False) -> str:
  """What a block computes; see `state_label` for the arguments."""
  left, right = (
    f"{op_label(op)}({state_label(state, inputs, plain)})"
    for op, state in zip(block["operations"], block["inputs"], strict=True)
  )
  text = {
    "add": f"{left} + {right}",
    "concat": f"concat({left}, {right})",
    "add_layer_norm": f"layer norm({left} + {right})",
    "add_instance_norm": f"instance norm({left} + {right})",
  }
  return text[block.get("combine", "add")]


def draw_cell(cell: dict[str, Any], title: str, path=None) -> Figure:
  """Draws one cell; with a path also writes it as .svg and .png.

  Args:
    cell: as in `CellSpace.to_json`.
    title: text above; "" for none.
    path: file name, with either ending or none.
  """
  return _figure([(title, cell)], path)


def draw_genotype(genotype: dict[str, Any], path_stem=None) -> Figure:
  """Draws all cells of a `CellSpace.to_json` dict side by side, or the stages
  of a `StageSpace.to_json` dict, or the blocks of a `BlockSpace.to_json`
  dict."""
  if "stages" in genotype:
    return stage_drawings.draw_stages(genotype, path_stem)
  if "architecture" in genotype:
    return block_drawings.draw_blocks(genotype, path_stem)
  cells = [(cell_title(name), cell) for name, cell in genotype["cells"].items()]
  return _figure(cells, path_stem)


def cell_title(name: str) -> str:
  """ "normal" -> "Normal cell"; PNAS's one kind is just "Cell"."""
  return "Cell" if name == "cell" else f"{name.capitalize()} cell"


def _figure(cells, path) -> Figure:
  """The cells of [(title, cell)...] from left to right on one figure."""
  drawings = [(title, cell, lt.layout(cell)) for title, cell in cells]
  gap = 0.4
  width = sum(d.width for *_, d in drawings) + gap * (len(drawings) - 1)
  title_height = lt.TITLE_HEIGHT * any(title for title, _ in cells)
  height = max(d.height for *_, d in drawings) + title_height
  figure = style.new_figure(width, height, None)
  with style.style():
    left = 0.0
    for number, (title, cell, drawing) in enumerate(drawings):
      axes = figure.add_axes((left / width, 0, drawing.width / width, 1))
      axes.set_axis_off()
      axes.set_xlim(0, drawing.width)
      # Cells hang below their titles, the lower one ends earlier.
      lowest = drawing.height + title_height - height
      axes.set_ylim(lowest, lowest + height)
      _draw(axes, cell, drawing)
      if len(drawings) > 1:
        for patch in axes.patches:  # ids are unique in a file
          if patch.get_gid():
            patch.set_gid(f"cell-{number}-{patch.get_gid()}")
      if title:
        axes.text(
          lt.MARGIN,
          lowest + height - 0.1,
          title,
          fontsize=10.5,
          weight="bold",
          va="top",
        )
      left += drawing.width + gap
  if path is not None:
    style.save(figure, path)
  return figure


def _draw(axes, cell, drawing: lt.Layout) -> None:
  for panel in drawing.panels:
    _rectangle(axes, panel, "panel", "panel", 0.08)
    axes.text(
      panel.x + lt.PAD,
      panel.y + lt.BLOCK_HEIGHT - lt.PAD - lt.COMBINE_HEIGHT / 2,
      f"block {panel.key.split('-')[1]}",
      fontsize=7.2,
      color=style.LIGHT["muted"],
      va="center_baseline",
    )
  for edge in drawing.joins:
    _line(axes, edge, "line")
  # To the output first: where edges share a lane, the others lie on top.
  for edge in sorted(drawing.edges, key=lambda e: "output" not in e.key):
    _edge(axes, edge, num_inputs(cell))
  for box in drawing.boxes:
    _box(axes, box, cell)


def _box(axes, box: lt.Box, cell) -> None:
  """Draws an input, an operation, a combiner or an output."""
  blocks, inputs = cell["blocks"], num_inputs(cell)
  parts = box.key.split("-")
  if parts[0] == "state":
    _input(axes, box, cell, int(parts[1]))
  elif parts[0] == "output":
    _rectangle(axes, box, "state", "state_edge", 0.13)
    text = f"output {parts[1]}" if "outputs" in cell else "concat"
    _label(axes, box.center, text, 9)
  elif parts[2] == "combine":
    combine = blocks[int(parts[1])].get("combine", "add")
    _rectangle(axes, box, "paper", "line", 0.1)
    _label(axes, box.center, COMBINERS[combine], 7.5)
  else:
    block, side = blocks[int(parts[1])], int(parts[3])
    operation = block["operations"][side]
    family = op_family(operation)
    _rectangle(axes, box, family, f"{family}_edge", 0.06)
    x, y = box.center
    _label(axes, (x, y + 0.065), op_label(operation), 8.5)
    source = state_label(block["inputs"][side], inputs)
    _label(axes, (x, y - 0.095), source, 7.2, "muted")


def _input(axes, box: lt.Box, cell, state: int) -> None:
  """An input of the cell; one that nothing reads is pale, and says so."""
  label = state_label(state, num_inputs(cell))
  if is_read(cell, state):
    _rectangle(axes, box, "state", "state_edge", 0.13)
    _label(axes, box.center, label, 10)
    return
  _rectangle(axes, box, "paper", "grid", 0.13)
  _label(axes, box.center, label, 10, "muted")
  x, y = box.center
  _label(axes, (x, y + box.height / 2 + 0.09), "not read", 7.2, "muted")


def _label(axes, center, text, size, color="ink") -> None:
  axes.text(
    *center,
    text,
    fontsize=size,
    color=style.LIGHT[color],
    ha="center",
    va="center_baseline",
  )


def _rectangle(axes, box: lt.Box, fill: str, edge: str, rounding) -> None:
  axes.add_patch(
    FancyBboxPatch(
      (box.x, box.y),
      box.width,
      box.height,
      boxstyle=f"round,pad=0,rounding_size={rounding}",
      facecolor=style.LIGHT[fill],
      edgecolor=style.LIGHT[edge],
      linewidth=0.9,
      gid=box.key,
    )
  )


def _edge(axes, edge: lt.Edge, inputs: int) -> None:
  """An edge with an arrow head; colours tell the inputs apart."""
  color = "accent"
  if "output" in edge.key:
    color = "line"
  elif edge.state < inputs:
    color = _INPUT_COLORS[edge.state % len(_INPUT_COLORS)]
  _line(axes, edge, color)
  x, y = edge.pieces[-1][-1]
  head = [(x, y), (x - 0.032, y - 0.075), (x + 0.032, y - 0.075)]
  axes.add_patch(
    Polygon(head, facecolor=style.LIGHT[color], edgecolor="none", zorder=2)
  )


def _line(axes, edge: lt.Edge, color: str) -> None:
  points, codes = [edge.start], [Path.MOVETO]
  for piece in edge.pieces:
    points += piece
    codes += [Path.LINETO] if len(piece) == 1 else [Path.CURVE4] * 3
  axes.add_patch(
    PathPatch(
      Path(points, codes),
      facecolor="none",
      edgecolor=style.LIGHT[color],
      linewidth=1.0,
      gid=edge.key,
    )
  )
