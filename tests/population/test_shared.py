"""Weights that all children share: what an update moves, and what it must not."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.costs import counting
from nasnet_jax.data import digits
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
from nasnet_jax.training import workdir
from nasnet_jax.training.mesh import make_mesh

_spec = importlib.util.spec_from_file_location(
  "twins", pathlib.Path(__file__).with_name("twins.py")
)
twins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twins)

OPERATIONS = ("identity", "sep_conv_3x3", "avg_pool_3x3")
SPACE = spaces.get("nasnet_c", num_blocks=2, operations=OPERATIONS)
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
CELLS = SPACE.decode(SPACE.sample(np.random.default_rng(3), 4))


def _cell(i: int):
  return gt.Genotype(*(leaf[i] for leaf in CELLS))


@functools.cache
def _data():
  data = digits.load_digits()
  images, labels = data.train_images, data.train_labels
  train, valid = slice(0, NUM_TRAIN), slice(NUM_TRAIN, NUM_TRAIN + NUM_VALID)
  return (images[train], labels[train]), (images[valid], labels[valid])


def _settings(**changes):
  return dataclasses.replace(SharedSettings(), **changes)


@functools.cache
def _network():
  return networks.open_network(SPACE, NETWORK, IMAGE)[0]


class _Made:
  """Shared weights of these settings, compiled."""

  def __init__(self, arch=1, **settings):
    settings = _settings(**settings)
    self.mesh = make_mesh(arch, 1, jax.devices()[:arch])
    self.banks = SharedBanks(_network().stack, settings.per_input)
    self.samples = settings.samples
    self.functions = make_shared(
      _network(),
      RECIPE,
      settings,
      DEFAULTS["digits"],
      self.mesh,
      NUM_TRAIN,
      NUM_VALID,
    )
    self.train_data, self.valid_data = (
      pop.put_data(*part, self.mesh) for part in _data()
    )

  def start(self):
    return self.functions.init(np.uint32(7))

  def train(self, state, cells, count=UPDATES):
    """cells: of each update those of its K children."""
    rows = np.resize(np.asarray(cells), (UPDATES, self.samples))
    genotypes = gt.Genotype(*(leaf[rows] for leaf in CELLS))
    return self.functions.train(
      state, genotypes, np.int32(count), self.train_data
    )

  def correct(self, state, cells):
    found = []
    for cell in cells:
      genotype = gt.Genotype(*(leaf[[cell]] for leaf in CELLS))
      found += np.asarray(
        self.functions.count_correct(
          np.ones(1, bool), genotype, state, self.train_data, self.valid_data
        )
      ).tolist()
    return found


@pytest.fixture(scope="module", params=[False, True], ids=["", "per_input"])
def one(request):
  """One child in each update."""
  return _Made(per_input=request.param)


def _static_training(state, cell: int, banks):
  """The static network of a cell, trained from the shared weights it has."""
  genotype = _cell(cell)
  params = banks.child(state.params, jax.tree.map(jnp.asarray, genotype))
  _, stats = _network().init(jax.random.key(0), genotype)
  child = state._replace(params=params, batch_stats=stats)
  variables = extract(_network(), genotype, child)
  static = families.network(SPACE, genotype, NETWORK)

  def apply(params, stats, genotype, images, drop, train):
    del genotype
    found = {"params": params, "batch_stats": stats}
    outputs, new = static.apply(
      found, images, train, drop, mutable=["batch_stats"]
    )
    return outputs[0], new["batch_stats"]

  program = pop.ChildProgram(
    _network()._replace(apply=apply),
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
  wanted, metrics = _static_training(jax.device_get(state), 0, one.banks)
  found, mine = one.train(state, [0])
  genotype = _cell(0)
  _, stats = _network().init(jax.random.key(0), genotype)

  def as_static(tree):
    child = one.banks.child(tree, jax.tree.map(jnp.asarray, genotype))
    child = wanted._replace(params=child, batch_stats=stats)
    return extract(_network(), genotype, child)["params"]

  assert int(found.step) == UPDATES
  assert float(mine["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-4)
  for tree, other in (
    (found.params, wanted.params),
    (_trace(found), _trace(wanted)),
  ):
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(as_static(tree)),
      jax.tree.leaves(other),
      strict=True,
    ):
      scale = 1e-2 + np.abs(b).max()
      error = np.abs(np.asarray(a) - b).max() / scale
      assert error < 1e-3, (jax.tree_util.keystr(path), error)


def _trace(state):
  """The momentum, a tree like the weights."""
  leaves = jax.tree.leaves(state.opt_state)
  return jax.tree.structure(state.params).unflatten(leaves)


def _weights_of(banks, state, cell: int):
  """Trees of bool like the shared weights: what the static network of a cell
  is made of, as `extract` takes it, and its operations by hand."""
  genotype = _cell(cell)
  child, stats = _network().init(jax.random.key(0), genotype)
  program = twins.Program(SPACE, IMAGE, _network(), None, None)
  read = jax.device_get(twins.used(program, genotype, child, stats))
  for plan, part in zip(_network().cells, banks.stack.parts, strict=True):
    genes = gt.genes_of(genotype, plan.kind)
    taken = {}
    for name, bank in state.params[plan.name]["edges"].items():
      mask = np.zeros(bank.shape, bool)
      for block in range(2):
        for side in range(2):
          place = int(genes.inputs[block, side])
          if not banks.per_input:
            place = int(part.raw_places[place] >= 0)
          row = place * len(OPERATIONS) + int(genes.ops[block, side])
          front = read[plan.name]["edges"][name][block, side]
          mask[block, side, row] = front
      taken[name] = mask
    read[plan.name]["edges"] = taken
  return read


def test_what_no_sampled_child_has_stays_bit_for_bit(one):
  start = jax.device_get(one.start())
  once, _ = one.train(one.start(), [0])
  once = jax.device_get(once)  # its momentum is no longer 0
  after, _ = one.train(jax.device_put(once), [1, 2, 1])
  after = jax.device_get(after)
  trees = [_weights_of(one.banks, start, cell) for cell in (1, 2)]
  has = jax.tree.map(lambda a, b: np.asarray(a | b), *trees)
  moved = rest = 0
  for before, now in (
    (once.params, after.params),
    (_trace(once), _trace(after)),
  ):
    for (path, mask), a, b in zip(
      jax.tree_util.tree_leaves_with_path(has),
      jax.tree.leaves(before),
      jax.tree.leaves(now),
      strict=True,
    ):
      a, b = (np.asarray(x).view(np.uint32) for x in (a, b))
      assert (a[~mask] == b[~mask]).all(), jax.tree_util.keystr(path)
      rest += (~mask & (a != 0)).sum()
      moved += (a[mask] != b[mask]).sum()
  # The test says something: there was something to be moved, and to be kept.
  assert moved > 1000
  assert rest > 1000
