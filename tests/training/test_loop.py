"""The loop around the step: donated buffers, a device that never waits."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from nasnet_jax.training import loop
from nasnet_jax.training.state import TrainState


def _state(horizon):
  """A state whose parameter counts its updates; buffers of its own."""
  numbers = jnp.int32(0), jnp.int32(horizon), jnp.uint32(0)
  return TrainState({"n": jnp.zeros(3)}, {}, {"m": jnp.zeros(2)}, *numbers)


def _step(state, data):
  params = {"n": state.params["n"] + data}
  metrics = {"loss": params["n"].sum(), "accuracy": jnp.float32(1)}
  return state._replace(params=params, step=state.step + 1), metrics


@pytest.mark.parametrize("n", [1, 3])
def test_an_update_takes_over_the_buffers_of_the_state_before(n):
  advance = loop.compile_steps(_step)
  before = _state(9)
  after, _ = advance(before, loop.metrics.Totals.empty(), jnp.ones(3), n)
  assert all(leaf.is_deleted() for leaf in (before.params["n"], before.step))
  assert int(after.step) == n
  assert after.params["n"].tolist() == [n] * 3


@pytest.mark.parametrize("steps_per_call", [1, 2, 100])
def test_points_come_at_multiples_and_at_the_horizon(steps_per_call):
  points = loop.run(
    _state(7),
    loop.compile_steps(_step),
    itertools.repeat(jnp.ones(3)),
    steps_per_call=steps_per_call,
    report_every=3,
  )
  found = [(int(s.step), loop.metrics.read(t)["loss"]) for s, t in points]
  # Means of 3, 6, 9; of 12, 15, 18; of 21: since the point before.
  assert found == [(3, 6.0), (6, 15.0), (7, 21.0)]


def test_a_call_is_in_the_queue_before_the_one_before_is_waited_for(
  monkeypatch,
):
  """So the device goes from one to the next, and never waits for the host."""
  events = []

  def advance(state, totals, data, n):
    del totals, data
    step = state.step + n
    events.append(f"queue {int(step)}")
    return state._replace(step=step), int(step)  # stands for its totals

  def wait(totals):
    if isinstance(totals, int):
      events.append(f"wait {totals}")

  monkeypatch.setattr(jax, "block_until_ready", wait)
  (_,) = loop.run(
    _state(4), advance, itertools.repeat(0), steps_per_call=1, report_every=4
  )
  assert events == [
    "queue 1",
    "queue 2",
    "wait 1",
    "queue 3",
    "wait 2",
    "queue 4",
    "wait 3",
  ]
