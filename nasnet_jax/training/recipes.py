"""How one network is trained: the recipe, and checks of its numbers."""

import dataclasses

from nasnet_jax.data import batches
from nasnet_jax.models import drop_path
from nasnet_jax.training import checks, optimizers, schedules

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
    momentum, rms_decay, rms_epsilon, weight_decay, clip_norm: of the optimizer.
    learning_rate: at the start, or after warming up.
    schedule: "cosine", "constant", "restarts", "exponential" or "piecewise",
      see `schedules.make`.
    warmup_epochs, decay_factor, decay_epochs, decay_at: of the schedule.
    aux_weight: of the auxiliary head's loss, where the network has one.
    label_smoothing: share of the target spread over all classes.
    drop_path_keep: ScheduledDropPath's probability at the end; 1: off.
    drop_path_version: "time", "layer", "both", "constant" or "depth".
    ema_decay: decay of the moving average of weights and statistics, which
      then is what is evaluated and kept; 0: no average.
    micro_batches: parts that a batch is divided into; they go one after
      another, so memory need only hold one.
    bn_group: examples that batch norm sees together, over however many
      devices they lie; 0: as many as go through the network at once.
    dtype: of the activations in training, "float32" or "bfloat16"; weights,
      statistics, loss and evaluation are float32.
    freeze: whether only the classifier is trained, with the rest of the
      network as it is in evaluation.
    steps_per_call: updates per device call: 1 on CPU, an epoch on TPU.
    eval_batch_size: examples per evaluation step.
    report_epochs: epochs between lines of the curve; may be a fraction.
    patience_epochs: early stopping: `resumable.train` ends after so many epochs
      without a better score on the validation images and keeps the best
      weights; 0: it goes on to the end and keeps the last ones.
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
    checks.at_least(self, _LEAST)
    checks.shares(self, *_SHARES)
    if self.dtype not in ("float32", "bfloat16"):
      raise ValueError(f"dtype {self.dtype!r} is neither float32 nor bfloat16")
    drop_path.check(self.drop_path_keep, self.drop_path_version)
    if self.micro_batches < 1 or self.batch_size % self.micro_batches:
      raise ValueError(
        f"a batch of {self.batch_size} does not divide into"
        f" {self.micro_batches} micro_batches"
      )

  def steps(self, num_examples: int) -> int:
    """Updates of an epoch."""
    return batches.steps_per_epoch(num_examples, self.batch_size)

  def horizon(self, num_examples: int) -> int:
    """Updates of the whole training."""
    return self.epochs * self.steps(num_examples)

  def follows_its_length(self) -> str:
    """What of the training follows its number of epochs, by field; "" if one
    of more epochs begins like this one. (A warm-up is rounded otherwise.)"""
    if self.schedule == "cosine":
      return "the schedule 'cosine'"
    if self.drop_path_keep < 1 and self.drop_path_version in ("time", "both"):
      return f"the drop_path_version {self.drop_path_version!r}"
    return ""

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
