"""The program that trains the weights all children share, and judges children
by them.

An update draws genotypes, or is given them, takes the mean gradient of these
children on one batch, and moves what any of them has; everything else stays bit
for bit. Children of a device are mapped over, devices of `arch` have some each,
and one all-reduce outside of the switches adds them up.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from nasnet_jax.data import augment as aug
from nasnet_jax.data import batches
from nasnet_jax.population import population as pop
from nasnet_jax.population.networks import Network
from nasnet_jax.population.shared_banks import SharedBanks
from nasnet_jax.training import optimizers
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step

Array = jax.Array
SAMPLINGS = ("uniform", "strategy")


@dataclasses.dataclass(frozen=True)
class SharedSettings:
  """How weights are shared; how they train is the children's recipe.

  Attributes:
    epochs: of their training between two rounds; 0: all of it comes before the
      first round.
    samples: K, children whose mean gradient is an update.
    sampling: "uniform", or "strategy": whom it would propose now.
    per_input: see `shared_banks.SharedBanks`.
    valid_batches: validation batches of `eval_batch_size` that judge a child,
      others in each round; 0: all validation images.
    calibration_batches: training batches whose mean statistics batch norms have
      when a child is judged; 0: those of the batch it is judged on.
  """

  epochs: float = 1.0
  samples: int = 1
  sampling: str = "uniform"
  per_input: bool = False
  valid_batches: int = 0
  calibration_batches: int = 0


def check(settings: SharedSettings, recipe: pop.ChildRecipe, num_valid: int):
  """Raises ValueError, one line, for numbers that cannot be."""
  for name, least in (
    ("epochs", 0),
    ("samples", 1),
    ("valid_batches", 0),
    ("calibration_batches", 0),
  ):
    value = getattr(settings, name)
    if not least <= value < float("inf"):
      raise ValueError(f"search.shared.{name} is {value}: give {least} or more")
  if settings.samples > recipe.batch_size:
    raise ValueError(
      f"search.shared.samples is {settings.samples}, more than"
      f" child.batch_size, {recipe.batch_size}: lower it (both papers have 1)"
    )
  if settings.sampling not in SAMPLINGS:
    raise ValueError(
      f"search.shared.sampling is {settings.sampling!r}, not one of:"
      f" {', '.join(SAMPLINGS)}"
    )
  taken = settings.valid_batches * recipe.eval_batch_size
  if taken > num_valid:
    raise ValueError(
      f"search.shared.valid_batches is {settings.valid_batches}, {taken} images"
      f" by child.eval_batch_size, and there are {num_valid} to validate: lower"
      " one of them, or give 0 for all"
    )


class Shared(NamedTuple):
  """Compiled functions over shared weights, which every device has whole.

  Attributes:
    slots: children that are judged at once.
    init: (seed uint32) -> state, a `TrainState` without statistics.
    train: (state, genotypes [U, K], count int32, data) -> (state, metrics f32
      by name): the first `count` of U updates.
    count_correct: (which bool[slots], genotypes [slots], state, train data,
      validation data) -> int32[slots], 0 where not asked.
    num_judged: validation images of a child.
  """

  slots: int
  init: Callable
  train: Callable
  count_correct: Callable
  num_judged: int


class _SharedProgram(pop.ChildProgram):
  """What happens on one device. The functions are pure."""

  def __init__(self, banks, settings, mesh, *args):
    """args: as `ChildProgram`."""
    super().__init__(*args)
    self.banks, self.settings = banks, settings
    self.devices = mesh.shape["arch"]
    self.horizon = self.recipe.epochs * batches.steps_per_epoch(
      self.num_train, self.recipe.batch_size
    )
    seed = jax.random.key(0)
    genotype = banks.stack.genotype_shapes
    _, shapes = jax.eval_shape(banks.stack.init, seed, genotype)
    # No statistics are kept: from zeros come those of a batch alone.
    self.no_stats = lambda: jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), shapes
    )

  def init_shared(self, seed) -> TrainState:
    params = self.banks.init(jax.random.key(seed))
    zero, horizon = jnp.int32(0), jnp.int32(self.horizon)
    return TrainState(params, {}, self.tx.init(params), zero, horizon, seed)

  def train_shared(self, state, genotypes, count, data):
    """The first `count` updates; mean metrics."""
    zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}

    def body(state, xs):
      number, children = xs

      def update(state):
        return self._update(state, children, data)

      return lax.cond(number < count, update, lambda s: (s, zeros), state)

    numbers = jnp.arange(jax.tree.leaves(genotypes)[0].shape[0])
    state, rows = lax.scan(body, state, (numbers, genotypes))
    return state, jax.tree.map(lambda row: row.sum() / count, rows)

  def _update(self, state, children, data):
    """One update by the mean gradient of children [K]."""
    sampled = self.banks.of_children(state.params, children)
    axes = ("arch", "data") if self.axis else "arch"
    return train_step(
      state,
      self._batch(state, data),
      loss_fn=functools.partial(self._mean_loss, *self._own(children)),
      tx=optimizers.where(self.tx, sampled),
      schedule=self.schedule,
      axis_name=axes,
    )

  def _own(self, children):
    """(this device's of the children, their weights in its loss): the mean over
    devices of their sums is the mean over children."""
    count = self.settings.samples
    each = -(-count // self.devices)
    numbers = lax.axis_index("arch") * each + jnp.arange(each)
    own = jax.tree.map(lambda leaf: leaf[numbers % count], children)
    weight = self.devices / count
    return own, jnp.where(numbers < count, jnp.float32(weight), 0.0)

  def _mean_loss(self, children, weights, params, _, batch, rng, progress):
    def one(args):
      child, weight = args
      own = self.banks.child(params, child)
      loss, (_, metrics) = self._loss(
        child, own, self.no_stats(), batch, rng, progress
      )
      return jax.tree.map(lambda x: weight * x, (loss, metrics))

    rows = self._over(one, (children, weights), len(weights))
    loss, metrics = jax.tree.map(lambda row: row.sum(0), rows)
    return loss, ({}, metrics)

  def _over(self, function, args, count: int):
    """function of each child; see `population.map_children`."""
    if count == 1:
      one = function(jax.tree.map(lambda x: x[0], args))
      return jax.tree.map(lambda x: x[None], one)
    if self.recipe.width == 1:
      return lax.map(function, args)
    return jax.vmap(function)(args)

  def count_shared(self, which, genotype, state, train, valid):
    """int32: right answers of a child; 0 where not asked."""

    def count(_):
      params = self.banks.child(state.params, genotype)
      return self._judge(params, genotype, state, train, valid)

    return lax.cond(which, count, lambda _: jnp.int32(0), None)

  def _judge(self, params, genotype, state, train, valid):
    calibrated = self.settings.calibration_batches > 0
    stats = self.no_stats()
    if calibrated:
      stats = self._calibrated(params, genotype, state, train)

    def batch(total, xs):
      index, counts = self._share(*xs)
      x = aug.normalise(valid.images[index], self.augmentation)
      logits, _ = self.network.apply(
        params, stats, genotype, x, None, not calibrated
      )
      right = (logits.argmax(-1) == valid.labels[index]) & counts
      right &= jnp.isfinite(logits).all(-1)
      return total + right.sum(dtype=jnp.int32), None

    total, _ = lax.scan(batch, jnp.int32(0), self._judged(state))
    return lax.psum(total, self.axis) if self.axis else total

  def _judged(self, state):
    """(index int32[V, n], counts bool[V, n]) of the validation batches. Where
    all images are judged the last batch is filled up from the first, so that
    its statistics are not those of one image."""
    size, count = self.recipe.eval_batch_size, self.settings.valid_batches
    num_valid = self.evaluation_order[1].sum()
    if not count:
      index, counts = self.evaluation_order
      wrapped = np.arange(index.size, dtype=np.int32) % num_valid
      return jnp.asarray(wrapped.reshape(index.shape)), jnp.asarray(counts)
    order = batches.epoch_rng(state.seed, state.step)
    index = batches.permuted(order, jnp.arange(count * size), int(num_valid))
    return index.reshape(count, size), jnp.ones((count, size), bool)

  def _calibrated(self, params, genotype, state, train):
    """The mean statistics of some training batches, without augmentation."""
    count = self.settings.calibration_batches
    keep = self.banks.stack.parts[0].numerics.bn_decay

    def batch(total, number):
      index = batches.batch_indices(
        state.seed, number, self.num_train, self.recipe.batch_size
      )
      (index,) = self._share(index)
      x = aug.normalise(train.images[index], self.augmentation)
      _, new = self.network.apply(
        params, self.no_stats(), genotype, x, None, True
      )
      return jax.tree.map(jnp.add, total, new), None

    total, _ = lax.scan(batch, self.no_stats(), jnp.arange(count))
    mean = jax.tree.map(lambda s: s / (count * (1 - keep)), total)
    return lax.pmean(mean, self.axis) if self.axis else mean


def make_shared(
  network: Network,
  recipe: pop.ChildRecipe,
  settings: SharedSettings,
  augmentation: aug.Augmentation,
  mesh: jax.sharding.Mesh,
  num_train: int,
  num_valid: int,
) -> Shared:
  """Functions that train and judge on a mesh (arch, data).

  Args:
    network: of cells.

  Raises:
    ValueError: if batches do not divide over `data`, or `check` says so.
  """
  check(settings, recipe, num_valid)
  pop.check_batches(recipe, mesh.shape["data"])
  parts = network.stack.parts[0].numerics.bn_parts
  if recipe.eval_batch_size // mesh.shape["data"] % parts:
    raise ValueError(
      f"child.eval_batch_size is {recipe.eval_batch_size}, whose statistics"
      f" judge a child, and does not divide into the {parts} groups of"
      " child.bn_group: set that to 0, or take a multiple"
    )
  banks = SharedBanks(network.stack, settings.per_input)
  program = _SharedProgram(
    banks,
    settings,
    mesh,
    network,
    recipe,
    augmentation,
    mesh.shape["data"],
    (num_train, num_valid),
  )
  everywhere = PartitionSpec()
  train = jax.shard_map(
    program.train_shared,
    mesh=mesh,
    in_specs=everywhere,
    out_specs=everywhere,
    check_vma=False,
  )
  replicated = jax.sharding.NamedSharding(mesh, everywhere)
  return Shared(
    mesh.shape["arch"] * recipe.width,
    jax.jit(program.init_shared, out_shardings=replicated),
    jax.jit(train, donate_argnums=0),
    pop.map_children(
      mesh, recipe.width, program.count_shared, 2, *(everywhere,) * 3
    ),
    settings.valid_batches * recipe.eval_batch_size or num_valid,
  )
