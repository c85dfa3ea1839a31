"""ReLUs are counted wherever a program has them, as often as it runs them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_batching import custom_vmap

from nasnet_jax.scores import relus

N = 3


def _everywhere(x, k):
  """A ReLU in each construct of JAX."""

  @custom_vmap
  def with_a_batching_rule(x):
    return jax.nn.relu(x - 0.2)

  with_a_batching_rule.def_vmap(lambda n, batched, x: (x, True))

  @jax.custom_vjp
  def with_a_derivative_rule(x):
    return jax.nn.relu(x - 0.1)

  with_a_derivative_rule.defvjp(lambda x: (x, None), lambda _, g: (g,))
  x = jax.nn.relu(x)
  x = lax.switch(k, [lambda x: jax.nn.relu(x - 0.4), lambda x: x + 0.2], x)
  steps = jnp.array([0.1, 0.2])
  x, _ = lax.scan(lambda x, s: (jax.nn.relu(x - s), 0), x, steps)
  x = lax.fori_loop(0, k, lambda _, x: jax.nn.relu(x - 0.3), x)
  return with_a_batching_rule(x) + with_a_derivative_rule(x)


def _by_hand(x, k):
  """The same in NumPy: (result, in how many units examples agree)."""
  codes = []

  def relu(x):
    codes.append(x > 0)
    return np.maximum(x, 0)

  x = relu(x)
  x = x + np.float32(0.2) if k else relu(x - np.float32(0.4))
  for step in (0.1, 0.2, *[0.3] * k):
    x = relu(x - np.float32(step))
  x = relu(x - np.float32(0.2)) + relu(x - np.float32(0.1))
  on = np.concatenate(codes, -1)
  return x, (on[:, None] == on).sum(-1)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_relus_are_counted_in_branches_loops_and_rules(k):
  x = np.random.default_rng(0).normal(1, 1, (N, 5)).astype(np.float32)

  def function(x, k):
    return {"y": _everywhere(x, k)}

  counted = relus.agreement(function, N, results=True)
  found, count = counted(x, k)
  result, wanted = _by_hand(x, k)
  assert wanted[0, 0] == 5 * (6 + max(k - 1, 0))
  assert count.tolist() == wanted.tolist()
  assert found["y"] == pytest.approx(result)


def test_a_relu_of_something_else_than_the_batch_is_refused():
  with pytest.raises(ValueError, match="no first axis of 4 examples"):
    relus.agreement(jax.nn.relu, 4)(jnp.ones((2, 4)))
