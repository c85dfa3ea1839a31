"""Scores against the same in NumPy's float64, by hand, of a small network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.scores import formulas

SHAPE, WIDE, CLASSES, N = (2, 2, 3), 7, 4, 6


def _weights(seed=0):
  rng = np.random.default_rng(seed)
  sizes = {"first": (12, WIDE), "second": (WIDE, CLASSES)}
  return {
    name: {
      "kernel": rng.normal(size=size).astype(np.float32),
      "bias": np.zeros(size[1], np.float32),
    }
    for name, size in sizes.items()
  }


def _batch(seed=1):
  rng = np.random.default_rng(seed)
  images = rng.normal(size=(N, *SHAPE)).astype(np.float32)
  return images, np.arange(N, dtype=np.int32) % CLASSES


def _apply(params, images):
  x = images.reshape(len(images), -1)
  x = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"])
  return x @ params["second"]["kernel"] + params["second"]["bias"]


def _by_hand():
  """All scores, by the chain rule, in float64."""
  a, b = (part["kernel"].astype(np.float64) for part in _weights().values())
  images, labels = _batch()
  x = images.reshape(N, -1).astype(np.float64)
  before = x @ a
  on = before > 0
  logits = (before * on) @ b
  shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  wrong = (shares - np.eye(CLASSES)[labels]) / N
  of_b = (before * on).T @ wrong
  of_a = x.T @ (wrong @ b.T * on)
  rows = (on * b.sum(1)) @ a.T
  values = np.linalg.eigvalsh(np.corrcoef(rows)) + 1e-5
  flow = np.abs(a).sum(0) @ np.abs(b).sum(1)
  return {
    "grad_norm": np.linalg.norm(of_a) + np.linalg.norm(of_b),
    "snip": np.abs(a * of_a).sum() + np.abs(b * of_b).sum(),
    "synflow": np.log(2 * flow),  # each of two layers has the whole of it
    "jacob_cov": -(np.log(values) + 1 / values).sum(),
    "naswot": np.log(np.linalg.det((on[:, None] == on).sum(-1))),
  }


@functools.cache
def _measured():
  images, labels = _batch()

  def measure(params):
    model = formulas.Model(params, _apply, _apply)
    return formulas.measure(formulas.NAMES, model, images, labels)

  return jax.device_get(jax.jit(measure)(_weights()))


@pytest.mark.parametrize("name", formulas.NAMES)
def test_a_score_is_that_of_numpy_in_double_precision(name):
  found = formulas.finish(_measured())[name]
  assert found == pytest.approx(_by_hand()[name], rel=1e-4)


def test_only_what_was_asked_for_is_measured_in_that_order():
  model = formulas.Model(_weights(), _apply, _apply)
  found = formulas.measure(("jacob_cov", "snip"), model, *_batch())
  assert list(found) == ["jacob_cov", "snip"]


def test_synflow_of_sixty_layers_leaves_float32_and_its_logarithm_does_not():
  width, layers = 100, 30
  kernel = np.full((width, width), 0.5, np.float32)  # a gain of 50 each
  params = {f"layer_{i}": {"kernel": kernel} for i in range(layers)}

  def apply(params, images):
    x = images.reshape(len(images), -1)
    for layer in params.values():
      x = x @ layer["kernel"]
    return x

  found = formulas.measure(
    ("synflow",),
    formulas.Model(params, apply, apply),
    np.zeros((1, 10, 10, 1), np.float32),
    np.zeros(1, np.int32),
  )
  exact = np.log(layers * width) + layers * np.log(50)
  assert exact > np.log(np.finfo(np.float32).max)
  assert formulas.finish(found)["synflow"] == pytest.approx(exact, rel=1e-5)


def test_a_network_that_lets_nothing_through_has_no_score_that_is_infinite():
  params = jax.tree.map(np.zeros_like, _weights())
  model = formulas.Model(params, _apply, _apply)
  found = formulas.finish(formulas.measure(formulas.NAMES, model, *_batch()))
  assert found["grad_norm"] == found["snip"] == 0
  for name in ("synflow", "jacob_cov", "naswot"):
    assert found[name] is None, name


def test_kernels_are_found_by_their_name_in_tuples_too():
  tree = {"a": ({"kernel": jnp.ones(2)}, {"scale": jnp.ones(3)})}
  assert [leaf.shape for leaf in formulas.kernels(tree)] == [(2,)]
