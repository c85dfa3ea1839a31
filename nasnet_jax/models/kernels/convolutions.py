"""Convolutions: depthwise, pointwise, dense."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.kernels import memory, windows

Array = jax.Array
_NHWC = ("NHWC", "HWIO", "NHWC")


def _plain_depthwise(x, kernel, strides, dilation):
  return lax.conv_general_dilated(
    x,
    kernel[:, :, None, :],
    strides,
    "SAME",
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_NHWC,
    feature_group_count=x.shape[-1],
  )


def _shifted_depthwise(x, kernel, strides, dilation):
  xp = memory.stored_on_cpu(windows.pad(x, kernel.shape[:2], strides, dilation))
  out = windows.out_shape(x, strides)
  return sum(
    windows.window(xp, di, dj, out, strides) * kernel[i, j]
    for i, j, di, dj in windows.offsets(kernel.shape, dilation)
  )


def _shifted_depthwise_backward(x, kernel, g, strides, dilation):
  shape, g = kernel.shape[:2], memory.stored_on_cpu(g)
  dx = windows.transpose_windows(
    lambda i, j, gs: gs * kernel[i, j], x.shape, shape, strides, dilation, g
  )
  xp = memory.stored_on_cpu(windows.pad(x, shape, strides, dilation))
  products = [
    windows.window(xp, di, dj, g.shape[1:3], strides) * g
    for _, _, di, dj in windows.offsets(shape, dilation)
  ]
  sums = jnp.stack(memory.sum_keeping_examples(products)).sum(1)
  return dx, sums.reshape(kernel.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
  x: Array, kernel: Array, strides=(1, 1), dilation: int = 1
) -> Array:
  """[N, H, W, C] * [kh, kw, C] -> [N, ceil(H/s), ceil(W/s), C], SAME."""
  options = {"strides": strides, "dilation": dilation}
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_shifted_depthwise, **options),
    default=functools.partial(_plain_depthwise, **options),
  )


def _depthwise_fwd(x, kernel, strides, dilation):
  return depthwise_conv(x, kernel, strides, dilation), (x, kernel)


def _depthwise_bwd(strides, dilation, saved, g):
  x, kernel = saved
  options = {"strides": strides, "dilation": dilation}

  def plain(x, kernel, g):
    forward = functools.partial(_plain_depthwise, **options)
    return jax.vjp(forward, x, kernel)[1](g)

  return lax.platform_dependent(
    x,
    kernel,
    g,
    cpu=functools.partial(_shifted_depthwise_backward, **options),
    default=plain,
  )


depthwise_conv.defvjp(_depthwise_fwd, _depthwise_bwd)


def pointwise_conv(x: Array, kernel: Array) -> Array:
  """[N, H, W, C] * [C, F] -> [N, H, W, F]: one matrix product. A map may be
  folded (`models.folded`), which its width tells.

  Flattened by hand: XLA:CPU takes twice as long for the kernel's gradient of
  the four-dimensional contraction. Folded maps are for the TPU, whose compiler
  counts a third less cycles without that.
  """
  fold = x.shape[-1] // kernel.shape[0]
  if fold > 1:
    return jnp.tensordot(x, folded.dense(kernel, fold), 1)
  flat = x.reshape(-1, x.shape[-1]) @ kernel
  return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _plain_conv(x, kernel, strides, dilation):
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    "SAME",
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_NHWC,
  )


# With so few channels one product of gathered pixels beats one per offset.
_FEW_CHANNELS = 8


def _columns(x, shape, strides, dilation) -> Array:
  """[N * H' * W', kh * kw * C], the pixels of each window side by side."""
  xp = windows.pad(x, shape, strides, dilation)
  out = windows.out_shape(x, strides)
  pixels = [
    windows.window(xp, di, dj, out, strides)
    for _, _, di, dj in windows.offsets(shape, dilation)
  ]
  columns = jnp.concatenate(pixels, -1)
  return columns.reshape(-1, columns.shape[-1])


def _matmul_conv(x, kernel, strides, dilation):
  shape = kernel.shape[:2]
  out = windows.out_shape(x, strides)
  if x.shape[-1] <= _FEW_CHANNELS:
    columns = _columns(x, shape, strides, dilation)
    y = columns @ kernel.reshape(-1, kernel.shape[-1])
    return y.reshape(x.shape[0], *out, -1)
  xp = memory.stored_on_cpu(windows.pad(x, shape, strides, dilation))
  total = sum(
    pointwise_conv(windows.window(xp, di, dj, out, strides), kernel[i, j])
    for i, j, di, dj in windows.offsets(shape, dilation)
  )
  return memory.stored_on_cpu(total)


def _matmul_conv_backward(x, kernel, g, strides, dilation):
  shape, g = kernel.shape[:2], memory.stored_on_cpu(g)
  dx = windows.transpose_windows(
    lambda i, j, gs: pointwise_conv(gs, kernel[i, j].T),
    x.shape,
    shape,
    strides,
    dilation,
    g,
  )
  flat = g.reshape(-1, g.shape[-1])
  if x.shape[-1] <= _FEW_CHANNELS:
    dk = _columns(x, shape, strides, dilation).T @ flat
    return dx, dk.reshape(kernel.shape)
  xp = memory.stored_on_cpu(windows.pad(x, shape, strides, dilation))
  dk = [
    windows.window(xp, di, dj, g.shape[1:3], strides).reshape(-1, x.shape[-1]).T
    @ flat
    for _, _, di, dj in windows.offsets(shape, dilation)
  ]
  return dx, jnp.stack(dk).reshape(kernel.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: Array, kernel: Array, strides=(1, 1), dilation: int = 1) -> Array:
  """[N, H, W, C] * [kh, kw, C, F] -> [N, ceil(H/s), ceil(W/s), F], SAME."""
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_matmul_conv, strides=strides, dilation=dilation),
    default=functools.partial(_plain_conv, strides=strides, dilation=dilation),
  )


def _conv_fwd(x, kernel, strides, dilation):
  return conv(x, kernel, strides, dilation), (x, kernel)


def _conv_bwd(strides, dilation, saved, g):
  x, kernel = saved

  def plain(x, kernel, g):
    forward = functools.partial(_plain_conv, strides=strides, dilation=dilation)
    return jax.vjp(forward, x, kernel)[1](g)

  return lax.platform_dependent(
    x,
    kernel,
    g,
    cpu=functools.partial(
      _matmul_conv_backward, strides=strides, dilation=dilation
    ),
    default=plain,
  )


conv.defvjp(_conv_fwd, _conv_bwd)


def valid_conv(x: Array, kernel: Array, strides=(1, 1)) -> Array:
  """[N, H, W, C] * [kh, kw, C, F] -> [N, (H-kh)//s + 1, (W-kw)//s + 1, F].

  Without padding, as ImageNet stems have it. It stands outside of loops, so
  XLA's own convolution is fast on CPU too.
  """
  return lax.conv_general_dilated(
    x, kernel, strides, "VALID", dimension_numbers=_NHWC
  )
