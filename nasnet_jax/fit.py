"""Training of one static network on images that lie on the device.

The final stage of a search uses it, and so can any job that trains one
network: it reads a recipe, a network and arrays, and nothing of a search.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.data import augment, batches
from nasnet_jax.models import drop_path, stacked
from nasnet_jax.training import (
  checkpoint,
  loop,
  losses,
  metrics,
  optimizers,
  schedules,
)
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step

Array = jax.Array

# What a step's random numbers are for; each use has a key of its own.
_AUGMENT, _DROP_PATH, _DROPOUT = range(3)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network is trained. Defaults: NASNet-A on CIFAR-10.

  Attributes:
    epochs: passes over the training images.
    batch_size: examples per update.
    learning_rate: at the start.
    schedule: key of `training.schedules.SCHEDULES`.
    momentum, weight_decay, clip_norm: see `optimizers.momentum_sgd`.
    aux_weight: of the auxiliary head's loss, where the network has one.
    label_smoothing: share of the target spread over all classes.
    drop_path_keep: ScheduledDropPath's probability at the end; 1: off.
    drop_path_version: "time", "layer" or "both".
    steps_per_call: updates per device call: 1 on CPU, an epoch on TPU.
    eval_batch_size: examples per evaluation step.
    report_epochs: epochs between lines of the curve; may be a fraction.
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

  def horizon(self, num_examples: int) -> int:
    """Updates of the whole training."""
    return self.epochs * batches.steps_per_epoch(num_examples, self.batch_size)

  def report_every(self, num_examples: int) -> int:
    """Updates between reports."""
    epoch = batches.steps_per_epoch(num_examples, self.batch_size)
    return max(1, round(self.report_epochs * epoch))


class Images(NamedTuple):
  """A labelled set: images uint8[N, H, W, C], labels int32[N]."""

  images: Any
  labels: Any


class Score(NamedTuple):
  """Answers of a network on a set.

  Attributes:
    correct: right ones.
    examples: all.
  """

  correct: int
  examples: int

  @property
  def accuracy(self) -> float:
    return self.correct / self.examples


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
  """What `network.apply` reads."""
  return {"params": state.params, "batch_stats": state.batch_stats}


def init_state(
  network: nn.Module, recipe: Recipe, image_shape, horizon: int, seed: int
) -> TrainState:
  """A network before its first update.

  Args:
    image_shape: (H, W, C).
    horizon: updates to come.
    seed: of initial weights, order, augmentation and drop path.
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
  params = variables["params"]
  return TrainState(
    params=params,
    batch_stats=variables.get("batch_stats", {}),
    opt_state=_optimizer(recipe).init(params),
    step=jnp.int32(0),
    horizon=jnp.int32(horizon),
    seed=jnp.uint32(seed),
  )


def make_step(
  network: stacked.StackedNetwork, recipe: Recipe, aug: augment.Augmentation
) -> loop.StepFn:
  """(state, Images) -> (state, metrics): pick the batch, update."""
  loss_fn = _make_loss(network, recipe, aug)
  tx = _optimizer(recipe)
  schedule = schedules.SCHEDULES[recipe.schedule](recipe.learning_rate)

  def step(state: TrainState, data: Images):
    index = batches.batch_indices(
      state.seed, state.step, data.labels.shape[0], recipe.batch_size
    )
    batch = data.images[index], data.labels[index]
    return train_step(state, batch, loss_fn=loss_fn, tx=tx, schedule=schedule)

  return step


def _optimizer(recipe: Recipe):
  return optimizers.momentum_sgd(
    recipe.momentum, recipe.weight_decay, recipe.clip_norm
  )


def _make_loss(network, recipe: Recipe, aug: augment.Augmentation):
  num_cells = len(stacked.plan(network.config))

  def loss_fn(params, batch_stats, batch, rng, progress):
    images, labels = batch
    keys = [jax.random.fold_in(rng, use) for use in range(3)]
    images = augment.augment(keys[_AUGMENT], images, aug)
    drop = drop_path.make(
      keys[_DROP_PATH],
      recipe.drop_path_keep,
      progress,
      num_cells,
      recipe.drop_path_version,
    )
    (logits, auxiliary, _), updates = network.apply(
      {"params": params, "batch_stats": batch_stats},
      images,
      train=True,
      drop=drop,
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


def make_evaluate(
  network: nn.Module, aug: augment.Augmentation, batch_size: int
) -> Callable[[Any, Images], Score]:
  """(variables, Images) -> Score over the whole set, each image once."""

  @jax.jit
  def count(variables, data: Images, index, counts):
    images = augment.normalise(data.images[index], aug)
    logits, _, _ = network.apply(variables, images, train=False)
    right = (logits.argmax(-1) == data.labels[index]) & counts
    return right.sum(dtype=jnp.int32)

  def evaluate(variables, data: Images) -> Score:
    n = len(data.labels)
    order = zip(*batches.evaluation_order(n, min(batch_size, n)))
    correct = [count(variables, data, *batch) for batch in order]
    return Score(sum(map(int, correct)), n)

  return evaluate


def fit(
  network: stacked.StackedNetwork,
  recipe: Recipe,
  aug: augment.Augmentation,
  data: Images,
  seed: int,
  *,
  folder=None,
  should_save: Callable[[], bool] = lambda: True,
  tick: Callable[[int], None] = lambda step: None,
) -> Iterator[Point]:
  """Trains a network; goes on from the newest checkpoint in `folder`.

  Yields points of the curve, first where it starts (step 0, or that of the
  checkpoint) and last at the horizon; a finished training yields just that.
  When the caller asks for the next point, having written what it wants of this
  one, the state is saved.

  Args:
    data: on the device.
    seed: of everything random.
    folder: of checkpoints; None: none are written.
    should_save: asked at every point but the last, which is always saved.
    tick: see `training.loop.run`.

  Raises:
    DataError: if there are fewer images than a batch.
    CheckpointError: if the folder's checkpoints are of another network.
  """
  n = len(data.labels)
  steps = batches.steps_per_epoch(n, recipe.batch_size)
  horizon = recipe.horizon(n)
  state = init_state(network, recipe, data.images.shape[1:], horizon, seed)
  restored = checkpoint.restore(folder, state) if folder else None
  first, start = restored or (0, state)
  yield Point(first, first / steps, None, None, start)
  for state, totals in loop.run(
    start,
    loop.compile_steps(make_step(network, recipe, aug)),
    data,
    steps_per_call=recipe.steps_per_call,
    report_every=recipe.report_every(n),
    tick=tick,
  ):
    step = int(state.step)
    means = metrics.read(totals)
    yield Point(step, step / steps, means["loss"], means["accuracy"], state)
    if folder and (step >= horizon or should_save()):
      checkpoint.save(folder, step, state)


def on_device(images: np.ndarray, labels: np.ndarray) -> Images:
  """The arrays as the device holds them: uint8[N, H, W, C], int32[N]."""
  return Images(jnp.asarray(images), jnp.asarray(labels, jnp.int32))
