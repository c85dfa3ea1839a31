"""Spaces as callers give them, and as config.json has them."""

import json
from typing import Any

from nasnet_jax import spaces
from nasnet_jax.controllers import base

Row = dict[str, Any]


def as_space(space):
  """The space that is meant: a name, numbers of choices, or a space itself.

  Raises:
    ValueError: one line, for anything else.
  """
  if isinstance(space, str):
    return spaces.get(space)
  try:
    return base.as_space(space)
  except TypeError:
    raise ValueError(
      f"space is {space!r}: give a name, numbers of choices such as [3, 3, 4],"
      " or a space"
    ) from None


def describe(space) -> Row:
  """What config.json says of a space: `spaces.get` reads it, if it knows it."""
  if hasattr(space, "options"):
    return {"name": space.name, **space.options}
  return {
    "name": space.name,
    "num_choices": [int(c) for c in space.num_choices],
  }


def same(space, fields: Row) -> bool:
  """Whether `config.space` of a run is this space."""
  mine = json.loads(json.dumps(describe(space)))
  if "num_choices" in fields:
    return mine == fields
  try:
    theirs = describe(spaces.get(**fields))
  except (TypeError, ValueError):
    return False
  return mine == json.loads(json.dumps(theirs))
