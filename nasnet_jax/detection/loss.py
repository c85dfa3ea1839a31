"""What a detector is taught: the losses of both stages on sampled anchors and
proposals (Ren et al. 2015, 3.1.2 and 3.3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nasnet_jax.data import augment
from nasnet_jax.detection import boxes as bx
from nasnet_jax.detection import targets, two_stage
from nasnet_jax.detection.detector import Detector
from nasnet_jax.models import drop_path

Array = jax.Array


# What a step's random numbers are for; each use has a key of its own.
_DROP_FIRST, _DROP_SECOND, _ANCHORS, _PROPOSALS = range(4)


def make_loss(network: Detector, recipe, aug: augment.Augmentation) -> Callable:
  """A loss as `training.step` takes it: (params, batch_stats, batch, rng,
  progress) -> (loss, (batch_stats, metrics)).

  A batch is (images, `picture_stream.Labels`, positions int[N] in the whole
  batch). `accuracy` among the metrics is the share of sampled proposals whose
  class is right.

  Args:
    recipe: with `drop_path_keep` and `drop_path_version`, as
      `training.recipes.Recipe` has them.
    aug: how images are whitened.
  """
  config = network.config

  def loss_fn(params, batch_stats, batch, rng, progress):
    images, labels, positions = batch
    keys = [jax.random.fold_in(rng, use) for use in range(4)]
    own_keys = jax.vmap(jax.random.fold_in, (None, 0))

    def drop(use, positions):
      return drop_path.make(
        keys[use],
        recipe.drop_path_keep,
        progress,
        network.num_layers,
        recipe.drop_path_version,
        positions,
      )

    def apply(batch_stats, method, *args, **kwargs):
      found, updates = network.apply(
        {"params": params, "batch_stats": batch_stats},
        *args,
        train=True,
        method=method,
        mutable=["batch_stats"],
        **kwargs,
      )
      return updates["batch_stats"], found

    batch_stats, features = apply(
      batch_stats,
      "features",
      augment.normalise(images, aug),
      labels.side if config.padded else None,
      drop=drop(_DROP_FIRST, positions),
    )
    view = two_stage.make_view(network, images.shape[1:3], labels.side)
    offsets, logits = network.apply(
      {"params": params}, features, method="propose"
    )
    first = jax.vmap(lambda *args: _proposal_loss(config, view.anchors, *args))(
      own_keys(keys[_ANCHORS], positions),
      offsets,
      logits,
      view.on_picture,
      view.side,
      labels.truth,
    )
    proposals, valid = two_stage.propose(config, view, offsets, logits)
    taught, found, weights = jax.vmap(lambda *args: _choose(config, *args))(
      own_keys(keys[_PROPOSALS], positions), proposals, valid, labels.truth
    )

    def judge(batch_stats, crops, index):
      count = taught.shape[1]
      places = positions[index // count] * count + index % count
      return apply(batch_stats, "judge", crops, drop=drop(_DROP_SECOND, places))

    batch_stats, (logits, offsets) = two_stage.judge_boxes(
      network, view, features, taught, judge, batch_stats
    )
    second, right = jax.vmap(lambda *args: _box_loss(config, *args))(
      logits, offsets, taught, found, weights, labels.truth
    )
    accuracy = right.sum() / jnp.maximum(weights.sum(), 1.0)
    loss = (first + second).mean()
    return loss, (batch_stats, {"accuracy": accuracy})

  return loss_fn


def _proposal_loss(
  config, anchors, rng, offsets, logits, on_picture, side, truth
) -> Array:
  """f32[]: of one image's anchors. Those that reach beyond the picture are left
  out (Ren et al. 2015, 3.3)."""
  inside = on_picture & (bx.clip(anchors, side) == anchors).all(1)
  found = targets.assign(
    anchors,
    inside,
    truth,
    positive=config.rpn_positive,
    negative=config.rpn_negative,
    force=True,
  )
  chosen = targets.sample(rng, found, config.rpn_batch, config.rpn_share)
  weights = chosen / jnp.maximum(chosen.sum(), 1)
  boxes = targets.box_loss(offsets, anchors, found, truth, weights)
  classes = targets.class_loss(logits, found.positive.astype(int), weights)
  return config.rpn_box_weight * boxes + config.rpn_class_weight * classes


def _choose(config, rng, proposals, valid, truth):
  """The proposals of one image on which the second stage is taught.

  Returns:
    (boxes f32[R, 4], Assignment of R, weights f32[R]); rows for which there is
    no proposal have weight 0.
  """
  if config.truth_as_proposals:
    proposals = jnp.concatenate([proposals, truth.boxes])
    valid = jnp.concatenate([valid, truth.valid & ~truth.crowd])
  found = targets.assign(
    proposals,
    valid,
    truth,
    positive=config.box_positive,
    negative=config.box_positive,
    force=False,
  )
  size = min(config.box_batch, len(valid))
  chosen = targets.sample(rng, found, size, config.box_share)
  weights, index = jax.lax.top_k(chosen.astype(jnp.float32), size)
  found = jax.tree.map(lambda x: x[index], found)
  return proposals[index], found, weights


def _box_loss(config, logits, offsets, boxes, found, weights, truth):
  """(loss, how many are right) of one image's sampled proposals."""
  label = truth.classes[found.match]
  # Of each box only the offsets for its own class are taught.
  own = jnp.take_along_axis(offsets, label[:, None, None], 1)[:, 0]
  classes = jnp.where(found.positive, label + 1, 0)
  shares = weights / jnp.maximum(weights.sum(), 1.0)
  loss = config.box_weight * targets.box_loss(own, boxes, found, truth, shares)
  loss += config.class_weight * targets.class_loss(logits, classes, shares)
  return loss, ((logits.argmax(1) == classes) * weights).sum()
