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
  side: tuple[int, int] = (4, 2)
  examples: int = 32
  channels: int = 32
  features: int = 32


def _both(case: Case, products):
  """(y, moments, gradients) of the kernels, those of today's operation, and y
  of the kernels when moments are known."""
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
    return *found, fused(x, weights, found[1][1])[0]

  return both(x, weights)


def _assert_close(found, wanted, tolerance=2e-5):
  leaves = jax.tree_util.tree_leaves_with_path(wanted)
  for (path, b), a in zip(leaves, jax.tree.leaves(found), strict=True):
    scale = np.abs(b).max() + 1e-6
    np.testing.assert_allclose(
      a / scale, b / scale, atol=tolerance, err_msg=jax.tree_util.keystr(path)
    )


CASES = {
  "3x3": Case(),
  "5x5": Case(5, side=(6, 4)),
  "7x7": Case(7, side=(14, 3)),
  "dilated": Case(3, dilation=2, side=(8, 5)),
  "3x3-stride-2": Case(3, stride=2, side=(8, 6)),
  "5x5-stride-2": Case(5, stride=2, side=(4, 4)),
  "other-width": Case(3, side=(2, 2), channels=96),
  "two-registers-a-pixel": Case(3, side=(4, 2), examples=64),
}


@pytest.mark.parametrize("name", CASES)
def test_values_moments_and_gradients_equal_those_of_todays_operation(name):
  found, wanted, again = _both(CASES[name], jnp.float32)
  _assert_close(found, wanted)
  _assert_close(again, wanted[0])


def test_products_in_bfloat16_are_those_of_todays_operation_rounded():
  found, wanted, _ = _both(Case(), jnp.bfloat16)
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
  # As vectors: near 0 a rounded number goes through a ReLU or does not.
  apart = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
  assert 1e-4 < max(apart) < 0.1


def _operation(kernels, **fields):
  numerics = layers.Numerics(fold=FOLD, kernels=kernels, **fields)
  return ops.OPERATIONS["sep_conv_3x3"](numerics, 32, 1)


def _program(module, train=True, side=4, rows=8, platform="tpu"):
  """Text of the operation and of its gradients, as that platform gets it."""
  x = np.zeros((rows, side, side, FOLD * 32), np.float32)
  variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))

  def loss(params, x):
    found = {**variables, "params": params}
    y, new = module.apply(found, x, train, mutable=["batch_stats", "moments"])
    return y.sum(), new

  variables = jax.tree.map(lambda v: jnp.zeros(v.shape), variables)
  step = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
  traced = step.trace(variables["params"], x)
  return traced.lower(lowering_platforms=(platform,)).as_text()


_KERNEL = "tpu_custom_call"


def test_only_a_tpu_that_was_told_so_gets_the_kernels():
  ours, todays = _operation("pallas"), _operation("xla")
  assert _KERNEL in _program(ours)
  for module, options in [
    (ours, {"platform": "cpu"}),
    (ours, {"train": False}),
    (todays, {}),
  ]:
    assert _KERNEL not in _program(module, **options)


@pytest.mark.parametrize(
  ("fields", "options", "why"),
  [
    ({}, {"rows": 4}, "4 rows of 128 channels that become 128"),
    ({"bn_parts": 2}, {}, "bn_group"),
    ({"bn_axis": "data"}, {}, "mesh.data"),
  ],
)
def test_what_does_not_fit_is_todays_operation_and_a_line_says_so(
  fields, options, why, caplog
):
  from nasnet_jax.models.fused import module

  module._tell.cache_clear()
  x = jax.ShapeDtypeStruct((options.get("rows", 8), 4, 4, 128), jnp.float32)
  with caplog.at_level("WARNING"):
    assert not module.fits(_operation("pallas", **fields), x)
  assert why in caplog.text


def test_maps_that_do_not_stay_on_the_chip_are_left_to_todays_operation():
  assert "VMEM" in separable.misfit((8, 224, 224, 128), 128, 1, jnp.float32)


def test_odd_sides_are_left_to_todays_operation_at_stride_2():
  assert "7 x 8 pixels" in separable.misfit((8, 7, 8, 128), 128, 2, jnp.float32)
  assert separable.misfit((8, 7, 8, 128), 128, 1, jnp.float32) is None


def test_a_module_keeps_the_same_statistics_by_either_form():
  x = _random((8, 2, 2, 128), 1)
  found = []
  for kernels in ("xla", "pallas"):
    module = _operation(kernels)
    variables = module.init(jax.random.key(0), x, False)

    @jax.jit
    def run(variables, module=module):
      y, new = module.apply(
        variables, x, True, mutable=["batch_stats", "moments"]
      )
      known = {"params": variables["params"], "moments": new["moments"]}
      again = module.apply(
        {**known, "batch_stats": new["batch_stats"]}, x, True
      )
      return y, new, again

    found.append(run(variables))
  ours, todays = (jax.tree_util.tree_leaves_with_path(f) for f in found)
  assert [path for path, _ in ours] == [path for path, _ in todays]
  for (_, a), (path, b) in zip(ours, todays, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5, err_msg=str(path))
