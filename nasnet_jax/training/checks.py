"""What the recipes of trainings have in common to check."""

import math


def at_least_one(recipe, *names: str):
  """Raises ValueError, in a line, for a field below 1."""
  for name in names:
    value = getattr(recipe, name)
    if value < 1:
      raise ValueError(f"{name} is {value}: give 1 or more")


def at_least(recipe, least: dict[str, float]):
  """The same for fields below their least values, infinite ones and NaN."""
  for name, bound in least.items():
    value = getattr(recipe, name)
    if not bound <= value < math.inf:
      raise ValueError(f"{name} is {value}: give {bound} or more")


def shares(recipe, *names: str):
  """The same for fields that are no share below 1."""
  for name in names:
    value = getattr(recipe, name)
    if not 0 <= value < 1:
      raise ValueError(f"{name} is {value}: give 0 or more, below 1")
