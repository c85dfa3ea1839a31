"""Many children, one program.

`make_population` maps `training.step.train_step` over children whose genotypes
are data, spreads them over the mesh axis `arch` and each batch over `data`.
Nothing depends on which cells they are, so a search compiles once.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.data import augment as aug
from nasnet_jax.data import batches
from nasnet_jax.models import drop_path as dp
from nasnet_jax.population.networks import Network
from nasnet_jax.training import checks, losses, optimizers, schedules
from nasnet_jax.training import mesh as meshes
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step

Array = jax.Array
_LEAST = {"learning_rate": 0, "weight_decay": 0, "clip_norm": 0}


@dataclasses.dataclass(frozen=True)
class ChildRecipe:
  """How a child is trained.

  Attributes:
    epochs: over the training split, for a budget of 1.
    batch_size: examples per update, over all devices of `data`.
    learning_rate, schedule, momentum, weight_decay, clip_norm: see
      `training.schedules` and `training.optimizers`.
    drop_path_keep, drop_path_version: see `models.drop_path`.
    init, bn_decay, bn_epsilon, kernels: see `models.layers.Numerics`.
    width: children that one device trains at once; memory grows with it.
    steps_per_call: updates per call of the compiled program: 1 where calls
      are cheap next to a step (CPU), an epoch on TPU.
    eval_batch_size: examples per step of evaluation.
    dtype: of the activations in training, "float32" or "bfloat16"; weights,
      statistics, loss and evaluation are float32.
    fold: examples that stand side by side in the channels of a map; 1 on CPU,
      up to 128 / F on TPU, see `models.folded`. Half as many where F is
      doubled. For cells only. Numbers are equal to rounding.
  """

  epochs: int = 20  # Zoph et al. 2018, appendix A
  batch_size: int = 128
  learning_rate: float = 0.025
  schedule: str = "cosine"
  momentum: float = 0.9
  nesterov: bool = False
  weight_decay: float = 5e-4
  clip_norm: float = 5.0
  drop_path_keep: float = 1.0
  drop_path_version: str = "both"
  init: str = "fan_in"
  bn_decay: float = 0.9
  bn_epsilon: float = 1e-5
  width: int = 1
  steps_per_call: int = 1
  eval_batch_size: int = 500
  dtype: str = "float32"
  fold: int = 1
  kernels: str = "xla"

  def __post_init__(self):
    checks.at_least_one(
      self,
      "epochs",
      "batch_size",
      "width",
      "steps_per_call",
      "eval_batch_size",
      "fold",
    )
    checks.at_least(self, _LEAST)
    checks.shares(self, "momentum")
    dp.check(self.drop_path_keep, self.drop_path_version)
    if self.dtype not in ("float32", "bfloat16"):
      raise ValueError(f"dtype {self.dtype!r} is neither float32 nor bfloat16")


class Data(NamedTuple):
  """A data set on the device: uint8[n, H, W, C] and int32[n]."""

  images: Array
  labels: Array


class Population(NamedTuple):
  """Compiled functions over children; every leaf of `state` has a leading
  axis of `slots` children, spread over `arch`.

  Attributes:
    slots: devices on `arch` times width.
    empty: () -> state in which no slot has anything to do.
    refill: (state, fresh bool[slots], seeds uint32[slots], horizons
      int32[slots], genotypes) -> state; starts a new child where fresh.
    train: (state, genotypes, data) -> (state, metrics f32[slots] by name):
      `steps_per_call` updates of every child that is not done yet.
    count_correct: (state, which bool[slots], genotypes, data) ->
      int32[slots], 0 where not asked.
    put: (tree) -> tree: what the host has of every slot, as the functions take
      it.
  """

  slots: int
  network: Network
  empty: Callable
  refill: Callable
  train: Callable
  count_correct: Callable
  put: Callable


class ChildProgram:
  """What happens to one child, on one device of its `data` group.

  The functions are pure; what is held is the same for every child.
  """

  def __init__(self, network, recipe, augmentation, data_size, sizes):
    """data_size: devices that share a batch; sizes: examples to train on and
    to validate with."""
    self.network, self.recipe = network, recipe
    self.augmentation, self.data_size = augmentation, data_size
    self.num_train, num_valid = sizes
    self.axis = "data" if data_size > 1 else None
    self.tx = optimizers.momentum_sgd(
      recipe.momentum,
      recipe.weight_decay,
      recipe.clip_norm,
      recipe.nesterov,
    )
    self.schedule = schedules.make(
      recipe.schedule, recipe.learning_rate, recipe.epochs
    )
    self.evaluation_order = batches.evaluation_order(
      num_valid, recipe.eval_batch_size
    )

  def init(self, seed, horizon, genotype) -> TrainState:
    params, stats = self.network.init(jax.random.key(seed), genotype)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, stats, self.tx.init(params), zero, horizon, seed)

  def refill(self, state, fresh, seed, horizon, genotype) -> TrainState:
    def new(_):
      return self.init(seed, horizon, genotype)

    return lax.cond(fresh, new, lambda state: state, state)

  def train(self, state, genotype, data):
    """`steps_per_call` updates, fewer if the child's horizon comes first."""
    zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}

    def step(state):
      return self._step(state, genotype, data)

    def idle(state):
      return state, zeros

    if self.recipe.steps_per_call == 1:
      return lax.cond(state.step < state.horizon, step, idle, state)

    def body(_, carry):
      state, metrics = carry
      state, new = lax.cond(state.step < state.horizon, step, idle, state)
      return state, jax.tree.map(jnp.add, metrics, new)

    before = state.step
    state, total = lax.fori_loop(
      0, self.recipe.steps_per_call, body, (state, zeros)
    )
    made = jnp.maximum(state.step - before, 1)  # fewer at a child's end
    mean = jax.tree.map(lambda m: m / made, total)
    return state, mean

  def _step(self, state, genotype, data):
    return train_step(
      state,
      self._batch(state, data),
      loss_fn=functools.partial(self._loss, genotype),
      tx=self.tx,
      schedule=self.schedule,
      axis_name=self.axis,
    )

  def _batch(self, state, data):
    """This device's (images, labels, places in the whole batch)."""
    size = self.recipe.batch_size
    index = batches.batch_indices(state.seed, state.step, self.num_train, size)
    index, positions = self._share(index, jnp.arange(size))
    return data.images[index], data.labels[index], positions

  def _share(self, *arrays):
    """This device's part of each array."""
    if not self.axis:
      return arrays
    size = arrays[0].shape[0] // self.data_size
    start = lax.axis_index(self.axis) * size
    return [lax.dynamic_slice_in_dim(array, start, size) for array in arrays]

  def _loss(self, genotype, params, batch_stats, batch, rng, progress):
    images, labels, positions = batch
    augment_rng, drop_rng = jax.random.split(rng)
    x = aug.augment(augment_rng, images, self.augmentation, positions)
    drop = dp.make(
      drop_rng,
      self.recipe.drop_path_keep,
      progress,
      len(self.network.cells),
      self.recipe.drop_path_version,
      positions,
    )
    logits, new = self.network.apply(
      params, batch_stats, genotype, x, drop, True
    )
    metrics = {"accuracy": losses.accuracy(logits, labels)}
    return losses.cross_entropy(logits, labels), (new, metrics)

  def count_correct(self, state, which, genotype, data):
    """int32, right answers on all of `data`; 0 where not asked."""

    def count(_):
      return self._count_all(state, genotype, data)

    return lax.cond(which, count, lambda _: jnp.int32(0), None)

  def _count_all(self, state, genotype, data):
    def batch(total, xs):
      index, counts = self._share(*xs)
      x = aug.normalise(data.images[index], self.augmentation)
      logits, _ = self.network.apply(
        state.params, state.batch_stats, genotype, x, None, False
      )
      right = (logits.argmax(-1) == data.labels[index]) & counts
      # A child whose weights are not finite got nothing right.
      right &= jnp.isfinite(logits).all(-1)
      return total + right.sum(dtype=jnp.int32), None

    total, _ = lax.scan(batch, jnp.int32(0), self.evaluation_order)
    return lax.psum(total, self.axis) if self.axis else total


def make_population(
  network: Network,
  recipe: ChildRecipe,
  augmentation: aug.Augmentation,
  mesh: jax.sharding.Mesh,
  num_train: int,
  num_valid: int,
) -> Population:
  """Functions that train and evaluate a population on a mesh (arch, data).

  Raises:
    ValueError: if the batch does not divide over `data`.
  """
  data_size = mesh.shape["data"]
  check_batches(recipe, data_size)
  slots = mesh.shape["arch"] * recipe.width
  child = ChildProgram(
    network, recipe, augmentation, data_size, (num_train, num_valid)
  )
  children, everywhere = PartitionSpec("arch"), PartitionSpec()
  over_children = functools.partial(map_children, mesh, recipe.width)

  def empty():
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    one = jax.eval_shape(child.init, seed, scalar, network.genotype_shapes)
    return jax.tree.map(lambda s: jnp.zeros((slots, *s.shape), s.dtype), one)

  return Population(
    slots,
    network,
    jax.jit(empty, out_shardings=NamedSharding(mesh, children)),
    over_children(child.refill, 5, donate_argnums=0),
    over_children(child.train, 2, everywhere, donate_argnums=0),
    over_children(child.count_correct, 3, everywhere),
    functools.partial(put_children, mesh),
  )


def check_batches(recipe: ChildRecipe, data_size: int):
  """Raises ValueError if batches do not divide over the devices of `data`."""
  for size in (recipe.batch_size, recipe.eval_batch_size):
    if size % data_size:
      raise ValueError(
        f"a batch of {size} does not divide over {data_size} devices on `data`"
      )
    if size // data_size % recipe.fold:
      raise ValueError(
        f"{size // data_size} examples per device do not divide by child.fold"
        f" {recipe.fold}: set it to 1, or to a divisor"
      )


def map_children(
  mesh, width: int, function, num_mapped: int, *in_common, **jit_options
):
  """Compiles a function of one child for as many as there are slots.

  Args:
    width: children that one device has.
    num_mapped: arguments that have a leading axis of children, the first ones.
    in_common: partition specs of the others, which all children share.
    jit_options: of `jax.jit`.
  """
  children = PartitionSpec("arch")

  def local(*args):
    mapped, shared = args[:num_mapped], args[num_mapped:]
    if width == 1:
      # A batch of one would cost the switches their scalar index for nothing.
      return lax.map(lambda args: function(*args, *shared), mapped)
    return jax.vmap(lambda *args: function(*args, *shared))(*mapped)

  sharded = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(children,) * num_mapped + in_common,
    out_specs=children,
    check_vma=False,
  )
  return jax.jit(sharded, **jit_options)


def put_children(mesh, tree):
  """JAX spreads NumPy arrays by itself, if all devices are this host's."""
  if not mesh.is_multi_process:
    return tree
  return meshes.put(tree, NamedSharding(mesh, PartitionSpec("arch")))


def put_data(images, labels, mesh) -> Data:
  """A data set on every device of the mesh."""
  data = Data(np.asarray(images), np.asarray(labels, np.int32))
  return meshes.put(data, NamedSharding(mesh, PartitionSpec()))
