"""Optimisers whose learning rate comes with each update (see `step.py`).

Each is an optax transformation whose `update` takes `learning_rate=` and
returns what is to be added to the parameters. `norm=`, a function of the
updates, stands in for their norm where a device holds parts of them.
"""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


def decayed(params) -> object:
  """Mask of the leaves that get L2: those named `kernel`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: getattr(path[-1], "key", None) == "kernel", params
  )


def _before(weight_decay: float, clip_norm: float) -> list:
  """L2 joins the gradient before clipping, as it does inside slim's loss."""
  parts = []
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, mask=decayed))
  if clip_norm:
    parts.append(_clip(clip_norm))
  return parts


def _clip(limit: float) -> optax.GradientTransformationExtraArgs:
  """`optax.clip_by_global_norm`, by a norm that the step may bring along."""

  def update(updates, state, params=None, *, norm=optax.tree.norm, **_):
    del params
    length = norm(updates)
    short = length < limit
    return jax.tree.map(
      lambda u: jax.lax.select(short, u, (u / length) * limit), updates
    ), state

  return optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update
  )


def momentum_sgd(
  momentum: float = 0.9,  # Zoph et al. 2018, A.3
  weight_decay: float = 5e-4,  # slim, nasnet_cifar_arg_scope
  clip_norm: float = 5.0,  # slim, CIFAR recipe; 0 = no clipping
  nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
  """tf.train.MomentumOptimizer: a = momentum a + g; w -= rate a."""

  def scale(updates, state, params=None, *, learning_rate, **_):
    del params
    return jax.tree.map(lambda u: -learning_rate * u, updates), state

  return optax.chain(
    *_before(weight_decay, clip_norm),
    optax.trace(momentum, nesterov),
    optax.GradientTransformationExtraArgs(
      lambda params: optax.EmptyState(), scale
    ),
  )


class RMSPropState(NamedTuple):
  """mean_square: of gradients; momentum: of updates, rate included."""

  mean_square: optax.Updates
  momentum: optax.Updates


def rmsprop(
  decay: float = 0.9,  # Zoph et al. 2018, A.7
  momentum: float = 0.9,  # slim, train_image_classifier.py
  epsilon: float = 1.0,  # Zoph et al. 2018, A.7
  weight_decay: float = 4e-5,  # slim, nasnet_mobile_arg_scope
  clip_norm: float = 10.0,  # slim, nasnet.py, mobile and large configs
) -> optax.GradientTransformationExtraArgs:
  """tf.train.RMSPropOptimizer, which differs from optax's own.

  epsilon stands inside the root, mean squares start at 1, and momentum
  gathers updates that have the learning rate in them:
  s = decay s + (1 - decay) g^2; m = momentum m + rate g / sqrt(s + epsilon);
  w -= m.
  """

  def init(params):
    return RMSPropState(
      jax.tree.map(jnp.ones_like, params), jax.tree.map(jnp.zeros_like, params)
    )

  def update(updates, state, params=None, *, learning_rate, **_):
    del params
    square = jax.tree.map(
      lambda s, g: decay * s + (1 - decay) * g * g, state.mean_square, updates
    )
    moved = jax.tree.map(
      lambda m, s, g: momentum * m + learning_rate * g / jnp.sqrt(s + epsilon),
      state.momentum,
      square,
      updates,
    )
    return jax.tree.map(jnp.negative, moved), RMSPropState(square, moved)

  return optax.chain(
    *_before(weight_decay, clip_norm),
    optax.GradientTransformationExtraArgs(init, update),
  )


def only(
  tx: optax.GradientTransformationExtraArgs, name: str
) -> optax.GradientTransformationExtraArgs:
  """The optimiser for params[name] only; all other parameters stay."""

  def labels(params):
    return {
      key: jax.tree.map(lambda _, k=key: k == name, tree)
      for key, tree in params.items()
    }

  return optax.partition({True: tx, False: optax.set_to_zero()}, labels)


def where(
  tx: optax.GradientTransformationExtraArgs, mask
) -> optax.GradientTransformationExtraArgs:
  """The optimiser for single weights: all others, and what it keeps of them,
  stay bit for bit, decay and momentum included.

  Args:
    tx: one whose state is a tree like the parameters, as `momentum_sgd`'s.
    mask: a tree of bool arrays like the parameters; gradients are 0 elsewhere.
  """

  def update(updates, state, params, **options):
    here = jax.tree.map(lambda m, p: jnp.where(m, p, 0), mask, params)
    updates, new = tx.update(updates, state, here, **options)
    treedef = jax.tree.structure(new)
    leaves = map(jax.tree.leaves, (mask, new, state))
    kept = [jnp.where(*row) for row in zip(*leaves, strict=True)]
    # Minus 0, as adding 0 would turn a weight of minus 0.
    moved = jax.tree.map(lambda m, u: jnp.where(m, u, -0.0), mask, updates)
    return moved, treedef.unflatten(kept)

  return optax.GradientTransformationExtraArgs(tx.init, update)


OPTIMIZERS = {"momentum": momentum_sgd, "rmsprop": rmsprop}


def make(name: str, **options) -> optax.GradientTransformationExtraArgs:
  """The optimiser of that name; options that it does not have are left out.

  Raises:
    ValueError: for an unknown name.
  """
  if name not in OPTIMIZERS:
    raise ValueError(
      f"optimizer {name!r} is not one of: {', '.join(OPTIMIZERS)}"
    )
  function = OPTIMIZERS[name]
  known = inspect.signature(function).parameters
  return function(**{k: v for k, v in options.items() if k in known})
