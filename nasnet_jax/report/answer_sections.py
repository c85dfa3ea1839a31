"""The sections on what a network gets wrong, and on the images it was asked."""

import html
from typing import Any

import numpy as np

from nasnet_jax.report import page, runs

_MATRIX = 20  # classes whose confusion matrix can be read
_LISTED = 12  # classes, and pairs of them, where there are more


def mistakes(run: runs.Run, chart: str = "") -> str:
  """What a classifier gets wrong on the test images; "" if that was not kept.

  Args:
    chart: a figure's HTML that stands beside it.
  """
  tested = run.tested
  if not tested.get("classes"):
    return ""
  few = len(tested["classes"]) <= _MATRIX and tested.get("confusion")
  parts = [_matrix(tested) if few else _pairs(tested), _classes(tested)]
  pictures, title = _pictures(tested), "What it gets wrong"
  if chart:  # then two rows of two
    parts, pictures = [*parts, pictures], ""
    title = "Training, and what is wrong"
  columns = "".join(f"<div>{part}</div>" for part in parts if part)
  grid = f'<div class="figures">{chart}{columns}</div>'
  return page.section(title, f"{_words(tested)}{grid}{pictures}")


def _words(tested: dict[str, Any]) -> str:
  total, right = tested["examples"], tested["correct"]
  mean = runs.number(tested.get("mean_per_class"))
  text = f"{total - right:,} of {total:,} test images are wrong"
  if mean == mean:
    text += f"; mean accuracy per class {mean:.2%}"
  return f'<p class="sub">{text}.</p>'


def _names(tested: dict[str, Any]) -> list[str]:
  return [str(row["name"]) for row in tested["classes"]]


def _matrix(tested: dict[str, Any]) -> str:
  """The confusion matrix; classes of which no image was there are one column
  if any answer was one of them."""
  table = np.array(tested["confusion"], int)
  names, said = _names(tested), [str(name) for name in tested["answers"]]
  own = [said.index(name) for name in names]
  others = table.sum(1) - table[:, own].sum(1)
  inside, columns = table[:, own], list(names)
  if others.any():
    inside = np.concatenate([inside, others[:, None]], 1)
    columns.append("others")
  head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in columns)
  body = "".join(
    f'<tr><th scope="row">{html.escape(name)}</th>'
    f"{''.join(_cell(n, sum(row), i == k) for k, n in enumerate(row))}</tr>"
    for i, (name, row) in enumerate(zip(names, inside.tolist()))
  )
  head = f"<td></td>{head}"
  return (
    '<h3>Confusion matrix</h3><p class="sub">Rows: what images are; columns:'
    " the answers.</p>" + page.table(head, body, "Confusion matrix", "matrix")
  )


def _cell(count: int, total: int, right: bool) -> str:
  if not count:
    return '<td class="none">0</td>'
  colour = "29,127,78" if right else "191,47,58"
  strength = (0.1 if right else 0.3) + 0.3 * count / total
  style = f"background:rgba({colour},{strength:.2f})"
  return f'<td style="{style}">{count:,}</td>'


def _pairs(tested: dict[str, Any]) -> str:
  """The most frequent wrong answers."""
  names, said = _names(tested), [str(name) for name in tested["answers"]]
  triples = tested.get("pairs")
  if triples is None:
    table = np.array(tested["confusion"], int)
    rows, columns = np.nonzero(table)
    triples = np.stack([rows, columns, table[rows, columns]], 1).tolist()
  wrong = [t for t in triples if names[t[0]] != said[t[1]]]
  wrong.sort(key=lambda t: -t[2])
  totals = [row["examples"] for row in tested["classes"]]
  body = "".join(
    page.row(
      [
        html.escape(names[row]),
        html.escape(said[column]),
        f"{count:,} of {totals[row]:,}",
      ]
    )
    for row, column, count in wrong[:_LISTED]
  )
  if not body:
    return "<h3>Taken for another</h3><p>None.</p>"
  return "<h3>Taken for another most often</h3>" + page.table(
    ("what it is", "what it is taken for", "images"),
    body,
    "Classes taken for another",
    "named",
  )


def _classes(tested: dict[str, Any]) -> str:
  """The accuracy of each class, of many the lowest."""
  rows = [
    (row["correct"] / row["examples"], row)
    for row in tested["classes"]
    if row["examples"]
  ]
  title = "Accuracy per class"
  if len(rows) > _MATRIX:
    rows = sorted(rows, key=lambda pair: pair[0])[:_LISTED]
    title = f"Accuracy per class, the lowest {_LISTED}"
  body = "".join(
    page.row(
      [
        html.escape(str(row["name"])),
        f"{share:.2%}",
        f"{row['correct']:,} of {row['examples']:,}",
      ]
    )
    for share, row in rows
  )
  return f"<h3>{title}</h3>" + page.table(
    ("class", "accuracy", "right"), body, "Accuracy per class", "named"
  )


def _pictures(tested: dict[str, Any]) -> str:
  wrong = [row for row in tested.get("wrong") or () if _is_picture(row)]
  if not wrong:
    return ""
  figures = [
    _figure(
      row,
      f"{html.escape(str(row['is']))}, taken for"
      f" <b>{html.escape(str(row['said']))}</b>"
      f" ({runs.number(row.get('share')):.0%})",
      f"{row['is']}, taken for {row['said']}",
    )
    for row in wrong
  ]
  return "<h3>Wrong, and most sure of it</h3>" + _shown(figures, wrong)


def sample(run: runs.Run) -> str:
  """A few pictures of each class; "" if none were kept."""
  rows = [row for row in run.tested.get("sample") or () if _is_picture(row)]
  data = run.result.get("data") or {}
  classes = [str(name) for name in data.get("classes") or ()]
  if not rows:
    return ""
  figures = [
    _figure(row, html.escape(str(row["is"])), str(row["is"])) for row in rows
  ]
  return page.section(
    "The images", _counts(data, classes) + _shown(figures, rows)
  )


def _counts(data: dict[str, Any], classes: list[str]) -> str:
  parts = [
    f"{data[name]:,} {words}"
    for name, words in (("train", "to train on"), ("valid", "to validate"))
    if isinstance(data.get(name), int)
  ]
  shape = data.get("image_shape") or ()
  if shape:
    parts.append(f"{' x '.join(map(str, shape))} values each")
  if classes:
    shown = ", ".join(classes[:_MATRIX])
    more = f" and {len(classes) - _MATRIX:,} more" * (len(classes) > _MATRIX)
    parts.append(f"{len(classes):,} classes: {shown}{more}")
  return f"<p>{html.escape('; '.join(parts))}. Some of the test images:</p>"


def boxes(run: runs.Run) -> str:
  """Pictures with what a detector found on them."""
  rows = [row for row in run.tested.get("boxes") or () if _is_picture(row)]
  if not rows:
    return ""
  figures = [
    _figure(
      row,
      f"{row['found']:,} found, {row['true']:,} there",
      f"a test picture: {row['found']} boxes found, {row['true']} there",
    )
    for row in rows
  ]
  note = (
    f'<p class="sub">Of the test pictures: white what is there, coloured what'
    f" was found with a score of {run.tested.get('score', 0)} or more.</p>"
  )
  return page.section(
    "What it finds",
    f'{note}<div class="pictures large">{"".join(figures)}</div>',
  )


def _is_picture(row) -> bool:
  return str(row.get("picture", "")).startswith("data:image/")


def _figure(row, caption: str, alt: str) -> str:
  source = html.escape(str(row["picture"]), quote=True)
  return (
    f'<figure><img src="{source}" alt="{html.escape(alt, quote=True)}">'
    f"<figcaption>{caption}</figcaption></figure>"
  )


def _shown(figures: list[str], rows) -> str:
  """Pictures of icons' size are shown with the pixels they have."""
  tiny = all(row["picture"].startswith("data:image/png") for row in rows)
  kind = "pictures pixels" if tiny else "pictures"
  return f'<div class="{kind}">{"".join(figures)}</div>'
