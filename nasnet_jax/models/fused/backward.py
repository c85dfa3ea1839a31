"""The backward kernel of a layer: of the batch norm after it, the products,
the depthwise convolution, the ReLU; sums for the batch norm before it."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from nasnet_jax.models.fused import forward, norm
from nasnet_jax.models.fused.geometry import Geometry, lane_tiles

Array = jax.Array


def layer_backward(
  x: Array,
  affine: Array | None,
  weights: forward.Weights,
  geometry: Geometry,
  epsilon: float,
  before: norm.Norm | None,
  p: Array,
  g: Array,
  slopes: Array,
  interpret: bool = False,
) -> dict[str, Array]:
  """Gradients of one layer and of the batch norm after it.

  Args:
    x, affine, weights: as for `forward.layer_forward`.
    before: the batch norm before the layer, with its moments; None: there is
      none, and no affine.
    p: as `layer_forward` gives it; its type is that of products.
    g: f32[H', W', N, F], the gradient of the output of the batch norm after it.
    slopes: f32[3, F]: the gradient of the layer's map z is
      g * slopes[0] + z * slopes[1] + slopes[2].

  Returns:
    {"x": f32[H, W, N, C], the gradient of x * gain + shift,
     "depthwise": f32[k * k, C / fold], "pointwise": f32[C / fold, F / fold]}
    and with `before` "slopes", "scale" and "bias" of it, as `layer_forward`
    gives them.
  """
  geo, products = geometry, p.dtype
  out_rows = geo.rows // geo.stride
  n, channels, features = geo.examples, geo.channels, geo.features
  arrays = {"x": x, "affine": affine, **weights._asdict()}
  arrays |= {"p": p, "g": g, "slopes": slopes}
  arrays |= {} if before is None else before._asdict()
  arrays = {name: a for name, a in arrays.items() if a is not None}
  blocks = {
    name: forward.rows_of_step((rows, *arrays[name].shape[1:]), geo.steps)
    for name, rows in (("x", geo.rows), ("p", out_rows), ("g", out_rows))
  }
  made = {"x": x.shape}
  made |= {name: a.shape for name, a in weights._asdict().items()}
  if before is not None:
    made["slopes"] = (3, channels)
    made |= {"scale": before.scale.shape, "bias": before.bias.shape}
  around = [side + 2 * geo.margin for side in geo.out_side]
  scratch = {
    "u": ((*geo.padded, n, channels), jnp.float32),
    "t": ((*around, n, channels), jnp.float32),
    "d": ((geo.size**2, n, channels), jnp.float32),
    "k": ((channels, features), products),
    "by_d": ((geo.size**2, n, channels), jnp.float32),
    "by_k": ((channels, features), jnp.float32),
  }
  if before is not None:
    scratch["xs"] = (x.shape, jnp.float32)
    scratch["sums"] = ((2, n, channels), jnp.float32)
  names = (*arrays, *(f"out_{name}" for name in made), *scratch)
  whole = forward.whole
  found = pl.pallas_call(
    functools.partial(_kernel, geo, epsilon, names),
    grid=(geo.steps + 1,),
    in_specs=[blocks.get(name, whole(a.shape)) for name, a in arrays.items()],
    out_specs=[
      forward.finished_rows((geo.rows, *s[1:])) if name == "x" else whole(s)
      for name, s in made.items()
    ],
    out_shape=[jax.ShapeDtypeStruct(s, jnp.float32) for s in made.values()],
    scratch_shapes=[pltpu.VMEM(*shape) for shape in scratch.values()],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=forward.VMEM_BYTES),
    interpret=interpret,
    name=f"separable_{geo.size}x{geo.size}_backward",
  )(*arrays.values())
  return dict(zip(made, found, strict=True))


def _kernel(geo: Geometry, epsilon: float, names, *refs):
  ref = dict(zip(names, refs, strict=True))
  step = pl.program_id(0)

  @pl.when(step == 0)
  def _():
    forward.clear_border(ref["u"], geo.pads)
    forward.clear_border(ref["t"], ((geo.margin,) * 2,) * 2)
    forward.fold_weights(geo, ref)
    for name in {"by_d", "by_k", "sums"} & {*ref}:
      ref[name][...] = jnp.zeros_like(ref[name])

  @pl.when(step < geo.steps)
  def _():
    forward.read_rows(geo, ref, step)
    _products(geo, ref, step)

  @pl.when(step > 0)
  def _():
    _gradient_of_taps(geo, ref, step - 1)
    _gradient_of_map(geo, ref, step - 1)

  @pl.when(step == geo.steps)
  def _():
    _finish(geo, epsilon, ref)


def _finish(geo: Geometry, epsilon: float, ref):
  taps, product = ref["out_depthwise"], ref["out_pointwise"]
  taps[...] = norm.total(ref["by_d"][...].sum(1), geo.channels // geo.fold)
  product[...] = norm.own(ref["by_k"][...], product.shape)
  if "sums" in ref:
    pixels = geo.height * geo.width * geo.examples * geo.fold
    ref["out_slopes"][...], ref["out_scale"][...], ref["out_bias"][...] = (
      norm.slopes(
        ref["sums"][...].sum(1), forward.known_norm(ref), epsilon, pixels
      )
    )


def _products(geo: Geometry, ref, block):
  """The gradient of the depthwise convolution's output, and of the 1x1."""
  width, n, margin = geo.out_side[1], geo.examples, geo.margin
  rows = geo.rows // geo.stride
  by_g, by_z, offset = (ref["slopes"][i : i + 1] for i in range(3))

  def row(h, _):
    p, kernel = ref["p"][h], ref["k"][...]
    g = ref["g"][h].reshape(width * n, geo.features)
    z = jnp.dot(p, kernel, preferred_element_type=jnp.float32)
    dz = (g * by_g + z * by_z + offset).astype(kernel.dtype)
    t = _product(dz, kernel, 1, 1).reshape(width, n, geo.channels)
    ref["t"][block * rows + h + margin, margin : margin + width] = t
    ref["by_k"][...] += _product(p, dz, 0, 0)
    return 0

  lax.fori_loop(0, rows, row, 0)


def _product(a, b, i: int, j: int) -> Array:
  """Of two matrices, summed over axis i of the one and j of the other."""
  axes = (((i,), (j,)), ((), ()))
  return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _gradient_of_taps(geo: Geometry, ref, block):
  rows = geo.rows // geo.stride
  for lanes in lane_tiles(geo.channels):
    for i in range(geo.size):
      row = functools.partial(_correlate, geo, ref, block * rows, i, lanes)
      zeros = jnp.zeros((geo.examples, lanes.stop - lanes.start), jnp.float32)
      sums = lax.fori_loop(0, rows, row, (zeros,) * geo.size)
      for j, total in enumerate(sums):
        ref["by_d"][i * geo.size + j, :, lanes] += total


def _correlate(geo: Geometry, ref, first_row, i: int, lanes, h, sums):
  """Taps (i, 0), (i, 1), ... of one row of the output."""
  margin, y = geo.margin, first_row + h
  pixels: dict = {}
  sums = list(sums)
  for w in range(geo.out_side[1]):
    t = ref["t"][y + margin, w + margin, :, lanes]
    for j in range(geo.size):
      at = w * geo.stride + j * geo.dilation
      if at not in pixels:
        row = y * geo.stride + i * geo.dilation
        pixels[at] = ref["u"][row, at, :, lanes]
      sums[j] += pixels[at] * t
  return tuple(sums)


def _gradient_of_map(geo: Geometry, ref, block):
  rows = geo.rows // geo.stride
  zeros = jnp.zeros((geo.examples, geo.channels), jnp.float32)
  sums = (zeros, zeros)
  for a, b, taps in geo.phases:

    def row(h, sums, a=a, b=b, taps=taps):
      for first, count in geo.chunks(geo.out_side[1]):
        values = _spread(geo, ref, taps, block * rows + h, first, count)
        for w, value in enumerate(values, first):
          at = (h * geo.stride + a, w * geo.stride + b)
          sums = _pixel(geo, ref, block, at, value, sums)
      return sums

    sums = lax.fori_loop(0, rows, row, sums)
  if "sums" in ref:
    for i, total in enumerate(sums):
      ref["sums"][i] += total


def _spread(geo: Geometry, ref, taps, y, first: int, count: int) -> list[Array]:
  """[N, C] of `count` pixels of a phase: what their readers pass back."""
  margin, tiles = geo.margin, []
  for lanes in lane_tiles(geo.channels):
    sums = [jnp.zeros((geo.examples, 128), jnp.float32)] * count
    pixels: dict = {}
    for i, j, dy, dx in taps:
      tap = ref["d"][i * geo.size + j, :, lanes]
      for w in range(count):
        at = (dy, first + w + dx)
        if at not in pixels:
          pixels[at] = ref["t"][y + dy + margin, at[1] + margin, :, lanes]
        sums[w] = sums[w] + pixels[at] * tap
    tiles.append(sums)
  if len(tiles) == 1:
    return tiles[0]
  return [jnp.concatenate(pixel, -1) for pixel in zip(*tiles, strict=True)]


def _pixel(geo: Geometry, ref, block, at, value, sums):
  """Through the ReLU of one pixel, and stored."""
  (top, _), (left, _) = geo.pads
  y = block * geo.rows + at[0]
  passed = ref["u"][y + top, at[1] + left] > 0
  value = jnp.where(passed, value, 0.0)
  ref["out_x"][at] = value
  if "sums" not in ref:
    return sums
  centred = ref["xs"][y, at[1]] - ref["affine"][2:3]
  return sums[0] + value, sums[1] + value * centred
