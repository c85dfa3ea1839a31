"""How every figure looks: one palette, light and dark, the same SVG and PNG.

A figure is drawn once, in the light colours. The dark ones are a stylesheet
that matches the light colours in the SVG's style attributes, so a file still
looks right in programs that know no CSS.
"""

import contextlib
import io
import pathlib
import re
import threading
from typing import Any

import matplotlib
from matplotlib.backends import backend_agg, backend_svg
from matplotlib.figure import Figure

from nasnet_jax.report import runs

# Every light colour is unique: the dark stylesheet finds it by its value.
LIGHT = {
  "paper": "#ffffff",
  "ink": "#1f2933",
  "muted": "#5f6b7a",
  "grid": "#e5e8ec",
  "panel": "#f3f5f7",
  "line": "#8b96a5",
  "accent": "#2563c9",
  "second": "#c4560a",
  "previous": "#b0307c",
  "good": "#1d7f4e",
  "bad": "#bf2f3a",
  "separable": "#cfe1fa",
  "separable_edge": "#4a80c8",
  "conv": "#cdeed9",
  "conv_edge": "#3c9464",
  "pool": "#fde3bd",
  "pool_edge": "#c07f22",
  "identity": "#e7e1f3",
  "identity_edge": "#8a75b5",
  "other": "#f9d9e2",
  "other_edge": "#bd5f7c",
  "state": "#dfe4ea",
  "state_edge": "#7c8896",
}
DARK = {
  "paper": "#12171d",
  "ink": "#e8ebee",
  "muted": "#9aa6b4",
  "grid": "#2a323b",
  "panel": "#1b222a",
  "line": "#74808e",
  "accent": "#6ea4f7",
  "second": "#f09a55",
  "previous": "#f07ebd",
  "good": "#57c28c",
  "bad": "#f0747d",
  "separable": "#1f436f",
  "separable_edge": "#5f96dc",
  "conv": "#1c4d34",
  "conv_edge": "#4fae7c",
  "pool": "#5a3f14",
  "pool_edge": "#d0953c",
  "identity": "#40345c",
  "identity_edge": "#a18ccb",
  "other": "#5c2a3b",
  "other_edge": "#d07f9a",
  "state": "#333d49",
  "state_edge": "#8b97a6",
}
# Points that become one picture (too many for SVG) must suit both papers.
RASTER = "#5a8fe0"
MAX_VECTOR_POINTS = 1500

# Shades of an operation's family, for charts that show single operations.
SHADES = {
  "separable": ("#1f4e94", "#3f7fd0", "#8db9ec"),
  "conv": ("#14603a", "#2d8a58", "#57b381", "#8fd1ab", "#bfe6cf"),
  "pool": ("#9a5b0b", "#d08a25", "#eab45c", "#f6d59b"),
  "identity": ("#8a75b5", "#b9a9d8"),
  "other": ("#bd5f7c", "#e09db1"),
}

_RC = {
  "font.family": ["sans-serif"],
  "font.sans-serif": ["DejaVu Sans"],
  "font.size": 9,
  "axes.labelsize": 9,
  "axes.titlesize": 10,
  "xtick.labelsize": 8.5,
  "ytick.labelsize": 8.5,
  "legend.fontsize": 8.5,
  "legend.frameon": False,
  "axes.facecolor": LIGHT["paper"],
  "axes.edgecolor": LIGHT["line"],
  "axes.labelcolor": LIGHT["ink"],
  "axes.titlecolor": LIGHT["ink"],
  "axes.titlelocation": "left",
  "axes.linewidth": 0.8,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": LIGHT["grid"],
  "grid.linewidth": 0.8,
  "text.color": LIGHT["ink"],
  "xtick.color": LIGHT["line"],
  "ytick.color": LIGHT["line"],
  "xtick.labelcolor": LIGHT["muted"],
  "ytick.labelcolor": LIGHT["muted"],
  "svg.fonttype": "none",  # text stays text: searchable, small, sharp
  "svg.hashsalt": "nasnet_jax",  # ids that do not change from run to run
}


# The settings of matplotlib are the process's: one thread draws at a time.
_LOCK = threading.RLock()


@contextlib.contextmanager
def style():
  """Drawing inside does not depend on the user's own matplotlib settings."""
  with _LOCK, matplotlib.rc_context(matplotlib.rcParamsDefault):
    matplotlib.rcParams.update(_RC)
    yield


def new_figure(width: float, height: float, layout: str | None) -> Figure:
  """An empty figure of that many inches, without the pyplot state."""
  with style():
    return Figure((width, height), facecolor=LIGHT["paper"], layout=layout)


def legend_entries(*axes) -> dict[str, Any]:
  """{label: handle}, the first of each: equal labels are one entry."""
  found: dict[str, Any] = {}
  for one in axes:
    for handle, label in zip(*one.get_legend_handles_labels()):
      found.setdefault(label, handle)
  return found


def stylesheet() -> str:
  """CSS that turns figures dark where the reader wants it.

  The selectors name no ancestor: markers are drawn through <use>, and what
  that copies has none.
  """
  rules = [
    f'[style*="{prop}: {LIGHT[name]}"]{{{prop}:{DARK[name]}!important}}'
    for name in LIGHT
    for prop in ("fill", "stroke")
  ]
  return "@media (prefers-color-scheme: dark){" + "".join(rules) + "}"


def to_svg(figure: Figure) -> str:
  """The figure as SVG text, the same bytes each time."""
  buffer = io.StringIO()
  nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
  with style():
    backend_svg.FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
  text = re.sub(r"<style.*?</style>", "", buffer.getvalue(), flags=re.DOTALL)
  css = "*{stroke-linejoin:round;stroke-linecap:butt}" + stylesheet()
  start = text.index(">", text.index("<svg")) + 1
  return text[:start] + f"\n<style>{css}</style>" + text[start:]


def to_png(figure: Figure, dpi: int = 160) -> bytes:
  """The figure as PNG bytes."""
  buffer = io.BytesIO()
  with style():
    figure.set_dpi(dpi)
    backend_agg.FigureCanvasAgg(figure).print_png(
      buffer, metadata={"Software": None}
    )
  return buffer.getvalue()


def for_page(svg: str, name: str, label: str) -> str:
  """The SVG element to put inside an HTML page that has `stylesheet`.

  Args:
    svg: as `to_svg` writes it.
    name: prefix that keeps the ids of several figures on a page apart.
    label: what a screen reader says.
  """
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
  svg = _compact(svg)
  svg = re.sub(r'\bid="', f'id="{name}-', svg)
  svg = svg.replace('href="#', f'href="#{name}-')
  svg = svg.replace("url(#", f"url(#{name}-")
  # The page is the paper, and shows its shade where a drawing scrolls.
  paper = f'style="fill: {LIGHT["paper"]}"'
  svg = svg.replace(paper, 'style="fill: none"', 1)
  return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


# What programs that show an SVG alone need, or nobody; a page has its own font.
_SPARE = (
  (r"<!--.*?-->", ""),
  (r' transform="rotate\(-0 [^"]*"', ""),
  (r"font-family: [^;\"]*; ", ""),
  (r"; stroke-linejoin: miter", ""),
  (r' id="(?:text|patch|line2d|[xy]tick|axes|figure|legend)_\d+"', ""),
  (r"\s*\n\s*", "\n"),
)


def _compact(svg: str) -> str:
  """The same drawing in half the letters; numbers to a hundredth of a point, a
  seventieth of a pixel or less."""
  svg = re.sub(
    r'\b(?:d|x|y|width|height)="[^"]*"',
    lambda found: " ".join(re.sub(r"(\.\d\d)\d+", r"\1", found[0]).split()),
    svg,
  )
  for spare, instead in _SPARE:
    svg = re.sub(spare, instead, svg, flags=re.DOTALL)
  return svg


def save(figure: Figure, path) -> str:
  """Writes the figure as .svg and .png; returns the SVG text.

  Args:
    figure: what to write.
    path: with either ending, or without one.
  """
  path = pathlib.Path(path)
  if path.suffix in (".svg", ".png"):
    path = path.with_suffix("")
  svg = to_svg(figure)
  runs.write_atomic(path.with_name(path.name + ".svg"), svg)
  runs.write_atomic(path.with_name(path.name + ".png"), to_png(figure))
  return svg
