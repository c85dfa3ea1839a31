"""Batches are a pure function of (seed, step)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.data import batches
from nasnet_jax.data.image_data import DataError

SIZES = [1, 2, 3, 4, 5, 9, 10, 101, 1500, 44_944, 45_000]

permuted = jax.jit(batches.permuted, static_argnums=2)
batch_indices = jax.jit(batches.batch_indices, static_argnums=(2, 3))
epoch_order = jax.jit(batches.epoch_order, static_argnums=(1, 2))


@pytest.mark.parametrize("n", SIZES)
def test_every_key_permutes_all_numbers_below_n(n):
  for seed in range(3):
    order = permuted(jax.random.key(seed), jnp.arange(n), n)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_a_large_set_is_permuted_without_a_table():
  n, positions = 2**31 - 1, jnp.arange(100_000) * 21_474
  order = np.asarray(permuted(jax.random.key(0), positions, n))
  assert order.min() >= 0 and len(set(order.tolist())) == len(order)
  assert abs(order.astype(float).mean() / n - 0.5) < 0.01


@pytest.mark.smoke
def test_the_order_is_the_same_on_every_version():
  first = batch_indices(7, 0, 45_000, 8)
  assert first.tolist() == [
    23795,
    37009,
    44578,
    22535,
    35706,
    41317,
    3475,
    30225,
  ]
  assert batch_indices(7, 1, 45_000, 4).tolist() == [
    35706,
    41317,
    3475,
    30225,
  ]


@pytest.mark.parametrize("n, batch_size", [(10, 3), (12, 4), (97, 32), (5, 5)])
def test_no_example_comes_twice_within_an_epoch(n, batch_size):
  steps = batches.steps_per_epoch(n, batch_size)
  assert steps == n // batch_size
  left_out = set()
  for epoch in range(4):
    rows = [
      np.asarray(batch_indices(0, epoch * steps + i, n, batch_size))
      for i in range(steps)
    ]
    seen = np.concatenate(rows)
    assert len(set(seen.tolist())) == len(seen) == steps * batch_size
    assert seen.min() >= 0 and seen.max() < n
    left_out.add(frozenset(range(n)) - frozenset(seen.tolist()))
  if n % batch_size:
    assert len(left_out) > 1  # not always the same ones


def test_batches_are_the_rows_of_the_epochs_order():
  n, batch_size, seed = 50, 8, 3
  for epoch in (0, 1, 5):
    order = epoch_order(batches.epoch_rng(seed, epoch), n, batch_size)
    assert order.shape == (6, 8) and order.dtype == jnp.int32
    for i in range(6):
      np.testing.assert_array_equal(
        batch_indices(seed, epoch * 6 + i, n, batch_size), order[i]
      )


def test_epochs_and_seeds_have_orders_of_their_own():
  orders = [
    epoch_order(batches.epoch_rng(seed, epoch), 200, 200)[0]
    for seed in range(4)
    for epoch in range(4)
  ]
  table = np.asarray(jnp.stack(orders))
  for i, row in enumerate(table):
    same = (table == row).sum(1)
    same[i] = 0
    assert same.max() < 10  # by chance one in 200


def test_children_under_vmap_have_the_batches_of_each_alone():
  seeds, steps = jnp.arange(5), jnp.array([0, 3, 11, 400, 401])
  get = functools.partial(batches.batch_indices, n=1500, batch_size=32)
  together = jax.jit(jax.vmap(get))(seeds, steps)
  for child in range(5):
    np.testing.assert_array_equal(
      together[child], get(int(seeds[child]), int(steps[child]))
    )
  mapped = jax.lax.map(lambda pair: get(*pair), (seeds, steps))
  np.testing.assert_array_equal(mapped, together)


def test_every_example_comes_to_every_place_equally_often():
  n, keys = 12, 6000
  orders = jax.jit(jax.vmap(lambda rng: permuted(rng, jnp.arange(n), n)))(
    jax.random.split(jax.random.key(0), keys)
  )
  counts = np.stack(
    [np.bincount(column, minlength=n) for column in np.asarray(orders).T]
  )
  # Chi-squared with 121 degrees of freedom: 121 +- 16, a bound at 5 sigma.
  chi2 = ((counts - keys / n) ** 2 / (keys / n)).sum()
  assert chi2 < 121 + 5 * 16


def test_neighbours_are_torn_apart():
  n = 45_000
  order = np.asarray(permuted(jax.random.key(1), jnp.arange(n), n)).astype(
    float
  )
  for lag in (1, 2, 211, 212, 213):
    correlation = np.corrcoef(order[lag:], order[:-lag])[0, 1]
    assert abs(correlation) < 0.025  # 5 sigma
  # A batch is a random sample: pairs that were neighbours are rare in it.
  rows = np.sort(order[: n // 100 * 100].reshape(-1, 100))
  expected = 100 * 99 / n * len(rows)
  assert abs((np.diff(rows) == 1).sum() - expected) < 5 * np.sqrt(expected)


def test_all_six_orders_of_three_come_evenly():
  orders = jax.jit(jax.vmap(lambda rng: permuted(rng, jnp.arange(3), 3)))(
    jax.random.split(jax.random.key(5), 6000)
  )
  _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
  assert len(counts) == 6
  assert abs(counts - 1000).max() < 250


@pytest.mark.parametrize("n, batch_size", [(3, 4), (0, 1), (5, 0)])
def test_fewer_images_than_one_batch_are_refused(n, batch_size):
  with pytest.raises(DataError):
    batch_indices(0, 0, n, batch_size)
  with pytest.raises(DataError):
    epoch_order(jax.random.key(0), n, batch_size)


@pytest.mark.parametrize("n, batch_size", [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_evaluation_counts_every_example_once(n, batch_size):
  index, counts = batches.evaluation_order(n, batch_size)
  assert index.shape == counts.shape == (-(-n // batch_size), batch_size)
  assert index[counts].tolist() == list(range(n))
  assert (index[~counts] == 0).all()
  with pytest.raises(DataError, match="nothing to evaluate"):
    batches.evaluation_order(0, batch_size)
