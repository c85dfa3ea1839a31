"""The CPU forms of convolutions, pools and batch norm against plain `lax`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nasnet_jax.models.kernels import convolutions, norms, pools
from nasnet_jax.population import mixed

# Odd, not square, smaller than the window, a single pixel.
SIDES = [(7, 9), (8, 5), (2, 3), (1, 1)]
CHANNELS = 3


def _image(side, channels=CHANNELS, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((2, *side, channels)).astype(np.float32)


def _plain_conv(x, kernel, strides, dilation=1, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    "SAME",
    rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def _value_and_gradients(function, arguments):
  """The value and the gradients for a fixed random cotangent."""
  y, pullback = jax.vjp(function, *arguments)
  rng = np.random.default_rng(1)
  return y, pullback(rng.standard_normal(y.shape).astype(np.float32))


def _assert_equal_forms(ours, plain, cases, tolerance=2e-5):
  """Values and gradients of both, all cases compiled as one program."""

  @jax.jit
  def both(cases):
    return [
      (_value_and_gradients(ours, case), _value_and_gradients(plain, case))
      for case in cases
    ]

  for case, (found, wanted) in zip(cases, both(cases), strict=True):
    shape = case[0].shape
    assert found[0].shape == wanted[0].shape, shape
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
      scale = 1 + np.abs(b).max()
      np.testing.assert_allclose(
        a / scale, b / scale, atol=tolerance, err_msg=str(shape)
      )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_depthwise_convolution_equals_the_grouped_one(size, stride):
  kernel = _image((size, size), seed=2)[0]
  strides = (stride, stride)

  def plain(x, kernel):
    return _plain_conv(x, kernel[:, :, None], strides, groups=CHANNELS)

  _assert_equal_forms(
    lambda x, kernel: convolutions.depthwise_conv(x, kernel, strides),
    plain,
    [(_image(side), kernel) for side in SIDES],
  )


@pytest.mark.parametrize(
  ("shape", "strides", "dilation"),
  [
    ((1, 1), (2, 2), 1),
    ((3, 3), (1, 1), 1),
    ((3, 3), (2, 2), 1),
    ((3, 3), (3, 3), 1),
    ((3, 3), (1, 1), 2),
    ((3, 3), (2, 2), 2),
    ((1, 3), (1, 2), 1),
    ((1, 7), (1, 1), 1),
    ((7, 1), (1, 1), 1),
    ((1, 7), (1, 2), 1),
    ((7, 1), (2, 1), 1),
  ],
)
def test_a_dense_convolution_equals_the_plain_one(shape, strides, dilation):
  rng = np.random.default_rng(2)
  kernel = rng.standard_normal((*shape, CHANNELS, 4)).astype(np.float32)
  _assert_equal_forms(
    lambda x, kernel: convolutions.conv(x, kernel, strides, dilation),
    lambda x, kernel: _plain_conv(x, kernel, strides, dilation),
    [(_image(side), kernel) for side in SIDES],
  )


def test_a_pointwise_convolution_equals_the_plain_one():
  kernel = _image((CHANNELS, 4), 1)[0, :, :, 0]
  _assert_equal_forms(
    convolutions.pointwise_conv,
    lambda x, kernel: _plain_conv(x, kernel[None, None], (1, 1)),
    [(_image(side), kernel) for side in SIDES],
  )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_a_max_pool_equals_the_window_maximum_ties_included(size, stride):
  def plain(x):
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -np.inf, lax.max, window, strides, "SAME")

  # Rounded to whole numbers nearly every window holds its maximum twice; a
  # flat image is nothing but ties.
  images = [np.round(_image(side)) for side in SIDES]
  flat = np.zeros((2, 6, 5, CHANNELS), np.float32)
  _assert_equal_forms(
    lambda x: pools.max_pool(x, size, stride),
    plain,
    [(image,) for image in [*images, flat]],
  )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_an_average_pool_does_not_count_the_padding(size, stride):
  def plain(x):
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    add = functools.partial(
      lax.reduce_window,
      init_value=0.0,
      computation=lax.add,
      window_dimensions=window,
      window_strides=strides,
      padding="SAME",
    )
    return add(x) / add(jnp.ones_like(x))

  _assert_equal_forms(
    lambda x: pools.avg_pool(x, size, stride),
    plain,
    [(_image(side),) for side in SIDES],
  )


def _numpy_batch_norm(x, scale, bias, epsilon, g):
  """(y, mean, variance), (dx, dscale, dbias) in float64."""
  x, scale, bias, g = (a.astype(np.float64) for a in (x, scale, bias, g))
  axes = (0, 1, 2)
  mean, variance = x.mean(axes), x.var(axes)
  inverse = 1 / np.sqrt(variance + epsilon)
  xhat = (x - mean) * inverse
  dbias, dscale = g.sum(axes), (g * xhat).sum(axes)
  count = x[..., 0].size
  dx = scale * inverse * (g - dbias / count - xhat * dscale / count)
  return (xhat * scale + bias, mean, variance), (dx, dscale, dbias)


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_batch_norm_and_its_gradient_equal_float64(offset):
  x = _image((5, 7)) * 2 + np.float32(offset)
  scale, bias, g = (
    np.float32([1, -2, 0.5]),
    np.float32([0, 1, 2]),
    _image((5, 7)),
  )

  @jax.jit
  def run(x, scale, bias, g):
    def norm(*arguments):
      y, *statistics = norms.batch_norm(*arguments, 1e-3)
      return y, statistics

    y, pullback, statistics = jax.vjp(norm, x, scale, bias, has_aux=True)
    return (y, *statistics), pullback(g)

  found = run(x, scale, bias, g)
  wanted = _numpy_batch_norm(x, scale, bias, 1e-3, g)
  # The variance is E[x^2] - E[x]^2: float32 loses digits of a large mean.
  tolerance = 2e-6 * (1 + offset**2)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * 10)


def test_a_constant_channel_survives_batch_norm():
  x = np.full((2, 3, 3, 1), 7.0, np.float32)
  y, _, variance = norms.batch_norm(x, np.ones(1), np.zeros(1), 1e-5)
  assert np.isfinite(y).all()
  assert variance[0] >= 0


@pytest.mark.parametrize(
  ("function", "shape"),
  [
    (lambda x, k: convolutions.depthwise_conv(x, k), (3, 3, CHANNELS)),
    (lambda x, k: convolutions.conv(x, k), (3, 3, CHANNELS, 4)),
  ],
)
@pytest.mark.parametrize("backward", [False, True])
def test_only_the_cpu_program_avoids_convolutions(function, shape, backward):
  if backward:
    run = jax.grad(lambda x, k: (function(x, k) ** 2).sum(), (0, 1))
  else:
    run = function
  traced = jax.jit(run).trace(_image((4, 4)), jnp.ones(shape))
  text = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ("cpu", "tpu", "cuda")
  }
  assert "stablehlo.convolution" not in text["cpu"]
  # Forward, and with it the gradients of the image and of the kernel.
  count = 3 if backward else 1
  assert text["tpu"].count("stablehlo.convolution") == count
  assert text["cuda"].count("stablehlo.convolution") == count


def test_only_the_cpu_program_avoids_window_reductions():
  def loss(x):
    return (pools.max_pool(x, 3) + pools.avg_pool(x, 3)).sum()

  traced = jax.jit(jax.grad(loss)).trace(_image((4, 4)))
  tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
  cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
  assert "select_and_scatter" in tpu
  assert "select_and_scatter" not in cpu
  assert "reduce_window" not in cpu


def test_statistics_of_half_precision_are_summed_in_float32():
  x = np.random.default_rng(0).normal(3, 1, (16, 16, 16, 2))
  x = jnp.asarray(x, jnp.bfloat16)
  y, mean, variance = norms.batch_norm(x, np.ones(2), np.zeros(2), 1e-5)
  assert (y.dtype, mean.dtype) == (jnp.bfloat16, jnp.float32)
  exact = np.float64(x)
  np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-4)


def test_a_state_that_is_read_keeps_its_layout_on_a_tpu_and_only_there():
  def read(stack, place):
    return mixed.read_state([(stack, place)], 0)

  stack = jnp.arange(24.0).reshape(3, 1, 2, 2, 2)
  traced = jax.jit(read).trace(stack, jnp.int32(1))
  lowered = {
    name: traced.lower(lowering_platforms=(name,)).as_text()
    for name in ("tpu", "cpu", "cuda")
  }
  pinned = {name for name, text in lowered.items() if "Layout" in text}
  assert pinned == {"tpu"}
  np.testing.assert_array_equal(jax.jit(read)(stack, jnp.int32(1)), stack[1])
