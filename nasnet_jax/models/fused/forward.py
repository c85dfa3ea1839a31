"""The forward kernel of a layer: normalise, ReLU, depthwise, 1x1, sums."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from nasnet_jax.models.fused.geometry import Geometry, lane_tiles

Array = jax.Array
VMEM_BYTES = 100 * 2**20  # of 128 MiB


def layer_forward(
  x: Array,
  affine: Array,
  depthwise: Array,
  pointwise: Array,
  geometry: Geometry,
  against: tuple[Array, Array] | None = None,
  outputs: tuple[str, ...] = ("z",),
  interpret: bool = False,
) -> dict[str, Array]:
  """One layer: ReLU of x * gain + shift, depthwise kxk, 1x1, sums.

  Args:
    x: f32[H, W, N, C].
    affine: f32[2, C], gain and shift.
    depthwise: f32[k * k, 1, C].
    pointwise: [C, F], in the type in which products are made.
    against: (g f32[H', W', N, F], mean f32[1, F]) for other sums, see below.
    outputs: which maps are wanted.

  Returns:
    {"z": the map f32[H', W', N, F],
     "p": the depthwise convolution's output [H', W' * N, C], as the product
       sees it,
     "sums": f32[2, N, F]: of z and of its square, or with `against` of g and
       of g * (z - mean)}.
  """
  geo = geometry
  height, width = geo.out_side
  rows, n = geo.rows // geo.stride, geo.examples
  arrays = {"x": x, "affine": affine, "d": depthwise, "k": pointwise}
  specs = {"x": pl.BlockSpec((geo.rows, *x.shape[1:]), _read(geo))}
  if against is not None:
    arrays["g"], arrays["mean"] = against
    specs["g"] = pl.BlockSpec((rows, width, n, geo.features), _finished)
  made = {
    "z": ((height, width, n, geo.features), jnp.float32),
    "p": ((height, width * n, geo.channels), pointwise.dtype),
  }
  made = {name: made[name] for name in outputs}
  out_specs = [
    pl.BlockSpec((rows, *shape[1:]), _behind(len(shape)))
    for shape, _ in made.values()
  ]
  made["sums"] = ((2, n, geo.features), jnp.float32)
  out_specs.append(whole((2, n, geo.features)))
  names = (*arrays, *(f"out_{name}" for name in made), "u")
  found = pl.pallas_call(
    functools.partial(_kernel, geo, names),
    grid=(geo.steps + 1,),
    in_specs=[specs.get(name, whole(a.shape)) for name, a in arrays.items()],
    out_specs=out_specs,
    out_shape=[jax.ShapeDtypeStruct(*shape) for shape in made.values()],
    scratch_shapes=[pltpu.VMEM((*geo.padded, n, geo.channels), jnp.float32)],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_BYTES),
    interpret=interpret,
    name=f"separable_{geo.size}x{geo.size}_forward",
  )(*arrays.values())
  return dict(zip(made, found, strict=True))


def whole(shape) -> pl.BlockSpec:
  """The whole array, the same for all steps."""
  return pl.BlockSpec(shape, lambda step: (0,) * len(shape))


def _read(geo: Geometry):
  return lambda step: (jnp.minimum(step, geo.steps - 1), 0, 0, 0)


def _finished(step):
  return (jnp.maximum(step - 1, 0), 0, 0, 0)


def _behind(rank: int):
  """Rows that are finished, of an array of this rank: one step late."""
  return lambda step: (jnp.maximum(step - 1, 0), *[0] * (rank - 1))


def _kernel(geo: Geometry, names, *refs):
  ref = dict(zip(names, refs, strict=True))
  step = pl.program_id(0)

  @pl.when(step == 0)
  def _():
    clear_border(ref["u"], geo.pads)
    ref["out_sums"][...] = jnp.zeros_like(ref["out_sums"])

  @pl.when(step < geo.steps)
  def _():
    read_rows(geo, ref, step)

  @pl.when(step > 0)
  def _():
    _finish_rows(geo, ref, step - 1)


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
  """Normalised and through the ReLU, into the padded map."""
  (top, _), (left, _) = geo.pads
  gain, shift = ref["affine"][0:1], ref["affine"][1:2]

  def row(h, _):
    y = jnp.maximum(ref["x"][h] * gain + shift, 0.0)
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

  shape = (n, geo.features)
  zeros = (jnp.zeros(shape, jnp.float32),) * 2
  found = jax.lax.fori_loop(0, rows, row, zeros)
  for i, values in enumerate(found):
    ref["out_sums"][i] += values


def _pixel(ref, h, w, z, sums):
  """Stores a pixel [N, F] where it is wanted; sums with it."""
  if "out_z" in ref:
    ref["out_z"][h, w] = z
  if "g" in ref:
    g = ref["g"][h, w]
    return sums[0] + g, sums[1] + g * (z - ref["mean"][...])
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
