"""Gradient transformations, without the learning rate (see `step.py`)."""

import jax
import optax


def decayed(params) -> object:
  """Mask of the leaves that get L2: those named `kernel`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: getattr(path[-1], "key", None) == "kernel", params
  )


def momentum_sgd(
  momentum: float = 0.9,  # Zoph et al. 2018, A.3
  weight_decay: float = 5e-4,  # slim, nasnet_cifar_arg_scope
  clip_norm: float = 5.0,  # slim, CIFAR recipe; 0 = no clipping
  nesterov: bool = False,
) -> optax.GradientTransformation:
  """L2 joins the gradient before clipping, as it does inside slim's loss."""
  parts = []
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, mask=decayed))
  if clip_norm:
    parts.append(optax.clip_by_global_norm(clip_norm))
  parts.append(optax.trace(momentum, nesterov))
  return optax.chain(*parts)
