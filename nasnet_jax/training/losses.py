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
