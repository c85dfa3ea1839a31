"""Learning rates at known moments."""

import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.training import schedules


def _at(schedule, *progress):
  return [float(schedule(jnp.float32(p))) for p in progress]


def test_a_cosine_starts_at_the_peak_and_ends_at_nothing():
  rates = _at(schedules.make("cosine", 0.4, 10), 0, 1 / 3, 0.5, 1)
  np.testing.assert_allclose(rates, [0.4, 0.3, 0.2, 0], atol=1e-7)


def test_an_exponential_falls_in_steps():
  schedule = schedules.make("exponential", 2.0, 24, 0, 0.97, 2.4)
  rates = _at(schedule, 0, 0.099, 0.1, 0.55, 1.0)
  wanted = [2, 2, 2 * 0.97, 2 * 0.97**5, 2 * 0.97**10]
  np.testing.assert_allclose(rates, wanted, rtol=1e-6)


def test_every_step_that_ends_a_period_is_in_the_next():
  steps = 24 * 100  # of 24 epochs
  schedule = schedules.make("exponential", 1.0, 24, 0, 0.5, 2.4)
  progress = jnp.arange(steps) / jnp.float32(steps)
  powers = np.log(np.asarray(schedule(progress))) / np.log(0.5)
  np.testing.assert_allclose(powers, np.arange(steps) // 240, atol=1e-4)


def test_warming_up_multiplies_by_a_ramp():
  plain = schedules.make("exponential", 1.0, 10)
  warm = schedules.make("exponential", 1.0, 10, warmup_epochs=2)
  np.testing.assert_allclose(_at(warm, 0, 0.1, 0.15), [0, 0.5, 0.75])
  assert _at(warm, 0.2, 0.7) == _at(plain, 0.2, 0.7)


def test_a_schedule_that_is_none_gets_one_clear_line():
  with pytest.raises(ValueError, match="'cosin' is not one of: cosine"):
    schedules.make("cosin", 1.0, 10)
  with pytest.raises(ValueError, match="warmup_epochs is 10 of 10"):
    schedules.make("cosine", 1.0, 10, warmup_epochs=10)


def test_a_piecewise_rate_falls_where_it_is_told_to():
  schedule = schedules.make(
    "piecewise", 2.0, 10, decay_factor=0.1, decay_at=(4.0, 8.0)
  )
  rates = [schedule(jnp.float32(p)) for p in (0.0, 0.39, 0.4, 0.79, 0.8, 1.0)]
  wanted = [2, 2, 0.2, 0.2, 0.02, 0.02]
  np.testing.assert_allclose(rates, wanted, rtol=1e-5)


def test_cosines_start_again_each_twice_as_long_as_the_one_before():
  schedule = schedules.make("restarts", 0.05, 150)  # 10, 20, 40, 80 epochs
  epochs = [0, 5, 9.999, 10, 20, 30, 50, 70, 110, 150]
  rates = _at(schedule, *(epoch / 150 for epoch in epochs))
  top, middle, low = 0.05, 0.02525, 0.0005
  wanted = [top, middle, low, top, middle, top, middle, top, middle, low]
  np.testing.assert_allclose(rates, wanted, atol=2e-6)
