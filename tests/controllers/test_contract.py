"""What every controller promises, tried on each of them.

A new strategy adds itself to `CASES`, with what it promises beyond the rest.
"""

import itertools
import logging
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import nasnet_jax.controllers
from nasnet_jax import spaces
from nasnet_jax.controllers import CONTROLLERS, base, journal, make
from nasnet_jax.population.evaluation import Outcome
from nasnet_jax.search import limits, objectives, rounds
from nasnet_jax.training import checkpoint


class Case(NamedTuple):
  """A strategy as the suite tries it.

  Attributes:
    strategy: its name in CONTROLLERS.
    options: small ones, so that its rounds of 20 show all it does.
    ends: what it counts to see that a space is exhausted, "decisions" or
      "architectures" (equal canonical forms are one); "" if it never ends.
    waits: it may answer an ask with fewer proposals, or none, while answers
      are pending. The others always give as many as were asked for.
    searches: options, each to be better than random search at 300 children
      in rounds of 20; none for a strategy that does not learn, or not there.
    of_cells: it searches cells of 1 to B blocks only; the suite then gives it
      `OF_CELLS` in place of lists.
  """

  strategy: str
  options: dict[str, Any] = {}  # noqa: RUF012
  ends: str = ""
  waits: bool = False
  searches: tuple[dict[str, Any], ...] = ({},)
  of_cells: bool = False


EVOLUTION = {"population": 20, "sample": 5}
CASES = {
  "evolution": Case("evolution", EVOLUTION, searches=(EVOLUTION,)),
  "evolution, non-ageing": Case(
    "evolution",
    {**EVOLUTION, "ageing": False},
    searches=({**EVOLUTION, "ageing": False},),
  ),
  "evolution, pareto": Case(
    "evolution",
    {**EVOLUTION, "pareto": True},
    searches=(),  # its landscape is in test_pareto_evolution.py
  ),
  "genetic": Case("genetic", {"population": 20}, waits=True),
  "local_search": Case(
    "local_search", {"memory": 1000}, ends="architectures", waits=True
  ),
  "local_search, first improvement": Case(
    "local_search",
    {"memory": 1000, "first_improvement": True, "starts": 3},
    ends="architectures",
    waits=True,
    searches=({"first_improvement": True, "starts": 20},),
  ),
  "ppo": Case(
    "ppo",
    {"hidden": 8, "epochs": 2},
    searches=(
      {},  # the paper's learning rate, 3.5e-4
      {"learning_rate": 3e-3, "epochs": 4},  # for small budgets: half the time
    ),
  ),
  "predictor_search": Case(
    "predictor_search",
    {"first": 4, "hidden": 8, "embedding": 4, "steps": 20, "pool": 64},
    ends="architectures",
  ),
  "progressive": Case(
    "progressive",
    {"beam": 20, "hidden": 8, "embedding": 4},
    ends="architectures",
    waits=True,
    searches=(),  # its landscape is in test_progressive.py
    of_cells=True,
  ),
  "random_search": Case("random_search", searches=()),
  "random_search, unique": Case(
    "random_search", {"unique": True}, ends="decisions", searches=()
  ),
  "reinforce": Case(
    "reinforce",
    {"hidden": 8},
    searches=({"learning_rate": 0.02},),  # the paper's is for 12,800 children
  ),
}

# Modules of nasnet_jax.controllers that are not strategies.
NO_STRATEGIES = {
  "__init__",
  "base",
  "enqueued",
  "journal",
  "policy",
  "predictors",
  "surrogate",
  "taught",
}

# Policies compile per space (seconds), so the tests share a few.
MIXED = (2, 3, 1, 4, 13, 2)
TINY = (2, 1, 3)
CELLS = spaces.get(
  "pnas", num_blocks=2, min_blocks=1, operations=spaces.PNAS.operations[:3]
)
ONE_BLOCK = spaces.get(
  "pnas", num_blocks=1, operations=spaces.PNAS.operations[:2]
)
SPACES = {
  "mixed": MIXED,
  "tiny": TINY,
  "one choice": (1,),
  "200 decisions": (2, 13, 5, 1) * 50,
  "cells": CELLS,
}


def cells(blocks, operations):
  """PNAS cells of 1 to so many blocks, of so many operations."""
  names = spaces.PNAS.operations[:operations]
  return spaces.get("pnas", blocks, names, min_blocks=1)


# What stands for the lists where a strategy needs cells.
OF_CELLS = {
  MIXED: cells(3, 3),
  TINY: cells(2, 1),
  (1,): cells(1, 1),
  SPACES["200 decisions"]: cells(50, 2),
  CELLS: CELLS,
  ONE_BLOCK: cells(1, 2),
}

every_case = pytest.mark.parametrize("case", CASES)


def space_of(case, space=MIXED):
  return OF_CELLS[space] if CASES[case].of_cells else space


def build(case, space=MIXED):
  space = space_of(case, space)
  return make(CASES[case].strategy, space, **CASES[case].options)


def key(i):
  return jax.random.fold_in(jax.random.key(7), i)


def rewards_of(decisions):
  """f32[m]: distinct enough, and odd fractions on purpose."""
  weights = np.arange(1, decisions.shape[1] + 1)
  return np.float32(np.sin(decisions @ weights) / 3)


def rewards_for(controller, decisions):
  """The same, f32[m, k] for a strategy of k objectives."""
  columns = [
    np.float32(rewards_of(decisions + k) * (-1) ** k)
    for k in range(controller.objectives)
  ]
  return columns[0] if len(columns) == 1 else np.stack(columns, -1)


def tell_all(controller, state, proposals):
  status = np.zeros(len(proposals), np.int32)
  rewards = rewards_for(controller, proposals.decisions)
  return controller.tell(state, proposals, rewards, status)


def play(controller, rounds, n=12, state=None, first=0):
  """The state after some rounds in which all is answered at once."""
  state = controller.init(key(0)) if state is None else state
  for i in range(first, first + rounds):
    proposals, state = controller.ask(state, key(i + 1), n)
    state = tell_all(controller, state, proposals)
  return state


def bits(tree):
  """Comparable: structure, types, shapes and bytes of all leaves."""
  leaves, structure = jax.tree.flatten(tree)
  leaves = [np.asarray(x) for x in leaves]
  return structure, [(x.dtype, x.shape, x.tobytes()) for x in leaves]


def assert_valid(proposals, space):
  m, num_choices = len(proposals), base.as_space(space).num_choices
  assert proposals.decisions.shape == (m, len(num_choices))
  assert proposals.decisions.dtype == np.int32
  assert (proposals.decisions >= 0).all()
  assert (proposals.decisions < np.array(num_choices)).all()
  assert proposals.id.dtype == np.int64
  assert (np.diff(proposals.id) > 0).all()
  assert proposals.budget.dtype == np.float32
  assert (proposals.budget > 0).all()
  assert all(len(x) == m for x in jax.tree.leaves(proposals))


def assert_many(case, proposals, n, pending=False):
  """As many as were asked for, where the case promises that."""
  assert len(proposals) <= n
  if not CASES[case].ends:
    assert len(proposals) == n or CASES[case].waits
    assert len(proposals) or pending


def test_no_strategy_is_missing_from_this_suite():
  folder = pathlib.Path(nasnet_jax.controllers.__file__).parent
  modules = {p.stem for p in folder.glob("*.py")} - NO_STRATEGIES
  assert {f.__module__.split(".")[-1] for f in CONTROLLERS.values()} == modules
  assert {case.strategy for case in CASES.values()} == set(CONTROLLERS)


@every_case
@pytest.mark.parametrize("space", SPACES)
def test_proposals_are_valid_whatever_the_space(case, space):
  controller = build(case, SPACES[space])
  state = controller.init(key(0))
  seen = 0
  for i, n in enumerate((5, 17, 20)):
    proposals, state = controller.ask(state, key(i), n)
    assert_many(case, proposals, n)
    assert_valid(proposals, space_of(case, SPACES[space]))
    assert (proposals.id >= seen).all()
    seen = proposals.id[-1] + 1 if len(proposals) else seen
    state = tell_all(controller, state, proposals)


@every_case
def test_asking_for_none_gives_none_of_the_usual_types(case):
  controller = build(case)
  state = controller.init(key(0))
  some, _ = controller.ask(state, key(1), 4)
  none, state = controller.ask(state, key(1), 0)
  assert len(none) == 0
  assert_valid(none, space_of(case))
  joined = base.join([none, some])
  assert bits(joined) == bits(some)
  state = controller.tell(state, none, np.zeros(0), np.zeros(0, np.int32))
  proposals, _ = controller.ask(state, key(1), 4)
  assert bits(proposals) == bits(some)


@every_case
def test_state_is_arrays_of_fixed_shapes_and_types(case):
  controller = build(case)
  start, end = controller.init(key(0)), play(controller, 4)
  for leaf in jax.tree.leaves(end):
    assert isinstance(leaf, np.ndarray | jax.Array)
  assert [b[:2] for b in bits(end)[1]] == [b[:2] for b in bits(start)[1]]
  assert bits(end)[0] == bits(start)[0]


@every_case
def test_functions_leave_the_old_state_as_it_was(case):
  controller = build(case)
  state = play(controller, 2)
  before = bits(state)
  proposals, asked = controller.ask(state, key(9), 30)
  middle = bits(asked)
  tell_all(controller, asked, proposals)
  assert bits(state) == before
  assert bits(asked) == middle


@every_case
def test_proposals_depend_on_the_keys_alone(case):
  controller = build(case)
  first, _ = controller.ask(controller.init(key(0)), key(1), 20)
  same, _ = build(case).ask(controller.init(key(0)), key(1), 20)
  other, _ = controller.ask(controller.init(key(1)), key(2), 20)
  assert bits(first) == bits(same)
  assert (first.decisions != other.decisions).any()


@pytest.mark.smoke
@every_case
def test_replaying_the_journal_rebuilds_the_state_bit_for_bit(case, tmp_path):
  controller, path = build(case), tmp_path / "journal.jsonl"
  state, pending = controller.init(key(0)), None
  random = np.random.default_rng(0)
  for i in range(8):
    proposals, state = controller.ask(state, key(i), 9)
    journal.record_ask(path, key(i), 9, proposals)
    pending = base.join([pending, proposals]) if pending else proposals
    order = random.permutation(len(pending))
    told, pending = pending.rows(order[:7]), pending.rows(np.sort(order[7:]))
    rewards = rewards_for(controller, told.decisions)
    rewards[:1] = np.nan
    status = (random.random(len(told)) < 0.2).astype(np.int32)
    journal.record_tell(path, told, rewards, status)
    state = controller.tell(state, told, rewards, status)
  replayed = journal.replay(build(case), key(0), journal.read(path))
  assert bits(replayed.state) == bits(state)
  assert bits(replayed.pending) == bits(pending)


@every_case
def test_a_saved_state_continues_as_if_never_saved(case, tmp_path):
  controller = build(case)
  state = play(controller, 3)
  leaves, structure = jax.tree.flatten(state)
  np.savez(tmp_path / "state.npz", *leaves)
  with np.load(tmp_path / "state.npz") as saved:
    restored = structure.unflatten(saved[name] for name in saved.files)
  assert bits(restored) == bits(state)
  end = play(build(case), 3, state=restored, first=3)  # knows the state only
  assert bits(end) == bits(play(controller, 6))


@every_case
def test_a_search_resumed_in_mid_round_ends_like_an_uninterrupted_one(
  case, tmp_path
):
  controller = build(case)

  def first_half():
    state = play(controller, 2)
    proposals, state = controller.ask(state, key(20), 15)
    return tell_all(controller, state, proposals.rows(slice(4))), proposals

  def second_half(controller, state, proposals):
    more, state = controller.ask(state, key(21), 9)
    rest = base.join([proposals.rows(slice(4, None)), more])
    return bits(play(controller, 3, state=tell_all(controller, state, rest)))

  state, proposals = first_half()
  checkpoint.write(tmp_path / "state", state)
  again = build(case)
  restored = checkpoint.read(tmp_path / "state", again.init(key(3)))
  assert bits(restored) == bits(state)
  assert second_half(again, restored, proposals) == second_half(
    controller, *first_half()
  )


@every_case
def test_answers_told_in_parts_count_as_if_told_at_once(case):
  controller = build(case)
  proposals, state = controller.ask(controller.init(key(0)), key(1), 50)
  at_once = tell_all(controller, state, proposals)
  for part in np.array_split(np.arange(len(proposals)), [1, 1, 20, 33]):
    state = tell_all(controller, state, proposals.rows(part))
  assert bits(state) == bits(at_once)


@every_case
def test_answers_may_come_in_any_order_and_after_further_asks(case):
  controller = build(case)

  def run():
    state, asked = controller.init(key(0)), []
    for i in range(3):
      proposals, state = controller.ask(state, key(i), 15)
      assert_many(case, proposals, 15, pending=i > 0)
      assert_valid(proposals, space_of(case))
      asked.append(proposals)
    everything = base.join(asked)
    assert len(np.unique(everything.id)) == len(everything)
    order = np.random.default_rng(3).permutation(len(everything))
    for part in np.array_split(order, 6):
      state = tell_all(controller, state, everything.rows(part))
    proposals, state = controller.ask(state, key(3), 15)
    assert_many(case, proposals, 15)
    assert_valid(proposals, space_of(case))
    return proposals, state

  assert bits(run()) == bits(run())


@every_case
def test_a_parent_is_one_of_those_that_were_said_to_be_possible_all_along(case):
  controller = build(case)
  state, pending = controller.init(key(0)), None
  if controller.parents is None:
    assert controller.ask(state, key(0), 3)[0].parent == ()
    return
  random, kept, named = np.random.default_rng(1), set(), []
  for i in range(40):
    proposals, state = controller.ask(state, key(i), 9)
    real = set(proposals.parent[proposals.parent >= 0].tolist())
    assert real <= kept, (i, real - kept)
    named += [(c, p) for c, p in zip(proposals.id, proposals.parent) if p >= 0]
    pending = base.join([pending, proposals]) if pending else proposals
    order = random.permutation(len(pending))
    told, pending = pending.rows(order[:7]), pending.rows(np.sort(order[7:]))
    rewards = rewards_for(controller, told.decisions)
    rewards[1:2] = np.nan
    state = controller.tell(state, told, rewards, np.zeros(len(told), np.int32))
    possible = set(np.asarray(controller.parents(state)).tolist())
    assert not possible & set(told.id[1:2].tolist())  # it failed
    kept = (kept | set(told.id.tolist())) & possible
  assert len({p for _, p in named}) > 3
  assert all(p < c for c, p in named)


@every_case
def test_a_child_differs_from_its_parent_by_what_its_strategy_says(case):
  controller = build(case)
  if controller.parents is None:
    return
  state, decisions, found = controller.init(key(0)), {}, 0
  for i in range(12):
    proposals, state = controller.ask(state, key(i), 20)
    for child, row in zip(proposals.id.tolist(), proposals.decisions):
      decisions[child] = row
    for row, parent in zip(proposals.decisions, proposals.parent.tolist()):
      if parent >= 0:
        assert (row != decisions[parent]).sum() <= 1
        found += 1
    state = tell_all(controller, state, proposals)
  assert found > 20


@every_case
def test_a_failed_child_harms_nothing(case):
  controller = build(case)

  def run(value, status):
    state = controller.init(key(0))
    for i in range(6):
      proposals, state = controller.ask(state, key(i), 14)
      rewards = rewards_for(controller, proposals.decisions)
      states = np.zeros(len(proposals), np.int32)
      rewards[::3], states[::3] = value, status
      state = controller.tell(state, proposals, rewards, states)
      assert_valid(proposals, space_of(case))
    for leaf in jax.tree.leaves(state):
      assert np.isfinite(leaf).all()
    return bits(state)

  failed = run(np.nan, base.FAILED)
  assert run(np.nan, base.OK) == failed
  assert run(9.0, base.FAILED) == failed  # the best of all, if it counted
  assert run(np.inf, base.OK) == failed
  assert run(-np.inf, base.OK) == failed


@every_case
def test_a_search_in_which_every_child_fails_goes_on(case):
  controller = build(case)
  state, seen = controller.init(key(0)), []
  for i in range(6):
    proposals, state = controller.ask(state, key(i), 20)
    assert_many(case, proposals, 20)
    assert_valid(proposals, space_of(case))
    rewards = np.nan * rewards_for(controller, proposals.decisions)
    status = np.full(len(proposals), base.FAILED, np.int32)
    state = controller.tell(state, proposals, rewards, status)
    seen.append(proposals.decisions)
  assert len(np.unique(np.concatenate(seen), axis=0)) > 1


class _Counts:
  """Every architecture is as large as its decisions' sum."""

  def costs(self, decisions):
    return [{"params": 1 + int(np.sum(row)), "macs": 1} for row in decisions]

  def evaluate(self, decisions, seeds, budgets, progress=None):
    rewards = rewards_of(np.asarray(decisions))
    return [Outcome(float(r), 0, 1, 0.0, 1, 1) for r in rewards]


@every_case
def test_a_limit_that_excludes_nearly_everything_ends_a_search(
  case, tmp_path, caplog
):
  caplog.set_level(logging.INFO, "nasnet_jax")

  def run(name, children, params, at_once):
    (tmp_path / name).mkdir()
    settings = rounds.RoundSettings(
      children, at_once, 0, limit=limits.LimitSettings(params)
    )
    if build(case).objectives == 2:
      two = objectives.make(("accuracy", "-params"))
      settings = settings._replace(reward=two)
    return rounds.run(tmp_path / name, build(case), _Counts(), settings)

  def is_over(row):
    return row["status"] == "over_limit"

  nearly = run("nearly", 60, 3, 20)
  assert 0 < len(nearly) <= 60
  assert sum(map(is_over, nearly)) > len(nearly) / 2
  caplog.clear()
  nothing = run("nothing", 100_000, -1, 100)  # below what anything has
  assert all(map(is_over, nothing))
  assert 0 < len(nothing) < limits.HOPELESS + 100
  ends = "in a row were over a limit; no further", "no more proposals: the"
  assert any(words in caplog.text for words in ends), caplog.text


@every_case
@pytest.mark.parametrize("space", [TINY, ONE_BLOCK], ids=["list", "cells"])
def test_a_space_smaller_than_the_budget_ends_cleanly(case, space):
  controller = build(case, space)
  space = base.as_space(space_of(case, space))
  everything = itertools.product(*map(range, space.num_choices))
  everything = np.array(list(everything), np.int32)
  state, found, budget = controller.init(key(0)), [], 2 * len(everything)
  for i in range(budget):  # rounds of one at the least
    proposals, state = controller.ask(state, key(i), 4)
    assert_valid(proposals, space)
    state = tell_all(controller, state, proposals)
    found += [row.tolist() for row in proposals.decisions]
    if not len(proposals) or len(found) >= budget:
      break
  if not CASES[case].ends:
    assert len(found) >= budget
    return
  if CASES[case].ends == "architectures":
    everything = space.canonical(everything)
    found = space.canonical(np.array(found))
  assert len(found) == len(np.unique(everything, axis=0))
  assert len(found) == len(np.unique(found, axis=0))
  assert not len(controller.ask(state, key(0), 4)[0])


@every_case
def test_nothing_compiles_after_the_first_rounds(case, caplog):
  controller = build(case)

  def compilations(sizes):
    caplog.clear()
    state = controller.init(key(0))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
      jax.jit(lambda x: x + 1)(0)  # new each time: shows that the log tells
      for i, n in enumerate(sizes):
        proposals, state = controller.ask(state, key(i), n)
        for part in np.array_split(np.arange(len(proposals)), 3):
          state = tell_all(controller, state, proposals.rows(part))
    messages = [r.getMessage() for r in caplog.records]
    return len([m for m in messages if m.startswith("Compiling")])

  compilations([20] * 6)
  assert compilations([1, 20, 7, 32, 0, 13, 20, 20, 5]) == 1


# 12 decisions that matter alone and with their neighbour.
STRUCTURED = (2, 2, 5, 5, 3, 3, 5, 5, 4, 4, 5, 5)


def landscape(seed):
  """A function of int[n, 12] with mean 0.9 and deviation of about 0.01."""
  random = np.random.default_rng(seed)
  alone = [random.normal(size=c) for c in STRUCTURED]
  pairs = [random.normal(size=p) for p in itertools.pairwise(STRUCTURED)]

  def reward(decisions):
    columns = decisions.T
    value = sum(a[d] for a, d in zip(alone, columns))
    value = value + sum(
      p[d] for p, d in zip(pairs, itertools.pairwise(columns))
    )
    return (0.9 + 0.01 * value / np.sqrt(24)).astype(np.float32)

  return reward


def search(controller, seed, children=300):
  """f32[children], the rewards in order, asked for 20 at a time."""
  reward, state, found = landscape(seed), controller.init(key(seed)), []
  count = 0
  for i in range(children):  # rounds of one at the least
    n = min(20, children - count)
    rng = jax.random.fold_in(key(seed), i)
    proposals, state = controller.ask(state, rng, n)
    found.append(reward(proposals.decisions))
    status = np.zeros(len(proposals), np.int32)
    state = controller.tell(state, proposals, found[-1], status)
    count += len(proposals)
    if count == children:
      break
  return np.concatenate(found)


@pytest.mark.parametrize(
  ("strategy", "options"),
  [(c.strategy, o) for c in CASES.values() for o in c.searches],
)
def test_a_strategy_beats_random_search_over_ten_seeds(strategy, options):
  controller = make(strategy, STRUCTURED, **options)
  control = make("random_search", STRUCTURED)
  ours = np.array([search(controller, seed) for seed in range(10)])
  theirs = np.array([search(control, seed) for seed in range(10)])
  late = ours[:, -60:].mean(1) - theirs[:, -60:].mean(1)
  assert (late > 0).all()
  assert late.mean() > 0.01  # a deviation of the landscape
  assert (ours.max(1) > theirs.max(1)).sum() >= 9


@every_case
def test_answers_of_another_length_are_refused(case):
  controller = build(case)
  proposals, state = controller.ask(controller.init(key(0)), key(1), 4)
  m = len(proposals)
  with pytest.raises(ValueError, match=f"{m} proposals are told rewards of"):
    controller.tell(state, proposals, np.zeros(m + 1), np.zeros(m, np.int32))


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize("num_choices", [(), (2, 0)])
def test_a_space_without_a_choice_is_refused(name, num_choices):
  with pytest.raises(ValueError, match="at least one choice"):
    make(name, num_choices)


def test_an_unknown_controller_names_the_nearest():
  with pytest.raises(
    ValueError, match="'random'; did you mean 'random_search'"
  ):
    make("random", MIXED)


def test_an_unknown_option_names_the_nearest():
  expected = "'learning_rat'; did you mean 'learning_rate'"
  with pytest.raises(ValueError, match=expected):
    make("ppo", MIXED, learning_rat=1.0)


def test_len_counts_proposals():
  controller = make("random_search", MIXED)
  proposals, _ = controller.ask(controller.init(key(0)), key(1), 7)
  assert len(proposals) == 7
  assert len(proposals.rows(slice(2, 4))) == 2
