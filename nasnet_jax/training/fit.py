"""Training of one static network, on images that lie on the device or come
from a stream.

The final stage of a search uses it, and so can any job that trains one
network: it reads a recipe, a network and arrays, and nothing of a search.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from nasnet_jax.data import augment, batches, photo_stream
from nasnet_jax.models import drop_path, layers
from nasnet_jax.training import (
  checkpoint,
  hosts,
  loop,
  losses,
  metrics,
  optimizers,
  schedules,
  sharded,
)
from nasnet_jax.training import mesh as meshes
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import LossFn, train_step

Array = jax.Array

# What a step's random numbers are for; each use has a key of its own.
_AUGMENT, _DROP_PATH, _DROPOUT = range(3)

# How arrays lie on the mesh.
_SAME, _DIVIDED = PartitionSpec(), PartitionSpec("data")


# The least values of a recipe's numbers, and those that are shares below 1.
_LEAST = {
  "epochs": 1,
  "batch_size": 1,
  "learning_rate": 0,
  "weight_decay": 0,
  "clip_norm": 0,
  "aux_weight": 0,
  "rms_epsilon": 0,
  "bn_group": 0,
  "steps_per_call": 1,
  "eval_batch_size": 1,
  "report_epochs": 0,
  "patience_epochs": 0,
}
_SHARES = ("momentum", "rms_decay", "label_smoothing", "ema_decay")


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network is trained. Defaults: NASNet-A on CIFAR-10.

  Attributes:
    epochs: passes over the training images.
    batch_size: examples per update, over all devices.
    optimizer: "momentum" or "rmsprop", see `training.optimizers`.
    momentum, rms_decay, rms_epsilon, weight_decay, clip_norm: of it.
    learning_rate: at the start, or after warming up.
    schedule: "cosine", "constant", "exponential" or "piecewise", see
      `schedules.make`.
    warmup_epochs, decay_factor, decay_epochs, decay_at: of it.
    aux_weight: of the auxiliary head's loss, where the network has one.
    label_smoothing: share of the target spread over all classes.
    drop_path_keep: ScheduledDropPath's probability at the end; 1: off.
    drop_path_version: "time", "layer", "both", "constant" or "depth".
    ema_decay: of the moving average of weights and statistics that is then
      evaluated and kept; 0: none.
    micro_batches: parts of a batch, one after another, for the memory of one.
    bn_group: examples that batch norm sees together; 0: as many as go through
      the network at once. A number of examples, never of devices.
    dtype: of the activations in training, "float32" or "bfloat16"; weights,
      statistics, loss and evaluation are float32.
    freeze: whether only the classifier is trained, on the features that the
      rest gives in evaluation.
    steps_per_call: updates per device call: 1 on CPU, an epoch on TPU.
    eval_batch_size: examples per evaluation step.
    report_epochs: epochs between lines of the curve; may be a fraction.
    patience_epochs: early stopping: `resumable.train` ends after so many epochs
      without a better score on the validation images, and keeps the weights of
      the best; 0: it goes to the end and keeps the last.
  """

  epochs: int = 600  # slim; the number of drop path's schedule
  batch_size: int = 32  # slim, nasnet.py, cifar_config
  learning_rate: float = 0.025  # the same
  schedule: str = "cosine"  # Zoph et al. 2018, A.3
  momentum: float = 0.9  # the same
  weight_decay: float = 5e-4  # slim, nasnet_cifar_arg_scope
  clip_norm: float = 5.0  # slim, nasnet.py, cifar_config
  aux_weight: float = 0.4  # the same
  label_smoothing: float = 0.0
  drop_path_keep: float = 0.6  # the same
  drop_path_version: str = "both"  # slim's v3, its default
  steps_per_call: int = 1
  eval_batch_size: int = 500
  report_epochs: float = 1.0
  optimizer: str = "momentum"
  rms_decay: float = 0.9  # Zoph et al. 2018, A.7
  rms_epsilon: float = 1.0  # the same
  warmup_epochs: float = 0.0
  decay_factor: float = 0.97  # slim, nasnet.py, mobile and large configs
  decay_epochs: float = 2.4  # the same
  decay_at: tuple[float, ...] = ()
  ema_decay: float = 0.0
  micro_batches: int = 1
  bn_group: int = 0
  dtype: str = "float32"
  freeze: bool = False
  patience_epochs: float = 0.0

  def __post_init__(self):
    for field, least in _LEAST.items():
      if not getattr(self, field) >= least:
        raise ValueError(
          f"{field} is {getattr(self, field)}: give {least} or more"
        )
    for field in _SHARES:
      if not 0 <= getattr(self, field) < 1:
        raise ValueError(
          f"{field} is {getattr(self, field)}: give 0 or more, below 1"
        )
    if self.dtype not in ("float32", "bfloat16"):
      raise ValueError(f"dtype {self.dtype!r} is neither float32 nor bfloat16")
    drop_path.check(self.drop_path_keep, self.drop_path_version)
    if self.micro_batches < 1 or self.batch_size % self.micro_batches:
      raise ValueError(
        f"a batch of {self.batch_size} does not divide into"
        f" {self.micro_batches} micro_batches"
      )

  def horizon(self, num_examples: int) -> int:
    """Updates of the whole training."""
    return self.epochs * batches.steps_per_epoch(num_examples, self.batch_size)

  def report_every(self, num_examples: int) -> int:
    """Updates between reports."""
    epoch = batches.steps_per_epoch(num_examples, self.batch_size)
    return max(1, round(self.report_epochs * epoch))

  def make_optimizer(self):
    """See `training.optimizers`."""
    tx = optimizers.make(
      self.optimizer,
      momentum=self.momentum,
      decay=self.rms_decay,
      epsilon=self.rms_epsilon,
      weight_decay=self.weight_decay,
      clip_norm=self.clip_norm,
    )
    return optimizers.only(tx, "classifier") if self.freeze else tx

  def make_schedule(self) -> schedules.Schedule:
    """See `training.schedules`."""
    return schedules.make(
      self.schedule,
      self.learning_rate,
      self.epochs,
      self.warmup_epochs,
      self.decay_factor,
      self.decay_epochs,
      self.decay_at,
    )


class Images(NamedTuple):
  """A labelled set: images uint8[N, H, W, C], labels int32[N]."""

  images: Any
  labels: Any

  @property
  def num_images(self) -> int:
    return len(self.labels)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return tuple(self.images.shape[1:])


Data = Images | photo_stream.Batches
# (network, recipe, augmentation) -> loss for `training.step`.
MakeLoss = Callable[[nn.Module, Recipe, augment.Augmentation], LossFn]


class Score(NamedTuple):
  """Answers of a network on a set.

  Attributes:
    correct: right ones.
    examples: all.
    top_5: those with the right class among the first five.
    by_class: (right ones, all) of each class; () where not asked for.
  """

  correct: int
  examples: int
  top_5: int = 0
  by_class: tuple[tuple[int, int], ...] = ()

  @property
  def accuracy(self) -> float:
    return self.correct / self.examples

  @property
  def mean_per_class(self) -> float:
    """Mean of each class's own accuracy, over the classes that have images.
    A broken image of a stream is of no class here."""
    shares = [right / n for right, n in self.by_class if n]
    return sum(shares) / len(shares) if shares else 0.0


class Point(NamedTuple):
  """One point of a training curve, and the state there.

  Attributes:
    step, epoch: updates and epochs so far.
    loss, accuracy: training means since the last point, None at the start;
      the loss has the auxiliary head's share in it.
    state: TrainState. The next update takes its buffers: copy or save what
      should stay.
  """

  step: int
  epoch: float
  loss: float | None
  accuracy: float | None
  state: TrainState


def variables_of(state: TrainState) -> dict[str, Any]:
  """What `network.apply` reads in evaluation: the moving averages, where the
  training keeps any."""
  params, batch_stats = state.ema or (state.params, state.batch_stats)
  return {"params": params, "batch_stats": batch_stats}


def with_variables(state: TrainState, variables: dict) -> TrainState:
  """The state whose `variables_of` are these."""
  params, batch_stats = variables["params"], variables["batch_stats"]
  if state.ema:
    return state._replace(ema=(params, batch_stats))
  return state._replace(params=params, batch_stats=batch_stats)


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
  rng = jax.random.key(seed)
  # Only the initialisers run, one after another: compiling all of them into
  # one program takes as long as compiling the training step. In training mode,
  # so that the auxiliary head gets its weights.
  variables = network.lazy_init(
    {"params": rng, "dropout": rng},
    jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
    True,
  )
  if start is not None:
    variables = start(variables)
  params, batch_stats = variables["params"], variables.get("batch_stats", {})
  ema = ()
  if recipe.ema_decay:  # buffers of its own: the step takes both
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
  """Cross-entropy, the auxiliary head's too, of augmented images: a loss for
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
    streamed: whether the Images given are the step's batch, over the mesh's
      axis `data`, and not the whole set.
    shard_params: whether each device of `data` holds a part of the weights and
      of what the optimiser keeps, see `training.sharded`.
    make_loss: what is taught; `classification_loss` says of what such a loss
      is made.

  Raises:
    ValueError: for a batch that does not divide as the recipe says, or a
      stream that is to give several at once.
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
      index, positions = _share((index, positions), devices)
    batch = data.images[index], data.labels[index], positions
    return update(state, batch, **options)

  def step_on_batch(state: TrainState, batch: Images, **options):
    positions = jnp.arange(recipe.batch_size)
    if devices > 1:
      (positions,) = _share((positions,), devices)
    return update(state, (*batch, positions), **options)

  step = step_on_batch if streamed else step
  data_spec = _DIVIDED if streamed else _SAME
  if devices == 1:
    return step
  if shard_params:
    return _in_parts(step, mesh, data_spec, _computes_again(network))
  return _over_data(step, mesh, (_SAME, data_spec))


def _computes_again(network) -> bool:
  """Whether a network, or the body of a detector, has `remat`."""
  config = getattr(network, "body", network).config
  return getattr(config, "remat", False)


def _in_parts(step, mesh, data_spec, remat: bool):
  """`_over_data` for a state that is divided over `data`."""
  devices = mesh.shape["data"]

  def step_in_parts(state: TrainState, data):
    dims = sharded.dimensions(state.params, devices)
    specs = sharded.specs(state, devices, "data")
    return jax.shard_map(
      functools.partial(step, dims=dims, remat=remat),
      mesh=mesh,
      in_specs=(specs, data_spec),
      out_specs=(specs, _SAME),
      check_vma=False,
    )(state, data)

  return step_in_parts


def _share(rows, devices: int):
  """This device's part of arrays that all devices hold."""
  size = rows[0].shape[0] // devices
  start = jax.lax.axis_index("data") * size
  return tuple(
    jax.lax.dynamic_slice_in_dim(row, start, size, 0) for row in rows
  )


def _over_data(function, mesh, in_specs):
  """Runs on every device of `data`; what comes out is the same on all. Sums
  over devices are the function's own, see `train_step`."""
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=_SAME,
    check_vma=False,
  )


def make_evaluate(
  network: nn.Module,
  aug: augment.Augmentation,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
  *,
  by_class: bool = False,
) -> Callable[[Any, Data], Score]:
  """(variables, Data) -> Score over the whole set, each image once.

  A broken image of a stream counts as a wrong answer.

  Args:
    by_class: whether the Score tells classes apart.
    batch_size: over all devices of the mesh's axis `data`; what it exceeds a
      multiple of them by is left out of it.
  """
  devices = 1 if mesh is None else mesh.shape["data"]

  def count(variables, images, labels, counts):
    images = augment.normalise(images, aug)
    logits, _, _ = network.apply(variables, images, train=False)
    right = jnp.stack(
      [logits.argmax(-1) == labels, losses.in_top(logits, labels, 5)]
    )
    right = right & counts
    total = right.sum(1, dtype=jnp.int32)
    if by_class:
      zeros = jnp.zeros(logits.shape[-1], jnp.int32)
      sums = [zeros.at[labels].add(which) for which in (right[0], counts)]
      total = jnp.concatenate([total, *sums])
    return jax.lax.psum(total, "data") if devices > 1 else total

  def count_of(variables, data: Images, index, counts):
    if devices > 1:
      index, counts = _share((index, counts), devices)
    return count(variables, data.images[index], data.labels[index], counts)

  if devices > 1:
    program = _over_data(count, mesh, (_SAME, *[_DIVIDED] * 3))
    program_of = _over_data(count_of, mesh, (_SAME,) * 4)
  else:
    program, program_of = count, count_of
  program, program_of = jax.jit(program), jax.jit(program_of)

  def evaluate(variables, data: Data) -> Score:
    n = data.num_images
    # A host alone with its devices still reads no more than its rows.
    apart = devices == 1 and not isinstance(data, Images)
    parts = hosts.count() if apart else devices
    size = -(-min(batch_size, n) // parts) * parts
    if isinstance(data, Images):
      order = zip(*batches.evaluation_order(n, size))
      found = [program_of(variables, data, *batch) for batch in order]
    else:
      put = _to_mesh(mesh)
      found = []
      for batch in data.evaluation_batches(size):
        found.append(program(variables, *map(put, batch[:3])))
        if len(found) > 1:  # the host may run one batch ahead, not hundreds
          jax.block_until_ready(found[-2])
    total = np.sum(jax.device_get(found), 0)
    if apart:
      total = hosts.gather(total).sum(0)
    correct, top_5, *classes = total.tolist()
    half = len(classes) // 2
    pairs = zip(classes[:half], classes[half:], strict=True)
    return Score(correct, n, top_5, tuple(pairs))

  return evaluate


def _to_mesh(mesh: jax.sharding.Mesh | None) -> Callable[[np.ndarray], Array]:
  """Puts a host's rows of a batch on its devices."""
  sharding = _sharding(mesh, _DIVIDED)
  return functools.partial(jax.make_array_from_process_local_data, sharding)


def _sharding(mesh: jax.sharding.Mesh | None, spec: PartitionSpec):
  if mesh is None or mesh.shape["data"] == 1:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.sharding.NamedSharding(mesh, spec)


def _feed(data: Data, recipe: Recipe, seed: int, steps: range, mesh):
  """What each device call reads: the set, or a stream's next batch."""
  if isinstance(data, Images):
    yield from itertools.repeat(data)
  put = _to_mesh(mesh)
  with contextlib.closing(
    data.training_batches(recipe.batch_size, seed, steps.start, steps.stop)
  ) as stream_batches:
    for batch in stream_batches:
      yield jax.tree.map(put, Images(batch.images, batch.labels))


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

  Yields points of the curve, first where it starts (step 0, or that of the
  checkpoint) and last at the horizon; a finished training yields just that.
  When the caller asks for the next point, having written what it wants of this
  one, the state is saved.

  Args:
    data: on the device, or a stream, which takes steps_per_call 1.
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
  # Where the step will leave it, or the second call would compile anew.
  where = _sharding(mesh, _SAME)
  if mesh is not None and mesh.shape["data"] > 1:
    where = sharded.state_shardings(start, mesh, "data", shard_params)
  start = meshes.put(start, where)
  yield Point(first, first / steps, None, None, start)

  def save(state, *more):
    if folder:
      tree = (state, *more) if more else state
      checkpoint.save(folder, int(state.step), tree)

  feed = _feed(data, recipe, seed, range(first, horizon), mesh)
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
      # Evaluated on all hosts, though the first one's clock decides.
      if hosts.of_first(should_save()) or step >= horizon:
        save(state)


def _restore(folder, state: TrainState, every: int):
  """(step, state, totals) where an earlier process stopped; totals None but
  for one that a signal stopped between two points of the curve."""

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


def on_device(data: Data, mesh: jax.sharding.Mesh | None = None) -> Data:
  """The arrays as the devices hold them: uint8[N, H, W, C], int32[N]; on every
  device of the mesh the whole set. A stream is left as it is."""
  if not isinstance(data, Images):
    return data
  if mesh is None or mesh.shape["data"] == 1:
    return Images(jnp.asarray(data.images), jnp.asarray(data.labels, jnp.int32))
  whole = Images(data.images, np.asarray(data.labels, np.int32))
  return meshes.put(whole, _sharding(mesh, _SAME))
