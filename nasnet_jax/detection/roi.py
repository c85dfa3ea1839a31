"""Features of regions: RoIAlign, and crop-and-resize as TensorFlow has it.

A sample between pixels is a sum over rows and columns with hat-shaped weights,
so a crop is two matrix products per region: those are what a TPU does best,
and their gradient needs no scattered additions.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def _hats(places: Array, length: int) -> Array:
  """f32[..., length], weights of linear interpolation at places f32[...]."""
  return jnp.maximum(0.0, 1.0 - jnp.abs(places[..., None] - jnp.arange(length)))


def _sample(features: Array, rows: Array, columns: Array) -> Array:
  """[h, w, C], weights f32[R, S, h] and f32[R, S, w] -> [R, S, S, C]."""
  dtype, exact = features.dtype, jax.lax.Precision.HIGHEST
  crops = jnp.einsum(
    "rsh,hwc->rswc", rows.astype(dtype), features, precision=exact
  )
  return jnp.einsum(
    "rtw,rswc->rstc", columns.astype(dtype), crops, precision=exact
  )


def roi_align(
  features: Array,
  boxes: Array,
  stride: int,
  size: int,
  extent: Array,
  samples: int = 2,
) -> Array:
  """Means of bilinear samples in each of size x size bins (He et al. 2017).

  Args:
    features: [h, w, C] of one image. Pixel (i, j) lies at
      ((i + 1/2) stride, (j + 1/2) stride) of the image.
    boxes: f32[R, 4].
    stride: pixels of the image between features.
    size: bins along each side.
    extent: int[2], rows and columns of `features` that belong to the image
      (the others are padding). A sample up to one pixel beyond takes the
      border's value, one further away is 0.
    samples: along each side of a bin.

  Returns:
    [R, size, size, C].
  """

  def weights(low, high, length, inside):
    low, high = low / stride - 0.5, high / stride - 0.5
    steps = (jnp.arange(size * samples) + 0.5) / (size * samples)
    places = low[:, None] + steps * (high - low)[:, None]
    near = (places >= -1.0) & (places <= inside)
    places = jnp.clip(places, 0.0, inside - 1.0)
    hats = jnp.where(near[..., None], _hats(places, length), 0.0)
    return hats.reshape(len(low), size, samples, length).mean(2)

  h, w, _ = features.shape
  rows = weights(boxes[:, 0], boxes[:, 2], h, extent[0])
  columns = weights(boxes[:, 1], boxes[:, 3], w, extent[1])
  return _sample(features, rows, columns)


def crop_and_resize(
  features: Array, boxes: Array, side: Array, size: int, extent: Array
) -> Array:
  """`tf.image.crop_and_resize`: size x size samples from corner to corner.

  The image's corners lie on the centres of the corner features, as in the
  original detector, which is up to half a stride away from `roi_align`. Samples
  outside are 0.

  Args:
    features: [h, w, C] of one image.
    boxes: f32[R, 4].
    side: f32[2], height and width of the image in pixels.
    size: samples along each side; with one, it is the box's centre.
    extent: int[2], rows and columns of `features` that belong to the image.

  Returns:
    [R, size, size, C].
  """

  def weights(low, high, length, pixels, inside):
    scale = (inside - 1) / pixels
    steps = jnp.arange(size) / (size - 1) if size > 1 else jnp.full(1, 0.5)
    places = (low[:, None] + steps * (high - low)[:, None]) * scale
    near = (places >= 0.0) & (places <= inside - 1)
    return jnp.where(near[..., None], _hats(places, length), 0.0)

  h, w, _ = features.shape
  rows = weights(boxes[:, 0], boxes[:, 2], h, side[0], extent[0])
  columns = weights(boxes[:, 1], boxes[:, 3], w, side[1], extent[1])
  return _sample(features, rows, columns)


def max_pool(crops: Array, size: int) -> Array:
  """[R, S, S, C] -> [R, S / size, S / size, C], rounded down; size and stride
  are equal, as in the original's configs. Size 1: the crops."""
  if size == 1:
    return crops
  side = crops.shape[1] // size
  part = crops[:, : side * size, : side * size]
  shape = (len(crops), side, size, side, size, crops.shape[-1])
  return part.reshape(shape).max((2, 4))
