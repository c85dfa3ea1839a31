"""Children in training: the same wherever they sit and whoever sits beside."""

import dataclasses
import functools
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.costs import counting
from nasnet_jax.data import digits
from nasnet_jax.data.augment import DEFAULTS
from nasnet_jax.models.layers import Numerics, batch_norm_groups
from nasnet_jax.models.stacked import StackedNetwork, as_cells
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import population as pop
from nasnet_jax.population.evaluation import FAILED, OK, Stops
from nasnet_jax.population.evaluator import PopulationEvaluator
from nasnet_jax.population.networks import open_network
from nasnet_jax.population.slots import drain
from nasnet_jax.training.mesh import make_mesh

OPERATIONS = ("identity", "sep_conv_3x3", "avg_pool_3x3")
SPACE = spaces.get("nasnet", num_blocks=2, operations=OPERATIONS)
# One cell, but where a test is about several.
NETWORK = NetworkConfig(
  num_cells=1,
  num_reductions=0,
  features=4,
  numerics=Numerics(init="fan_in"),
)
THREE = dataclasses.replace(NETWORK, num_reductions=1)
RECIPE = pop.ChildRecipe(
  epochs=1,
  batch_size=8,
  learning_rate=0.1,
  eval_batch_size=64,
  drop_path_keep=0.9,
)
STEPS_PER_EPOCH = 32
NUM_VALID = 100
CHILDREN = SPACE.sample(np.random.default_rng(0), 8)
SEEDS = np.arange(8, dtype=np.uint32) + 5


@functools.cache
def _digits():
  """(256 images and labels to train on, 100 to validate on)."""
  data = digits.load_digits()
  train = slice(0, 8 * STEPS_PER_EPOCH)
  valid = slice(train.stop, train.stop + NUM_VALID)
  images, labels = data.train_images, data.train_labels
  return (images[train], labels[train]), (images[valid], labels[valid])


def _evaluator(
  arch=1, data=1, bn_axis=None, bn_parts=1, network=NETWORK, **recipe
):
  numerics = dataclasses.replace(
    network.numerics, bn_axis=bn_axis, bn_parts=bn_parts
  )
  made = PopulationEvaluator(
    SPACE,
    dataclasses.replace(network, numerics=numerics),
    dataclasses.replace(RECIPE, **recipe),
    DEFAULTS["digits"],
    *_digits(),
    make_mesh(arch, data),
  )
  made.compile()  # or reads it: its jitted functions are traced when called
  return made


class Child(NamedTuple):
  """What is left of a child after training, on the host."""

  losses: np.ndarray  # one per call of the compiled step
  state: Any
  correct: int


def _train(
  evaluator, children, seeds, horizons, labels=None, calls=None
) -> list[Child]:
  """Trains children on the slots of a population, a full house at a time.

  Args:
    labels: in place of the true ones of the training images.
    calls: of the training step; None: as many as the horizons take.
  """
  population = evaluator.population
  slots = population.slots
  ((images, truth), valid), mesh = _digits(), evaluator.mesh
  train = pop.put_data(images, truth if labels is None else labels, mesh)
  valid = pop.put_data(*valid, mesh)
  everybody = np.ones(slots, bool)
  if calls is None:
    calls = math.ceil(max(horizons) / evaluator.recipe.steps_per_call)
  done = []
  for first in range(0, len(children), slots):
    who = np.minimum(np.arange(first, first + slots), len(children) - 1)
    genotypes = SPACE.decode(children[who])
    state = population.refill(
      population.empty(),
      everybody,
      seeds[who],
      np.asarray(horizons, np.int32)[who],
      genotypes,
    )
    losses = []
    for _ in range(calls):
      state, metrics = population.train(state, genotypes, train)
      losses.append(np.asarray(metrics["loss"]))
    correct = population.count_correct(state, everybody, genotypes, valid)
    state, correct = jax.device_get((state, correct))
    for slot in range(min(slots, len(children) - first)):
      row = jax.tree.map(lambda x, slot=slot: x[slot], state)
      done.append(Child(np.stack(losses)[:, slot], row, int(correct[slot])))
  return done


def _assert_same_bits(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def _assert_within(tolerance, found, wanted):
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a.losses, b.losses, atol=tolerance)
    for ours, theirs in zip(
      jax.tree.leaves((a.state.params, a.state.batch_stats)),
      jax.tree.leaves((b.state.params, b.state.batch_stats)),
    ):
      np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


TEN = np.full(8, 10)


@pytest.fixture(scope="module")
def one_device():
  return _evaluator()


@pytest.fixture(scope="module")
def eight_devices():
  return _evaluator(8)


@pytest.fixture(scope="module")
def alone(one_device):
  """Ten steps of eight different children, one after the other."""
  children = _train(one_device, CHILDREN, SEEDS, TEN)
  assert all(np.isfinite(child.losses).all() for child in children)
  assert all(child.state.step == 10 for child in children)
  return children


# --- where a child sits ------------------------------------------------------


@pytest.mark.parametrize(
  "arch",
  [
    pytest.param(2, marks=pytest.mark.slow),
    pytest.param(4, marks=pytest.mark.slow),
    8,
  ],
)
def test_any_number_of_devices_gives_the_same_bits(arch, alone, eight_devices):
  evaluator = eight_devices if arch == 8 else _evaluator(arch)
  _assert_same_bits(_train(evaluator, CHILDREN, SEEDS, TEN), alone)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "data"), [(2, 1), (1, 2)])
def test_devices_change_no_bits_of_wider_vmaps_and_shared_batches(width, data):
  options = {"width": width, "bn_axis": "data" if data > 1 else None}
  one, four = (
    _train(_evaluator(arch, data, **options), CHILDREN, SEEDS, TEN)
    for arch in (1, 4)
  )
  _assert_same_bits(four, one)


def test_equal_children_are_equal_wherever_they_sit(alone, eight_devices):
  same = np.repeat(CHILDREN[2:3], 8, 0)
  made = _train(eight_devices, same, np.repeat(SEEDS[2:3], 8), TEN)
  for child in made:
    _assert_same_bits(child, alone[2])


def test_equal_cells_of_other_seeds_differ(alone, one_device):
  other = _train(one_device, CHILDREN[:1], SEEDS[1:2], TEN[:1])[0]
  assert (other.losses != alone[0].losses).all()


def test_a_wider_vmap_gives_the_same_within_rounding(alone):
  evaluator = _evaluator(width=2)
  made = _train(evaluator, CHILDREN[:4], SEEDS[:4], TEN[:4])
  _assert_within(1e-5, made, alone[:4])
  same = np.repeat(CHILDREN[3:4], 2, 0)
  twins = _train(evaluator, same, np.repeat(SEEDS[3:4], 2), TEN[:2])
  _assert_same_bits(twins[0], twins[1])


def test_two_devices_that_share_a_batch_equal_one(alone):
  """Two groups of two devices; each group shares one child's batch."""
  shared_batches = _evaluator(2, 2, bn_axis="data")
  made = _train(shared_batches, CHILDREN[:2], SEEDS[:2], TEN[:2])
  _assert_within(1e-5, made, alone[:2])
  assert [c.correct for c in made] == [c.correct for c in alone[:2]]


# --- calls, refilling, budgets -----------------------------------------------


@pytest.mark.slow
def test_groups_of_batch_norm_are_examples_on_any_number_of_devices(alone):
  # Five updates: groups of four examples magnify rounding early.
  found = []
  for data in (1, 2, 4):  # two groups in a device, its own, half a group
    groups = batch_norm_groups(4, RECIPE.batch_size, data, "data")
    evaluator = _evaluator(1, data, **groups)
    found.append(_train(evaluator, CHILDREN[:2], SEEDS, np.full(2, 5)))
  for other in found[1:]:
    _assert_within(1e-4, other, found[0])
  whole_batch = alone[0].losses[:5]
  assert np.abs(found[0][0].losses - whole_batch).max() > 1e-2


def test_five_updates_per_call_equal_one_per_call(alone):
  horizons = np.array([10, 7])  # the second ends in the middle of a call
  made = _train(_evaluator(steps_per_call=5), CHILDREN[:2], SEEDS[:2], horizons)
  assert made[1].state.step == 7
  _assert_same_bits(made[0].state, alone[0].state)
  np.testing.assert_allclose(
    made[0].losses, alone[0].losses.reshape(2, 5).mean(1), rtol=1e-6
  )


def test_a_refilled_slot_forgets_who_sat_there(one_device, alone):
  population, mesh = one_device.population, one_device.mesh
  train = pop.put_data(*_digits()[0], mesh)
  fresh, horizon = np.ones(1, bool), np.full(1, 10, np.int32)
  state = population.empty()
  for child in (0, 3):
    genotype = SPACE.decode(CHILDREN[child : child + 1])
    seed = SEEDS[child : child + 1]
    state = population.refill(state, fresh, seed, horizon, genotype)
    for _ in range(10):
      state, _ = population.train(state, genotype, train)
    row = jax.tree.map(lambda x: x[0], jax.device_get(state))
    _assert_same_bits(row, alone[child].state)


def _comparable(outcomes):
  return [outcome._replace(seconds=0.0) for outcome in outcomes]


def test_outcomes_do_not_depend_on_neighbours_and_budgets(
  one_device, eight_devices, compilations
):
  """One child takes 30 times as long as the rest; others take its
  neighbours' slots meanwhile."""
  rng = np.random.default_rng(1)
  children = SPACE.sample(rng, 12)
  seeds = rng.integers(0, 1000, 12).astype(np.uint32)
  steps = np.array([2, 3, 60, 5, 2, 2, 4, 2, 3, 2, 5, 2])
  budgets = (steps / STEPS_PER_EPOCH).astype(np.float32)
  eight_devices.evaluate(children[:1], seeds[:1], budgets[:1])  # warm
  del compilations[:]
  found = eight_devices.evaluate(children, seeds, budgets)
  assert compilations == []  # twelve cells, four of them in refilled slots
  wanted = one_device.evaluate(children, seeds, budgets)
  assert _comparable(found) == _comparable(wanted)
  assert [o.steps for o in found] == steps.tolist()
  assert all(o.status == OK and o.seconds > 0 for o in found)
  order = rng.permutation(12)
  again = eight_devices.evaluate(children[order], seeds[order], budgets[order])
  assert _comparable(again) == [_comparable(found)[i] for i in order]


def test_children_that_come_one_by_one_are_trained_the_same(
  eight_devices, compilations
):
  """Eight slots; the rest take the place of whoever is done."""
  rng = np.random.default_rng(2)
  children, seeds = SPACE.sample(rng, 11), np.arange(11, dtype=np.uint32)
  budgets = (rng.integers(1, 6, 11) / STEPS_PER_EPOCH).astype(np.float32)
  wanted = eight_devices.evaluate(children, seeds, budgets)
  del compilations[:]
  queue, found, added = eight_devices.queue(), {}, 0
  while added < 11 or queue.busy:
    new = slice(added, min(added + (1 if added else 5), 11))
    queue.add(range(11)[new], children[new], seeds[new], budgets[new])
    added = new.stop
    found.update(queue.advance())
  assert compilations == []
  assert _comparable([found[i] for i in range(11)]) == _comparable(wanted)


def test_children_that_stop_are_those_they_were_until_then(
  eight_devices, compilations
):
  """Every second child ends at its first or second rung; the rest goes on as
  if nobody had looked."""
  budgets = np.full(8, 12 / STEPS_PER_EPOCH, np.float32)
  wanted = eight_devices.evaluate(CHILDREN, SEEDS, budgets)
  del compilations[:]
  asked = []

  def keep(child, rung, outcome):
    asked.append((child, rung))
    assert outcome.steps == (3, 7)[rung]
    return child % 2 == 0 or rung < child % 4 // 2

  queue = eight_devices.queue(Stops((3, 7, 12), keep))
  queue.add(range(8), CHILDREN, SEEDS, budgets)
  found = drain(queue)
  assert compilations == []
  assert asked == [(i, 0) for i in range(8)] + [
    (i, 1) for i in (0, 2, 3, 4, 6, 7)
  ]
  for number, outcome in found.items():
    steps = 12 if number % 2 == 0 else (3, 7)[number % 4 // 2]
    assert (outcome.steps, outcome.horizon) == (steps, 12)
    if steps == 12:
      assert outcome.reward == wanted[number].reward
      assert len(outcome.rungs) == 2
    else:
      assert outcome.reward == outcome.rungs[-1]
  short = _train(eight_devices, CHILDREN, SEEDS, np.full(8, 12), calls=3)
  assert [found[i].rungs[0] for i in range(8)] == [
    child.correct / NUM_VALID for child in short
  ]


def test_no_children_have_no_outcomes(one_device):
  nothing = np.zeros((0, CHILDREN.shape[1]), np.int32)
  assert one_device.evaluate(nothing, np.zeros(0), np.zeros(0)) == []


def test_progress_rises_to_one(one_device):
  shares = []
  one_device.evaluate(
    CHILDREN[:2],
    SEEDS[:2],
    np.float32([0.1, 0.2]),
    lambda share, _: shares.append(share),
  )
  assert shares == sorted(shares)
  assert shares[-1] == 1.0


def test_a_stopped_evaluation_leaves_the_evaluator_usable(one_device):
  def stop(*_):
    raise KeyboardInterrupt

  budgets = np.full(2, 0.1, np.float32)
  wanted = one_device.evaluate(CHILDREN[:2], SEEDS[:2], budgets)
  with pytest.raises(KeyboardInterrupt):
    one_device.evaluate(CHILDREN, SEEDS, np.ones(8, np.float32), stop)
  found = one_device.evaluate(CHILDREN[:2], SEEDS[:2], budgets)
  assert _comparable(found) == _comparable(wanted)


# --- rewards -----------------------------------------------------------------


def test_labels_that_mean_nothing_give_chance_level_rewards(one_device):
  children = np.stack([SPACE.encode(SPACE.from_literal(_good_cell()))] * 2)
  horizons = np.full(2, 12 * STEPS_PER_EPOCH)
  labels = np.random.default_rng(0).permutation(_digits()[0][1])
  learned = _train(one_device, children, SEEDS[:2], horizons)
  guessed = _train(one_device, children, SEEDS[:2], horizons, labels)
  answers = 2 * NUM_VALID
  assert sum(child.correct for child in learned) / answers > 0.5
  # Chance is 0.1: of 200 answers 0.2 lies four and a half deviations off.
  assert sum(child.correct for child in guessed) / answers < 0.2


def _good_cell():
  blocks = [
    (0, 1, "sep_conv_3x3", "sep_conv_3x3"),
    (2, 0, "sep_conv_3x3", "identity"),
  ]
  return {"normal": (blocks, [3]), "reduction": (blocks, [3])}


def test_a_child_whose_loss_is_nan_fails_alone(eight_devices, monkeypatch):
  healthy = eight_devices.population
  budgets = np.full(8, 4 / STEPS_PER_EPOCH, np.float32)
  wanted = eight_devices.evaluate(CHILDREN, SEEDS, budgets)

  @jax.jit
  def poison(params, sick):
    def spoil(p):
      mask = sick.reshape(-1, *[1] * (p.ndim - 1))
      return jnp.where(mask, jnp.nan, p)

    return jax.tree.map(spoil, params)

  def refill(state, fresh, seeds, *rest):
    state = healthy.refill(state, fresh, seeds, *rest)
    params = poison(state.params, fresh & (np.asarray(seeds) == SEEDS[5]))
    return state._replace(params=params)

  sick = healthy._replace(refill=refill)
  monkeypatch.setattr(eight_devices, "population", sick)
  found = eight_devices.evaluate(CHILDREN, SEEDS, budgets)
  assert found[5].status == FAILED
  assert np.isnan(found[5].reward)
  del found[5], wanted[5]
  assert _comparable(found) == _comparable(wanted)
  assert all(o.status == OK for o in found)


# --- collectives -------------------------------------------------------------


def _all_reduces(evaluator) -> int:
  text = evaluator.population.train.as_text()
  return len(re.findall(r" all-reduce(?:-start)?\(", text))


def test_children_on_devices_of_their_own_never_wait_for_each_other(
  eight_devices,
):
  assert _all_reduces(eight_devices) == 0


def test_programs_have_no_sort(one_device):
  """XLA:CPU cannot serialise one: each process would compile them anew."""
  for program in (
    one_device.population.train,
    one_device.population.count_correct,
  ):
    assert not re.search(r" sort\(", program.as_text())


def test_gradients_of_a_shared_batch_take_one_all_reduce():
  assert _all_reduces(_evaluator(2, 2)) == 1


def test_batch_norm_of_a_shared_batch_takes_the_all_reduces_it_must():
  shared_batches = _evaluator(2, 2, bn_axis="data", network=THREE)
  # Batch norms in the branches of the first cell (from F channels: 2 of the
  # separable one; from the stem's 3F: 1 identity, 2, 1 pool), the reduction
  # (stride 1: 2; stride 2: 1 identity, 2) and the last cell (2). Each has one
  # all-reduce forward and one for its gradient: when the backward pass computes
  # activations again, it knows their moments.
  branches = 6 + 5 + 2
  # The stem, three projections and two fits of the previous output, each one
  # forward and one backward; XLA joins a fit with its cell's projection.
  outside = 1 + 3
  # And the gradients, statistics and metrics, all in one.
  assert _all_reduces(shared_batches) == 2 * branches + 2 * outside + 1


def test_children_that_pass_on_each_block_are_trained_side_by_side():
  space = spaces.get(
    "nasnet_b", num_blocks=3, operations=("identity", "avg_pool_3x3")
  )
  evaluator = PopulationEvaluator(
    space,
    THREE,
    dataclasses.replace(RECIPE, width=2),
    DEFAULTS["digits"],
    *_digits(),
    make_mesh(1),
  )
  decisions = space.sample(np.random.default_rng(1), 2)
  outcomes = evaluator.evaluate(decisions, SEEDS[:2], np.full(2, 4 / 32))
  shape = _digits()[0][0].shape[1:]
  for outcome, genotype in zip(outcomes, map(space.decode, decisions)):
    assert (outcome.status, outcome.steps) == (OK, 4)
    assert 0 <= outcome.reward <= 1
    network = StackedNetwork(THREE, as_cells(space, genotype))
    counted = counting.count_module(network, shape)
    assert (outcome.params, outcome.macs) == counted


def test_a_space_whose_children_no_population_trains_is_one_line():
  with pytest.raises(ValueError, match="children of space nasbench201"):
    open_network(spaces.get("nasbench201"), None, (8, 8, 3))
