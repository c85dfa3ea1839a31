"""Batch normalisation, and the same again from known statistics."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.kernels import memory

Array = jax.Array


def _mean_over_devices(x, axis_name):
  """axis_name: a mesh axis, or (axis, groups of its members)."""
  if isinstance(axis_name, tuple):
    axis, groups = axis_name
    return lax.pmean(x, axis, axis_index_groups=groups)
  return lax.pmean(x, axis_name)


def _mean_over_batch(operands: list[Array], axis_name, g: int) -> list[Array]:
  """Means over [N, H, W] of each operand, folded by g (`models.folded`), over
  all members of axis_name."""
  n, h, w, _ = operands[0].shape
  sums = lax.platform_dependent(*operands, cpu=_sums_on_cpu, default=_sums)
  means = [folded.mean(s / (n * h * w), g) for s in sums]
  if not axis_name:
    return means
  return [_mean_over_devices(m, axis_name) for m in means]


def _sums_on_cpu(*operands: Array) -> tuple[Array, ...]:
  return tuple(s.sum(0) for s in memory.sum_keeping_examples(operands))


def _sums(*operands: Array) -> tuple[Array, ...]:
  # One reduction each: a TPU's compiler joins those to the product before, but
  # not one of several operands.
  return tuple(x.sum((0, 1, 2)) for x in operands)


def _fold_of(x, scale) -> int:
  return x.shape[-1] // scale.shape[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
  x: Array, scale: Array, bias: Array, epsilon: float, axis_name=None
) -> tuple[Array, Array, Array]:
  """Normalises by the statistics of the batch.

  Args:
    x: [N, H, W, C], or folded (`models.folded`), which its width tells.
    scale, bias: [C].
    axis_name: mesh axis over which statistics are shared, or (axis, groups of
      its members), or None.

  Returns:
    y like x, mean [C], biased variance [C]. No gradient flows through
    the last two, they are for the running statistics.
  """
  return _batch_norm_fwd(x, scale, bias, epsilon, axis_name)[0]


def _batch_norm_fwd(x, scale, bias, epsilon, axis_name):
  x = memory.materialise(x)
  f32 = x.astype(jnp.float32)
  mean, square = _mean_over_batch(
    [f32, f32 * f32], axis_name, _fold_of(x, scale)
  )
  variance = jnp.maximum(square - mean * mean, 0.0)
  y, saved = _normalise(x, scale, bias, mean, variance, epsilon)
  return (y, mean, variance), saved


def _normalise(x, scale, bias, mean, variance, epsilon):
  each = functools.partial(folded.each, g=_fold_of(x, scale))
  inverse = lax.rsqrt(variance + epsilon)
  gain = inverse * scale
  y = x.astype(jnp.float32) * each(gain) + each(bias - mean * gain)
  return y.astype(x.dtype), (x, scale, mean, inverse)


def _batch_norm_bwd(epsilon, axis_name, saved, cotangents):
  del epsilon
  x, scale, mean, inverse = saved
  fold = _fold_of(x, scale)
  each = functools.partial(folded.each, g=fold)
  g = memory.materialise(cotangents[0]).astype(jnp.float32)
  xhat = (x.astype(jnp.float32) - each(mean)) * each(inverse)
  local_g, local_gx = _mean_over_batch([g, g * xhat], None, fold)
  mean_g, mean_gx = local_g, local_gx
  if axis_name:
    mean_g, mean_gx = _mean_over_devices((local_g, local_gx), axis_name)
  dx = each(scale * inverse) * (g - each(mean_g) - xhat * each(mean_gx))
  count = x.shape[0] * x.shape[1] * x.shape[2] * fold
  return dx.astype(x.dtype), local_gx * count, local_g * count


batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def batch_norm_again(
  x: Array,
  scale: Array,
  bias: Array,
  mean: Array,
  variance: Array,
  epsilon: float,
  axis_name=None,
) -> Array:
  """`batch_norm` of a batch whose mean and variance [C] are already known.

  For a backward pass that computes activations again: same result, same
  gradients, no pass over x and no collective for the statistics.
  """
  return _normalise(x, scale, bias, mean, variance, epsilon)[0]


def _again_fwd(x, scale, bias, mean, variance, epsilon, axis_name):
  del axis_name
  return _normalise(memory.materialise(x), scale, bias, mean, variance, epsilon)


def _again_bwd(epsilon, axis_name, saved, g):
  grads = _batch_norm_bwd(epsilon, axis_name, saved, (g,))
  return *grads, None, None


batch_norm_again.defvjp(_again_fwd, _again_bwd)
