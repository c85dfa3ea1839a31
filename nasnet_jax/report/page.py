"""What the pages of reports are made of: style, sections, numbers in words."""

import html
import math
from typing import Any

from nasnet_jax.report import cell_drawings, runs, style

_CSS = """
:root{color-scheme:light dark;--paper:#fff;--page:#f6f7f9;--ink:#1f2933;
--muted:#5f6b7a;--edge:#e0e4e9;--accent:#2563c9;--code:#f3f5f7}
@media (prefers-color-scheme:dark){:root{--paper:#12171d;--page:#0b0f13;
--ink:#e8ebee;--muted:#9aa6b4;--edge:#2a323b;--accent:#6ea4f7;--code:#1b222a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.6rem;line-height:1.2;margin:0}
h2{font-size:1.12rem;margin:0 0 12px}
p{margin:0 0 12px}
.sub{color:var(--muted);margin:4px 0 20px}
section{background:var(--paper);border:1px solid var(--edge);
border-radius:10px;padding:18px;margin:0 0 16px}
.facts{display:grid;gap:14px 28px;margin:0;
grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.facts dt{color:var(--muted);font-size:.84rem}
.facts dd{margin:0;font-size:1.25rem;font-weight:600;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
.facts dd small{display:block;font-size:.82rem;font-weight:400;
color:var(--muted)}
.figures{display:grid;gap:20px;
grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}
.cells{display:flex;flex-wrap:wrap;gap:20px 32px;align-items:flex-start}
figure{margin:0;min-width:0;max-width:100%}
figcaption{font-size:.88rem;color:var(--muted);margin:0 0 6px}
.scroll{overflow-x:auto;max-width:100%}
.figures svg{display:block;width:100%;height:auto;max-width:620px}
.cells svg{display:block;height:auto}
svg *{stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
sans-serif!important}
table{border-collapse:collapse;width:100%;font-size:.92rem;
font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--edge);
white-space:nowrap;vertical-align:top}
th{color:var(--muted);font-weight:500}
td:last-child,th:last-child{text-align:left}
td:first-child,th:first-child{padding-left:0}
.runs td:last-child,.runs th:last-child{text-align:right}
.runs td:first-child,.runs th:first-child{text-align:left}
.runs small{color:var(--muted)}
a{color:var(--accent)}
tr.won td{font-weight:600}
tr.won td:last-child{font-weight:400}
pre{background:var(--code);border-radius:8px;padding:10px 12px;margin:0 0 12px;
overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,
"DejaVu Sans Mono",monospace}
summary{cursor:pointer;color:var(--accent)}
.legend{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:.86rem;
color:var(--muted);margin:14px 0 0}
.legend i{display:inline-block;width:14px;height:14px;border-radius:4px;
border:1.5px solid;margin-right:6px;vertical-align:-2px}
"""


def page(
  title: str,
  below: str,
  body: str,
  refresh: bool,
  css: str = "",
  script: str = "",
) -> str:
  """A whole HTML file.

  Args:
    title: plain text.
    below: HTML of the line below the title.
    body: HTML of the sections.
    refresh: the open page loads itself again each minute.
    css, script: besides what every page has.
  """
  again = '<meta http-equiv="refresh" content="60">' if refresh else ""
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"{again}<title>{html.escape(title)}</title>"
    f"<style>{_CSS}{style.stylesheet()}{css}</style></head>\n"
    f"<body><main><h1>{html.escape(title)}</h1>"
    f'<p class="sub">{below}</p>\n'
    f"{body}</main>{f'<script>{script}</script>' if script else ''}"
    "</body></html>\n"
  )


def section(title: str, body: str) -> str:
  return f"<section><h2>{title}</h2>{body}</section>\n"


def facts(facts) -> str:
  """[(name, value, note)...] as tiles; those without a value are left out."""
  tiles = []
  for name, value, note in facts:
    if value not in (None, "", "?"):
      small = f"<small>{html.escape(note)}</small>" if note else ""
      tiles.append(
        f"<div><dt>{html.escape(name)}</dt>"
        f"<dd>{html.escape(str(value))}{small}</dd></div>"
      )
  return f'<dl class="facts">{"".join(tiles)}</dl>'


def inline(svg: str, name: str, caption: str, natural: bool = False) -> str:
  """A figure inside the page; a natural one keeps a legible size."""
  picture = style.for_page(svg, name, html.escape(caption))
  if natural:
    # Points are 4/3 pixels. Wide cells may shrink by a third, then scroll.
    width = float(picture.split('width="')[1].split("pt")[0]) * 4 / 3
    size = f"width:{width:.0f}px;max-width:max(100%,{width / 1.5:.0f}px)"
    picture = picture.replace("<svg", f'<svg style="{size}"', 1)
  return (
    f"<figure><figcaption>{html.escape(caption)}</figcaption>"
    f'<div class="scroll">{picture}</div></figure>'
  )


def legend(drawn: dict[str, Any]) -> str:
  """The colours of the operations, for the families that occur."""
  used = {
    cell_drawings.op_family(op)
    for cell in drawn.values()
    for block in cell["blocks"]
    for op in block["operations"]
  }
  entries = [
    f'<span><i class="{family}"></i>{words}</span>'
    for family, words in cell_drawings.FAMILIES.items()
    if family in used
  ]
  css = _legend_css(style.LIGHT) + (
    f"@media (prefers-color-scheme:dark){{{_legend_css(style.DARK)}}}"
  )
  return f'<style>{css}</style><p class="legend">{"".join(entries)}</p>'


def _legend_css(colors: dict[str, str]) -> str:
  return "".join(
    f".legend .{family}{{background:{colors[family]};"
    f"border-color:{colors[family + '_edge']}}}"
    for family in cell_drawings.FAMILIES
  )


def count(value: float) -> str:
  """1234567 -> "1,234,567", 2.1e9 -> "2.10 billion", 0.00123 -> "0.00123";
  "?" if not known."""
  if math.isnan(value):
    return "?"
  for scale, name in ((1e9, "billion"), (1e7, "million")):
    if value >= scale:
      return f"{value / (1e9 if scale == 1e9 else 1e6):.2f} {name}"
  return f"{value:.3g}" if 0 < value < 1 else f"{value:,.0f}"


def duration(seconds: float) -> str:
  if math.isnan(seconds):
    return "?"
  if seconds < 120:
    return f"{seconds:.0f} s"
  if seconds < 7200:
    return f"{seconds / 60:.1f} min"
  return f"{seconds / 3600:.1f} h"


def decimal(value, form: str) -> str | None:
  value = runs.number(value)
  return None if math.isnan(value) else format(value, form)
