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


def exponential(
  peak: float,
  epochs: float,
  factor: float = 0.97,  # slim, nasnet.py: every 2.4 epochs
  every: float = 2.4,
  staircase: bool = True,
) -> Schedule:
  """peak * factor ** (epochs so far / every), in steps or smoothly.

  Args:
    epochs: of the whole training.
  """

  def schedule(progress):
    periods = progress * (epochs / every)
    # A step that ends a period must not fall below it by a rounding.
    periods = jnp.floor(periods + 1e-4) if staircase else periods
    return peak * factor**periods

  return schedule


def piecewise(
  peak: float, epochs: float, factor: float, at: tuple[float, ...]
) -> Schedule:
  """peak, times `factor` for every epoch of `at` that has passed.

  Args:
    epochs: of the whole training.
  """

  def schedule(progress):
    passed = sum((progress * epochs >= epoch - 1e-4) for epoch in at)
    return peak * factor ** jnp.asarray(passed, jnp.float32)

  return schedule


def restarts(
  peak: float,
  epochs: float,
  first: float = 10.0,  # melodyguan/enas, child_lr_T_0
  factor: float = 2.0,  # melodyguan/enas, child_lr_T_mul
  lowest: float = 0.01,  # melodyguan/enas: 0.0005 of 0.05
) -> Schedule:
  """Cosines from `peak` to lowest * peak, again and again, each `factor` times
  as long as the one before (Loshchilov & Hutter 2017).

  Args:
    epochs: of the whole training.
    first: epochs of the first cosine.
  """
  starts, length = [0.0], first
  while starts[-1] + length < epochs:
    starts.append(starts[-1] + length)
    length *= factor
  lengths = [first * factor**i for i in range(len(starts))]

  def schedule(progress):
    epoch = progress * epochs
    # A step that begins a cosine must not end the last one by a rounding.
    number = sum((epoch >= start - 1e-4) for start in starts[1:])
    number = jnp.asarray(number, jnp.int32)
    share = (epoch - jnp.asarray(starts)[number]) / jnp.asarray(lengths)[number]
    return peak * lowest + cosine(peak * (1 - lowest))(
      jnp.clip(share, 0.0, 1.0)
    )

  return schedule


def warmed_up(schedule: Schedule, share: float) -> Schedule:
  """The schedule, times a ramp from 0 to 1 over the first share of it."""
  if not share:
    return schedule
  return lambda progress: (
    jnp.minimum(progress / share, 1.0) * schedule(progress)
  )


SCHEDULES = {"cosine": cosine, "constant": constant}


def make(
  name: str,
  peak: float,
  epochs: float,
  warmup_epochs: float = 0.0,
  decay_factor: float = 0.97,
  decay_epochs: float = 2.4,
  decay_at: tuple[float, ...] = (),
) -> Schedule:
  """A schedule by name: "cosine", "constant", "restarts", "exponential" or
  "piecewise".

  Args:
    peak: learning rate at the start, or after warming up.
    epochs: of the whole training.
    warmup_epochs: of a linear ramp from 0, which multiplies the schedule.
    decay_factor: of "exponential" and "piecewise".
    decay_epochs: of "exponential".
    decay_at: epochs at which "piecewise" falls.

  Raises:
    ValueError: for an unknown name, a warm-up that never ends, or epochs of
      "piecewise" that are not given.
  """
  if not 0 <= warmup_epochs < max(epochs, 1e-9):
    raise ValueError(
      f"warmup_epochs is {warmup_epochs} of {epochs} epochs: give fewer, or"
      " train for more"
    )
  if not (decay_epochs > 0 and decay_factor > 0):
    raise ValueError(
      f"decay_factor is {decay_factor} and decay_epochs {decay_epochs}: give"
      " numbers above 0"
    )
  if name == "exponential":
    schedule = exponential(peak, epochs, decay_factor, decay_epochs)
  elif name == "piecewise":
    if not decay_at:
      raise ValueError(
        "schedule 'piecewise' falls at the epochs of decay_at, and there are"
        " none: give them, or take another schedule"
      )
    schedule = piecewise(peak, epochs, decay_factor, tuple(decay_at))
  elif name == "restarts":
    schedule = restarts(peak, epochs)
  elif name in SCHEDULES:
    schedule = SCHEDULES[name](peak)
  else:
    known = ", ".join([*SCHEDULES, "restarts", "exponential", "piecewise"])
    raise ValueError(f"schedule {name!r} is not one of: {known}")
  return warmed_up(schedule, warmup_epochs / epochs)
