"""Operations, strategies, rewards and data sources of a user's own file: which
of them a run has, and whether they are still what they were.

config.json and result.json have, under "own_parts", each one's place, as
"module:name", and digests of its source: its own text, and all files that it
uses. Another text is another part; other files are told.
"""

import functools
import hashlib
import inspect
import json
import logging
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from nasnet_jax.training import program_cache, workdir

_log = logging.getLogger(__name__)
Row = dict[str, Any]
FIELD = "own_parts"
_WHY = {
  "operation": "children of before would not compare with those to come",
  "strategy": "it goes on from its own state",
  "reward": "the strategy was told rewards of the old one",
}

_noted: dict[tuple[str, str], Any] = {}


def note(kind: str, name: str, part: Any):
  """A user's part has this name from now on.

  Args:
    kind: "operation", "strategy", "reward" or "data source".
    part: a class, a function, or a functools.partial of one.
  """
  _noted[kind, name] = part


def forget():
  """None is noted any more."""
  _noted.clear()


def of(names: Mapping[str, Iterable[str]]) -> Row:
  """{"own_parts": {kind: {name: what it is}}} of those that are users' own;
  {} if none is.

  Args:
    names: by kind.
  """
  found = {
    kind: {n: _describe(_noted[kind, n]) for n in all if (kind, n) in _noted}
    for kind, all in names.items()
  }
  found = {kind: parts for kind, parts in found.items() if parts}
  return {FIELD: found} if found else {}


def _describe(part) -> Row:
  made, text = part, ""
  if isinstance(part, functools.partial):
    made, text = part.func, repr((part.args, part.keywords))
  try:
    source = _digest(text + inspect.getsource(made))
  except (OSError, TypeError):  # typed into a prompt
    source = None
  name = getattr(made, "__qualname__", type(made).__name__)
  module = getattr(made, "__module__", "?")
  files = program_cache.files_of(module)
  return {
    "is": f"{module}:{name}",
    "source": source,
    "files": None if files is None else _digest(repr(files)),
  }


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def check(config: pathlib.Path, recorded: Row):
  """Holds a run that goes on to the parts it began with.

  Args:
    config: config.json of the run; it need not be there.
    recorded: what it is to say now.

  Raises:
    WorkdirError: one line, for a part whose source is another one.
  """
  if not config.exists():
    return
  before = workdir.read_json(config).get(FIELD, {})
  for kind, parts in recorded.get(FIELD, {}).items():
    for name, now in parts.items():
      was = before.get(kind, {}).get(name)
      if was and _differ(was, now, "source") and kind in _WHY:
        raise workdir.WorkdirError(
          f"{config.parent} was begun with another {kind} {name!r}: the source"
          f" of {now['is']} has changed ({_WHY[kind]}); put it back or take"
          " another folder"
        )
      if was and (_differ(was, now, "files") or _differ(was, now, "source")):
        _tell_change(kind, name, now)


def need(result: Row):
  """What a finished run has to be loaded with.

  Raises:
    ValueError: one line, for an operation that nobody has registered here.
  """
  used = json.dumps(result.get("winner", {}))
  for name, was in result.get(FIELD, {}).get("operation", {}).items():
    if json.dumps(name) not in used:
      continue
    part = _noted.get(("operation", name))
    if part is None:
      raise ValueError(
        f"operation {name!r} of this run is {was['is']}: import that file"
        " before (a command: --import=FILE)"
      )
    now = _describe(part)
    if _differ(was, now, "source"):
      _log.warning(
        "operation %r is no longer what the run was trained with: the source of"
        " %s has changed",
        name,
        now["is"],
      )
    elif _differ(was, now, "files"):
      _tell_change("operation", name, now)


def _differ(was: Row, now: Row, what: str) -> bool:
  """Whether both are known, and not the same."""
  return None not in (was[what], now[what]) and was[what] != now[what]


def _tell_change(kind: str, name: str, now: Row):
  _log.warning(
    "the file of %s %r (%s), or one that it uses, is not what it was when the"
    " run began",
    kind,
    name,
    now["is"],
  )
