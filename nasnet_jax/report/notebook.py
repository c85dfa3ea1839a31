"""A run in a notebook's cell: what leads, its cells, the rewards so far."""

import html

from nasnet_jax.report import (
  cell_drawings,
  page,
  runs,
  search_charts,
  style,
  winners,
)


def snippet(run_dir) -> str:
  """HTML of a run, to be put into a page; nothing is written.

  Raises:
    FileNotFoundError: in one line, if there is no run in the folder.
  """
  run = runs.read_run(run_dir)
  winner = winners.winner_of(run)
  figures = []
  for name, cell in (
    (winner.genotype if winner else {}).get("cells", {}).items()
  ):
    drawn = style.to_svg(cell_drawings.draw_cell(cell, ""))
    title = cell_drawings.cell_title(name)
    figures.append(page.inline(drawn, f"cell_{name}", title, natural=True))
  if len(run.history):
    chart = style.to_svg(search_charts.reward_figure(run.history))
    figures.append(page.inline(chart, "reward", "Reward by child"))
  return (
    f"<style>{style.stylesheet()}</style>"
    f"<p><b>{html.escape(run.path.name)}</b>: {_words(run, winner)}</p>"
    f"{''.join(figures)}"
  )


def _words(run: runs.Run, winner: winners.Winner | None) -> str:
  words = [f"{len(run.history):,} children"]
  if winner is not None:
    kind = "child {} won" if winner.final else "child {} leads"
    words.append(kind.format(winner.id))
  tested = winners.test_accuracy(run.result)
  if tested:
    words.append(f"test accuracy {tested[0]} ({tested[1]})")
  elif not run.result:
    words.append("not finished")
  return html.escape(", ".join(words))
