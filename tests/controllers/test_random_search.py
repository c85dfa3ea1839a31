"""Random search: uniform, and without replacement if so asked."""

import itertools
import math

import jax
import numpy as np
import pytest
from scipy import stats

from nasnet_jax.controllers.random_search import (
  SMALL_SPACE,
  random_search,
  shuffled,
)

LARGE = (7, 13, 2, 13, 5, 1, 11, 3)  # beyond SMALL_SPACE
NASNET = tuple(c for b in range(5) for c in (b + 2, b + 2, 13, 13)) * 2


def propose(num_choices, n, seed=0, **options):
  controller = random_search(num_choices, **options)
  rng = jax.random.key(seed)
  return controller.ask(controller.init(rng), rng, n)[0].decisions


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("num_choices", [LARGE, NASNET])
def test_each_decision_and_each_pair_is_uniform(num_choices, unique):
  n = 20_000
  decisions = propose(num_choices, n, unique=unique)
  worst = 1.0
  for i, j in itertools.combinations(range(len(num_choices)), 2):
    cells = num_choices[i] * num_choices[j]
    pairs = decisions[:, i] * num_choices[j] + decisions[:, j]
    counts = np.bincount(pairs, minlength=cells)
    assert len(counts) == cells
    worst = min(worst, stats.chisquare(counts).pvalue if cells > 1 else 1)
  assert worst > 1e-6  # of some hundred tests


@pytest.mark.parametrize(
  "num_choices", [(6,), (2, 1, 3), (4, 5, 3), (17, 13, 1, 11, 31)]
)
def test_unique_proposals_cover_the_space_once(num_choices):
  size = math.prod(num_choices)
  controller = random_search(num_choices, unique=True)
  state, seen = controller.init(jax.random.key(1)), []
  for _ in range(5):  # the fourth is short, and the fifth empty
    proposals, state = controller.ask(state, jax.random.key(2), 1 + size // 3)
    seen.append(proposals.decisions)
  assert len(seen[-1]) == 0
  seen = np.concatenate(seen)
  assert len(seen) == size
  assert len(np.unique(seen, axis=0)) == size


def test_the_spaces_above_are_on_both_sides_of_the_threshold():
  assert math.prod((4, 5, 3)) <= SMALL_SPACE < math.prod((17, 13, 1, 11, 31))


def test_unique_proposals_of_a_huge_space_never_repeat():
  decisions = propose(NASNET, 100_000, unique=True)
  assert len(np.unique(decisions, axis=0)) == 100_000


def test_shuffled_orders_differ_by_key_and_look_unordered():
  places = np.arange(2000)
  for num_choices in ((50, 60), LARGE):
    first = shuffled(num_choices, np.array([0, 1], np.uint32), places)
    other = shuffled(num_choices, np.array([0, 2], np.uint32), places)
    assert (first == other).all(axis=1).mean() < 0.01
    for column in range(2):
      steps = stats.spearmanr(first[:-1, column], first[1:, column])
      assert abs(steps.statistic) < 0.1
