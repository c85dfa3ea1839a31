"""Fused separable convolutions, interpreted, against today's operation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.models import layers, ops
from nasnet_jax.models.fused import geometry, separable

FOLD, EPSILON = 4, 1e-2


@pytest.fixture(autouse=True)
def _several_steps(monkeypatch):
  """Small maps, too, are read in several steps."""
  monkeypatch.setattr(geometry, "_ROWS", 2)


def _random(shape, seed, low=-0.5, high=0.5):
  rng = np.random.default_rng(seed)
  return rng.uniform(low, high, shape).astype(np.float32)


def _layers(size, channels, features):
  return tuple(
    separable.Layer(
      _random((size, size, c), 10 * i),
      _random((c, features), 10 * i + 1),
      _random(features, 10 * i + 2, 0.5, 1.5),
      _random(features, 10 * i + 3),
    )
    for i, c in enumerate((channels, features))
  )


def _todays(module, x, weights):
  """(y, moments) of the operation as `models.ops` has it."""
  params = {}
  for i, layer in enumerate(weights):
    params[f"depthwise_{i}"] = {"kernel": layer.depthwise}
    params[f"pointwise_{i}"] = {"kernel": layer.pointwise}
    params[f"norm_{i}"] = {"scale": layer.scale, "bias": layer.bias}
  y, new = module.apply(
    {"params": params}, x, True, mutable=["batch_stats", "moments"]
  )
  moments = [new["moments"][f"norm_{i}"] for i in range(len(weights))]
  return y, tuple((m["mean"][0], m["var"][0]) for m in moments)


@dataclasses.dataclass(frozen=True)
class Case:
  size: int = 3
  stride: int = 1
  dilation: int = 1
  side: tuple[int, int] = (4, 3)
  examples: int = 32
  channels: int = 32
  features: int = 32


def _compare(case: Case, products=jnp.float32, tolerance=2e-5):
  numerics = layers.Numerics(bn_epsilon=EPSILON, fold=FOLD)
  module = ops.SeparableConv(
    numerics, case.features, case.stride, case.size, case.dilation
  )
  options = separable.Options(
    case.stride, case.dilation, EPSILON, products, interpret=True
  )
  x = _random(
    (case.examples // FOLD, *case.side, FOLD * case.channels), 5, -2, 2
  )
  weights = _layers(case.size, case.channels, case.features)
  fused = functools.partial(separable.separable_conv, options)

  @jax.jit
  def both(x, weights):
    found = []
    for run in (fused, functools.partial(_todays, module)):
      y, pullback, moments = jax.vjp(run, x, weights, has_aux=True)
      g = _random(y.shape, 6)
      found.append((y, moments, pullback(g)))
    again, pullback = jax.vjp(
      lambda x, weights: fused(x, weights, found[1][1])[0], x, weights
    )
    return *found, (again, pullback(g))

  found, wanted, again = both(x, weights)
  _assert_close(found, wanted, tolerance)
  _assert_close(again, (wanted[0], wanted[2]), tolerance)


def _assert_close(found, wanted, tolerance):
  leaves = jax.tree_util.tree_leaves_with_path(wanted)
  for (path, b), a in zip(leaves, jax.tree.leaves(found), strict=True):
    scale = np.abs(b).max() + 1e-6
    np.testing.assert_allclose(
      a / scale, b / scale, atol=tolerance, err_msg=jax.tree_util.keystr(path)
    )


def test_values_moments_and_gradients_equal_those_of_todays_operation():
  _compare(Case())
