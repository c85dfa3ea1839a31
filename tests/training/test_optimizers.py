"""Optimisers against TensorFlow's documented rules in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasnet_jax.training import optimizers

RATES = [0.1, 0.1, 0.02, 0.3, 0.05]


def _run(tx):
  """Weights after each update with fixed gradients."""
  rng = np.random.default_rng(0)
  params = {"a": {"kernel": jnp.asarray(rng.normal(size=5), jnp.float32)}}
  grads = rng.normal(size=(len(RATES), 5))
  state, weights = tx.init(params), [np.asarray(params["a"]["kernel"])]
  for rate, g in zip(RATES, grads):
    g = {"a": {"kernel": jnp.asarray(g, jnp.float32)}}
    updates, state = tx.update(g, state, params, learning_rate=rate)
    params = optax.apply_updates(params, updates)
    weights.append(np.asarray(params["a"]["kernel"]))
  return np.float64(weights[0]), grads, weights[1:]


def test_momentum_follows_tensorflows_rule():
  w, grads, found = _run(optimizers.momentum_sgd(0.9, 0.01, 0.0))
  gathered = np.zeros(5)
  for rate, g, new in zip(RATES, grads, found):
    gathered = 0.9 * gathered + g + 0.01 * w
    w = w - rate * gathered
    np.testing.assert_allclose(new, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
def test_rmsprop_follows_tensorflows_rule(epsilon):
  tx = optimizers.rmsprop(0.9, 0.8, epsilon, 0.01, clip_norm=0.0)
  w, grads, found = _run(tx)
  square, moved = np.ones(5), np.zeros(5)
  for rate, g, new in zip(RATES, grads, found):
    g = g + 0.01 * w
    square = 0.9 * square + 0.1 * g * g
    moved = 0.8 * moved + rate * g / np.sqrt(square + epsilon)
    w = w - moved
    np.testing.assert_allclose(new, w, rtol=1e-5, atol=1e-6)


def test_l2_joins_the_gradient_before_it_is_clipped():
  w, grads, found = _run(optimizers.momentum_sgd(0.0, 0.5, 1.0))
  g = grads[0] + 0.5 * w
  wanted = w - RATES[0] * g / max(1.0, np.linalg.norm(g))
  np.testing.assert_allclose(found[0], wanted, rtol=1e-5)


def test_only_kernels_decay():
  params = {"x": {"kernel": jnp.ones(2), "scale": jnp.ones(2)}}
  tx = optimizers.momentum_sgd(0.0, 0.5, 0.0)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params, learning_rate=1.0)
  np.testing.assert_array_equal(updates["x"]["kernel"], [-0.5, -0.5])
  np.testing.assert_array_equal(updates["x"]["scale"], [0, 0])


def test_an_optimiser_gets_the_options_it_has():
  tx = optimizers.make("momentum", momentum=0.5, epsilon=1.0, decay=0.9)
  assert tx.init({"kernel": jnp.zeros(1)})
  with pytest.raises(ValueError, match="'adam' is not one of: momentum"):
    optimizers.make("adam")


def test_weights_outside_of_a_mask_stay_bit_for_bit_and_count_in_no_norm():
  params = {"kernel": jnp.array([1.0, -0.0, 2.0, 3.0])}
  mask = {"kernel": jnp.array([True, False, True, False])}
  tx = optimizers.momentum_sgd(0.9, 0.1, 0.5)
  masked = optimizers.where(tx, mask)
  one = {"kernel": jnp.array([1.0, 2.0])}
  state, alone = masked.init(params), tx.init(one)
  state = jax.tree.map(lambda leaf: leaf + 0.25, state)  # momentum of before
  alone = jax.tree.map(lambda leaf: leaf + 0.25, alone)
  grads = {"kernel": jnp.array([0.5, 0.0, 1.0, 0.0])}
  updates, state = masked.update(grads, state, params, learning_rate=0.1)
  few = {"kernel": jnp.array([0.5, 1.0])}
  wanted, alone = tx.update(few, alone, one, learning_rate=0.1)
  moved = np.asarray(optax.apply_updates(params, updates)["kernel"])
  np.testing.assert_array_equal(
    moved[::2], optax.apply_updates(one, wanted)["kernel"]
  )
  assert np.signbit(moved[1])
  assert moved[3] == 3
  (found,), (other,) = map(jax.tree.leaves, (state, alone))
  np.testing.assert_array_equal(found[::2], other)
  np.testing.assert_array_equal(found[1::2], [0.25, 0.25])
