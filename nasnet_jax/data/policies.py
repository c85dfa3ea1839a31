"""AutoAugment and RandAugment on the device.

Cubuk et al. 2019 and 2020, with the numbers of tensorflow/tpu, models/official/
efficientnet/autoaugment.py. Each operation is Pillow's, to the grey step; where
that code differs from Pillow (its contrast blends with the number of pixels in
place of their mean), Pillow is followed, whose operations the papers name.

Images are whole numbers 0..255 in int32[H, W, 3]. `augment` loops over the
examples, so that of each only the operations that it drew are computed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

GREY = 128  # where an operation leaves nothing
_TOP = 10.0  # of a policy's levels; RandAugment goes beyond

OPERATIONS = (
  "auto_contrast",
  "equalize",
  "invert",
  "rotate",
  "posterize",
  "solarize",
  "color",
  "contrast",
  "brightness",
  "sharpness",
  "shear_x",
  "shear_y",
  "translate_x",
  "translate_y",
  "cutout",
  "solarize_add",
)

# (operation, probability, level) twice, of each of 25 sub-policies: ImageNet's
# policy of Cubuk et al. 2019, v0 of the code.
AUTOAUGMENT = (
  (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
  (("color", 0.4, 9), ("equalize", 0.6, 3)),
  (("color", 0.4, 1), ("rotate", 0.6, 8)),
  (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
  (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
  (("color", 0.2, 0), ("equalize", 0.8, 8)),
  (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
  (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
  (("color", 0.6, 1), ("equalize", 1.0, 2)),
  (("invert", 0.4, 9), ("rotate", 0.6, 0)),
  (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
  (("color", 0.4, 7), ("equalize", 0.6, 0)),
  (("posterize", 0.4, 6), ("auto_contrast", 0.4, 7)),
  (("solarize", 0.6, 8), ("color", 0.6, 9)),
  (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
  (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
  (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
  (("shear_y", 0.8, 0), ("color", 0.6, 4)),
  (("color", 1.0, 0), ("rotate", 0.6, 2)),
  (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
  (("equalize", 1.0, 4), ("auto_contrast", 0.6, 2)),
  (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
  (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
  (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
  (("color", 0.8, 6), ("rotate", 0.4, 5)),
)

# How far the highest level shifts and half the side of what it cuts out, in
# pixels of 224; other images get the same share of their shorter side.
_SIDE = 224
_REACH = {"autoaugment": (250, 100), "randaugment": (100, 40)}
NAMES = tuple(_REACH)


class Steps(NamedTuple):
  """What is done to each example, operation after operation.

  Attributes:
    operation: int32[N, L], index into OPERATIONS; their number: none.
    level: f32[N, L].
    sign: f32[N, L], 1 or -1, of operations that have a direction.
    centre: int32[N, L, 2], of what is cut out.
  """

  operation: Array
  level: Array
  sign: Array
  centre: Array


def draw(
  rng, shape, policy: str, layers: int, magnitude: float, positions=None
) -> Steps:
  """Random steps of a policy.

  Args:
    shape: [N, H, W, C] of the images.
    policy: of NAMES.
    layers, magnitude: of RandAugment: operations per image, their level.
    positions: int[N], as in `augment.augment`.
  """
  n, height, width, _ = shape
  positions = jnp.arange(n) if positions is None else positions
  # Apart from every other use of this key, whose positions are smaller.
  rng = jax.random.fold_in(rng, 2**31 - 2)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, positions)
  layers = 2 if policy == "autoaugment" else layers

  def one(key):
    choice, coins, signs, places = jax.random.split(key, 4)
    if policy == "autoaugment":
      operations, chances, levels = _table()
      picked = jax.random.randint(choice, (), 0, len(AUTOAUGMENT))
      applied = jax.random.uniform(coins, (2,)) < chances[picked]
      operation = jnp.where(applied, operations[picked], len(OPERATIONS))
      level = levels[picked]
    else:
      operation = jax.random.randint(choice, (layers,), 0, len(OPERATIONS))
      level = jnp.full(layers, magnitude, jnp.float32)
    sign = jnp.where(jax.random.bernoulli(signs, 0.5, (layers,)), 1.0, -1.0)
    sides = jnp.array([height, width])
    centre = jax.random.randint(places, (layers, 2), 0, sides)
    return Steps(operation.astype(jnp.int32), level, sign, centre)

  return jax.vmap(one)(keys)


def _table():
  """Of AUTOAUGMENT: operations int32, chances and levels f32, [25, 2] each."""
  rows = [list(zip(*sub, strict=True)) for sub in AUTOAUGMENT]
  operations = [
    [OPERATIONS.index(name) for name in names] for names, *_ in rows
  ]
  return (
    jnp.array(operations, jnp.int32),
    jnp.array([chances for _, chances, _ in rows], jnp.float32),
    jnp.array([levels for *_, levels in rows], jnp.float32),
  )


def apply(images: Array, steps: Steps, policy: str) -> Array:
  """uint8[N, H, W, 3] -> uint8[N, H, W, 3]. policy: says how far levels go."""
  reach = [min(images.shape[1:3]) / _SIDE * most for most in _REACH[policy]]

  def branch(name):
    return lambda image, *rest: operate(name, image, *rest, *reach)

  branches = [branch(name) for name in OPERATIONS]
  branches.append(lambda image, *rest: image)

  def step(image, mine):
    operation, *rest = mine
    return jax.lax.switch(operation, branches, image, *rest), None

  def one(example):
    # A loop over the operations too, or each would be compiled once per place.
    return jax.lax.scan(step, *example)[0]

  changed = jax.lax.map(one, (images.astype(jnp.int32), steps))
  return changed.astype(jnp.uint8)


def operate(name: str, image, level, sign, centre, shift, cut) -> Array:
  """One operation on one image, int32[H, W, 3].

  Args:
    level: 0 to 10 and beyond.
    sign: 1 or -1.
    centre: int32[2], (row, column).
    shift, cut: pixels of level 10.
  """
  level = level / _TOP
  if name in ("color", "contrast", "brightness", "sharpness"):
    return _blend(_FADED[name](image), image, level * 1.8 + 0.1)
  if name == "rotate":
    return _rotate(image, sign * level * (30 * np.pi / 180))
  if name == "shear_x":
    return _move(image, 1.0, sign * level * 0.3, 0.0, 0.0, 1.0, 0.0)
  if name == "shear_y":
    return _move(image, 1.0, 0.0, 0.0, sign * level * 0.3, 1.0, 0.0)
  if name == "translate_x":
    return _move(image, 1.0, 0.0, sign * level * shift, 0.0, 1.0, 0.0)
  if name == "translate_y":
    return _move(image, 1.0, 0.0, 0.0, 0.0, 1.0, sign * level * shift)
  if name == "posterize":
    dropped = 8 - jnp.minimum((level * 4).astype(jnp.int32), 8)
    return (image >> dropped) << dropped
  if name == "solarize":
    threshold = (level * 256).astype(jnp.int32)
    return jnp.where(image < threshold, image, 255 - image)
  if name == "solarize_add":
    added = jnp.minimum(image + (level * 110).astype(jnp.int32), 255)
    return jnp.where(image < 128, added, image)
  if name == "cutout":
    return _cutout(image, centre, (level * cut).astype(jnp.int32))
  return _PLAIN[name](image)


def _blend(faded, image, factor):
  """From `faded` (factor 0) to the image (1) and beyond."""
  mixed = faded + factor * (image - faded).astype(jnp.float32)
  return jnp.clip(mixed, 0, 255).astype(jnp.int32)


def _luma(image):
  """Pillow's conversion to "L": int32[H, W, 1]."""
  weights = jnp.array([19595, 38470, 7471])
  return ((image * weights).sum(-1, keepdims=True) + 0x8000) >> 16


def _mean_grey(image):
  mean = _luma(image).astype(jnp.float32).mean()
  return jnp.full_like(image, (mean + 0.5).astype(jnp.int32))


def _smooth(image):
  """Pillow's SMOOTH: the 3x3 mean with five times the middle; the border
  stays."""
  height, width, _ = image.shape
  if min(height, width) < 3:
    return image
  total = 4 * image[1:-1, 1:-1]
  for i in range(3):
    for j in range(3):
      total += image[i : height - 2 + i, j : width - 2 + j]
  return image.at[1:-1, 1:-1].set((2 * total + 13) // 26)  # to the nearest


_FADED = {
  "color": _luma,
  "contrast": _mean_grey,
  "brightness": jnp.zeros_like,
  "sharpness": _smooth,
}


def _rotate(image, radians):
  """Around the middle, anticlockwise where the angle is positive."""
  height, width, _ = image.shape
  cos, sin = jnp.cos(radians), jnp.sin(radians)
  x, y = width / 2, height / 2
  return _move(
    image,
    cos,
    -sin,
    x - cos * x + sin * y,
    sin,
    cos,
    y - sin * x - cos * y,
  )


def _move(image, a, b, c, d, e, f):
  """Pillow's affine transform, nearest pixel: (x, y) of the result comes from
  (a x + b y + c, d x + e y + f), both of middles of pixels."""
  height, width, _ = image.shape
  x = jnp.arange(width) + 0.5
  y = (jnp.arange(height) + 0.5)[:, None]
  column = jnp.floor(a * x + b * y + c).astype(jnp.int32)
  row = jnp.floor(d * x + e * y + f).astype(jnp.int32)
  inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
  places = jnp.where(inside, row * width + column, 0)
  moved = image.reshape(height * width, -1)[places]
  return jnp.where(inside[..., None], moved, GREY)


def _cutout(image, centre, reach):
  """A square of twice the reach, clipped at the border."""
  row, column = (jnp.arange(side) for side in image.shape[:2])
  rows = (row >= centre[0] - reach) & (row < centre[0] + reach)
  columns = (column >= centre[1] - reach) & (column < centre[1] + reach)
  return jnp.where((rows[:, None] & columns)[..., None], GREY, image)


def _auto_contrast(image):
  low, high = image.min((0, 1)), image.max((0, 1))
  stretched = (image - low) * 255 // jnp.maximum(high - low, 1)
  return jnp.where(high > low, stretched, image)


def _equalize(image):
  """Pillow's, channel by channel."""

  def channel(values):
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (values.size - counts[values.max()]) // 255
    before = jnp.cumsum(counts) - counts
    table = (before + step // 2) // jnp.maximum(step, 1)
    changed = jnp.minimum(table, 255)[values]
    return jnp.where(step > 0, changed, values)

  return jax.vmap(channel, -1, -1)(image)


_PLAIN = {
  "auto_contrast": _auto_contrast,
  "equalize": _equalize,
  "invert": lambda image: 255 - image,
}
