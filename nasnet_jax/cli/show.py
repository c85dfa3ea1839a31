"""`--show`: a config's manual, then each field with its value and its comment.

Comments are those of the source: while a config is made, each assignment's line
is written down, whichever file it is in (`nasnet_jax/fields/`, the config, one
that it starts from), and what stands on that line or above it is read there.
"""

import ast
import contextlib
import functools
import io
import pathlib
import sys
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections

from nasnet_jax import fields
from nasnet_jax.cli import shipped

_GROUPS = pathlib.Path(fields.__file__).parent
_LIBRARY = str(pathlib.Path(ml_collections.__file__).parent)
_COLUMN = 40  # of comments, where a value leaves room
LEGEND = "* changed by the variant or on the command line"


class _Assignment(NamedTuple):
  value: Any
  comment: str
  in_groups: bool


# (the group, kept alive for its id; field -> what it was set to, in order)
_Record = dict[int, tuple[Any, dict[str, list[_Assignment]]]]


def text(name: str, config: Any) -> str:
  """What `--show` prints.

  Args:
    name: of the config, or its file, with its variant: see `shipped.path`.
    config: the same, with what the command line says differently.
  """
  with _recorded() as record:
    made = shipped.config(name)
  plain = _plain(name)
  lines, last = [manual(name), "", LEGEND], None
  for field, assigned in _in_order(made, record):
    group = field.rpartition(".")[0].partition(".")[0]
    lines += [""] * (group != last)
    last = group
    lines.append(_line(field, _get(config, field), assigned, plain))
  return "\n".join(lines)


def manual(name: str) -> str:
  """The header of a config."""
  file = shipped.path(name).partition(":")[0]
  return ast.get_docstring(ast.parse(pathlib.Path(file).read_text())) or ""


def _plain(name: str) -> Any:
  """The config without its variant; None if there is none."""
  try:
    return shipped.config(name.partition(":")[0])
  except Exception:  # a file of one's own may need a variant
    return None


@contextlib.contextmanager
def _recorded() -> Iterator[_Record]:
  """Writes down every assignment to any ConfigDict."""
  record: _Record = {}
  original = ml_collections.ConfigDict.__setitem__

  def record_and_set(self, key, value):
    original(self, key, value)
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_LIBRARY):
      frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    _, history = record.setdefault(id(self), (self, {}))
    comment = _comment(file, line, key)
    in_groups = _GROUPS in pathlib.Path(file).parents
    history.setdefault(key, []).append(
      _Assignment(self[key], comment, in_groups)
    )

  ml_collections.ConfigDict.__setitem__ = record_and_set
  try:
    yield record
  finally:
    ml_collections.ConfigDict.__setitem__ = original


def _in_order(group, record: _Record, prefix: str = ""):
  """(dotted name, its assignments) of all fields, in the order of definition,
  but those of a group after the others."""
  _, history = record.get(id(group), (group, {}))
  keys = [key for key in history if key in group]
  groups = [key for key in keys if _is_group(group[key])]
  for key in keys:
    if key not in groups:
      yield f"{prefix}{key}", history[key]
  for key in groups:
    yield from _in_order(group[key], record, f"{prefix}{key}.")


def _is_group(value) -> bool:
  return isinstance(value, ml_collections.ConfigDict)


def _get(config, field: str) -> Any:
  for key in field.split("."):
    config = config[key]
  return config


def _line(field: str, value, assigned: list[_Assignment], plain) -> str:
  """One field."""
  default = assigned[-1].value  # what only this variant has
  with contextlib.suppress(KeyError, TypeError):
    default = _get(plain, field)
  if not _same(assigned[-1].value, value):  # by the command line
    assigned = [*assigned, _Assignment(value, "", False)]
  changed = not _same(value, default)
  notes = _notes(assigned, f"default {default!r}" if changed else "")
  start = f"{'*' if changed else ' '} {field} = {value!r}"
  return f"{start:{_COLUMN}}  # {notes}" if notes else start


def _notes(assigned: list[_Assignment], default: str) -> str:
  """The comment of the last assignment, the default where it is another value,
  and the comment of the group's value, with it where it is another one."""
  last = assigned[-1]
  notes = [last.comment, default]
  if not (last.comment and last.in_groups):
    earlier = [a for a in assigned[:-1] if a.comment]
    if earlier:
      value, comment, _ = earlier[-1]
      if value is None or _same(value, last.value):
        notes.append(comment)
      elif default == f"default {value!r}":
        notes[1] = f"{default}: {comment}"
      else:
        notes.append(f"{value!r}: {comment}")
  return "; ".join(dict.fromkeys(filter(None, notes)))


def _same(a, b) -> bool:
  return type(a) is type(b) and a == b


# Comments of a file


def _comment(file: str, line: int, key: str) -> str:
  """Of the assignment to `key` on this line: what stands above and behind."""
  source = _read(file)
  if source is None:
    return ""
  statements, comments = source
  node = _entry(_innermost(statements, line), key)
  if node is None:
    return ""
  above, number = [], node.lineno - 1
  while number in comments and comments[number][1]:
    above.insert(0, comments[number][0])
    number -= 1
  behind = comments.get(node.end_lineno) or comments.get(node.lineno)
  parts = [" ".join(above), behind[0] if behind else ""]
  return "; ".join(part.removesuffix(".") for part in parts if part)


@functools.lru_cache(maxsize=32)
def _read(file: str):
  """(statements, {line: (comment, whether it stands alone)}); None for what is
  no file of Python."""
  try:
    text = pathlib.Path(file).read_text()
    tree = ast.parse(text)
  except (OSError, SyntaxError, UnicodeDecodeError):
    return None
  statements = [
    node
    for node in ast.walk(tree)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr)
  ]
  comments = {}
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      alone = not token.line[: token.start[1]].strip()
      comments[token.start[0]] = (token.string.lstrip("# "), alone)
  return statements, comments


def _innermost(statements, line: int):
  around = [s for s in statements if s.lineno <= line <= s.end_lineno]
  return min(around, key=lambda s: s.end_lineno - s.lineno, default=None)


def _entry(statement, key: str):
  """The key's part of a statement that sets many, as a dict or keywords do;
  else the statement."""
  if statement is None:
    return None
  for node in ast.walk(statement):
    if isinstance(node, ast.keyword) and node.arg == key:
      return node
    if isinstance(node, ast.Dict):
      for name, value in zip(node.keys, node.values):
        if isinstance(name, ast.Constant) and name.value == key:
          return _Lines(name.lineno, value.end_lineno)
  return statement


class _Lines(NamedTuple):
  lineno: int
  end_lineno: int
