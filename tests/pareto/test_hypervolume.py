"""Hypervolumes against inclusion-exclusion and against random points."""

import itertools
import math

import numpy as np
import pytest

from nasnet_jax.pareto import hypervolume


def inclusion_exclusion(rewards, reference):
  """The volume of a union of boxes, over all sets of them."""
  total = 0.0
  for size in range(1, len(rewards) + 1):
    for chosen in itertools.combinations(rewards, size):
      sides = np.min(chosen, axis=0) - reference
      total -= (-1) ** size * math.prod(np.maximum(sides, 0))
  return total


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_volume_is_that_of_inclusion_and_exclusion(k, seed):
  random = np.random.default_rng(seed)
  rewards = random.normal(size=(8, k))
  rewards[5] = rewards[2]  # copies and ties
  rewards[6, 0] = rewards[1, 0]
  reference = np.full(k, -1.5)
  found = hypervolume.hypervolume(rewards, reference)
  expected = inclusion_exclusion(rewards, reference)
  assert expected > 0
  assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_the_volume_is_the_share_of_random_points_below_a_front(k):
  random = np.random.default_rng(0)
  rewards = random.random((40, k))
  points = random.random((200_000, k))
  below = np.zeros(len(points), bool)
  for row in rewards:
    below |= (points <= row).all(-1)
  found = hypervolume.hypervolume(rewards, np.zeros(k))
  assert found == pytest.approx(below.mean(), abs=4 * 0.5 / math.sqrt(2e5))


def test_what_is_no_better_than_the_reference_or_failed_adds_nothing():
  rewards = np.array([[2.0, 3.0], [9.0, 0.0], [np.nan, 9.0], [np.inf, 9.0]])
  assert hypervolume.hypervolume(rewards, [0.0, 0.0]) == 6.0
  assert hypervolume.hypervolume(rewards[1:], [0.0, 0.0]) == 0.0


@pytest.mark.parametrize("k", [2, 3])
def test_by_child_is_the_volume_of_each_beginning(k):
  random = np.random.default_rng(1)
  rewards = random.random((50, k))
  rewards[7] = np.nan
  reference = np.full(k, 0.1)
  found = hypervolume.by_child(rewards, reference)
  expected = [
    hypervolume.hypervolume(rewards[: i + 1], reference) for i in range(50)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-12)
