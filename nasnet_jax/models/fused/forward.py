"""The forward kernel of a layer: normalise, ReLU, depthwise, 1x1, sums."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from nasnet_jax.models.fused import norm
from nasnet_jax.models.fused.geometry import Geometry, lane_tiles

Array = jax.Array
VMEM_BYTES = 100 * 2**20  # of 128 MiB


class Weights(NamedTuple):
  """Of one layer and one example: depthwise f32[k * k, C], pointwise
  f32[C, F]."""

  depthwise: Array
  pointwise: Array


def layer_forward(
  x: Array,
  affine: Array | None,
  weights: Weights,
  geometry: Geometry,
  epsilon: float,
  batch_norm: norm.Norm,
  g: Array | None = None,
  maps: tuple[str, ...] = ("z",),
  products: Any = jnp.bfloat16,
  interpret: bool = False,
) -> dict[str, Array]:
  """One layer: ReLU of x * gain + shift, depthwise kxk, 1x1; and what the batch
  norm after it needs.

  Args:
    x: f32[H, W, N, C].
    affine: f32[3, C], of which gain and shift are the first two; None: x is not
      normalised.
    batch_norm: the one after the layer; with moments, if they are known.
    g: f32[H', W', N, F], the gradient of the batch norm's output, for a
      backward pass.
    maps: "z": f32[H', W', N, F], the layer's output; "p": [H', W' * N, C] in
      the type of products, the depthwise convolution's.

  Returns:
    The maps by name, and:
      without g: "affine" f32[3, F], gain, shift and mean, for the next layer;
      if moments were not known: "mean" and "variance" f32[1, F / fold];
      with g: "slopes" f32[3, F], see `norm.slopes`, and "scale" and "bias",
      f32[1, F / fold], the gradients of these.
  """
  geo = geometry
  height, width = geo.out_side
  rows, n, features = geo.rows // geo.stride, geo.examples, geo.features
  arrays = {"x": x, **weights._asdict(), **batch_norm._asdict()}
  arrays |= {"affine": affine, "g": g}
  arrays = {name: a for name, a in arrays.items() if a is not None}
  specs = {
    "x": rows_of_step((geo.rows, *x.shape[1:]), geo.steps),
    "g": finished_rows((rows, width, n, features)),
  }
  made = {
    "z": ((height, width, n, features), jnp.float32),
    "p": ((height, width * n, geo.channels), products),
  }
  made = {name: made[name] for name in maps}
  out_specs = [finished_rows((rows, *s[1:])) for s, _ in made.values()]
  small = ((1, features // geo.fold), jnp.float32)
  if g is not None:
    made |= {"slopes": ((3, features), jnp.float32)}
    made |= {"scale": small, "bias": small}
  else:
    made["affine"] = ((3, features), jnp.float32)
    if batch_norm.mean is None:
      made |= {"mean": small, "variance": small}
  out_specs += [whole(s) for s, _ in list(made.values())[len(out_specs) :]]
  scratch = {
    "u": ((*geo.padded, n, geo.channels), jnp.float32),
    "d": ((geo.size**2, n, geo.channels), jnp.float32),
    "k": ((geo.channels, features), products),
    "sums": ((2, n, features), jnp.float32),
    "centre": ((1, features), jnp.float32),
  }
  names = (*arrays, *(f"out_{name}" for name in made), *scratch)
  found = pl.pallas_call(
    functools.partial(_kernel, geo, epsilon, names),
    grid=(geo.steps + 1,),
    in_specs=[specs.get(name, whole(a.shape)) for name, a in arrays.items()],
    out_specs=out_specs,
    out_shape=[jax.ShapeDtypeStruct(*shape) for shape in made.values()],
    scratch_shapes=[pltpu.VMEM(*shape) for shape in scratch.values()],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_BYTES),
    interpret=interpret,
    name=f"separable_{geo.size}x{geo.size}_forward",
  )(*arrays.values())
  return dict(zip(made, found, strict=True))


def whole(shape) -> pl.BlockSpec:
  """The whole array, the same for all steps."""
  return pl.BlockSpec(shape, lambda step: (0,) * len(shape))


def rows_of_step(shape, steps: int) -> pl.BlockSpec:
  """A map's rows, as many as the shape has, that a step reads."""
  rest = [0] * (len(shape) - 1)
  return pl.BlockSpec(shape, lambda s: (jnp.minimum(s, steps - 1), *rest))


def finished_rows(shape) -> pl.BlockSpec:
  """Those that it finishes: what the step before it has read."""
  rest = [0] * (len(shape) - 1)
  return pl.BlockSpec(shape, lambda s: (jnp.maximum(s - 1, 0), *rest))


def _kernel(geo: Geometry, epsilon: float, names, *refs):
  ref = dict(zip(names, refs, strict=True))
  step = pl.program_id(0)

  @pl.when(step == 0)
  def _():
    clear_border(ref["u"], geo.pads)
    fold_weights(geo, ref)
    ref["sums"][...] = jnp.zeros_like(ref["sums"])
    if "g" in ref:
      ref["centre"][...] = norm.each(ref["mean"][...], geo.features)

  @pl.when(step < geo.steps)
  def _():
    read_rows(geo, ref, step)

  @pl.when(step > 0)
  def _():
    _finish_rows(geo, ref, step - 1)

  @pl.when(step == geo.steps)
  def _():
    _finish(geo, epsilon, ref)


def fold_weights(geo: Geometry, ref):
  """Weights as a folded map meets them, a tap as often as rows do."""
  taps = norm.each(ref["depthwise"][...], geo.channels)
  for i in range(geo.size**2):
    row = taps[i : i + 1]
    ref["d"][i] = jnp.broadcast_to(row, (geo.examples, geo.channels))
  kernel = norm.dense(ref["pointwise"][...], (geo.channels, geo.features))
  ref["k"][...] = kernel.astype(ref["k"].dtype)


def known_norm(ref) -> norm.Norm:
  """The batch norm whose scale and moments were given."""
  names = norm.Norm._fields
  return norm.Norm(*(ref[n][...] if n in ref else None for n in names))


def _finish(geo: Geometry, epsilon: float, ref):
  sums, known = ref["sums"][...].sum(1), known_norm(ref)
  if "g" in ref:
    slopes, scale, bias = norm.slopes(sums, known, epsilon, geo.pixels)
    ref["out_slopes"][...] = slopes
    ref["out_scale"][...], ref["out_bias"][...] = scale, bias
    return
  if known.mean is None:
    mean, variance = norm.moments(sums, geo.features // geo.fold, geo.pixels)
    ref["out_mean"][...], ref["out_variance"][...] = mean, variance
    known = known._replace(mean=mean, variance=variance)
  ref["out_affine"][...] = norm.affine(known, epsilon, geo.features)


def clear_border(ref, pads):
  """Zeros where the window reaches beyond the map."""
  (top, bottom), (left, right) = pads
  height, width = ref.shape[:2]
  for rows, count in ((0, top), (height - bottom, bottom)):
    if count:
      zeros = jnp.zeros((count, *ref.shape[1:]), ref.dtype)
      ref[rows : rows + count] = zeros
  for columns, count in ((0, left), (width - right, right)):
    if count:
      zeros = jnp.zeros((height, count, *ref.shape[2:]), ref.dtype)
      ref[:, columns : columns + count] = zeros


def read_rows(geo: Geometry, ref, step):
  """Normalised and through the ReLU, into the padded map; as it is, too, where
  that is wanted."""
  (top, _), (left, _) = geo.pads

  def row(h, _):
    y = ref["x"][h]
    if "xs" in ref:
      ref["xs"][step * geo.rows + h] = y
    if "affine" in ref:
      y = y * ref["affine"][0:1] + ref["affine"][1:2]
    y = jnp.maximum(y, 0.0)
    ref["u"][step * geo.rows + h + top, left : left + geo.width] = y
    return 0

  jax.lax.fori_loop(0, geo.rows, row, 0)


def _finish_rows(geo: Geometry, ref, block):
  width, n = geo.out_side[1], geo.examples
  rows = geo.rows // geo.stride

  def row(h, sums):
    for first, count in geo.chunks(width):
      p = depthwise(geo, ref["u"], ref["d"], block * rows + h, first, count)
      p = p.astype(ref["k"].dtype)
      if "out_p" in ref:
        ref["out_p"][h, first * n : (first + count) * n] = p
      z = jnp.dot(p, ref["k"][...], preferred_element_type=jnp.float32)
      for u in range(count):
        sums = _pixel(ref, h, first + u, z[u * n : u * n + n], sums)
    return sums

  zeros = (jnp.zeros((n, geo.features), jnp.float32),) * 2
  found = jax.lax.fori_loop(0, rows, row, zeros)
  for i, values in enumerate(found):
    ref["sums"][i] += values


def _pixel(ref, h, w, z, sums):
  """Stores a pixel [N, F] where it is wanted; sums with it."""
  if "out_z" in ref:
    ref["out_z"][h, w] = z
  if "g" in ref:
    g = ref["g"][h, w]
    return sums[0] + g, sums[1] + g * (z - ref["centre"][...])
  return sums[0] + z, sums[1] + z * z


def depthwise(geo: Geometry, u, d, h, first: int, count: int) -> Array:
  """[count * N, C]: pixels of the output's row h, from the padded map u."""
  tiles = []
  for lanes in lane_tiles(geo.channels):
    sums: list = [None] * count
    for i in range(geo.size):
      row = h * geo.stride + i * geo.dilation
      pixels: dict = {}
      for j in range(geo.size):
        tap = d[i * geo.size + j, :, lanes]
        for w in range(count):
          at = (first + w) * geo.stride + j * geo.dilation
          if at not in pixels:
            pixels[at] = u[row, at, :, lanes]
          part = pixels[at] * tap
          sums[w] = part if sums[w] is None else sums[w] + part
    tiles.append(jnp.concatenate(sums))
  return tiles[0] if len(tiles) == 1 else jnp.concatenate(tiles, -1)
