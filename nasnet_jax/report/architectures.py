"""An architecture on a page: drawn, and as text."""

import functools
import json
from typing import Any

from nasnet_jax.report import (
  cell_drawings,
  hover,
  page,
  style,
  winners,
)


def drawn(
  genotype: dict[str, Any], prefix: str, said: dict[str, dict] | None = None
) -> str:
  """HTML of an architecture's cells, stages or blocks; "" for another one.

  Args:
    genotype: of the space's `to_json`.
    prefix: of the ids on the page.
    said: what boxes of each kind of cell say, see `hover.tips`.
  """
  if genotype.get("stages"):
    return _alone(genotype, f"{prefix}stages", "Its graphs")
  if genotype.get("architecture"):
    return _alone(genotype, f"{prefix}blocks", "From the image on")
  figures = []
  for name, cell in (genotype.get("cells") or {}).items():
    stem = f"{prefix}cell" if name == "cell" else f"{prefix}cell_{name}"
    figure = page.inline(
      _svg(json.dumps(cell)), stem, cell_drawings.cell_title(name), natural=True
    )
    figures.append(hover.put(figure, stem, (said or {}).get(name, {})))
  return f'<div class="cells">{"".join(figures)}</div>' if figures else ""


def _alone(genotype: dict[str, Any], name: str, caption: str) -> str:
  svg = _svg_of_all(json.dumps(genotype))
  figure = page.inline(svg, name, caption, natural=True)
  return f'<div class="cells">{figure}</div>'


# A page that follows a run draws the same best children again and again.
@functools.lru_cache(maxsize=256)
def _svg(cell: str) -> str:
  return style.to_svg(cell_drawings.draw_cell(json.loads(cell), ""))


@functools.lru_cache(maxsize=64)
def _svg_of_all(genotype: str) -> str:
  return style.to_svg(cell_drawings.draw_genotype(json.loads(genotype)))


def kind(genotype: dict[str, Any]) -> str:
  """What it is made of: "cells", "stages", "blocks", or ""."""
  if genotype.get("stages"):
    return "stages"
  if genotype.get("architecture"):
    return "blocks"
  return "cells" if genotype.get("cells") else ""


def as_text(genotype: dict[str, Any]) -> str:
  """The architecture in words, behind a click."""
  lines = winners.genotype_lines(genotype)
  return page.details(
    "The same as text", page.code("\n".join(lines), wraps=False)
  )


def save(genotype: dict[str, Any], folder) -> None:
  """Writes the drawings as files; nothing of an unknown architecture."""
  of = kind(genotype)
  if of:
    cell_drawings.draw_genotype(genotype, folder / of)
  if of != "cells":
    return
  for name, cell in genotype["cells"].items():
    stem = "cell" if name == "cell" else f"cell_{name}"
    title = cell_drawings.cell_title(name)
    style.save(cell_drawings.draw_cell(cell, title), folder / stem)
