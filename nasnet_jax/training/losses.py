"""Losses and the numbers that metrics are summed from."""

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0):
  """Mean over the batch, float32. logits [N, K]; labels int32[N]."""
  logits = logits.astype(jnp.float32)
  if smoothing:
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return losses.mean()


def accuracy(logits: Array, labels: Array) -> Array:
  """Share of examples whose largest logit is the label's, float32."""
  return jnp.mean((logits.argmax(-1) == labels).astype(jnp.float32))


def in_top(logits: Array, labels: Array, k: int) -> Array:
  """bool[N]: fewer than k other logits are larger than the label's, or equal
  to it and before it: `argmax` for k = 1. Where the label's is NaN: false."""
  own = jnp.take_along_axis(logits, labels[:, None], -1)
  before = jnp.arange(logits.shape[-1]) < labels[:, None]
  ahead = (logits > own) | ((logits == own) & before)
  return (ahead.sum(-1) < k) & ~jnp.isnan(own[:, 0])
