"""What the pages of reports are made of: style, sections, numbers in words."""

import html
import math
import re
from typing import Any

from nasnet_jax.report import cell_drawings, runs, sheet, style

# The open page of a job under way loads itself again each minute; with a
# script it waits while something on it is open.
REFRESH = '<noscript><meta http-equiv="refresh" content="60"></noscript>'
_FOLLOW = """
setInterval(()=>{if(!document.querySelector("details[open]"))
location.reload()},60000);
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
  again = REFRESH if refresh else ""
  script += _FOLLOW if refresh else ""
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"{again}<title>{html.escape(title)}</title>"
    f"<style>{sheet.CSS}{style.stylesheet()}{css}</style></head>\n"
    f"<body><main><h1>{html.escape(title)}</h1>"
    f'<p class="sub">{below}</p>\n'
    f"{body}</main>{f'<script>{script}</script>' if script else ''}"
    "</body></html>\n"
  )


def section(title: str, body: str) -> str:
  return f"<section><h2>{title}</h2>{body}</section>\n"


def scroll(body: str, label: str) -> str:
  """What may be wider than the page: it scrolls, also from the keyboard, and
  is shaded at an end where more of it lies."""
  return (
    f'<div class="scroll" tabindex="0" role="group"'
    f' aria-label="{html.escape(label)}">{body}</div>'
  )


def table(head, rows: str, label: str, kind: str = "") -> str:
  """A table.

  Args:
    head: words of its columns; or HTML of them.
    rows: HTML of its <tr>.
    label: what a screen reader says.
    kind: class of the stylesheet: "words" sets the last column to the left,
      "named" and "runs" the first.
  """
  if not isinstance(head, str):
    head = "".join(f'<th scope="col">{html.escape(word)}</th>' for word in head)
  return scroll(
    f'<table class="{kind}"><thead><tr>{head}</tr></thead>'
    f"<tbody>{rows}</tbody></table>",
    label,
  )


def row(values, won: bool = False) -> str:
  """HTML of a row of a table, of the HTML of its cells."""
  start = '<tr class="won">' if won else "<tr>"
  return start + "".join(f"<td>{value}</td>" for value in values) + "</tr>"


def code(text, wraps: bool = True) -> str:
  """Text to copy. A command wraps, so that all of it can be seen; what has
  lines of its own scrolls."""
  if wraps:
    words = (f"<span>{word}</span>" for word in html.escape(str(text)).split())
    return f'<pre class="line">{" ".join(words)}</pre>'
  return f'<pre tabindex="0">{html.escape(str(text))}</pre>'


def details(summary: str, body: str) -> str:
  """What opens on a click.

  Args:
    summary, body: HTML.
  """
  return f"<details><summary>{summary}</summary>{body}</details>"


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
    # Points are 4/3 pixels. Wide cells may shrink a little, then scroll:
    # smaller labels could not be read.
    picture = re.sub(r' clip-path="[^"]*"', "", picture)  # nothing sticks out
    width = float(picture.split('width="')[1].split("pt")[0]) * 4 / 3
    size = f"width:{width:.0f}px;max-width:max(100%,{width / 1.1:.0f}px)"
    picture = picture.replace("<svg", f'<svg style="{size}"', 1)
    picture = scroll(picture, caption)
  return (
    f"<figure><figcaption>{html.escape(caption)}</figcaption>{picture}</figure>"
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
