"""A search that learns from the children of another one before its first own.

What was read of the other folder is kept in the run's (`start_from.jsonl`), and
its digest in config.json: the search goes on alike when the other one has grown
or is gone.
"""

import hashlib
import json
import logging
import pathlib
from typing import Any

from nasnet_jax.controllers import CONTROLLERS, base
from nasnet_jax.controllers.taught import taught
from nasnet_jax.data import paths
from nasnet_jax.jobs import results
from nasnet_jax.report import runs
from nasnet_jax.search import any_space
from nasnet_jax.search.rounds import HISTORY
from nasnet_jax.training import workdir

_log = logging.getLogger(__name__)
Row = dict[str, Any]
FILE = "start_from.jsonl"
_LEARNT = ("decisions", "reward", "objectives")
# What rewards follow from, in config.json.
_MEASURED = (
  "job",
  "data_fingerprint",
  "search.reward",
  "search.objectives",
  "search.weights",
  "search.shared",
  "search.inherit",
  "child",
  "network",
)


def read(folder: pathlib.Path, other, space) -> list[Row]:
  """Decisions and rewards of another search's children, those that succeeded.

  Args:
    folder: of the new run; what it has kept counts, if it has begun.
    other: the other run's folder; None or "": no children.
    space: the new run's.

  Raises:
    ValueError: one line: no search there, none of this space, or no child that
      succeeded.
  """
  if not other:
    return []
  if (folder / FILE).exists() and (folder / results.CONFIG).exists():
    return workdir.keep_lines(folder / FILE, lambda _: True, "")
  there = paths.local(other)
  if not (there / results.CONFIG).exists():
    why = runs.why_no_run(there, results.CONFIG)
    raise ValueError(f"start_from: {why}")
  fields = workdir.read_json(there / results.CONFIG).get("space") or {}
  if not any_space.same(space, fields):
    raise ValueError(
      f"start_from: {there} searched another space, {_words(fields)}: its"
      f" decisions mean nothing in {_words(any_space.describe(space))}"
    )
  rows, skipped = runs.read_lines(there / HISTORY)
  if skipped:
    _log.warning("start_from: %d lines of %s are damaged", skipped, there)
  known = [
    {name: row[name] for name in _LEARNT if name in row}
    for row in rows
    if row.get("reward") is not None
  ]
  if not known:
    raise ValueError(f"start_from: {there} has no child that succeeded yet")
  return known


def _words(fields: Row) -> str:
  options = [f"{k}={v}" for k, v in fields.items() if k != "name" and v]
  return " ".join([repr(fields.get("name")), *options])


def teach(
  controller: base.Controller,
  strategy: str,
  known: list[Row],
  names: tuple[str, ...] = (),
) -> base.Controller:
  """The controller that has learnt from them.

  Args:
    names: of the objectives, if there are several.

  Raises:
    ValueError: one line, for a strategy that cannot, or children of which
      another search was not told these objectives.
  """
  if not known:
    return controller
  if controller.teach is None:
    able = sorted({*_able()})
    raise ValueError(
      f"start_from: strategy {strategy!r} cannot learn from children that it"
      f" did not propose: take {', '.join(able)}, or leave start_from out"
    )
  rewards = [_rewards(k, names) for k in known]
  return taught(controller, [k["decisions"] for k in known], rewards)


def _rewards(child: Row, names) -> float | list[float]:
  if not names:
    return child["reward"]
  there = child.get("objectives") or {"reward": child["reward"]}
  for name in names:
    if name not in there:
      raise ValueError(
        f"start_from: search.objectives has {name!r}, and children there were"
        f" rewarded by {', '.join(there)} only: leave start_from out"
      )
  return [there[name] for name in names]


def _able():
  """Names of strategies that can learn from others' children."""
  for name, make in CONTROLLERS.items():
    try:
      if make((2, 2)).teach is not None:
        yield name
    except ValueError:  # needs another space
      pass


def keep(folder: pathlib.Path, known: list[Row]):
  """Writes them into the run's folder; before its config is."""
  if known and not (folder / results.CONFIG).exists():
    workdir.write_text(folder / FILE, _text(known))


def recorded(known: list[Row]) -> Row:
  """What config.json says of them, and says again when the run goes on."""
  if not known:
    return {}
  digest = hashlib.sha256(_text(known).encode()).hexdigest()
  return {"known": {"children": len(known), "sha256": digest}}


def tell(
  folder: pathlib.Path, other, known: list[Row], config: Row, absent: Row
):
  """A line for a new run: how much it knows, and whose rewards differ.

  Args:
    config: that config.json of the new run is to have.
    absent: see `workdir.claim`; the other run may be older than a field.
  """
  if not known or (folder / results.CONFIG).exists():
    return
  _log.info("start_from: learns from %d children of %s", len(known), other)
  changed = workdir.changes(paths.local(other) / results.CONFIG, config, absent)
  names = [n for n in changed if workdir.is_among(n, _MEASURED)]
  if names:
    was, now = changed[names[0]]
    _log.warning(
      "start_from: rewards of %s were measured otherwise, %s was %r and is now"
      " %r: they are taken as they are",
      other,
      names[0],
      was,
      now,
    )


def _text(known: list[Row]) -> str:
  return "".join(json.dumps(row) + "\n" for row in known)
