"""What a drawing of a cell says where a pointer or the keyboard rests on it."""

import html
from typing import Any

import numpy as np

from nasnet_jax.report import cell_drawings, page, runs

# A run's file with the cost of each operation at each place (`counting`).
COSTS = "edge_costs.json"
Costs = dict[str, Any]  # {kind of cell: [states][operations][2]}

CSS = """
[data-tip]{cursor:help}
[data-tip]:focus{outline:none}
[data-tip]:hover path,[data-tip]:focus path{stroke-width:2.2px!important}
.cells svg text{pointer-events:none}
#tip{position:absolute;z-index:9;max-width:300px;padding:8px 11px;
border-radius:8px;background:var(--paper);color:var(--ink);font-size:.86rem;
border:1px solid var(--edge);box-shadow:0 4px 18px rgba(0,0,0,.25);
pointer-events:none;font-variant-numeric:tabular-nums}
#tip b{display:block}
#tip span{display:block;color:var(--muted)}
"""

# The first line of a tip is its title. A touch focuses, like the Tab key.
SCRIPT = """
const tip=document.createElement("div");tip.id="tip";tip.hidden=true;
tip.setAttribute("role","status");document.body.append(tip);
function show(box){
tip.replaceChildren(...box.dataset.tip.split("\\n").map((text,i)=>{
const line=document.createElement(i?"span":"b");
line.textContent=text;return line}));
tip.hidden=false;
const at=box.getBoundingClientRect(),page=document.documentElement;
const left=Math.min(at.left,page.clientWidth-tip.offsetWidth-8);
const above=at.top-tip.offsetHeight-8;
tip.style.left=Math.max(8,left)+scrollX+"px";
tip.style.top=(above<0?at.bottom+8:above)+scrollY+"px"}
function hide(){tip.hidden=true}
for(const box of document.querySelectorAll("[data-tip]")){
box.addEventListener("pointerenter",()=>show(box));
box.addEventListener("pointerleave",hide);
box.addEventListener("focus",()=>show(box));
box.addEventListener("blur",hide)}
addEventListener("keydown",event=>{if(event.key=="Escape")hide()});
"""


def read_costs(run: runs.Run, final: bool) -> tuple[list[str], Costs]:
  """(names of operations, costs by kind of cell); ([], {}) without the file.

  Args:
    final: of the winner's network, else of the children's.
  """
  known = runs.read_json(run.path / COSTS)
  costs = known.get("final" if final else "child")
  return known.get("operations") or [], costs or {}


def tips(
  cell: dict[str, Any], operations: list[str], costs: list | None
) -> dict[str, str]:
  """{key of a box in the drawing: what it says, line by line}.

  Args:
    cell: as in `CellSpace.to_json`.
    operations: names, in the order of costs.
    costs: [states][operations][2], parameters and MACs in all cells of this
      kind together; None if they are unknown.
  """
  inputs = cell_drawings.num_inputs(cell)
  found = {}
  for s in range(inputs):
    back = ("the last cell", "the one before it", "the third last cell")
    whose = back[s] if s < len(back) else f"{s + 1} cells back"
    found[f"state-{s}"] = _lines(
      f"{cell_drawings.state_label(s)}: output of {whose}", *_readers(cell, s)
    )
  for k, block in enumerate(cell["blocks"]):
    edges = list(zip(block["operations"], block["inputs"], strict=True))
    spent = [_cost(op, state, operations, costs) for op, state in edges]
    for side, (op, state) in enumerate(edges):
      found[f"block-{k}-side-{side}"] = _lines(
        op,
        f"reads {cell_drawings.state_label(state, inputs)}",
        *_words(spent[side]),
      )
    whole = None if None in spent else np.sum(spent, 0)
    text = cell_drawings.block_text(block, inputs)
    words = (*_readers(cell, inputs + k), *_words(whole))
    found[f"block-{k}"] = _lines(f"block {k}", text, *words)
    found[f"block-{k}-combine"] = _lines(
      block.get("combine", "add").replace("_", " "), text
    )
  members = cell.get("outputs") or cell["concat"]
  names = [cell_drawings.state_label(s, inputs) for s in members]
  if "outputs" in cell:
    for i, name in enumerate(names):
      found[f"output-{i}"] = f"output {i}: {name}"
  else:
    found["output"] = _lines("output", f"concat of {', '.join(names)}")
  return found


def put(svg: str, prefix: str, said: dict[str, str]) -> str:
  """The SVG of a page whose boxes say this.

  Args:
    svg: as `style.for_page` gives it.
    prefix: that it put before the ids.
  """
  for key, text in said.items():
    label = html.escape(text.replace("\n", ". "), quote=True)
    tip = html.escape(text, quote=True).replace("\n", "&#10;")
    svg = svg.replace(
      f'<g id="{prefix}-{key}"',
      f'<g id="{prefix}-{key}" data-tip="{tip}" tabindex="0" role="img"'
      f' aria-label="{label}"',
      1,
    )
  return svg


def _lines(*lines: str) -> str:
  return "\n".join(filter(None, lines))


def _readers(cell, state: int) -> list[str]:
  """One line on what reads a state."""
  readers = [
    f"block {k}" for k, b in enumerate(cell["blocks"]) if state in b["inputs"]
  ]
  if state in (cell.get("outputs") or cell["concat"]):
    readers.append("the output")
  return [f"read by {', '.join(readers) or 'nothing'}"]


def _cost(op: str, state: int, operations, costs):
  """(parameters, MACs); None if unknown."""
  if costs is None or op not in operations or state >= len(costs):
    return None
  return costs[state][operations.index(op)]


def _words(cost) -> list[str]:
  if cost is None:
    return []
  params, macs = cost
  return [
    f"{page.count(params)} parameters",
    f"{page.count(macs)} multiply-adds per image",
  ]
