"""Folded maps against one example after the other, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.models import folded
from nasnet_jax.models.kernels import convolutions, norms

N, G, C, F = 6, 3, 4, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 5, 4, C)).astype(np.float32)
WEIGHTS = RNG.standard_normal((3, 3, C, F)).astype(np.float32)


def _unfolded(y):
  """[N/g, H, W, F*g] as [N, H, W, F], one example after the other."""
  c = y.shape[-1] // G
  rows = [y[m, ..., r * c : r * c + c] for m in range(len(y)) for r in range(G)]
  return np.stack(rows)


def test_an_example_keeps_its_pixels_and_channels():
  y = folded.fold(jnp.asarray(X), G)
  assert y.shape == (N // G, 5, 4, C * G)
  np.testing.assert_array_equal(_unfolded(np.asarray(y)), X)
  pooled = folded.unfold(y[:, 2, 1], G)
  np.testing.assert_array_equal(pooled, X[:, 2, 1])


def test_without_a_fold_nothing_changes():
  x = jnp.asarray(X)
  assert folded.fold(x, 1) is x
  assert folded.each(x, 1) is x and folded.dense(x, 1) is x


def test_examples_never_meet_in_a_convolution():
  y = convolutions.conv(folded.fold(X, G), folded.dense(WEIGHTS, G))
  wanted = np.concatenate(
    [convolutions.conv(X[n : n + 1], WEIGHTS) for n in range(N)]
  )
  np.testing.assert_allclose(_unfolded(np.asarray(y)), wanted, atol=1e-5)
  y = convolutions.pointwise_conv(folded.fold(X, G), jnp.asarray(WEIGHTS[0, 0]))
  np.testing.assert_allclose(
    _unfolded(np.asarray(y)), X @ WEIGHTS[0, 0], atol=1e-5
  )


def test_the_gradient_of_weights_is_the_sum_over_examples():
  g = RNG.standard_normal((N, 5, 4, F)).astype(np.float32)

  def total(weights):
    y = convolutions.pointwise_conv(folded.fold(X, G), weights)
    return (y * folded.fold(g, G)).sum()

  found = jax.grad(total)(WEIGHTS[0, 0])
  wanted = np.einsum("nhwc,nhwf->cf", X, g)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_batch_norm_sees_all_examples():
  scale, bias, g = RNG.standard_normal((3, C)).astype(np.float32)

  def run(fold):
    def total(x, scale, bias):
      y, mean, var = norms.batch_norm(folded.fold(x, fold), scale, bias, 1e-3)
      again = norms.batch_norm_again(
        folded.fold(x, fold), scale, bias, mean, var, 1e-3
      )
      weights = folded.fold(jnp.sin(X) * g, fold)
      return (weights * (y + 2 * again)).sum(), (mean, var)

    return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(X, scale, bias)

  for a, b in zip(*map(jax.tree.leaves, (run(G), run(1))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(run(G)[0][1][0], X.mean((0, 1, 2)), atol=1e-6)


def test_fewer_examples_side_by_side_are_the_same_examples():
  x = jnp.concatenate([X, 2 * X])  # two rows of six
  y = folded.fold(x, 6)
  for fewer in (3, 2, 1):
    wanted = folded.fold(x, fewer)
    np.testing.assert_array_equal(folded.refold(y, 6, fewer), wanted)


def test_channels_are_joined_for_each_example():
  y = folded.join([folded.fold(X, G), folded.fold(2 * X[..., :2], G)], G)
  wanted = np.concatenate([X, 2 * X[..., :2]], -1)
  np.testing.assert_array_equal(_unfolded(np.asarray(y)), wanted)


def test_a_mask_has_a_number_for_each_example():
  mask = np.arange(N, dtype=np.float32)
  y = folded.masked(folded.fold(jnp.asarray(X), G), mask, G)
  np.testing.assert_array_equal(
    _unfolded(np.asarray(y)), X * mask[:, None, None, None]
  )
