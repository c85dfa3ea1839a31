"""Fronts, crowding and places against definitions written out in loops."""

import math

import numpy as np
import pytest

from nasnet_jax.pareto import fronts

CASES = [(n, k, seed) for n in (1, 2, 30) for k in (2, 3) for seed in range(4)]


def some(n, k, seed, failed=True):
  """Rewards on a grid, so that there are ties and copies, some failed."""
  random = np.random.default_rng(seed)
  rewards = random.integers(0, 6, (n, k)).astype(float)
  if failed and n > 2:
    rewards[random.integers(n), random.integers(k)] = np.nan
    rewards[random.integers(n)] = np.inf
  return rewards


def beats(a, b):
  """The definition; a child that failed has no rewards."""
  if not all(map(math.isfinite, a)):
    return False
  if not all(map(math.isfinite, b)):
    return True
  return all(x >= y for x, y in zip(a, b)) and any(x > y for x, y in zip(a, b))


def peeled(rewards):
  """Ranks by taking one front off after another."""
  found, left, rank = {}, set(range(len(rewards))), 0
  while left:
    front = {
      i for i in left if not any(beats(rewards[j], rewards[i]) for j in left)
    }
    found |= dict.fromkeys(front, rank)
    left, rank = left - front, rank + 1
  return [found[i] for i in range(len(rewards))]


def room_of(i, front):
  """Deb et al.'s crowding distance of member i of different rows."""
  total = 0.0
  for k in range(len(front[0])):
    # Of equal values the other objectives settle who comes first.
    order = sorted(range(len(front)), key=lambda j: (front[j][k], front[j]))
    low, high = front[order[0]][k], front[order[-1]][k]
    if low == high:
      continue
    place = order.index(i)
    if place in (0, len(order) - 1):
      return math.inf
    before, after = front[order[place - 1]][k], front[order[place + 1]][k]
    total += (after - before) / (high - low)
  return total


def crowded(rewards, rank):
  found = [0.0] * len(rewards)
  rows = [tuple(row) for row in rewards]
  for r in set(rank):
    members = [i for i in range(len(rows)) if rank[i] == r]
    members = [i for i in members if all(map(math.isfinite, rows[i]))]
    different = list(dict.fromkeys(rows[i] for i in members))
    for place, row in enumerate(different):
      first = next(i for i in members if rows[i] == row)
      found[first] = room_of(place, different)
  return found


@pytest.mark.parametrize(("n", "k", "seed"), CASES)
def test_ranks_and_room_are_those_of_the_definitions(n, k, seed):
  rewards = some(n, k, seed)
  expected = np.array(peeled(rewards))
  np.testing.assert_array_equal(fronts.ranks(rewards), expected)
  rooms = fronts.crowding(rewards, expected)
  np.testing.assert_allclose(rooms, crowded(rewards, expected), rtol=1e-12)


def test_every_child_dominates_one_that_failed():
  rewards = np.array([[0.1, -9.0], [np.nan, 5.0], [0.9, -np.inf], [0, -99]])
  beaten = fronts.dominates(rewards)
  np.testing.assert_array_equal(beaten[0], [False, True, True, True])
  np.testing.assert_array_equal(beaten[3], [False, True, True, False])
  assert not beaten[1].any() and not beaten[2].any()
  assert fronts.front(rewards).tolist() == [0]
  assert fronts.front(rewards[1:3]).tolist() == []


@pytest.mark.parametrize(("n", "k", "seed"), CASES)
def test_standing_is_rank_then_room(n, k, seed):
  rewards = some(n, k, seed)
  rank = np.array(peeled(rewards))
  room = crowded(rewards, rank)
  key = [(r, -c) for r, c in zip(rank, room)]
  expected = [len({other for other in key if other < mine}) for mine in key]
  np.testing.assert_array_equal(fronts.standing(rewards), expected)


@pytest.mark.parametrize(("n", "k", "seed"), CASES)
def test_the_front_has_the_first_of_equal_rows_and_no_failed_one(n, k, seed):
  rewards = some(n, k, seed)
  rows = [tuple(row) for row in rewards]
  expected = [
    i
    for i in range(n)
    if all(map(math.isfinite, rows[i]))
    and not any(beats(row, rows[i]) for row in rows)
    and rows.index(rows[i]) == i
  ]
  assert fronts.front(rewards).tolist() == expected


@pytest.mark.parametrize(("n", "k", "seed"), CASES)
def test_places_begin_with_the_best_the_knee_and_the_other_ends(n, k, seed):
  rewards = some(n, k, seed)
  found = fronts.places(rewards)
  front = fronts.front(rewards).tolist()
  assert sorted(place.row for place in found) == front
  if not front:
    return
  for objective in range(k):
    (end,) = [p.row for p in found if objective in p.ends]
    assert rewards[end, objective] == rewards[front, objective].max()
  (knee,) = [place for place in found if place.knee]
  named = [place for place in found if place.ends or place.knee]
  assert found[: len(named)] == named
  assert 0 in found[0].ends
  assert knee in found[:2]


def test_the_knee_is_the_farthest_from_the_line_through_the_ends():
  front = np.array([[0.9, -100], [0.88, -40], [0.6, -20], [0.2, -10]])
  low, high = front.min(0), front.max(0)
  a, b, *_ = ends = (front[[0, 3]] - low) / (high - low)
  assert ends.tolist() == [[1, 0], [0, 1]]
  scaled = (front - low) / (high - low) - a
  along = (b - a) / np.linalg.norm(b - a)
  away = scaled - np.outer(scaled @ along, along)
  distance = np.linalg.norm(away, axis=1)
  (knee,) = [p.row for p in fronts.places(front) if p.knee]
  assert knee == distance.argmax() == 1
  # Scales of the objectives do not matter.
  (same,) = [p.row for p in fronts.places(front * [1, 1e9]) if p.knee]
  assert same == knee


def test_the_order_of_children_does_not_matter_to_room():
  rewards = np.unique(some(30, 3, 1, failed=False), axis=0)
  rank = fronts.ranks(rewards)
  room = fronts.crowding(rewards, rank)
  for seed in range(3):
    order = np.random.default_rng(seed).permutation(len(rewards))
    moved = fronts.crowding(rewards[order], rank[order])
    np.testing.assert_allclose(moved, room[order])


def test_words_for_the_ends():
  assert fronts.words(["accuracy"], False) == "most accuracy"
  assert fronts.words(["-params", "-macs"], True) == (
    "least params and least macs and the knee"
  )
  assert fronts.words([], False) == "between"
  assert fronts.places(np.zeros((0, 2))) == []
