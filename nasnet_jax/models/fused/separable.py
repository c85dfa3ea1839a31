"""The operation made of two fused layers, with its gradients."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.fused.backward import layer_backward
from nasnet_jax.models.fused.forward import layer_forward
from nasnet_jax.models.fused.geometry import LANES, SUBLANES, Geometry
from nasnet_jax.models.kernels import convolutions, norms

Array = jax.Array


class Layer(NamedTuple):
  """Weights of one of the two, of one example.

  Attributes:
    depthwise: f32[k, k, C].
    pointwise: f32[C, F].
    scale, bias: f32[F], of the batch norm.
  """

  depthwise: Array
  pointwise: Array
  scale: Array
  bias: Array


Moments = tuple[tuple[Array, Array], ...]  # of each layer, mean and variance


@dataclasses.dataclass(frozen=True)
class Options:
  """What is static.

  Attributes:
    stride: of the first layer; that of the second is 1.
    dilation: of both.
    epsilon: added to the variances.
    products: type in which products are made. XLA, too, rounds what a TPU
      multiplies to bfloat16 unless told otherwise.
    interpret: whether the kernels are interpreted, which any device can.
  """

  stride: int = 1
  dilation: int = 1
  epsilon: float = 1e-5
  products: Any = jnp.bfloat16
  interpret: bool = False


def misfit(
  shape: tuple[int, ...], features: int, stride: int, dtype: Any
) -> str | None:
  """Why the kernels do not take a map, or None if they do.

  Args:
    shape: [N, H, W, C] of the map that is read, folded.
    features: of the map that is made, folded.
  """
  n, height, width, channels = shape
  if dtype != jnp.float32:
    return f"maps are {jnp.dtype(dtype).name}, not float32"
  if n % SUBLANES or channels % LANES or features % LANES:
    return (
      f"{n} rows of {channels} channels that become {features} do not fill"
      f" registers of {SUBLANES} x {LANES}"
    )
  if height % stride or width % stride:
    return f"{height} x {width} pixels do not divide by the stride {stride}"
  return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def separable_conv(
  options: Options,
  x: Array,
  layers: tuple[Layer, ...],
  known: Moments | None = None,
) -> tuple[Array, Moments]:
  """For each layer: ReLU, depthwise kxk, 1x1, batch norm. On TPU by the
  kernels, elsewhere by the functions of `models.kernels`.

  Args:
    x: f32[N, H, W, C], folded (`models.folded`), which its width tells. See
      `misfit` for what fits.
    known: moments, if this batch was here before; else they are computed.

  Returns:
    y f32[N, H / stride, W / stride, F] and the moments [F] of each layer. No
    gradient flows through the moments, as with `norms.batch_norm`.
  """
  return _forward(options, x, layers, known)[0]


def _by_platform(options: Options, fused, plain, *arguments):
  fused, plain = (functools.partial(f, options) for f in (fused, plain))
  if options.interpret:
    return fused(*arguments)
  return lax.platform_dependent(*arguments, tpu=fused, default=plain)


def _forward(options, x, layers, known):
  found = _by_platform(options, _fused, _plain, x, layers, known)
  return found, (x, layers, found[1])


def _backward(options, saved, cotangents):
  gradients = _by_platform(
    options, _fused_gradients, _plain_gradients, *saved, cotangents[0]
  )
  return *gradients, None


separable_conv.defvjp(_forward, _backward)


def _plain(options, x, layers, known):
  fold, found = _fold_of(x, layers), []
  for i, layer in enumerate(layers):
    strides = (options.stride if i == 0 else 1,) * 2
    taps = folded.each(layer.depthwise, fold)
    x = convolutions.depthwise_conv(
      jax.nn.relu(x), taps, strides, options.dilation
    )
    x = convolutions.pointwise_conv(x, layer.pointwise)
    norm = (layer.scale, layer.bias)
    if known is None:
      x, *moments = norms.batch_norm(x, *norm, options.epsilon)
    else:
      moments = known[i]
      x = norms.batch_norm_again(x, *norm, *moments, options.epsilon)
    found.append(tuple(moments))
  return x, tuple(found)


def _plain_gradients(options, x, layers, moments, g):
  def run(x, layers):
    return _plain(options, x, layers, moments)[0]

  return jax.vjp(run, x, layers)[1](g)


def _fused(options, x, layers, known):
  read = _pixels_first(x)
  fold, found = _fold_of(x, layers), []
  affine = _untouched(read)
  for i, layer in enumerate(layers):
    geo = _geometry(options, i, read.shape, layer, fold)
    out = layer_forward(
      read,
      affine[:2],
      *_kernels(options, layer, fold),
      geo,
      interpret=options.interpret,
    )
    moments = _moments(out["sums"], geo, fold) if known is None else known[i]
    found.append(moments)
    read, affine = out["z"], _affine(layer, moments, options.epsilon, fold)
  y = read * affine[0] + affine[1]
  return _examples_first(y), tuple(found)


def _fused_gradients(options, x, layers, moments, g):
  g = _pixels_first(g)
  fold = _fold_of(x, layers)
  runs, against = _again(options, _pixels_first(x), layers, moments, fold, g)
  gradients = []
  for i, run in reversed(list(enumerate(runs))):
    layer, (mean, variance) = layers[i], moments[i]
    total, by_centred = (_folded_sum(s, fold) for s in against)
    inverse = lax.rsqrt(variance + options.epsilon)
    by_xhat = by_centred * inverse
    count = fold * g.shape[0] * g.shape[1] * g.shape[2]
    gain = layer.scale * inverse
    by_z = -gain * inverse * by_xhat / count
    slopes = jnp.stack([gain, by_z, -gain * total / count - by_z * mean])
    made = layer_backward(
      run.x,
      run.affine,
      *_kernels(options, layer, fold),
      run.p,
      g,
      folded.each(slopes, fold),
      run.geometry,
      options.interpret,
    )
    k, c = run.geometry.size, layer.pointwise.shape[0]
    taps = made["d"].sum(1).reshape(k, k, fold, c).sum(2)
    product = _own_blocks(made["k"], layer.pointwise.shape, fold)
    gradients.append(Layer(taps, product, by_xhat, total))
    g, against = made["x"], made["sums"]
  return _examples_first(g), tuple(reversed(gradients))


class _Run(NamedTuple):
  """What the backward pass of a layer needs of its forward pass."""

  geometry: Geometry
  x: Array
  affine: Array
  p: Array


def _again(options, x, layers, moments, fold, g):
  """-> (a run of each layer, sums of g for the last batch norm)."""
  runs, affine, last = [], _untouched(x), len(layers) - 1
  for i, (layer, known) in enumerate(zip(layers, moments, strict=True)):
    geo = _geometry(options, i, x.shape, layer, fold)
    out = layer_forward(
      x,
      affine[:2],
      *_kernels(options, layer, fold),
      geo,
      against=(g, folded.each(known[0], fold)[None]) if i == last else None,
      outputs=("p",) if i == last else ("z", "p"),
      interpret=options.interpret,
    )
    runs.append(_Run(geo, x, affine, out["p"]))
    if i < last:
      x, affine = out["z"], _affine(layer, known, options.epsilon, fold)
  return runs, out["sums"]


def _geometry(options: Options, i: int, shape, layer: Layer, fold: int):
  height, width, n, channels = shape
  features, size = fold * layer.scale.shape[0], layer.depthwise.shape[0]
  stride = options.stride if i == 0 else 1
  return Geometry(
    height, width, n, channels, features, size, stride, options.dilation
  )


def _kernels(options: Options, layer: Layer, fold: int):
  """(depthwise [k * k, 1, C], pointwise [C, F]) of a folded map."""
  taps = folded.each(layer.depthwise, fold)
  pointwise = folded.dense(layer.pointwise, fold).astype(options.products)
  return taps.reshape(-1, 1, taps.shape[-1]), pointwise


def _untouched(x: Array) -> Array:
  """Gain, shift and mean in front of the first layer."""
  ones = jnp.ones((1, x.shape[-1]))
  return jnp.concatenate([ones, 0 * ones, 0 * ones])


def _affine(layer: Layer, moments, epsilon: float, fold: int) -> Array:
  """f32[3, F]: gain and shift that normalise, and the mean."""
  mean, variance = moments
  gain = lax.rsqrt(variance + epsilon) * layer.scale
  rows = jnp.stack([gain, layer.bias - mean * gain, mean])
  return folded.each(rows, fold)


def _moments(sums: Array, geometry: Geometry, fold: int):
  height, width = geometry.out_side
  count = height * width * geometry.examples * fold
  mean, square = (_folded_sum(s, fold) / count for s in sums)
  return mean, jnp.maximum(square - mean * mean, 0.0)


def _folded_sum(sums: Array, fold: int) -> Array:
  """[N, F of a folded map] -> [F], over all examples."""
  return fold * folded.mean(sums.sum(0), fold)


def _own_blocks(product: Array, shape, fold: int) -> Array:
  """What `folded.dense` passes back: [C g, F g] -> [C, F]."""
  c, f = shape
  blocks = (
    product[i * c : (i + 1) * c, i * f : (i + 1) * f] for i in range(fold)
  )
  return sum(blocks)


def _fold_of(x: Array, layers) -> int:
  return x.shape[-1] // layers[0].pointwise.shape[0]


def _pixels_first(x: Array) -> Array:
  return x.transpose(1, 2, 0, 3)


def _examples_first(x: Array) -> Array:
  return x.transpose(2, 0, 1, 3)
