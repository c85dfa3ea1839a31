"""The operation made of two fused layers, with its gradients."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.fused.backward import layer_backward
from nasnet_jax.models.fused.forward import (
  VMEM_BYTES,
  Weights,
  layer_forward,
)
from nasnet_jax.models.fused.geometry import LANES, SUBLANES, Geometry
from nasnet_jax.models.fused.norm import Norm
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


_MAPS = (
  4  # as large as the larger one, that the backward kernel holds at a time
)
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
  held = _MAPS * 4 * n * height * width * max(channels, features)
  if held > VMEM_BYTES:
    return f"maps of {height} x {width} pixels do not stay in VMEM"
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
  read, affine, found = _pixels_first(x), None, []
  for i, layer in enumerate(layers):
    norm = _norm(layer, None if known is None else known[i])
    out = layer_forward(
      read,
      affine,
      _weights(layer),
      _geometry(options, i, read.shape, layer),
      options.epsilon,
      norm,
      products=options.products,
      interpret=options.interpret,
    )
    read, affine = out["z"], out["affine"]
    found.append(
      (out["mean"][0], out["variance"][0]) if known is None else known[i]
    )
  y = read * affine[0] + affine[1]
  return _examples_first(y), tuple(found)


def _fused_gradients(options, x, layers, moments, g):
  g = _pixels_first(g)
  runs, after = _again(options, _pixels_first(x), layers, moments, g)
  gradients = []
  for i in reversed(range(len(layers))):
    run = runs[i]
    out = layer_backward(
      run.x,
      run.affine,
      _weights(layers[i]),
      run.geometry,
      options.epsilon,
      _norm(layers[i - 1], moments[i - 1]) if i else None,
      run.p,
      g,
      after["slopes"],
      options.interpret,
    )
    taps = out["depthwise"].reshape(layers[i].depthwise.shape)
    norm = (after["scale"][0], after["bias"][0])
    gradients.append(Layer(taps, out["pointwise"], *norm))
    g, after = out["x"], out
  return _examples_first(g), tuple(reversed(gradients))


class _Run(NamedTuple):
  """What the backward pass of a layer needs of its forward pass."""

  geometry: Geometry
  x: Array
  affine: Array | None
  p: Array


def _again(options, x, layers, moments, g):
  """-> (a run of each layer, what the kernel says of the last batch norm)."""
  runs, affine, last = [], None, len(layers) - 1
  for i, layer in enumerate(layers):
    geo = _geometry(options, i, x.shape, layer)
    out = layer_forward(
      x,
      affine,
      _weights(layer),
      geo,
      options.epsilon,
      _norm(layer, moments[i]),
      g if i == last else None,
      ("p",) if i == last else ("z", "p"),
      options.products,
      options.interpret,
    )
    runs.append(_Run(geo, x, affine, out["p"]))
    if i < last:
      x, affine = out["z"], out["affine"]
  return runs, out


def _geometry(options: Options, i: int, shape, layer: Layer) -> Geometry:
  height, width, n, channels = shape
  fold = channels // layer.pointwise.shape[0]
  features, size = fold * layer.scale.shape[0], layer.depthwise.shape[0]
  stride = options.stride if i == 0 else 1
  return Geometry(
    height, width, n, channels, features, fold, size, stride, options.dilation
  )


def _weights(layer: Layer) -> Weights:
  taps = layer.depthwise.reshape(-1, layer.depthwise.shape[-1])
  return Weights(taps, layer.pointwise)


def _norm(layer: Layer, moments) -> Norm:
  rows = (layer.scale, layer.bias, *(moments or ()))
  return Norm(*(row[None] for row in rows))


def _fold_of(x: Array, layers) -> int:
  return x.shape[-1] // layers[0].pointwise.shape[0]


def _pixels_first(x: Array) -> Array:
  return x.transpose(1, 2, 0, 3)


def _examples_first(x: Array) -> Array:
  return x.transpose(2, 0, 1, 3)
