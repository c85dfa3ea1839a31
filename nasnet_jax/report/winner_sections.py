"""The report's sections that draw the winner, or the best child so far."""

import html
from typing import Any

from nasnet_jax.report import (
  block_drawings,
  cell_drawings,
  hover,
  page,
  runs,
  stage_drawings,
  style,
  winners,
)


def drawings(run: runs.Run, winner: winners.Winner | None) -> str:
  """The winner's cells, stages or blocks; "" if there is nothing to draw."""
  if winner and winner.genotype.get("stages"):
    return _stages(run, winner)
  if winner and winner.genotype.get("architecture"):
    return _blocks(run, winner)
  drawn = winner.genotype.get("cells") if winner else None
  if not drawn:
    return ""
  folder = run.path / "figures"
  cell_drawings.draw_genotype(winner.genotype, folder / "cells")
  operations, costs = hover.read_costs(run, winner.final)
  figures = []
  for name, cell in drawn.items():
    title = cell_drawings.cell_title(name)
    stem = "cell" if name == "cell" else f"cell_{name}"
    style.save(cell_drawings.draw_cell(cell, title), folder / stem)
    svg = style.to_svg(cell_drawings.draw_cell(cell, ""))
    figure = page.inline(svg, stem, title, natural=True)
    said = hover.tips(cell, operations, costs.get(name))
    figures.append(hover.put(figure, stem, said))
  whose = "Cells of the winner" if winner.final else "Cells of the best child"
  note = "Point at a box to see what it reads"
  note += ", and what it costs in all cells of its kind." if costs else "."
  return page.section(
    whose,
    f'<p class="sub">{note}</p>'
    f'<div class="cells">{"".join(figures)}</div>{page.legend(drawn)}'
    f"{_as_text(winner.genotype)}",
  )


def _stages(run: runs.Run, winner: winners.Winner) -> str:
  figure = stage_drawings.draw_stages(
    winner.genotype, run.path / "figures" / "stages"
  )
  whose = "Stages of the winner" if winner.final else "Stages of the best child"
  drawn = page.inline(
    style.to_svg(figure), "stages", "Its graphs", natural=True
  )
  return page.section(whose, drawn + _as_text(winner.genotype))


def _blocks(run: runs.Run, winner: winners.Winner) -> str:
  figure = block_drawings.draw_blocks(
    winner.genotype, run.path / "figures" / "blocks"
  )
  whose = "Blocks of the winner" if winner.final else "Blocks of the best child"
  drawn = page.inline(
    style.to_svg(figure), "blocks", "From the image on", natural=True
  )
  return page.section(whose, drawn + _as_text(winner.genotype))


def _as_text(genotype: dict[str, Any]) -> str:
  text = html.escape("\n".join(winners.genotype_lines(genotype)))
  return (
    f"<details><summary>The same as text</summary><pre>{text}</pre></details>"
  )
