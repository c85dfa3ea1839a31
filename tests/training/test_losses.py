"""Losses and counted answers against plain NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.training import losses


def _cross_entropy(logits, labels, smoothing):
  """float64: TensorFlow's label_smoothing, which shares out over all."""
  logits = np.float64(logits)
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  classes = logits.shape[-1]
  targets = np.full(logits.shape, smoothing / classes)
  targets[np.arange(len(labels)), labels] += 1 - smoothing
  return -(targets * logs).sum(-1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_and_smoothing_are_tensorflows(smoothing):
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (6, 4)).astype(np.float32)
  labels = np.array([0, 1, 2, 3, 3, 0])
  found = losses.cross_entropy(jnp.asarray(logits), labels, smoothing)
  wanted = _cross_entropy(logits, labels, smoothing)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_half_precision_is_summed_in_float32(smoothing):
  logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, (64, 10)))
  logits = logits.astype(jnp.bfloat16)
  labels = np.arange(64) % 10
  found = losses.cross_entropy(logits, labels, smoothing)
  assert found.dtype == jnp.float32
  wanted = _cross_entropy(logits.astype(jnp.float32), labels, smoothing)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_first_k_are_those_of_a_stable_sort(k):
  # Whole numbers, so that most rows hold equal logits.
  logits = np.random.default_rng(0).integers(0, 4, (200, 8)).astype(np.float32)
  labels = np.arange(200) % 8
  order = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
  found = losses.in_top(jnp.asarray(logits), jnp.asarray(labels), k)
  np.testing.assert_array_equal(found, (order == labels[:, None]).any(-1))
  if k == 1:
    np.testing.assert_array_equal(found, logits.argmax(-1) == labels)


def test_logits_that_are_no_numbers_are_no_right_answers():
  logits = jnp.full((3, 8), jnp.nan)
  assert not losses.in_top(logits, jnp.array([0, 3, 7]), 5).any()
