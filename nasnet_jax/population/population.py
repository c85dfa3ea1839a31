"""Many children, one program.

`make_network` gives the loss of a child whose genotype is data;
`make_population` maps `training.step.train_step` over children, spreads them
over the mesh axis `arch` and each batch over `data`. Nothing depends on which
cells they are, so a search compiles once. `extract` turns a child into the
variables of its family's static network.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.data import augment as aug
from nasnet_jax.data import batches
from nasnet_jax.models import (
  block_network,
  folded,
  stacked,
  stacked_plan,
  stage_network,
)
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models.kernels import memory
from nasnet_jax.population import any_blocks, any_cell, mixed
from nasnet_jax.population.any_cell import Output
from nasnet_jax.spaces.genotype import ADD, CONCAT, Genes, Genotype
from nasnet_jax.spaces.stages import StageGenotype
from nasnet_jax.training import checks, losses, optimizers, schedules
from nasnet_jax.training import mesh as meshes
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a child is trained.

  Attributes:
    epochs: over the training split, for a budget of 1.
    batch_size: examples per update, over all devices of `data`.
    learning_rate, schedule, momentum, weight_decay, clip_norm: see
      `training.schedules` and `training.optimizers`.
    drop_path_keep, drop_path_version: see `models.drop_path`.
    init, bn_decay, bn_epsilon: see `models.layers.Numerics`.
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
    dp.check(self.drop_path_keep, self.drop_path_version)
    if self.dtype not in ("float32", "bfloat16"):
      raise ValueError(f"dtype {self.dtype!r} is neither float32 nor bfloat16")


class Network(NamedTuple):
  """Functions of a child of any genotype.

  Attributes:
    init: (rng, genotype) -> (params, batch_stats).
    apply: (params, batch_stats, genotype, images f32[N, H, W, C], drop or
      None, train) -> (logits f32[N, classes], batch_stats).
    cells: `stacked_plan.plan`.
    shapes, mixes: `CellShape` and mixed operation of each cell.
    genotype_shapes: shapes and types of one child's genotype.
    extract: (params, batch_stats, genotype) -> variables of the static network,
      of a network that has no cells; None: see `extract` below.
    switches: genotype -> {branches of a switch: int32[n], those taken}, of a
      network that has switches and no cells.
  """

  init: Callable
  apply: Callable
  cells: tuple
  shapes: tuple
  mixes: tuple
  genotype_shapes: Any
  extract: Callable | None = None
  switches: Callable | None = None


def genes_of(genotype: Genotype, kind: int) -> Genes:
  """The cell for strides 1 (kind 0) or 2; a single one serves both."""
  row = kind % genotype.inputs.shape[0]
  return Genes(*(leaf[row] for leaf in genotype))


def make_network(
  config: stacked_plan.NetworkConfig,
  operations: tuple[str, ...],
  num_blocks: int,
  image_shape: tuple[int, int, int],
  num_kinds: int = 2,
  combiners: tuple[str, ...] = ("add",),
  concat_inputs: bool = False,
  separate: bool = False,
  fold: int = 1,
) -> Network:
  """The child network with its cells left open.

  Args:
    config: sizes; an auxiliary head or dropout is for static networks only.
    operations: names; genotypes index them.
    num_blocks: B.
    image_shape: (H, W, C).
    num_kinds: cells of a genotype: 2, or 1 that serves both strides.
    combiners: names of those that genotypes may have.
    concat_inputs: whether they may concatenate states 0 and 1.
    separate: whether cells pass on each block by itself and read as many
      states (`CellSpace.output`).
    fold: see `Recipe`; a device's examples must divide by it.
  """
  if config.aux or config.dropout:
    raise ValueError("a child has no auxiliary head and no dropout")
  if config.stem != "cifar":
    raise ValueError("children have the CIFAR stem: set network.stem to it")
  num = dataclasses.replace(config.numerics, fold=fold)
  config = dataclasses.replace(config, numerics=num)
  cells = stacked_plan.plan(config)
  num_separate = num_blocks if separate else 0
  make_shapes = (
    stacked_plan.separate_shapes if separate else stacked_plan.cell_shapes
  )
  make_cell = any_cell.AnySeparateCell if separate else any_cell.AnyCell
  shapes = make_shapes(config, num_blocks, image_shape[:2])
  parts = []
  for shape in shapes:
    own = num.widened(shape.features // config.features)
    parts.append(
      make_cell(shape, operations, num_blocks, own, combiners, concat_inputs)
    )
  stem_module = stacked.make_stem(config)
  last = shapes[-1].features

  def used_of(genotype, position):
    if position == 0:
      return jnp.ones(1, bool)
    return genes_of(genotype, cells[position - 1].kind).concat

  def init(rng, genotype):
    stem_key, head_key, *keys = jax.random.split(rng, len(cells) + 2)
    image = folded.fold(jnp.zeros((fold, *image_shape)), fold)
    stem = stem_module.init(stem_key, image, False)
    params, stats = {"stem": stem["params"]}, {"stem": stem["batch_stats"]}
    for cell, part, key in zip(cells, parts, keys, strict=True):
      params[cell.name], stats[cell.name] = part.init(
        key,
        genes_of(genotype, cell.kind),
        tuple(
          None if i is None else used_of(genotype, i)
          for i in cell.reads(num_separate)
        ),
      )
    used = used_of(genotype, len(cells))
    params["classifier"] = any_cell.init_classifier(
      head_key, num, used, last, config.num_classes
    )
    return params, stats

  def apply(params, stats, genotype, images, drop, train):
    new = {}
    found = {"params": params["stem"], "batch_stats": stats["stem"]}
    count = images.shape[0]
    images = folded.fold(images, fold)
    if train:
      images = images.astype(num.dtype)
      x, update = stem_module.apply(found, images, True, mutable="batch_stats")
      new["stem"] = update["batch_stats"]
    else:
      x = stem_module.apply(found, images, False)
    x = memory.materialise(x)
    outputs = [Output(x[None], jnp.ones(1, bool))]
    for cell, part in zip(cells, parts, strict=True):
      genes = genes_of(genotype, cell.kind)
      masks = _masks(drop, genes, operations, cell.index, count)
      output, new[cell.name] = part.apply(
        params[cell.name],
        stats[cell.name],
        genes,
        tuple(
          None if i is None else outputs[i] for i in cell.reads(num_separate)
        ),
        masks,
        train,
      )
      outputs.append(output)
    last_fold = parts[-1].numerics.fold
    return _classify(params["classifier"], outputs[-1], last_fold), new

  mixes = tuple(part.mix for part in parts)
  num_states = num_blocks + shapes[0].num_inputs
  genotype_shapes = _genotype_shapes(num_kinds, num_blocks, num_states)
  return Network(init, apply, cells, shapes, mixes, genotype_shapes)


def make_stage_network(
  config: stage_network.StageConfig,
  nodes: tuple[int, ...],
  image_shape: tuple[int, int, int],
) -> Network:
  """The child network with the graphs of its stages left open.

  Args:
    config: sizes.
    nodes: of each stage, see `spaces.stages.StageSpace`.
    image_shape: (H, W, C).
  """
  parts = stage_network.AnyStages(config, nodes)
  stage_network.check_side(config, image_shape[:2])

  def init(rng, genotype):
    return parts.init(rng, genotype.edges, image_shape[-1])

  def apply(params, stats, genotype, images, drop, train):
    if drop is not None:
      raise ValueError(stage_network.NO_PATHS)
    return parts.apply(params, stats, genotype.edges, images, train)

  shape = (len(nodes), max(nodes), max(nodes))
  edges = jax.ShapeDtypeStruct(shape, jnp.bool_)

  def extract(params, stats, genotype):
    return parts.extract(params, stats, genotype.edges)

  return Network(init, apply, (), (), (), StageGenotype(edges), extract)


def make_block_network(
  config: block_network.BlockConfig, space, image_shape: tuple[int, int, int]
) -> Network:
  """The child network with the design of its blocks left open.

  Args:
    config: sizes.
    space: a `spaces.mnasnet.MnasSpace`.
    image_shape: (H, W, C).
  """
  parts = any_blocks.AnyBlocks(config, space, image_shape)

  def apply(params, stats, genotype, images, drop, train):
    if drop is not None:
      raise ValueError(any_blocks.NO_PATHS)
    return parts.apply(params, stats, genotype, images, train)

  shapes = parts.genotype_shapes
  return Network(
    parts.init, apply, (), (), (), shapes, parts.extract, parts.switches
  )


def _classify(head, output: Output, fold: int) -> Array:
  """f32[N, classes]: ReLU, mean over the map, dense layer."""
  states, used = output
  pooled = jax.nn.relu(states).astype(jnp.float32).mean((2, 3))
  pooled = jnp.where(used[:, None, None], pooled, 0.0)
  pooled = folded.unfold(pooled, fold)
  flat = pooled.transpose(1, 0, 2).reshape(pooled.shape[1], -1)
  return flat @ head["kernel"] + head["bias"]


def _genotype_shapes(num_kinds, num_blocks, num_states) -> Genotype:
  shape = jax.ShapeDtypeStruct
  blocks = (num_kinds, num_blocks)
  return Genotype(
    inputs=shape((*blocks, 2), jnp.int32),
    ops=shape((*blocks, 2), jnp.int32),
    combine=shape(blocks, jnp.int32),
    active=shape(blocks, jnp.bool_),
    concat=shape((num_kinds, num_states), jnp.bool_),
  )


def _masks(drop, genes, operations, cell: int, batch: int) -> Array | None:
  """f32[B, 2, N], what each edge's output is multiplied with; None: nothing."""
  if drop is None:
    return None
  shape = genes.ops.shape
  edges = jnp.arange(shape[0] * 2).reshape(shape)
  mask = functools.partial(dp.edge_mask, drop, cell, batch=batch)
  coins = jax.vmap(jax.vmap(mask))(edges)[..., 0, 0, 0]
  identity = jnp.asarray([op == "identity" for op in operations])
  return jnp.where(identity[genes.ops][..., None], 1.0, coins)


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


class _Child:
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
      recipe.momentum, recipe.weight_decay, recipe.clip_norm
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

  def _share(self, *rows):
    """This device's part of each array."""
    if not self.axis:
      return rows
    size = rows[0].shape[0] // self.data_size
    start = lax.axis_index(self.axis) * size
    return [lax.dynamic_slice_in_dim(row, start, size) for row in rows]

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
  recipe: Recipe,
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
  slots = mesh.shape["arch"] * recipe.width
  child = _Child(
    network, recipe, augmentation, data_size, (num_train, num_valid)
  )
  children, everywhere = PartitionSpec("arch"), PartitionSpec()

  def over_children(function, num_mapped, *in_common, **jit_options):
    """Compiles a function of `num_mapped` arguments with a leading axis of
    children, and others that all share."""

    def local(*args):
      mapped, shared = args[:num_mapped], args[num_mapped:]
      if recipe.width == 1:
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
    functools.partial(_put_children, mesh),
  )


def _put_children(mesh, tree):
  """JAX spreads NumPy arrays by itself, if all devices are this host's."""
  if not mesh.is_multi_process:
    return tree
  return meshes.put(tree, NamedSharding(mesh, PartitionSpec("arch")))


def put_data(images, labels, mesh) -> Data:
  """A data set on every device of the mesh."""
  data = Data(np.asarray(images), np.asarray(labels, np.int32))
  return meshes.put(data, NamedSharding(mesh, PartitionSpec()))


# --- from a child to the static network --------------------------------------


def extract(
  network: Network, genotype: Genotype, state: TrainState
) -> dict[str, Any]:
  """The variables of the static network that this child is.

  Args:
    genotype: of one child, no leading axis.
    state: the same, without a leading axis.

  Returns:
    {"params", "batch_stats"} for `apply` of the family's static network.
  """
  params, stats = jax.device_get((state.params, state.batch_stats))
  if network.extract:
    return network.extract(params, stats, genotype)
  genotype = Genotype(*(np.asarray(leaf) for leaf in genotype))
  out_params = {"stem": params["stem"]}
  out_stats = {"stem": stats["stem"]}

  def used(position):
    if position == 0:
      return np.ones(1, bool)
    return genes_of(genotype, network.cells[position - 1].kind).concat

  for cell, shape, mix in zip(
    network.cells, network.shapes, network.mixes, strict=True
  ):
    reads = [None if i is None else used(i) for i in cell.reads()]
    out_params[cell.name], out_stats[cell.name] = _extract_cell(
      params[cell.name],
      stats[cell.name],
      genes_of(genotype, cell.kind),
      shape,
      mix,
      reads,
    )
  head = params["classifier"]
  rows = np.repeat(used(len(network.cells)), network.shapes[-1].features)
  out_params["classifier"] = {**head, "kernel": head["kernel"][rows]}
  return {"params": out_params, "batch_stats": out_stats}


def _extract_cell(params, stats, genes, shape, mix, reads):
  """reads: the used states of h_i and h_{i-1}; None: there is none."""
  out_params, out_stats = {}, {}

  def add(name, p, s):
    if p:
      out_params[name] = p
    if s:
      out_stats[name] = s

  if isinstance(shape, stacked_plan.SeparateShape):
    add("inputs", params["inputs"], stats["inputs"])
  else:
    _extract_inputs(params, stats, shape, reads, add)
  raw_places, _ = stacked_plan.groups_of(shape, genes.active.shape[0])
  branch, _ = any_cell.branch_numbers(genes, mix, raw_places)

  def row(tree, *i):
    return jax.tree.map(lambda x: x[i], tree)

  for b in np.flatnonzero(genes.active):
    for side in range(2):
      chosen = mix.branches[int(branch[b, side])]
      add(
        f"block_{b}_{side}",
        mixed.read_view(chosen.params, row(params["edges"], b, side)),
        mixed.read_view(chosen.stats, row(stats["edges"], b, side)),
      )
    if genes.combine[b] not in (ADD, CONCAT):
      add(f"block_{b}_combine", row(params["combine"]["norm"], b), {})
    if genes.combine[b] == CONCAT:
      conv = params["combine"]["conv"]["kernel"][b]
      add(
        f"block_{b}_combine",
        {
          "conv": {"kernel": conv.reshape(-1, conv.shape[-1])},
          "norm": row(params["combine"]["norm"], b),
        },
        {"norm": row(stats["combine"]["norm"], b)},
      )
  for s in (0, 1):
    name = f"fit_state_{s}"
    if name in params and genes.concat[s]:
      conv = params[name]["conv"]
      pairs = (
        {"conv": conv}
        if isinstance(conv, dict)
        else {f"conv_{i}": c for i, c in enumerate(conv)}
      )
      add(name, {**pairs, "norm": params[name]["norm"]}, stats[name])
  return out_params, out_stats


def _extract_inputs(params, stats, shape, reads, add):
  """What prepares h_i and h_{i-1}. add: (name, params, statistics)."""
  current, previous = reads

  def joined(kernel, used):
    return kernel[used].reshape(-1, kernel.shape[-1])

  def project(name, used):
    kernel = joined(params[name]["conv"]["kernel"], used)
    return {"conv": {"kernel": kernel}, "norm": params[name]["norm"]}

  add("project", project("project", current), stats["project"])
  if previous is None:
    return
  if shape.previous[2] != shape.side:
    inner = {"norm": params["fit_previous"]["norm"]}
    for i, conv in enumerate(params["fit_previous"]["conv"]):
      inner[f"conv_{i}"] = {"kernel": joined(conv["kernel"], previous)}
    add("fit_previous", {"reduce": inner}, {"reduce": stats["fit_previous"]})
  elif previous.sum() * shape.previous[1] != shape.features:
    inner = project("fit_previous", previous)
    add("fit_previous", {"project": inner}, {"project": stats["fit_previous"]})
