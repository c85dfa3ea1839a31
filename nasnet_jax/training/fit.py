"""Training of one static network, on images that lie on the device or come
from a stream.

The final stage of a search uses it, and so can any job that trains one
network: it reads a recipe, a network and arrays, and nothing of a search.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval as pe

from nasnet_jax.data import augment, batches
from nasnet_jax.models import drop_path, layers
from nasnet_jax.training import (
  checkpoint,
  data_parallel,
  datasets,
  hosts,
  loop,
  losses,
  metrics,
  sharded,
)
from nasnet_jax.training import mesh as meshes
from nasnet_jax.training.datasets import Data, Images
from nasnet_jax.training.recipes import Recipe
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import LossFn, train_step

# What a step's random numbers are for; each use has a key of its own.
_AUGMENT, _DROP_PATH, _DROPOUT = range(3)


# (network, recipe, augmentation) -> loss for `training.step`.
MakeLoss = Callable[[nn.Module, Recipe, augment.Augmentation], LossFn]


class Point(NamedTuple):
  """One point of a training curve, and the state there.

  Attributes:
    step, epoch: updates and epochs so far.
    loss, accuracy: training means since the last point, None at the start;
      the loss includes the auxiliary head's.
    state: TrainState. The next update reuses its buffers: copy or save what
      you want to keep.
  """

  step: int
  epoch: float
  loss: float | None
  accuracy: float | None
  state: TrainState


def variables_of(state: TrainState) -> dict[str, Any]:
  """What `network.apply` reads in evaluation: the moving averages, if the
  training keeps them."""
  params, batch_stats = state.ema or (state.params, state.batch_stats)
  return {"params": params, "batch_stats": batch_stats}


def with_variables(state: TrainState, variables: dict) -> TrainState:
  """The state whose `variables_of` are these."""
  params, batch_stats = variables["params"], variables["batch_stats"]
  if state.ema:
    return state._replace(ema=(params, batch_stats))
  return state._replace(params=params, batch_stats=batch_stats)


def init_variables(network: nn.Module, image_shape, seed: int):
  """The initial {"params", "batch_stats"} of a network, on images (H, W, C)."""

  def init(rng, image):
    # In training mode, so that the auxiliary head gets its weights.
    return network.init({"params": rng, "dropout": rng}, image, True)

  rng = jax.random.key(seed)
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  traced, shapes = jax.make_jaxpr(init, return_shape=True)(rng, image)
  # Only the initialisers run, one after another: compiling all of them into
  # one program takes as long as compiling the training step. Linen's own
  # `lazy_init` also compiles a little program for most layers.
  everything = [True] * len(traced.out_avals)
  jaxpr, reads_const, reads = pe.dce_jaxpr_consts(traced.jaxpr, everything)
  consts = [c for c, read in zip(traced.consts, reads_const) if read]
  if reads[-1]:
    raise ValueError(
      f"initial weights of {type(network).__name__} hang on the image: give"
      " initialisers that read shapes alone"
    )
  arguments = [rng] if reads[0] else []
  closed = jax.extend.core.ClosedJaxpr(jaxpr, consts)
  found = jax.extend.core.jaxpr_as_fun(closed)(*arguments)
  return jax.tree.unflatten(jax.tree.structure(shapes), found)


def init_state(
  network: nn.Module,
  recipe: Recipe,
  image_shape,
  horizon: int,
  seed: int,
  start: Callable[[dict], dict] | None = None,
) -> TrainState:
  """A network before its first update.

  Args:
    image_shape: (H, W, C).
    horizon: updates to come.
    seed: of initial weights, order, augmentation and drop path.
    start: (variables) -> variables to start from, for fine-tuning.
  """
  variables = init_variables(network, image_shape, seed)
  if start is not None:
    variables = start(variables)
  params, batch_stats = variables["params"], variables.get("batch_stats", {})
  ema = ()
  if recipe.ema_decay:  # copies, because the step donates both
    ema = jax.tree.map(jnp.copy, (params, batch_stats))
  return TrainState(
    params=params,
    batch_stats=batch_stats,
    opt_state=recipe.make_optimizer().init(params),
    step=jnp.int32(0),
    horizon=jnp.int32(horizon),
    seed=jnp.uint32(seed),
    ema=ema,
  )


def classification_loss(
  network: nn.Module, recipe: Recipe, aug: augment.Augmentation
) -> LossFn:
  """Cross-entropy of augmented images, with the auxiliary head's: a loss for
  `training.step` whose batch is (images, labels, places in the whole batch).
  """
  num_layers = network.num_layers

  def loss_fn(params, batch_stats, batch, rng, progress):
    images, labels, positions = batch
    keys = [jax.random.fold_in(rng, use) for use in range(3)]
    images = augment.augment(keys[_AUGMENT], images, aug, positions)
    variables = {"params": params, "batch_stats": batch_stats}
    if recipe.freeze:
      logits, _, _ = network.apply(variables, images, train=False)
      loss = losses.cross_entropy(logits, labels, recipe.label_smoothing)
      told = {"accuracy": losses.accuracy(logits, labels)}
      return loss, (batch_stats, told)
    drop = drop_path.make(
      keys[_DROP_PATH],
      recipe.drop_path_keep,
      progress,
      num_layers,
      recipe.drop_path_version,
      positions,
    )
    (logits, auxiliary, _), updates = network.apply(
      variables,
      images,
      train=True,
      drop=drop,
      positions=positions,
      mutable=["batch_stats"],
      rngs={"dropout": keys[_DROPOUT]},
    )
    smoothing = recipe.label_smoothing
    loss = losses.cross_entropy(logits, labels, smoothing)
    if auxiliary is not None:
      extra = losses.cross_entropy(auxiliary, labels, smoothing)
      loss += recipe.aux_weight * extra
    told = {"accuracy": losses.accuracy(logits, labels)}
    return loss, (updates["batch_stats"], told)

  return loss_fn


def make_step(
  network: nn.Module,
  recipe: Recipe,
  aug: augment.Augmentation,
  mesh: jax.sharding.Mesh | None = None,
  *,
  streamed: bool = False,
  shard_params: bool = False,
  make_loss: MakeLoss = classification_loss,
) -> loop.StepFn:
  """(state, Images) -> (state, metrics): pick the batch, update.

  Args:
    mesh: whose axis `data` shares each batch; None: one device.
    streamed: whether the Images are the step's batch, divided over the mesh's
      axis `data`, and not the whole set.
    shard_params: whether each device of `data` holds a part of the weights and
      of what the optimiser keeps, see `training.sharded`.
    make_loss: makes the loss that is minimised, as `classification_loss`
      does.

  Raises:
    ValueError: for a batch that does not divide as the recipe says, or a
      stream with more than one step per call.
  """
  if streamed and recipe.steps_per_call != 1:
    raise ValueError(
      f"steps_per_call is {recipe.steps_per_call}, and a stream gives one"
      " batch per call: set it to 1"
    )
  devices = 1 if mesh is None else mesh.shape["data"]
  parts = recipe.batch_size // recipe.micro_batches
  if parts % devices:
    raise ValueError(
      f"a batch of {recipe.batch_size} in {recipe.micro_batches} micro_batches"
      f" does not divide over {devices} devices: change batch_size,"
      " micro_batches or mesh.data"
    )
  groups = layers.batch_norm_groups(recipe.bn_group, parts, devices, "data")
  numerics = dataclasses.replace(
    network.config.numerics, dtype=jnp.dtype(recipe.dtype), **groups
  )
  config = dataclasses.replace(network.config, numerics=numerics)
  update = functools.partial(
    train_step,
    loss_fn=make_loss(network.clone(config=config), recipe, aug),
    tx=recipe.make_optimizer(),
    schedule=recipe.make_schedule(),
    axis_name="data" if devices > 1 else None,
    micro_batches=recipe.micro_batches,
    ema_decay=recipe.ema_decay,
  )

  def step(state: TrainState, data: Images, **options):
    index = batches.batch_indices(
      state.seed, state.step, data.labels.shape[0], recipe.batch_size
    )
    positions = jnp.arange(recipe.batch_size)
    if devices > 1:
      index, positions = data_parallel.local_part((index, positions), devices)
    batch = data.images[index], data.labels[index], positions
    return update(state, batch, **options)

  def step_on_batch(state: TrainState, batch: Images, **options):
    positions = jnp.arange(recipe.batch_size)
    if devices > 1:
      (positions,) = data_parallel.local_part((positions,), devices)
    return update(state, (*batch, positions), **options)

  step = step_on_batch if streamed else step
  data_spec = data_parallel.DIVIDED if streamed else data_parallel.REPLICATED
  if devices == 1:
    return step
  if shard_params:
    return _in_parts(step, mesh, data_spec, _computes_again(network))
  return data_parallel.on_each_device(
    step, mesh, (data_parallel.REPLICATED, data_spec)
  )


def _computes_again(network) -> bool:
  """Whether a network, or the body of a detector, has `remat`."""
  config = getattr(network, "body", network).config
  return getattr(config, "remat", False)


def _in_parts(step, mesh, data_spec, remat: bool):
  """`data_parallel.on_each_device` for a state that is divided over `data`."""
  devices = mesh.shape["data"]

  def step_in_parts(state: TrainState, data):
    dims = sharded.dimensions(state.params, devices)
    specs = sharded.specs(state, devices, "data")
    return jax.shard_map(
      functools.partial(step, dims=dims, remat=remat),
      mesh=mesh,
      in_specs=(specs, data_spec),
      out_specs=(specs, data_parallel.REPLICATED),
      check_vma=False,
    )(state, data)

  return step_in_parts


def fit(
  network: nn.Module,
  recipe: Recipe,
  aug: augment.Augmentation,
  data: Data,
  seed: int,
  *,
  folder=None,
  should_save: Callable[[], bool] = lambda: True,
  tick: Callable[[int], None] = lambda step: None,
  mesh: jax.sharding.Mesh | None = None,
  start_from: Callable[[dict], dict] | None = None,
  shard_params: bool = False,
  make_loss: MakeLoss = classification_loss,
) -> Iterator[Point]:
  """Trains a network; goes on from the newest checkpoint in `folder`.

  Yields points of the curve, the first where it starts (at step 0, or at the
  checkpoint's) and the last at the horizon; a finished training yields only
  that one. The state of a point is saved when the caller asks for the next
  point, after it has written what it wants of this one.

  Args:
    data: on the device, or a stream, which needs steps_per_call 1.
    seed: of everything random.
    folder: of checkpoints; None: none are written.
    should_save: asked at every point but the last, which is always saved.
    tick: see `training.loop.run`.
    mesh, shard_params, make_loss: see `make_step`.
    start_from: see `init_state`.

  Raises:
    DataError: if there are fewer images than a batch.
    ValueError: for a batch that does not divide.
    CheckpointError: if the folder's checkpoints are of another network.
  """
  n = data.num_images
  steps = batches.steps_per_epoch(n, recipe.batch_size)
  horizon = recipe.horizon(n)
  streamed = not isinstance(data, Images)
  step_fn = make_step(
    network,
    recipe,
    aug,
    mesh,
    streamed=streamed,
    shard_params=shard_params,
    make_loss=make_loss,
  )
  with sharded.on_host() if shard_params else contextlib.nullcontext():
    state = init_state(
      network, recipe, data.image_shape, horizon, seed, start_from
    )
  every = recipe.report_every(n)
  first, start, totals = _restore(folder, state, every) or (0, state, None)
  # A shorter training's checkpoint ends later here.
  start = start._replace(horizon=state.horizon)
  # Put where the step will leave it, or the second call would compile anew.
  where = data_parallel.sharding(mesh, data_parallel.REPLICATED)
  if mesh is not None and mesh.shape["data"] > 1:
    where = sharded.state_shardings(start, mesh, "data", shard_params)
  start = meshes.put(start, where)
  yield Point(first, first / steps, None, None, start)

  def save(state, *more):
    if folder:
      tree = (state, *more) if more else state
      checkpoint.save(folder, int(state.step), tree)

  feed = datasets.feed(
    data, recipe.batch_size, seed, range(first, horizon), mesh
  )
  with contextlib.closing(feed):
    for state, since in loop.run(
      start,
      loop.compile_steps(step_fn),
      feed,
      steps_per_call=recipe.steps_per_call,
      report_every=every,
      tick=tick,
      totals=totals,
      stopped=save,
    ):
      step = int(state.step)
      means = metrics.read(since)
      yield Point(step, step / steps, means["loss"], means["accuracy"], state)
      # All hosts call `should_save`, but the first one's answer decides.
      if hosts.of_first(should_save()) or step >= horizon:
        save(state)


def _restore(folder, state: TrainState, every: int):
  """(step, state, totals) where an earlier process stopped; totals are None
  unless a signal stopped it between two points of the curve."""

  def template(step: int):
    if step % every == 0 or step == horizon:
      return state
    return state, jax.device_get(metrics.Totals.empty())

  horizon = int(state.horizon)
  found = checkpoint.restore(folder, template) if folder else None
  step, tree = found or (0, state)
  hosts.agree(f"which checkpoint of {folder} is whole", np.int32(step))
  if found is None:
    return None
  return (step, *(tree if type(tree) is tuple else (tree, None)))
