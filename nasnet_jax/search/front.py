"""The front of several objectives, of which the final stage takes children."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from nasnet_jax.jobs.architectures import was_stopped
from nasnet_jax.pareto import fronts

Row = dict[str, Any]


class Member(NamedTuple):
  """A child on the front.

  Attributes:
    row: of the history.
    ends: names of the objectives in which it is the best.
    knee: see `fronts.places`.
  """

  row: Row
  ends: tuple[str, ...]
  knee: bool


def has_one(rows: Iterable[Row]) -> bool:
  """Whether these rows are of a search of several objectives."""
  return any("objectives" in row for row in rows)


def of(rows: Iterable[Row]) -> list[Member]:
  """The children on the front in the order in which the final stage takes them:
  the end of the first objective, the knee, the other ends, then the rest, those
  with the most room around them first. Of equal rewards the earliest child
  counts."""
  ok = [r for r in rows if r["status"] == "ok" and not was_stopped(r)]
  ok = sorted(ok, key=lambda row: row["id"])
  if not ok:
    return []
  names = tuple(ok[0]["objectives"])
  values = [[row["objectives"][name] for name in names] for row in ok]
  return [
    Member(ok[p.row], tuple(names[k] for k in p.ends), p.knee)
    for p in fronts.places(values)
  ]


def summary(rows: Iterable[Row]) -> Row:
  """What result.json says of the front; its children are in the order of
  `of`."""
  members = of(rows)
  return {
    "objectives": list(members[0].row["objectives"]),
    "children": [member.row["id"] for member in members],
    "ends": {name: m.row["id"] for m in members for name in m.ends},
    "knee": next(m.row["id"] for m in members if m.knee),
  }


def words(member: Member) -> str:
  """What a child is on the front."""
  return fronts.words(member.ends, member.knee)
