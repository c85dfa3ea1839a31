"""The loop around the step, which everything that trains one state uses.

advance = compile_steps(step_fn)
for state, totals in run(state, advance, until=..., ...):
  report, save, evaluate
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.training import mesh, metrics, stop
from nasnet_jax.training.state import TrainState

# (state, data) -> (state, metrics): one update, which picks its own batch.
StepFn = Callable[[TrainState, Any], tuple[TrainState, dict]]


class Advance(NamedTuple):
  """Compiled updates; called with (state, totals, data, n) it makes n of them
  in one device call and gives (state, totals).

  Attributes:
    once: (state, totals, data), for n = 1.
    many: (state, totals, data, n).
  """

  once: Callable
  many: Callable

  def __call__(self, state: TrainState, totals, data, n: int):
    if n == 1:
      return self.once(state, totals, data)
    return self.many(state, totals, data, np.int32(n))


def compile_steps(step_fn: StepFn) -> Advance:
  """Compiles an update so that one device call makes n of them.

  One update stands outside of any loop: on CPU a convolution inside one is
  many times slower. More than one share a loop whose length is an argument,
  so all lengths share one program. The state given in is donated.
  """

  def once(state, totals, data):
    state, step_metrics = step_fn(state, data)
    return state, metrics.add(totals, step_metrics)

  def many(state, totals, data, n):
    return jax.lax.fori_loop(
      0, n, lambda _, carry: once(*carry, data), (state, totals)
    )

  donated = functools.partial(jax.jit, donate_argnums=0)
  return Advance(donated(once), donated(many))


def run(
  state: TrainState,
  advance: Advance,
  feed: Iterator[Any],
  *,
  steps_per_call: int,
  report_every: int,
  tick: Callable[[int], None] = lambda step: None,
  totals: metrics.Totals | None = None,
  stopped: Callable[..., None] = lambda *_: None,
) -> Iterator[tuple[TrainState, metrics.Totals]]:
  """Trains to the state's horizon.

  Yields (state, totals since the last yield) at every multiple of
  `report_every` steps and at the horizon: a run that starts from a state
  yielded here goes on exactly as this one does.

  Args:
    state: given up: its buffers are donated.
    advance: from `compile_steps`.
    feed: what each device call reads, on the device: the whole set over and
      over, or batch after batch.
    steps_per_call: updates per device call, at most.
    report_every: in steps.
    tick: called with the step after each device call; it may raise to stop.
    totals: of a state that was stopped between two yields.
    stopped: called with (state, totals since the last yield) if a signal
      stopped it, with (state) right after a yield: given those again, training
      goes on exactly, too.
  """
  step, horizon = int(state.step), int(state.horizon)
  # On the state's devices, or the first call would be another program.
  beside = state.step.sharding
  empty = mesh.put(metrics.Totals.empty(), beside)
  totals = empty if totals is None else mesh.put(totals, beside)
  held = None
  while step < horizon:
    target = min(horizon, (step // report_every + 1) * report_every)
    while step < target:
      n = min(steps_per_call, target - step)
      before = totals
      state, totals = advance(state, totals, next(feed), n)
      # One call may wait in the device's queue, not hundreds: a stop should
      # not take long, nor should the first line of output.
      jax.block_until_ready(before)
      step += n
      try:
        tick(step)
      except stop.Stopped as asked:
        if step < target:
          stopped(state, totals)
          raise
        held = asked  # what comes now would be lost
    yield state, totals
    if held:
      stopped(state)
      raise held
    totals = empty
