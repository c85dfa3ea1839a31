"""Drawings of cells, charts, and one HTML file per run. No JAX in here."""

import sys

from nasnet_jax import CallableModule
from nasnet_jax.report.cell_drawings import draw_cell, draw_genotype
from nasnet_jax.report.comparison import write_comparison
from nasnet_jax.report.comparison_charts import draw_searches
from nasnet_jax.report.hover import COSTS
from nasnet_jax.report.html import finish_report, summary_text, write_report
from nasnet_jax.report.live import following
from nasnet_jax.report.runs import TESTED, how_to_load
from nasnet_jax.report.scalings import draw_scalings
from nasnet_jax.report.training_charts import draw_trainings

__all__ = [
  "COSTS",
  "TESTED",
  "draw_cell",
  "draw_genotype",
  "draw_scalings",
  "draw_searches",
  "draw_trainings",
  "finish_report",
  "following",
  "how_to_load",
  "summary_text",
  "write_comparison",
  "write_report",
]
# The package is called, too: nas.report(run), see CallableModule.
sys.modules[__name__].__class__ = CallableModule
