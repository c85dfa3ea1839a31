"""AutoAugment and RandAugment against Pillow's operations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from nasnet_jax.data import augment, policies
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.data.image_data import DataError

SHIFT, CUT = 40.0, 8.0  # pixels of level 10


def picture(seed=0, height=37, width=44):
  """Smooth colours with noise, not from black to white."""
  rng = np.random.default_rng(seed)
  ramp = np.add.outer(np.arange(height), 2 * np.arange(width))[..., None]
  waves = 90 + 60 * np.sin(ramp / np.array([9, 14, 23]) + seed)
  return (waves + rng.integers(0, 30, (height, width, 3))).astype(np.uint8)


@jax.jit
def _all(image, level, sign, centre):
  return {
    name: policies.operate(name, image, level, sign, centre, SHIFT, CUT)
    for name in policies.OPERATIONS
  }


def ours(name, image, level, sign, centre=(0, 0)):
  result = _all(
    jnp.int32(image), jnp.float32(level), jnp.float32(sign), jnp.int32(centre)
  )
  result = np.asarray(result[name])
  assert result.min() >= 0 and result.max() <= 255
  return result


def _affine(image, *numbers):
  return image.transform(
    image.size,
    Image.Transform.AFFINE,
    numbers,
    Image.Resampling.NEAREST,
    fillcolor=(128, 128, 128),
  )


def _cut(image, level, centre):
  result = np.array(image)
  reach = int(level * CUT)
  (row, column), low = centre, lambda place: max(place - reach, 0)
  result[low(row) : row + reach, low(column) : column + reach] = 128
  return Image.fromarray(result)


def _solarize_add(image, amount):
  values = np.asarray(image).astype(int)
  added = np.where(values < 128, np.minimum(values + amount, 255), values)
  return Image.fromarray(added.astype(np.uint8))


def pillow(name, image, level, sign, centre=(0, 0)):
  """The operation as tensorflow/tpu's levels mean it."""
  image, level = Image.fromarray(image), level / 10
  enhanced = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
  }
  if name in enhanced:
    result = enhanced[name](image).enhance(level * 1.8 + 0.1)
  elif name == "posterize" and int(level * 4) == 0:
    result = Image.new("RGB", image.size)  # Pillow wants a bit at least
  else:
    shift = sign * level * SHIFT
    result = {
      "auto_contrast": lambda: ImageOps.autocontrast(image),
      "equalize": lambda: ImageOps.equalize(image),
      "invert": lambda: ImageOps.invert(image),
      "rotate": lambda: image.rotate(
        sign * level * 30, fillcolor=(128, 128, 128)
      ),
      "posterize": lambda: ImageOps.posterize(image, min(int(level * 4), 8)),
      "solarize": lambda: ImageOps.solarize(image, int(level * 256)),
      "solarize_add": lambda: _solarize_add(image, int(level * 110)),
      "shear_x": lambda: _affine(image, 1, sign * level * 0.3, 0, 0, 1, 0),
      "shear_y": lambda: _affine(image, 1, 0, 0, sign * level * 0.3, 1, 0),
      "translate_x": lambda: _affine(image, 1, 0, shift, 0, 1, 0),
      "translate_y": lambda: _affine(image, 1, 0, 0, 0, 1, shift),
      "cutout": lambda: _cut(image, level, centre),
    }[name]()
  return np.asarray(result).astype(int)


MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@pytest.mark.parametrize("name", policies.OPERATIONS)
def test_every_operation_is_pillows(name):
  for seed, level, sign in (
    (0, 0.0, 1),
    (1, 3.1, -1),
    (2, 8.9, 1),
    (3, 17.0, -1),  # RandAugment's for B5
    (4, 27.9, 1),  # for B7: 28, whose shear has middles on the edge of pixels
  ):
    image, centre = picture(seed), (seed * 9, 40 - seed * 9)
    found = ours(name, image, level, sign, centre)
    wanted = pillow(name, image, level, sign, centre)
    different = (found != wanted).any(-1).mean()
    if name in MOVES:  # a middle between two pixels, rounded differently
      assert different < 0.01
    else:  # a grey step, where 0.1 + 1.8 x is no number of either
      assert np.abs(found - wanted).max() <= 1
      assert different < 0.1
    if level == 3.1:
      assert (found != image).any()


def test_an_image_of_one_colour_is_left_as_it_is():
  image = np.full((9, 9, 3), 77, np.uint8)
  for name in ("auto_contrast", "equalize", "contrast", "sharpness"):
    np.testing.assert_array_equal(ours(name, image, 9.0, 1), image)


def _drawn(policy, n=4000, **options):
  fields = {"layers": 2, "magnitude": 9.0, **options}
  steps = policies.draw(
    jax.random.key(0),
    (n, 32, 24, 3),
    policy,
    fields["layers"],
    fields["magnitude"],
  )
  return jax.device_get(steps)


def test_autoaugment_draws_each_sub_policy_with_its_chances():
  steps = _drawn("autoaugment", 20_000)
  none = len(policies.OPERATIONS)
  expected = np.zeros(none + 1)
  for sub in policies.AUTOAUGMENT:
    for name, chance, _ in sub:
      expected[policies.OPERATIONS.index(name)] += chance / 50
      expected[none] += (1 - chance) / 50
  found = np.bincount(steps.operation.ravel(), minlength=none + 1) / 40_000
  np.testing.assert_allclose(found, expected, atol=0.01)
  pairs = {  # an operation keeps its level, and its partner
    (tuple(ops), tuple(levels))
    for ops, levels in zip(
      steps.operation.tolist(), steps.level.tolist(), strict=True
    )
    if none not in ops
  }
  known = {
    (
      tuple(policies.OPERATIONS.index(name) for name, _, _ in sub),
      tuple(float(level) for *_, level in sub),
    )
    for sub in policies.AUTOAUGMENT
  }
  assert pairs <= known and len(pairs) > 20


def test_randaugment_draws_operations_evenly_at_its_magnitude():
  steps = _drawn("randaugment", layers=3, magnitude=17.0)
  assert steps.operation.shape == (4000, 3)
  counts = np.bincount(steps.operation.ravel(), minlength=16)
  assert len(counts) == 16 and counts.min() > 600
  assert (steps.level == 17).all()
  assert abs(steps.sign.mean()) < 0.05
  assert steps.centre[..., 0].max() == 31 and steps.centre[..., 1].max() == 23


@pytest.mark.parametrize("policy", policies.NAMES)
def test_steps_are_done_one_after_another(policy):
  images = np.stack([picture(seed, 32, 32) for seed in range(12)])
  steps = policies.draw(jax.random.key(1), images.shape, policy, 2, 8.0)
  run = jax.jit(policies.apply, static_argnums=2)
  found = np.asarray(run(images, steps, policy))
  shift, cut = {"autoaugment": (250, 100), "randaugment": (100, 40)}[policy]
  for image, result, *mine in zip(images, found, *steps, strict=True):
    for number, level, sign, centre in zip(*mine, strict=True):
      if number < len(policies.OPERATIONS):
        image = policies.operate(
          policies.OPERATIONS[number],
          jnp.int32(image),
          level,
          sign,
          centre,
          shift / 7,
          cut / 7,
        )
    np.testing.assert_array_equal(result, image)


AUG = Augmentation(flip=True, policy="randaugment", mean=(0.5,), std=(0.5,))


def test_an_example_gets_the_same_steps_in_any_part_of_the_batch():
  images = np.stack([picture(seed, 16, 16) for seed in range(6)])
  run = jax.jit(augment.augment, static_argnums=2)
  whole = run(jax.random.key(0), images, AUG)
  part = run(jax.random.key(0), images[4:], AUG, jnp.array([4, 5]))
  np.testing.assert_array_equal(part, whole[4:])
  plain = dataclasses.replace(AUG, policy="")
  others = run(jax.random.key(0), images, plain)
  assert np.abs(whole - others).max() > 0.1


def test_a_bad_policy_gets_one_clear_line():
  for fields, words in (
    ({"policy": "auto"}, "'auto' is not one of: autoaugment, randaugment"),
    ({"layers": 0}, "layers 0 and magnitude"),
    ({"magnitude": -1.0}, "magnitude -1.0 must be"),
  ):
    with pytest.raises(DataError, match=words):
      Augmentation(**fields)
  grey = np.zeros((2, 8, 8, 1), np.uint8)
  with pytest.raises(DataError, match="images of three channels, these have 1"):
    augment.augment(jax.random.key(0), grey, AUG)
