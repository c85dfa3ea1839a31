"""Learning rates as functions of progress in [0, 1]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def cosine(peak: float) -> Schedule:
  """Single-period cosine from `peak` to 0 (Loshchilov & Hutter 2017)."""
  return lambda progress: peak * 0.5 * (1 + jnp.cos(jnp.pi * progress))


def constant(value: float) -> Schedule:
  return lambda progress: jnp.full_like(progress, value)


SCHEDULES = {"cosine": cosine, "constant": constant}
