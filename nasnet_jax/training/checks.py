"""What the recipes of trainings have in common to check."""


def at_least_one(recipe, *names: str):
  """Raises ValueError, in a line, for a field below 1."""
  for name in names:
    value = getattr(recipe, name)
    if value < 1:
      raise ValueError(f"{name} is {value}: give 1 or more")
