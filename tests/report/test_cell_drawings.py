import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.report import (
  cell_drawings,
  hover,
  layout,
  stage_drawings,
  style,
)
from nasnet_jax.spaces.cells import CellSpace

CHAIN = {
  "blocks": [
    {
      "inputs": [k + 1, k + 1] if k else [0, 1],
      "operations": ["conv_1x7_7x1", "identity"],
      "combine": "concat",
    }
    for k in range(7)
  ],
  "concat": [8],
}
ONE_BLOCK = {
  "blocks": [
    {"inputs": [1, 1], "operations": ["identity", "max_pool_7x7"]},
  ],
  "concat": [0, 2],
}
# A block that nothing reads, and an output of nothing but the inputs.
DANGLING = {
  "blocks": [
    {"inputs": [0, 1], "operations": ["none", "skip_connect"]},
    {"inputs": [2, 0], "operations": ["sep_conv_3x3", "dil_conv_3x3"]},
  ],
  "concat": [0, 1],
}


def _genotypes():
  for name, (space, literal) in zoo.cells.CELLS.items():
    yield name, space.to_json(space.from_literal(literal))
  for name, space in spaces.SPACES.items():
    if not isinstance(space, CellSpace):
      continue
    for i, row in enumerate(space.sample(np.random.default_rng(1), 25)):
      yield f"{name} {i}", space.to_json(space.decode(row))
  for blocks in (1, 2, 3, 8):
    for name in ("nasnet_c", "nasnet_b"):
      space = spaces.get(name, num_blocks=blocks)
      for i, row in enumerate(space.sample(np.random.default_rng(2), 5)):
        label = f"{name} {blocks} blocks {i}"
        yield label, space.to_json(space.decode(row))


def _all_cells():
  yield from (("chain", CHAIN), ("one", ONE_BLOCK), ("dangling", DANGLING))
  for name, genotype in _genotypes():
    for kind, cell in genotype["cells"].items():
      yield f"{name} {kind}", cell


CELLS = dict(_all_cells())


@pytest.fixture(scope="module")
def drawings():
  """(name, cell, drawing) of many cells."""
  return [(name, cell, layout.layout(cell)) for name, cell in CELLS.items()]


def _overlap(a, b) -> bool:
  return (
    a.x < b.x + b.width
    and b.x < a.x + a.width
    and a.y < b.y + b.height
    and b.y < a.y + a.height
  )


def _points(edge, per_curve: int = 24):
  """Points along an edge, from its start to its end."""
  here = edge.start
  t = np.linspace(0, 1, per_curve)[:, None]
  for piece in edge.pieces:
    p = np.array([here, *piece])
    if len(p) == 2:
      yield from p[0] * (1 - t) + p[1] * t
    else:
      powers = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]
      yield from sum(w * q for w, q in zip(powers, p))
    here = piece[-1]


def _inside(box, point) -> bool:
  x, y = point
  tiny = 1e-6
  return (
    box.x + tiny < x < box.x + box.width - tiny
    and box.y + tiny < y < box.y + box.height - tiny
  )


def test_no_two_boxes_of_a_drawing_overlap(drawings):
  for name, _cell, drawing in drawings:
    for boxes in (drawing.boxes, drawing.panels):
      for a, b in itertools.combinations(boxes, 2):
        assert not _overlap(a, b), (name, a.key, b.key)


def test_every_edge_stays_out_of_boxes_it_does_not_belong_to(drawings):
  for name, cell, drawing in drawings:
    for edge in drawing.edges:
      target = re.sub(r"^edge-\d+-|-side-\d$", "", edge.key)
      own_panels = (
        f"block-{edge.state - cell_drawings.num_inputs(cell)}",
        target,
      )
      for box in (*drawing.panels, *drawing.boxes):
        if box.key in own_panels:
          continue
        assert not any(_inside(box, p) for p in _points(edge)), (name, box)


def test_everything_lies_within_the_drawing(drawings):
  for _name, _cell, drawing in drawings:
    for box in (*drawing.panels, *drawing.boxes):
      assert box.x >= 0.05 and box.x + box.width <= drawing.width - 0.05
      assert box.y >= 0.05 and box.y + box.height <= drawing.height - 0.05
    for edge in drawing.edges:
      x = [p[0] for p in _points(edge)]
      assert min(x) >= 0.05 and max(x) <= drawing.width - 0.05


def test_an_edge_runs_from_its_state_to_its_side_and_never_down(drawings):
  for _name, cell, drawing in drawings:
    boxes = {box.key: box for box in drawing.boxes}
    wanted = {
      f"edge-{state}-block-{k}-side-{side}"
      for k, block in enumerate(cell["blocks"])
      for side, state in enumerate(block["inputs"])
    }
    if "outputs" in cell:
      outputs = enumerate(cell["outputs"])
      members = {f"edge-{state}-output-{j}" for j, state in outputs}
    else:
      members = {f"edge-{state}-output" for state in cell["concat"]}
    assert {edge.key for edge in drawing.edges} == wanted | members
    assert len(drawing.edges) == 2 * len(cell["blocks"]) + len(members)
    first = cell_drawings.num_inputs(cell)
    for edge in drawing.edges:
      state = edge.state
      key = f"state-{state}"
      if state >= first:
        key = f"block-{state - first}-combine"
      source = boxes[key]
      target = boxes[edge.key.split("-", 2)[2]]
      assert edge.start == pytest.approx(
        (source.center[0], source.y + source.height)
      )
      x, y = edge.pieces[-1][-1]
      assert y == pytest.approx(target.y)
      assert target.x < x < target.x + target.width
      assert (np.diff([p[1] for p in _points(edge)]) > -1e-9).all()


def test_the_drawing_holds_every_operation_and_input_as_text(tmp_path):
  genotypes = dict(itertools.islice(_genotypes(), 8))
  for space in (spaces.NASNET_B, spaces.NASNET_C):
    row = space.sample(np.random.default_rng(3), 1)[0]
    genotypes[space.name] = space.to_json(space.decode(row))
  for i, (name, genotype) in enumerate(genotypes.items()):
    cell_drawings.draw_genotype(genotype, tmp_path / str(i))
    root = ET.parse(tmp_path / f"{i}.svg").getroot()
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    wanted = []
    for cell in genotype["cells"].values():
      inputs = cell_drawings.num_inputs(cell)
      for k, block in enumerate(cell["blocks"]):
        wanted += [cell_drawings.COMBINERS[block["combine"]], f"block {k}"]
        wanted += [cell_drawings.op_label(op) for op in block["operations"]]
        wanted += [
          cell_drawings.state_label(s, inputs) for s in block["inputs"]
        ]
      wanted += ["hᵢ", "hᵢ₋₁", "hᵢ₋₂", "hᵢ₋₃"][:inputs]
      read = {s for block in cell["blocks"] for s in block["inputs"]}
      read |= {*(cell.get("outputs") or cell["concat"])}
      wanted += ["not read" for s in range(inputs) if s not in read]
      outputs = [f"output {j}" for j in range(inputs)]
      wanted += outputs if "outputs" in cell else ["concat"]
    titles = [cell_drawings.cell_title(kind) for kind in genotype["cells"]]
    assert sorted(texts) == sorted(wanted + titles), name


def test_the_drawing_holds_one_path_per_edge(tmp_path):
  genotype = zoo.cells.genotype("nasnet_a")
  drawn = spaces.NASNET.to_json(genotype)
  cell_drawings.draw_genotype(drawn, tmp_path / "a")
  svg = (tmp_path / "a.svg").read_text()
  ids = set(re.findall(r'id="(cell-[01]-edge-[^"]+)"', svg))
  blocks = [b for cell in drawn["cells"].values() for b in cell["blocks"]]
  members = sum(len(cell["concat"]) for cell in drawn["cells"].values())
  assert len(ids) == 2 * len(blocks) + members == 2 * 10 + 6 + 4


def test_an_input_that_nothing_reads_is_pale_and_says_so(tmp_path):
  block = {"inputs": [0, 0], "operations": ["identity", "conv_1x1"]}
  cell = {"blocks": [block], "concat": [2]}
  (axes,) = cell_drawings.draw_cell(cell, "").axes
  drawn = {patch.get_gid(): patch for patch in axes.patches}
  faces = [drawn[f"state-{s}"].get_facecolor() for s in range(2)]
  assert faces[0] != faces[1]
  assert "not read" in [text.get_text() for text in axes.texts]
  assert "read by nothing" in hover.tips(cell, [], None)["state-1"]
  cell["concat"] = [1, 2]  # the output reads it
  (axes,) = cell_drawings.draw_cell(cell, "").axes
  assert "not read" not in [text.get_text() for text in axes.texts]


def test_blocks_of_a_layer_stand_in_the_order_of_their_numbers(drawings):
  for name, cell, drawing in drawings:
    layers = {}
    for panel in drawing.panels:
      layers.setdefault(panel.y, []).append(panel)
    for panels in layers.values():
      order = sorted(panels, key=lambda panel: panel.x)
      numbers = [int(panel.key.split("-")[1]) for panel in order]
      assert numbers == sorted(numbers), name
    assert len(drawing.panels) == len(cell["blocks"])


def test_the_same_cell_gives_the_same_bytes(tmp_path):
  for name in ("a", "b"):
    cell_drawings.draw_cell(CHAIN, "Chain", tmp_path / f"{name}.svg")
  for ending in ("svg", "png"):
    first = (tmp_path / f"a.{ending}").read_bytes()
    assert first == (tmp_path / f"b.{ending}").read_bytes()
  assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "a.png",
    "a.svg",
    "b.png",
    "b.svg",
  ]


def test_a_cell_without_blocks_is_refused_in_one_line():
  with pytest.raises(ValueError, match="needs a block and an output"):
    layout.layout({"blocks": [], "concat": [0]})


def test_operations_have_short_labels_and_a_family():
  labels = {
    "sep_conv_5x5": ("sep 5x5", "separable"),
    "dil_conv_3x3": ("dil 3x3", "conv"),
    "conv_1x7_7x1": ("1x7-7x1", "conv"),
    "conv_1x1": ("conv 1x1", "conv"),
    "max_pool_7x7": ("max 7x7", "pool"),
    "avg_pool_3x3": ("avg 3x3", "pool"),
    "identity": ("identity", "identity"),
    "none": ("none", "other"),
  }
  for operation, (label, family) in labels.items():
    assert cell_drawings.op_label(operation) == label
    assert cell_drawings.op_family(operation) == family


def test_a_cell_reads_as_text():
  block = {
    "inputs": [0, 1],
    "operations": ["sep_conv_5x5", "max_pool_3x3"],
    "combine": "add",
  }
  second = {**block, "inputs": [2, 0], "combine": "concat"}
  assert cell_drawings.cell_text(
    {"blocks": [block, second], "concat": [1, 3]}
  ) == [
    "block 0: sep 5x5(h_i) + max 3x3(h_i-1)",
    "block 1: concat(sep 5x5(block 0), max 3x3(h_i))",
    "output: concat(h_i-1, block 1)",
  ]


def test_a_cell_of_separate_outputs_reads_as_text():
  block = {
    "inputs": [0, 2],
    "operations": ["sep_conv_5x5", "max_pool_3x3"],
    "combine": "add_layer_norm",
  }
  second = {**block, "inputs": [3, 1], "combine": "add_instance_norm"}
  third = {**block, "combine": "add"}
  cell = {"blocks": [block, second, third], "outputs": [3, 4, 5]}
  assert cell_drawings.cell_text(cell) == [
    "block 0: layer norm(sep 5x5(h_i) + max 3x3(h_i-2))",
    "block 1: instance norm(sep 5x5(block 0) + max 3x3(h_i-1))",
    "block 2: sep 5x5(h_i) + max 3x3(h_i-2)",
    "outputs: block 0, block 1, block 2",
  ]


def test_each_light_colour_is_unique_so_that_dark_can_replace_it():
  assert style.LIGHT.keys() == style.DARK.keys()
  assert len(set(style.LIGHT.values())) == len(style.LIGHT)


def test_every_colour_of_a_drawing_has_a_dark_counterpart(tmp_path):
  cell_drawings.draw_cell(DANGLING, "Cell", tmp_path / "cell")
  svg = (tmp_path / "cell.svg").read_text()
  body = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
  used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", body))
  assert used and used <= set(style.LIGHT.values())


def test_stages_are_drawn_without_the_nodes_that_they_leave_out(tmp_path):
  space = spaces.get("genetic_cnn")
  decisions = np.zeros(19, int)
  decisions[[3, 9, 10]] = 1  # stage 1: 0 to 1; stage 2: 0 to 1, 0 to 2
  genotype = space.to_json(space.decode(decisions))
  cell_drawings.draw_genotype(genotype, tmp_path / "stages")
  svg = (tmp_path / "stages.svg").read_text()
  assert (tmp_path / "stages.png").stat().st_size > 1000
  words = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
  assert words.count("input") == 3 and words.count("output") == 2
  assert sorted(w for w in words if w.isdigit()) == ["0", "0", "1", "1", "2"]
  assert stage_drawings.stage_text(genotype)[:2] == [
    "stage 0 (3 nodes)",
    "  one convolution",
  ]


def test_blocks_are_drawn_group_by_group(tmp_path):
  arch = zoo.blocks.architecture("mnasnet_a1")
  genotype = spaces.get("blocks").to_json(arch)
  cell_drawings.draw_genotype(genotype, tmp_path / "blocks")
  svg = (tmp_path / "blocks.svg").read_text()
  assert (tmp_path / "blocks.png").stat().st_size > 1000
  words = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
  assert words[:4] == [
    "conv 3x3 / 2, 32",
    "1 x MBConv1 3x3, 16",
    "2 x MBConv6 3x3 / 2, 24",
    "3 x MBConv3 5x5 SE / 2, 40",
  ]
  assert words[-1] == "conv 1x1, 1280"


def test_skips_of_searched_blocks_are_told(tmp_path):
  space = spaces.get("mnasnet")
  rows = np.zeros((7, 6), int)
  rows[:, -1] = 2  # a layer more everywhere
  rows[1, 3], rows[2, 3] = 1, 2
  genotype = space.to_json(space.decode(rows.reshape(-1)))
  cell_drawings.draw_genotype(genotype, tmp_path / "blocks")
  svg = (tmp_path / "blocks.svg").read_text()
  words = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
  assert words[1:4] == [
    "2 x conv 3x3, 16, no skip",
    "3 x conv 3x3 / 2, 24",
    "4 x conv 3x3 / 2, 24, skip pooled",
  ]
