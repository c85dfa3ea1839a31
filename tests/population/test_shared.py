"""Weights that all children share: what an update moves, and what it keeps."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.data import augment as aug
from nasnet_jax.data import batches, digits
from nasnet_jax.data.augment import DEFAULTS
from nasnet_jax.models import families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import networks
from nasnet_jax.population import population as pop
from nasnet_jax.population.extract import extract
from nasnet_jax.population.shared_banks import SharedBanks
from nasnet_jax.population.shared_evaluator import SharedEvaluator
from nasnet_jax.population.shared_training import SharedSettings, make_shared
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.training.mesh import make_mesh
from nasnet_jax.training.state import TrainState

_spec = importlib.util.spec_from_file_location(
  "twins", pathlib.Path(__file__).with_name("twins.py")
)
twins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twins)

OPERATIONS = ("identity", "sep_conv_3x3", "avg_pool_3x3")
NETWORK = NetworkConfig(
  num_cells=1,
  num_reductions=1,
  features=4,
  numerics=Numerics(init="fan_in"),
)
IMAGE = (8, 8, 1)
UPDATES = 3
RECIPE = pop.ChildRecipe(
  epochs=1,
  batch_size=16,
  learning_rate=0.1,
  nesterov=True,
  weight_decay=0.01,  # large, and the norm small: both matter in every update
  clip_norm=0.5,
  drop_path_keep=0.8,
  eval_batch_size=32,
  steps_per_call=UPDATES,
)
NUM_TRAIN, NUM_VALID = 256, 48
CALIBRATION = 3


@functools.cache
def _data():
  data = digits.load_digits()
  images, labels = data.train_images, data.train_labels
  train, valid = slice(0, NUM_TRAIN), slice(NUM_TRAIN, NUM_TRAIN + NUM_VALID)
  return (images[train], labels[train]), (images[valid], labels[valid])


def _space(name: str):
  return spaces.get(name, num_blocks=2, operations=OPERATIONS)


class _Made:
  """Shared weights of a space and settings, and four cells of it."""

  def __init__(self, space="nasnet", arch=1, **settings):
    self.space, self.settings = _space(space), SharedSettings(**settings)
    self.network = networks.open_network(self.space, NETWORK, IMAGE)[0]
    self.mesh = make_mesh(arch, 1, jax.devices()[:arch])
    self.banks = SharedBanks(self.network.stack, self.settings.per_input)
    self.functions = make_shared(
      self.network,
      RECIPE,
      self.settings,
      DEFAULTS["digits"],
      self.mesh,
      NUM_TRAIN,
      NUM_VALID,
    )
    self.train_data, self.valid_data = (
      pop.put_data(*part, self.mesh) for part in _data()
    )
    rng = np.random.default_rng(3)
    self.cells = self.space.decode(self.space.sample(rng, 4))

  def cell(self, i: int):
    return gt.Genotype(*(leaf[i] for leaf in self.cells))

  def start(self):
    return self.functions.init(np.uint32(7))

  def train(self, state, cells, count=UPDATES):
    """cells: of the updates' children, again and again."""
    rows = np.resize(np.asarray(cells), (UPDATES, self.settings.samples))
    return self.functions.train(
      state, self.cell(rows), np.int32(count), self.train_data
    )

  def correct(self, state, cell: int) -> int:
    (found,) = self.functions.count_correct(
      np.ones(1, bool),
      self.cell([cell]),
      state,
      self.train_data,
      self.valid_data,
    )
    return int(found)

  def blank_child(self, cell: int):
    """(params, statistics) of a child, all 0."""
    shapes = jax.eval_shape(
      self.network.init, jax.random.key(0), self.cell(cell)
    )
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

  def as_static(self, params, cell: int):
    """(the variables of the static network of a cell, the network)."""
    genotype = self.cell(cell)
    child = self.banks.child(params, jax.tree.map(jnp.asarray, genotype))
    _, stats = self.blank_child(cell)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(child, stats, (), zero, zero, zero)
    network = families.network(self.space, genotype, NETWORK)
    return extract(self.network, genotype, state), network


@pytest.fixture(
  scope="module",
  params=[
    ("nasnet", True),
    pytest.param(("nasnet_c", False), marks=pytest.mark.slow),
    pytest.param(("nasnet_b", True), marks=pytest.mark.slow),
  ],
  ids=lambda param: param[0],
)
def one(request):
  """One child in each update; all combiners; outputs passed on separately."""
  space, per_input = request.param
  return _Made(space, per_input=per_input)


def _static_training(one, state, cell: int):
  """The static network of a cell, trained from the shared weights it has."""
  variables, network = one.as_static(state.params, cell)

  def apply(params, stats, genotype, images, drop, train):
    del genotype
    outputs, new = network.apply(
      {"params": params, "batch_stats": stats},
      images,
      train,
      drop,
      mutable=["batch_stats"],
    )
    return outputs[0], new["batch_stats"]

  program = pop.ChildProgram(
    one.network._replace(apply=apply),
    RECIPE,
    DEFAULTS["digits"],
    1,
    (NUM_TRAIN, NUM_VALID),
  )
  start = state._replace(
    **variables, opt_state=program.tx.init(variables["params"])
  )
  data = pop.Data(*map(jnp.asarray, _data()[0]))
  return jax.jit(lambda state: program.train(state, None, data))(start)


def test_one_child_for_ever_is_the_training_of_its_static_network(one):
  state = one.start()
  wanted, metrics = _static_training(one, jax.device_get(state), 0)
  found, mine = one.train(state, [0])
  assert int(found.step) == UPDATES
  assert float(mine["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-4)
  for tree, other in (
    (found.params, wanted.params),
    (_momentum(found), _momentum(wanted)),
  ):
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(one.as_static(tree, 0)[0]["params"]),
      jax.tree.leaves(other),
      strict=True,
    ):
      error = np.abs(np.asarray(a) - b).max() / (1e-2 + np.abs(b).max())
      assert error < 1e-3, (jax.tree_util.keystr(path), error)


def _momentum(state):
  """A tree like the weights."""
  leaves = jax.tree.leaves(state.opt_state)
  return jax.tree.structure(state.params).unflatten(leaves)


def _weights_of(one, state, cell: int):
  """Trees of bool like the shared weights: what the static network of a cell
  is made of, as `extract` takes it, and the banks of its edges by hand."""
  genotype = one.cell(cell)
  child, stats = one.blank_child(cell)
  program = twins.Program(one.space, IMAGE, one.network, None, None)
  read = jax.device_get(twins.used(program, genotype, child, stats))
  for plan, part in zip(one.network.cells, one.banks.stack.parts, strict=True):
    genes = gt.genes_of(genotype, plan.kind)
    taken = {}
    for name, bank in state.params[plan.name]["edges"].items():
      mask = np.zeros(bank.shape, bool)
      for block, side in np.ndindex(2, 2):
        place = int(genes.inputs[block, side])
        if not one.banks.per_input:
          place = int(part.raw_places[place] >= 0)
        row = place * len(OPERATIONS) + int(genes.ops[block, side])
        mask[block, side, row] = read[plan.name]["edges"][name][block, side]
      taken[name] = mask
    read[plan.name]["edges"] = taken
  return read


def test_what_no_sampled_child_has_stays_bit_for_bit(one):
  once, _ = one.train(one.start(), [0])
  once = jax.device_get(once)  # its momentum is no longer 0
  after, _ = one.train(jax.device_put(once), [1, 2, 1])
  after = jax.device_get(after)
  trees = [_weights_of(one, once, cell) for cell in (1, 2)]
  has = jax.tree.map(lambda a, b: np.asarray(a | b), *trees)
  moved = kept = 0
  for before, now in (
    (once.params, after.params),
    (_momentum(once), _momentum(after)),
  ):
    for (path, mask), a, b in zip(
      jax.tree_util.tree_leaves_with_path(has),
      jax.tree.leaves(before),
      jax.tree.leaves(now),
      strict=True,
    ):
      a, b = (np.asarray(x).view(np.uint32) for x in (a, b))
      assert (a[~mask] == b[~mask]).all(), jax.tree_util.keystr(path)
      kept += (~mask & (a != 0)).sum()
      moved += (a[mask] != b[mask]).sum()
  # There was something to be moved, and to be kept: momentum, too.
  assert moved > 500
  assert kept > 500


def test_fewer_updates_than_a_call_has_are_as_many_and_no_more(one):
  two, _ = one.train(one.start(), [0, 1, 2], count=2)
  assert int(two.step) == 2
  all_three, _ = one.train(one.start(), [0, 1, 2])
  # The third by a call of its own, whose first child it then is.
  third, _ = one.train(two, [2], count=1)
  for a, b in zip(*map(jax.tree.leaves, (all_three, third)), strict=True):
    np.testing.assert_array_equal(a, b)


def _static_correct(one, state, cell: int, calibration: int) -> int:
  """Right answers of the static network, its batch norms by hand."""
  variables, network = one.as_static(state.params, cell)
  (images, _), (valid, labels) = _data()
  augmentation = DEFAULTS["digits"]

  def normalised(pixels):
    return aug.normalise(jnp.asarray(pixels), augmentation)

  @jax.jit
  def in_training(pixels, stats):
    found = {"params": variables["params"], "batch_stats": stats}
    outputs, new = network.apply(
      found, normalised(pixels), True, mutable=["batch_stats"]
    )
    return outputs[0], new["batch_stats"]

  zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
  if calibration:
    rows = []
    for number in range(calibration):
      index = batches.batch_indices(
        np.uint32(7), number, NUM_TRAIN, RECIPE.batch_size
      )
      rows.append(in_training(images[np.asarray(index)], zeros)[1])
    # From zeros a tenth of the batch's own is left: 1 - bn_decay.
    stats = jax.tree.map(lambda *r: sum(r) / (0.1 * calibration), *rows)
    found = {"params": variables["params"], "batch_stats": stats}
    logits = network.apply(found, normalised(valid))[0]
    return int((logits.argmax(-1) == labels).sum())
  size, right = RECIPE.eval_batch_size, 0
  for start in range(0, NUM_VALID, size):
    # The last batch is filled up from the front.
    index = np.arange(start, start + size) % NUM_VALID
    logits, _ = in_training(valid[index], zeros)
    now = min(size, NUM_VALID - start)
    right += int((logits.argmax(-1) == labels[index])[:now].sum())
  return right


def test_a_child_is_judged_by_the_statistics_of_each_batch(one):
  state, _ = one.train(one.start(), [0, 1, 2])
  for cell in (0, 3):
    assert one.correct(state, cell) == _static_correct(one, state, cell, 0)


@pytest.mark.slow
def test_or_by_those_of_training_batches():
  made = _Made(calibration_batches=CALIBRATION)
  state, _ = made.train(made.start(), [0, 1, 2])
  for cell in (0, 3):
    wanted = _static_correct(made, state, cell, CALIBRATION)
    assert made.correct(state, cell) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("samples", [2, 3])
def test_an_update_is_the_mean_of_its_children_on_any_number_of_devices(
  samples,
):
  """Three on two devices: one of them has a child less."""
  alone, both = (_Made(arch=arch, samples=samples) for arch in (1, 2))
  cells = np.arange(samples)
  found, mine = alone.train(alone.start(), cells, count=1)
  other, its = both.train(both.start(), cells, count=1)
  assert float(mine["loss"]) == pytest.approx(float(its["loss"]), rel=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (found, other)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  single = _Made()
  losses = [
    float(single.train(single.start(), [cell], count=1)[1]["loss"])
    for cell in cells
  ]
  assert float(mine["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)


def _evaluator(space="nasnet", arch=1, **settings):
  return SharedEvaluator(
    _space(space),
    NETWORK,
    RECIPE,
    SharedSettings(**settings),
    DEFAULTS["digits"],
    *_data(),
    make_mesh(arch, 1, jax.devices()[:arch]),
    seed=5,
  )


@pytest.mark.slow
def test_an_evaluator_on_two_devices_judges_as_on_one(tmp_path):
  decisions = _space("nasnet").sample(np.random.default_rng(1), 5)
  nothing, found = np.zeros(5), []
  for arch in (1, 2):
    evaluator = _evaluator(arch=arch, samples=2)
    evaluator.before_round(tmp_path / str(arch), 0, None)
    outcomes = evaluator.evaluate(decisions, nothing, nothing)
    found.append([o.reward * NUM_VALID for o in outcomes])
    again = _evaluator(arch=arch, samples=2)  # reads what that one saved
    again.before_round(tmp_path / str(arch), 0, None)
    outcomes = again.evaluate(decisions, nothing, nothing)
    assert [o.reward * NUM_VALID for o in outcomes] == found[-1]
  # Sums are rounded otherwise: an answer or two on the edge may differ.
  np.testing.assert_allclose(*found, atol=2.5)


def test_uniform_samples_have_all_operations_and_states_alike():
  drawn = _evaluator(samples=2)._draw(3000, None)
  assert drawn.ops.shape == (3000, 2, 2, 2, 2)  # K, kinds, blocks, sides
  for kind, block, side in np.ndindex(2, 2, 2):
    for leaf, count in ((drawn.ops, 3), (drawn.inputs, block + 2)):
      shares = np.bincount(leaf[:, :, kind, block, side].ravel()) / 6000
      # Five deviations of a share.
      assert shares == pytest.approx(np.full(count, 1 / count), abs=0.032)


def test_samples_of_the_strategy_are_those_it_draws_in_their_order():
  evaluator = _evaluator(samples=2, sampling="strategy")
  rows = evaluator.space.sample(np.random.default_rng(0), 6)
  drawn = evaluator._draw(3, lambda n: rows[:n])
  wanted = evaluator.space.decode(rows)
  np.testing.assert_array_equal(drawn.ops, wanted.ops.reshape(3, 2, 2, 2, 2))
  with pytest.raises(ValueError, match="proposed 6 of 8 children"):
    evaluator._draw(4, lambda n: rows[:n])


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("samples", 17, "more than child.batch_size, 16"),
    ("samples", 0, "search.shared.samples is 0: give 1 or more"),
    ("epochs", -1.0, "search.shared.epochs is -1.0: give 0 or more"),
    ("sampling", "policy", "not one of: uniform, strategy"),
    (
      "valid_batches",
      2,
      "64 images by child.eval_batch_size, and there are 48",
    ),
    ("calibration_batches", -1, "calibration_batches is -1: give 0 or more"),
  ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(field, value, words):
  with pytest.raises(ValueError, match=words) as error:
    _evaluator(**{field: value})
  assert "\n" not in str(error.value)
