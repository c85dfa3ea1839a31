"""Convolutions, pools and batch normalisation with a lowering per platform.

TPU and GPU get plain `lax` convolutions and window reductions. XLA:CPU runs
those 20 to 100 times slower than it could where they are grouped, pooled
backwards, or stand in a loop, so on CPU they become shifted multiply-adds and
matrix products. `jax.lax.platform_dependent` chooses when the program is
lowered, so a TPU program compiled on a laptop gets the TPU form.

Shapes: images [N, H, W, C]; all padding is TensorFlow's SAME: at stride 2 the
odd pixel of padding goes to the bottom and right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata

from nasnet_jax.models import folded

Array = jax.Array
_NHWC = ("NHWC", "HWIO", "NHWC")


@jax.jit
def _identity(x):
  return x


def _call_identity(x):
  with set_xla_metadata(inlineable="false"):
    return _identity(x)


def materialise(x: Array) -> Array:
  """x, computed once and stored, on CPU; elsewhere simply x.

  XLA:CPU copies cheap producers into every consumer, and a chain of them (a
  sum of nine products, say) is then computed again for each. An optimisation
  barrier is gone before it fuses; a call that must not be inlined stays, and
  calling the identity costs nothing.
  """
  return lax.platform_dependent(x, cpu=_call_identity, default=lambda x: x)


def row_major(x: Array) -> Array:
  """x in the layout of its axes, on TPU; elsewhere simply x.

  For what is read out of a larger array: an operation that wants another
  layout gets a copy of x, and not of the whole array at every reading.
  """
  layout = Layout(tuple(range(x.ndim)))
  return lax.platform_dependent(
    x,
    tpu=functools.partial(with_layout_constraint, layouts=layout),
    default=lambda x: x,
  )


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
  """(before, after) of TensorFlow's SAME for one spatial axis, in pixels."""
  out = -(-size // stride)
  total = max((out - 1) * stride + kernel - size, 0)
  return total // 2, total - total // 2


def _effective(kernel: int, dilation: int) -> int:
  return (kernel - 1) * dilation + 1


def _pad(x: Array, shape, strides, dilation, value=0.0) -> Array:
  """x padded so that every window of a SAME operation lies inside it."""
  pads = [
    same_padding(size, _effective(k, dilation), s)
    for size, k, s in zip(x.shape[1:3], shape, strides, strict=True)
  ]
  return jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def _window(xp: Array, i: int, j: int, out_shape, strides) -> Array:
  """The pixels of the padded image that meet offset (i, j) of each window."""
  (h, w), (sh, sw) = out_shape, strides
  return lax.slice(
    xp,
    (0, i, j, 0),
    (xp.shape[0], i + (h - 1) * sh + 1, j + (w - 1) * sw + 1, xp.shape[3]),
    (1, sh, sw, 1),
  )


def _out_shape(x: Array, strides) -> tuple[int, int]:
  return -(-x.shape[1] // strides[0]), -(-x.shape[2] // strides[1])


def _offsets(shape, dilation):
  return [
    (i, j, i * dilation, j * dilation)
    for i in range(shape[0])
    for j in range(shape[1])
  ]


def _transpose_windows(contribution, x_shape, shape, strides, dilation, g):
  """Adjoint of "sum over window offsets": the gradient of the input.

  Computed phase by phase of the stride, so no zeros of a dilated g are
  multiplied.

  Args:
    contribution: (i, j, g_shifted) -> the summand of that offset.
    x_shape: shape of the input, [N, H, W, C].
    g: [N, H', W', C'], gradient of the output.
  """
  (sh, sw), (height, width) = strides, x_shape[1:3]
  lows = [
    same_padding(size, _effective(k, dilation), s)[0]
    for size, k, s in zip((height, width), shape, strides, strict=True)
  ]
  rows, columns = -(-height // sh), -(-width // sw)
  # An input pixel y receives from output (y + low - i * dilation) / stride.
  reach = [
    (_effective(k, dilation) - 1) // s + 1
    for k, s in zip(shape, strides, strict=True)
  ]
  widths = ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0))
  gp = _call_identity(jnp.pad(g, widths))
  phases = []
  for a in range(sh):
    for b in range(sw):
      total = None
      for i, j, di, dj in _offsets(shape, dilation):
        dy, dx = a + lows[0] - di, b + lows[1] - dj
        if dy % sh or dx % sw:
          continue
        y0, x0 = dy // sh + reach[0], dx // sw + reach[1]
        part = contribution(i, j, gp[:, y0 : y0 + rows, x0 : x0 + columns])
        total = part if total is None else total + part
      phases.append(total)
  like = next(p for p in phases if p is not None)
  phases = [jnp.zeros_like(like) if p is None else p for p in phases]
  if len(phases) == 1:
    return phases[0]
  n, c = like.shape[0], like.shape[-1]
  grid = jnp.stack(phases, 3).reshape(n, rows, columns, sh, sw, c)
  full = grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * sh, columns * sw, c)
  return full[:, :height, :width]


def _sum_keeping_examples(operands: list[Array]) -> tuple[Array, ...]:
  """Each [N, H, W, C] summed over H and W, in one pass over memory.

  XLA:CPU runs separate reductions of fused products one after the other, each
  reading its operands again; one variadic reduction reads them once. Keeping
  N lets it use all cores.
  """
  zeros = tuple(np.zeros((), x.dtype) for x in operands)
  return lax.reduce(
    tuple(operands),
    zeros,
    lambda a, b: tuple(u + v for u, v in zip(a, b, strict=True)),
    (1, 2),
  )


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
  xp = _call_identity(_pad(x, kernel.shape[:2], strides, dilation))
  out = _out_shape(x, strides)
  return sum(
    _window(xp, di, dj, out, strides) * kernel[i, j]
    for i, j, di, dj in _offsets(kernel.shape, dilation)
  )


def _shifted_depthwise_backward(x, kernel, g, strides, dilation):
  shape, g = kernel.shape[:2], _call_identity(g)
  dx = _transpose_windows(
    lambda i, j, gs: gs * kernel[i, j], x.shape, shape, strides, dilation, g
  )
  xp = _call_identity(_pad(x, shape, strides, dilation))
  products = [
    _window(xp, di, dj, g.shape[1:3], strides) * g
    for _, _, di, dj in _offsets(shape, dilation)
  ]
  sums = jnp.stack(_sum_keeping_examples(products)).sum(1)
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
  xp = _pad(x, shape, strides, dilation)
  out = _out_shape(x, strides)
  windows = [
    _window(xp, di, dj, out, strides)
    for _, _, di, dj in _offsets(shape, dilation)
  ]
  columns = jnp.concatenate(windows, -1)
  return columns.reshape(-1, columns.shape[-1])


def _matmul_conv(x, kernel, strides, dilation):
  shape = kernel.shape[:2]
  out = _out_shape(x, strides)
  if x.shape[-1] <= _FEW_CHANNELS:
    columns = _columns(x, shape, strides, dilation)
    y = columns @ kernel.reshape(-1, kernel.shape[-1])
    return y.reshape(x.shape[0], *out, -1)
  xp = _call_identity(_pad(x, shape, strides, dilation))
  total = sum(
    pointwise_conv(_window(xp, di, dj, out, strides), kernel[i, j])
    for i, j, di, dj in _offsets(shape, dilation)
  )
  return _call_identity(total)


def _matmul_conv_backward(x, kernel, g, strides, dilation):
  shape, g = kernel.shape[:2], _call_identity(g)
  dx = _transpose_windows(
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
  xp = _call_identity(_pad(x, shape, strides, dilation))
  dk = [
    _window(xp, di, dj, g.shape[1:3], strides).reshape(-1, x.shape[-1]).T @ flat
    for _, _, di, dj in _offsets(shape, dilation)
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


def zero_padded_pool(x: Array, kind: str, size: int, stride: int) -> Array:
  """Pooling as Keras's NASNet has it at stride 2: zeros stand where SAME
  pads, they can be the maximum, and the average counts them.

  Args:
    kind: "max" or "avg".
  """
  xp = _pad(x, (size, size), (stride, stride), 1)
  window, steps = (1, size, size, 1), (1, stride, stride, 1)
  if kind == "max":
    return lax.reduce_window(xp, -np.inf, lax.max, window, steps, "VALID")
  total = lax.reduce_window(xp, 0.0, lax.add, window, steps, "VALID")
  return total / (size * size)


def _window_max(x, shape, strides):
  """SAME max pool as a plain window reduction; padding never wins."""
  window, steps = (1, *shape, 1), (1, *strides, 1)
  return lax.reduce_window(x, -np.inf, lax.max, window, steps, "SAME")


def _shifted_max(x, shape, strides):
  xp = _call_identity(_pad(x, shape, strides, 1, -np.inf))
  out = _out_shape(x, strides)
  windows = [
    _window(xp, i, j, out, strides) for i, j, _, _ in _offsets(shape, 1)
  ]
  return functools.reduce(jnp.maximum, windows)


def _shifted_max_backward(x, g, shape, strides):
  """Each output's gradient goes to the first pixel that attains the maximum.

  That is select_and_scatter's rule. Sending it to all of them would multiply
  gradients on flat backgrounds, where ties are the normal case.
  """
  xp, g = _call_identity(_pad(x, shape, strides, 1, -np.inf)), _call_identity(g)
  out = g.shape[1:3]
  offsets = _offsets(shape, 1)
  best = _window(xp, 0, 0, out, strides)
  winner = jnp.zeros(g.shape, jnp.int32)
  for number, (i, j, _, _) in enumerate(offsets[1:], start=1):
    pixel = _window(xp, i, j, out, strides)
    winner = jnp.where(pixel > best, number, winner)
    best = jnp.maximum(pixel, best)
  numbers = {(i, j): number for number, (i, j, _, _) in enumerate(offsets)}
  # Both travel through one transpose: the winner rides along as a channel.
  both = jnp.concatenate([g, winner.astype(g.dtype)], -1)

  def contribution(i, j, shifted):
    gs, ws = jnp.split(shifted, 2, -1)
    return jnp.where(ws == numbers[i, j], gs, 0)

  return _transpose_windows(contribution, x.shape, shape, strides, 1, both)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool_1d(x, shape, strides):
  return lax.platform_dependent(
    x,
    cpu=functools.partial(_shifted_max, shape=shape, strides=strides),
    default=functools.partial(_window_max, shape=shape, strides=strides),
  )


def _max_fwd(x, shape, strides):
  return _max_pool_1d(x, shape, strides), x


def _max_bwd(shape, strides, x, g):
  def plain(x, g):
    forward = functools.partial(_window_max, shape=shape, strides=strides)
    return jax.vjp(forward, x)[1](g)[0]

  backward = functools.partial(
    _shifted_max_backward, shape=shape, strides=strides
  )
  return (lax.platform_dependent(x, g, cpu=backward, default=plain),)


_max_pool_1d.defvjp(_max_fwd, _max_bwd)


def max_pool(x: Array, size: int, stride: int = 1) -> Array:
  """[N, H, W, C] -> [N, ceil(H/s), ceil(W/s), C], SAME.

  Rows, then columns: 2k comparisons instead of k * k, and the same winner
  among ties (the first in row-major order).
  """
  x = _max_pool_1d(x, (1, size), (1, stride))
  return _max_pool_1d(x, (size, 1), (stride, 1))


def _window_counts(x_shape, size, stride) -> Array:
  """float32[1, H', W', 1]: pixels of each SAME window inside the image.

  Computed in the program: an array of constants would be hoisted out of the
  switches, and `custom_vmap` refuses constants that a `cond` has batched.
  """

  def along(length):
    low, _ = same_padding(length, size, stride)
    starts = jnp.arange(-(-length // stride)) * stride - low
    ends = jnp.minimum(starts + size, length)
    return ends - jnp.maximum(starts, 0)

  counts = along(x_shape[1])[:, None] * along(x_shape[2])[None]
  return counts[None, :, :, None].astype(jnp.float32)


def _window_sum(x, size, stride):
  window, steps = (1, size, size, 1), (1, stride, stride, 1)
  return lax.reduce_window(x, 0.0, lax.add, window, steps, "SAME")


def _shifted_sum(x, size, stride):
  shape, strides = (size, size), (stride, stride)
  xp = _call_identity(_pad(x, shape, strides, 1))
  out = _out_shape(x, strides)
  return sum(
    _window(xp, i, j, out, strides) for i, j, _, _ in _offsets(shape, 1)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def avg_pool(x: Array, size: int, stride: int = 1) -> Array:
  """[N, H, W, C] -> [N, ceil(H/s), ceil(W/s), C]; padding is not counted."""
  total = lax.platform_dependent(
    x,
    cpu=functools.partial(_shifted_sum, size=size, stride=stride),
    default=functools.partial(_window_sum, size=size, stride=stride),
  )
  return total * (1 / _window_counts(x.shape, size, stride)).astype(x.dtype)


def _avg_fwd(x, size, stride):
  # Only the shape of x matters to the backward pass; an empty slice carries
  # it without keeping x alive.
  return avg_pool(x, size, stride), x[:0]


def _avg_bwd(size, stride, empty, g):
  x_shape = (g.shape[0], *empty.shape[1:])
  g = g * (1 / _window_counts(x_shape, size, stride)).astype(g.dtype)

  def shifted(g):
    def keep(i, j, gs):
      return gs

    shape, strides = (size, size), (stride, stride)
    return _transpose_windows(keep, x_shape, shape, strides, 1, g)

  def plain(g):
    forward = functools.partial(_window_sum, size=size, stride=stride)
    return jax.linear_transpose(
      forward, jax.ShapeDtypeStruct(x_shape, g.dtype)
    )(g)[0]

  return (lax.platform_dependent(g, cpu=shifted, default=plain),)


avg_pool.defvjp(_avg_fwd, _avg_bwd)


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
  means = [
    folded.mean(s.sum(0) / (n * h * w), g)
    for s in _sum_keeping_examples(operands)
  ]
  if not axis_name:
    return means
  return [_mean_over_devices(m, axis_name) for m in means]


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
  x = materialise(x)
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
  g = materialise(cotangents[0]).astype(jnp.float32)
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
  return _normalise(materialise(x), scale, bias, mean, variance, epsilon)


def _again_bwd(epsilon, axis_name, saved, g):
  grads = _batch_norm_bwd(epsilon, axis_name, saved, (g,))
  return *grads, None, None


batch_norm_again.defvjp(_again_fwd, _again_bwd)
