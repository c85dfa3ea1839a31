"""The report's section that draws the winner, or the best child so far."""

from nasnet_jax.report import architectures, hover, page, runs, winners


def drawings(
  run: runs.Run, winner: winners.Winner | None, files: bool = True
) -> str:
  """The winner's cells, stages or blocks; "" if there is nothing to draw.

  Args:
    files: whether the drawings are also written into `figures/`.
  """
  genotype = winner.genotype if winner else {}
  of = architectures.kind(genotype)
  if not of:
    return ""
  if files:
    architectures.save(genotype, run.path / "figures")
  if run.kind != "search":
    title = f"The network's {of}"
  else:
    whose = "winner" if winner.final else "best child"
    title = f"{of.capitalize()} of the {whose}"
  return page.section(title, _body(run, winner, of))


def _body(run: runs.Run, winner: winners.Winner, of: str) -> str:
  genotype = winner.genotype
  text = architectures.as_text(genotype)
  if of != "cells":
    return architectures.drawn(genotype, "") + text
  operations, costs = hover.read_costs(run, winner.final)
  said = {
    name: hover.tips(cell, operations, costs.get(name))
    for name, cell in genotype["cells"].items()
  }
  note = "Point at a box to see what it reads"
  note += ", and what it costs in all cells of its kind." if costs else "."
  return (
    f'<p class="sub">{note}</p>{architectures.drawn(genotype, "", said)}'
    f"{page.legend(genotype['cells'])}{text}"
  )
