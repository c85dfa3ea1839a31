"""Which examples form the batch of a step: a pure function of (seed, step).

Nothing is stored, so a resumed run, a refilled slot and a device that holds a
part of the batch all see the same order. Each epoch has its own order; the
n % batch_size examples at its end are left out, others each epoch, so that no
example comes twice within an epoch.

A batch costs as much as its own indices: position i of the epoch's order is
computed, not looked up, by a small cipher over the numbers below n.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasnet_jax.data.image_data import DataError

# Rounds of the cipher. Four make a pseudo-random permutation of a strong round
# function (Luby & Rackoff 1988); its rounds here are weaker, and cheap.
_ROUNDS = 8


def steps_per_epoch(n: int, batch_size: int) -> int:
  """How many whole batches n examples give.

  Raises:
    DataError: if there are fewer examples than one batch takes.
  """
  if batch_size < 1:
    raise DataError(f"batch_size is {batch_size}: give 1 or more")
  if n < batch_size:
    raise DataError(
      f"{n} images are fewer than one batch of {batch_size}: lower the batch"
      " size or take more images"
    )
  return n // batch_size


def batch_indices(seed, step, n: int, batch_size: int):
  """int32[batch_size], the examples of one step's batch, on the device.

  Args:
    seed: integer or integer scalar; each child may have its own.
    step: int scalar, counted over all epochs.
    n: examples in the training set.
    batch_size: examples per batch.

  Raises:
    DataError: as `steps_per_epoch`.
  """
  steps = steps_per_epoch(n, batch_size)
  step = jnp.asarray(step, jnp.int32)
  positions = step % steps * batch_size + jnp.arange(batch_size)
  return permuted(epoch_rng(seed, step // steps), positions, n)


def epoch_rng(seed, epoch):
  """The key of an epoch's order."""
  return jax.random.fold_in(jax.random.key(seed), epoch)


def epoch_order(rng, n: int, batch_size: int):
  """int32[steps, batch_size], all batches of an epoch.

  With rng = epoch_rng(seed, epoch), row i is
  batch_indices(seed, epoch * steps + i, n, batch_size).

  Raises:
    DataError: as `steps_per_epoch`.
  """
  steps = steps_per_epoch(n, batch_size)
  positions = jnp.arange(steps * batch_size)
  return permuted(rng, positions, n).reshape(steps, batch_size)


def permuted(rng, positions, n: int):
  """Where a random permutation of 0..n-1, that of `rng`, sends positions.

  A Feistel network on pairs of digits to the base ceil(sqrt(n)), applied again
  to what falls outside 0..n-1 (Black & Rogaway 2002, "cycle walking"): a
  bijection for every key. At most 2 sqrt(n) + 1 numbers lie outside.

  Args:
    rng: a `jax.random.key`.
    positions: int32[...], each in 0..n-1.
    n: below 2^31.

  Returns:
    int32, of the shape of positions.
  """
  base = math.isqrt(n - 1) + 1
  keys = jax.random.bits(rng, (_ROUNDS,))
  index = jnp.asarray(positions).astype(jnp.uint32)

  def walk(index):
    return jnp.where(index < n, index, _encrypt(keys, index, base))

  index = _encrypt(keys, index, base)
  index = lax.while_loop(lambda index: (index >= n).any(), walk, index)
  return index.astype(jnp.int32)


def _encrypt(keys, index, base: int):
  """A bijection on 0..base^2-1, uint32."""
  left, right = index // base, index % base
  for i in range(_ROUNDS):
    left, right = right, (left + _scramble(right ^ keys[i])) % base
  return left * base + right


def _scramble(x):
  """The finaliser of MurmurHash3: every bit of x reaches every other."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def evaluation_order(n: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
  """All n examples in order, the last batch filled up with example 0.

  Returns:
    (index int32[steps, batch_size], counts bool[steps, batch_size]): false
    marks what was filled up and must not count.
  """
  if n < 1 or batch_size < 1:
    raise DataError(f"nothing to evaluate: {n} images, batch of {batch_size}")
  steps = -(-n // batch_size)
  index = np.arange(steps * batch_size, dtype=np.int32)
  counts = index < n
  index[~counts] = 0
  return index.reshape(steps, batch_size), counts.reshape(steps, batch_size)
