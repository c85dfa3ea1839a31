"""Search strategies by name, all behind the contract of `base.Controller`."""

import difflib
import inspect

from nasnet_jax.controllers import (
  base,
  evolution,
  genetic,
  local_search,
  ppo,
  predictor_search,
  progressive,
  random_search,
  reinforce,
)
from nasnet_jax.spaces.base import SearchSpace

# name -> factory(space, **options) -> Controller
CONTROLLERS = {
  "evolution": evolution.evolution,
  "genetic": genetic.genetic,
  "local_search": local_search.local_search,
  "ppo": ppo.ppo,
  "predictor_search": predictor_search.predictor_search,
  "progressive": progressive.progressive,
  "random_search": random_search.random_search,
  "reinforce": reinforce.reinforce,
}


def make(
  name: str, space: SearchSpace | tuple[int, ...], **options
) -> base.Controller:
  """The controller of that name for a space, or for a plain list of decisions.

  Args:
    space: a space, or the number of choices of each decision.

  Raises:
    ValueError: for an unknown name or option (naming the nearest one), or a
      value that the strategy refuses.
  """
  if name not in CONTROLLERS:
    raise ValueError(_unknown("controller", name, list(CONTROLLERS)))
  factory = CONTROLLERS[name]
  known = list(inspect.signature(factory).parameters)[1:]
  for option in options:
    if option not in known:
      raise ValueError(_unknown(f"option of {name}", option, known))
  return factory(space, **options)


def _unknown(what: str, name: str, known: list[str]) -> str:
  nearest = difflib.get_close_matches(name, known, n=1)
  hint = f"did you mean {nearest[0]!r}? " if nearest else ""
  return (
    f"no {what} is called {name!r}; {hint}"
    f"({', '.join(known) or 'there are none'})"
  )
