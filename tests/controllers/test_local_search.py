"""Local search: every step that it takes, checked against the rules."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.controllers import base
from nasnet_jax.controllers.local_search import local_search
from nasnet_jax.spaces.base import ListSpace

CHOICES = (2, 3, 1, 4, 5, 2)
CELLS = spaces.get(
  "pnas", num_blocks=2, min_blocks=1, operations=spaces.PNAS.operations[:3]
)


def key(i):
  return jax.random.fold_in(jax.random.key(3), i)


def reward(row):
  """Rugged: a different number for each architecture, near enough."""
  return float(np.float32(np.sin(1 + np.dot(row, np.arange(1, len(row) + 1)))))


def run(controller, n, asked_for=1, state=None, first=0):
  """(decisions as tuples in order of asking, state) of at most n proposals."""
  state, found = state or controller.init(key(0)), []
  while len(found) < n:
    first += 1
    proposals, state = controller.ask(state, key(first), asked_for)
    if not len(proposals):
      break
    rewards = [reward(row) for row in proposals.decisions]
    status = np.zeros(len(rewards), np.int32)
    state = controller.tell(
      state, proposals, np.array(rewards, np.float32), status
    )
    found += [tuple(row.tolist()) for row in proposals.decisions]
  return found, state


def neighbours(num_choices, row):
  return [
    (*row[:i], other, *row[i + 1 :])
    for i, choices in enumerate(num_choices)
    for other in range(choices)
    if other != row[i]
  ]


def check_trace(found, num_choices, starts, first_improvement, memory):
  """Follows proposals that were asked for one at a time; number of climbs."""
  done, climbs = 0, 0

  def known():
    return set(found[max(done - memory, 0) : done])

  def take():
    nonlocal done
    assert found[done] not in known()
    done += 1
    return found[done - 1]

  def better():
    """The best known neighbour, if it is better than the current one."""
    rows = known().intersection(around)
    best = max(rows, key=reward, default=current)
    return best if reward(best) > reward(current) else None

  try:
    while done < len(found):
      climbs += 1
      current = max([take() for _ in range(starts)], key=reward)
      while current:
        around = set(neighbours(num_choices, current))
        unknown = around - known()
        while unknown and not (first_improvement and better()):
          assert found[done] in unknown
          unknown.remove(take())
        current = better()
  except IndexError:  # the proposals end in the middle of a climb
    assert done == len(found)
  return climbs


@pytest.mark.parametrize("memory", [12, 1000])
@pytest.mark.parametrize("first_improvement", [False, True])
@pytest.mark.parametrize("starts", [1, 3])
def test_each_proposal_is_the_one_that_the_rules_ask_for(
  starts, first_improvement, memory
):
  options = starts, first_improvement, memory
  controller = local_search(
    CHOICES, starts=starts, first_improvement=first_improvement, memory=memory
  )
  found, _ = run(controller, 200)
  assert check_trace(found, CHOICES, *options) > 3
  with pytest.raises(AssertionError):  # the check can fail
    check_trace(found[:9] + found[10:], CHOICES, *options)


@pytest.mark.parametrize("asked_for", [2, 7, 100])
def test_however_many_are_asked_for_the_climb_is_the_same(asked_for):
  controller = local_search((3,) * 4)

  def first_neighbourhood(asked_for):
    found, state = run(controller, 1)
    more, state = run(controller, 8, asked_for, state, first=10)
    return found[0], set(more[:8])

  assert first_neighbourhood(asked_for) == first_neighbourhood(1)
  proposals, _ = controller.ask(run(controller, 1)[1], key(9), 100)
  assert len(proposals) == 8  # no further than the neighbourhood


def test_neighbours_come_in_random_order():
  controller = local_search((3,) * 4)
  _, state = run(controller, 1)
  orders = np.array(
    [controller.ask(state, key(i), 8)[0].decisions for i in range(2000)]
  )
  changed = (orders[:, 0] != state.candidates[0]).argmax(-1)
  assert (np.bincount(changed) > 400).all()


def test_equal_cells_are_one_architecture():
  controller = local_search(CELLS)
  found, _ = run(controller, 10_000, asked_for=20)
  canonical = CELLS.canonical(np.array(found))
  assert len(np.unique(canonical, axis=0)) == len(found)
  assert len(found) > 500  # all there are: see the contract suite


def test_only_what_is_remembered_is_not_proposed_again():
  size = 15
  controller = local_search((5, 3), memory=6)
  found, _ = run(controller, 300)
  assert len(found) == 300
  assert len(set(found)) == size
  for i in range(300 - 6):
    assert len(set(found[i : i + 6])) == 6


def test_an_answer_for_what_is_forgotten_changes_nothing():
  controller = local_search(CHOICES, first_improvement=True, memory=11)
  _, state = run(controller, 1)
  proposals, state = controller.ask(state, key(1), 4)
  _, state = run(controller, 11, state=state, first=10)
  told = controller.tell(
    state, proposals, np.full(4, 9, np.float32), np.zeros(4, np.int32)
  )
  assert (told.rewards == state.rewards).all()
  assert (told.status == state.status).all()


def test_what_random_draws_miss_of_a_small_space_is_found(monkeypatch):
  module = sys.modules[local_search.__module__]
  monkeypatch.setattr(module, "DRAWN", 1)
  monkeypatch.setattr(module, "TRIES", 1)
  # Equal rewards: every neighbourhood is the end of a climb.
  controller = local_search((5, 1, 7))
  state, seen = controller.init(key(0)), 0
  for i in range(200):
    proposals, state = controller.ask(state, key(i), 3)
    m = len(proposals)
    if not m:
      break
    state = controller.tell(
      state, proposals, np.zeros(m, np.float32), np.zeros(m, np.int32)
    )
    seen += m
  assert seen == 35


def test_it_waits_for_the_last_neighbour_and_goes_on_after_it():
  controller = local_search(CHOICES)
  _, state = run(controller, 1)
  everything, state = controller.ask(state, key(1), 100)
  assert len(everything) == 11
  rewards = np.array([reward(row) for row in everything.decisions], np.float32)
  status = np.zeros(11, np.int32)
  for last in (slice(0, 4), slice(4, 10)):
    state = controller.tell(
      state, everything.rows(last), rewards[last], status[last]
    )
    nothing, state = controller.ask(state, key(2), 5)
    assert len(nothing) == 0
  last = slice(10, 11)
  state = controller.tell(
    state, everything.rows(last), rewards[last], status[last]
  )
  assert len(controller.ask(state, key(3), 5)[0]) == 5


def test_at_the_first_improvement_it_does_not_wait():
  controller = local_search(CHOICES, first_improvement=True)
  _, state = run(controller, 1)
  proposals, state = controller.ask(state, key(1), 3)
  state = controller.tell(
    state, proposals.rows([1]), np.float32([9]), np.zeros(1, np.int32)
  )
  more, _ = controller.ask(state, key(2), 100)
  around = neighbours(CHOICES, tuple(proposals.decisions[1].tolist()))
  assert len(more) >= 5
  assert {tuple(row) for row in more.decisions.tolist()} <= set(around)


def test_a_failed_neighbour_is_no_place_to_go_to():
  controller = local_search(CHOICES)
  _, state = run(controller, 1)
  proposals, state = controller.ask(state, key(1), 100)
  rewards = np.arange(11, dtype=np.float32) + 2  # all better than the start
  status = np.zeros(11, np.int32)
  rewards[10], status[9] = np.nan, base.FAILED
  state = controller.tell(state, proposals, rewards, status)
  _, state = controller.ask(state, key(2), 1)
  assert state.current.tolist() == proposals.decisions[8].tolist()


def test_if_all_starts_fail_there_are_others():
  controller = local_search(CHOICES, starts=4)
  state, seen = controller.init(key(0)), []
  for i in range(3):
    proposals, state = controller.ask(state, key(i), 20)
    assert len(proposals) == 4
    seen += proposals.decisions.tolist()
    status = np.full(4, base.FAILED, np.int32)
    state = controller.tell(state, proposals, np.full(4, np.nan), status)
  assert len(np.unique(seen, axis=0)) == 12


@dataclasses.dataclass(frozen=True)
class FirstDecisionCounts(ListSpace):
  """More than 2^16 decision vectors, a handful of architectures."""

  def canonical(self, decisions):
    return np.asarray(decisions) * (np.arange(len(self.num_choices)) == 0)


def test_a_large_space_of_few_architectures_ends():
  controller = local_search(FirstDecisionCounts((5,) + (10,) * 6))
  found, _ = run(controller, 100)
  assert sorted(row[0] for row in found) == [0, 1, 2, 3, 4]


def test_bad_options_are_refused():
  with pytest.raises(ValueError, match="starts must be at least 1"):
    local_search(CHOICES, starts=0)
  with pytest.raises(ValueError, match="memory must be at least 11"):
    local_search(CHOICES, memory=10)


def test_a_climb_to_what_was_answered_late_names_no_parent():
  controller = local_search((6,), first_improvement=True)
  state = controller.init(jax.random.key(0))

  def ask(state, n):
    return controller.ask(state, jax.random.key(1), n)

  def tell(state, proposals, row, reward):
    told, ok = proposals.rows([row]), np.zeros(1, np.int32)
    return controller.tell(state, told, np.float32([reward]), ok)

  start, state = ask(state, 1)
  state = tell(state, start, 0, 0.0)
  three, state = ask(state, 3)
  assert three.parent.tolist() == [0, 0, 0]
  state = tell(state, three, 0, 0.5)
  assert set(controller.parents(state).tolist()) == {0, 1}
  fourth, state = ask(state, 1)
  assert fourth.parent.tolist() == [1]
  # Better than all, but its weights may be gone: it is of the step before.
  state = tell(state, three, 1, 0.9)
  assert controller.parents(state).tolist() == [1]
  fifth, state = ask(state, 1)
  assert fifth.parent[0] < 0
