"""Augmentation on the device, against NumPy and against its promises."""

import colorsys
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import data
from nasnet_jax.data import augment
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.data.image_data import DataError

SHAPES = [(5, 32, 32, 3), (4, 8, 8, 1), (3, 7, 12, 4), (1, 1, 1, 1)]
FULL = Augmentation(pad=3, flip=True, cutout=4, mean=(0.4,), std=(0.3,))

augmented = jax.jit(augment.augment, static_argnums=2)
normalised = jax.jit(augment.normalise, static_argnums=1)


def images_of(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def slow(images, offset, flip, centre, aug):
  """Padding, cropping, mirroring and cutting out, one image at a time."""
  n, height, width, _ = images.shape
  mean, std = np.array(aug.mean), np.array(aug.std)
  result = []
  for i in range(n):
    white = (images[i] / 255 - mean) / std
    pad = [(aug.pad, aug.pad), (aug.pad, aug.pad), (0, 0)]
    padded = np.pad(white, pad)
    row, column = offset[i]
    crop = padded[row : row + height, column : column + width].copy()
    if flip[i]:
      crop = crop[:, ::-1].copy()
    row, column = centre[i]
    half = aug.cutout // 2
    crop[
      max(row - half, 0) : row + half, max(column - half, 0) : column + half
    ] = 0
    result.append(crop)
  return np.stack(result)


@pytest.mark.smoke
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
  "aug",
  [
    FULL,
    dataclasses.replace(FULL, pad=0),
    dataclasses.replace(FULL, flip=False),
    dataclasses.replace(FULL, cutout=0),
    dataclasses.replace(FULL, pad=9, cutout=16),
  ],
)
def test_the_result_is_that_of_numpy_with_the_same_numbers(shape, aug):
  images, rng = images_of(shape), jax.random.key(1)
  offset, flip, centre = augment.draws(rng, shape, aug)
  got = augmented(rng, images, aug)
  expected = slow(images, *map(np.asarray, (offset, flip, centre)), aug)
  assert got.shape == shape and got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_whitening_is_per_channel():
  images = images_of((2, 4, 4, 3))
  aug = Augmentation(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))
  expected = (images / 255 - [0.1, 0.2, 0.3]) / [1.0, 2.0, 0.5]
  np.testing.assert_allclose(
    augment.normalise(images, aug), expected, atol=1e-6
  )


@pytest.mark.parametrize("shape", SHAPES)
def test_without_padding_flip_and_cutout_only_whitening_is_left(shape):
  images, aug = images_of(shape), Augmentation(mean=(0.2,), std=(0.7,))
  np.testing.assert_array_equal(
    augmented(jax.random.key(0), images, aug),
    normalised(images, aug),
  )


def test_the_default_augmentation_only_scales_to_one():
  images = images_of((2, 3, 3, 1))
  np.testing.assert_allclose(
    augment.normalise(images, Augmentation()), images / 255, atol=1e-6
  )


def test_all_offsets_come_equally_often_and_half_is_mirrored():
  n = 20_000
  aug = Augmentation(pad=4, flip=True, cutout=2)
  offset, flip, centre = augment.draws(jax.random.key(0), (n, 8, 5, 1), aug)
  for column, side in ((0, 9), (1, 9)):
    counts = np.bincount(np.asarray(offset[:, column]), minlength=side)
    assert len(counts) == side
    np.testing.assert_allclose(counts / n, 1 / side, atol=0.01)
  for column, side in ((0, 8), (1, 5)):
    counts = np.bincount(np.asarray(centre[:, column]), minlength=side)
    assert len(counts) == side
    np.testing.assert_allclose(counts / n, 1 / side, atol=0.012)
  np.testing.assert_allclose(flip.mean(), 0.5, atol=0.015)
  # None of the numbers tells another.
  numbers = np.stack([*offset.T, flip, *centre.T]).astype(float)
  others = np.corrcoef(numbers) - np.eye(5)
  assert abs(others).max() < 0.03


def test_without_flip_nothing_is_mirrored_though_it_is_shifted():
  # Columns rise from left to right, and so they do in every variant.
  images = np.tile(np.arange(1, 9, dtype=np.uint8), (64, 8, 1))[..., None]
  aug = Augmentation(pad=1)
  result = np.asarray(augmented(jax.random.key(0), images, aug))[:, 3, 1:7, 0]
  assert (np.diff(result, axis=1) > 0).all()
  result = np.asarray(
    augmented(jax.random.key(0), images, Augmentation(flip=True))
  )[:, 3, :, 0]
  assert 16 < (np.diff(result, axis=1) < 0).all(1).sum() < 48


def test_cutout_blanks_its_whole_square_clipped_at_the_border():
  aug = Augmentation(cutout=16)
  n = 512
  images = np.full((n, 32, 32, 1), 255, np.uint8)
  rng = jax.random.key(2)
  blank = np.asarray(augmented(rng, images, aug))[..., 0] == 0
  centre = np.asarray(augment.draws(rng, images.shape, aug)[2])
  low, high = np.maximum(centre - 8, 0), np.minimum(centre + 8, 32)
  np.testing.assert_array_equal(blank.sum((1, 2)), (high - low).prod(1))
  assert blank.sum((1, 2)).max() == 256 and blank.sum((1, 2)).min() < 100


def test_padding_and_cutout_leave_the_mean_colour():
  images = np.zeros((64, 8, 8, 1), np.uint8)
  aug = Augmentation(pad=4, cutout=2, mean=(0.5,), std=(0.25,))
  result = np.unique(augmented(jax.random.key(0), images, aug))
  np.testing.assert_allclose(result, [-2, 0], atol=1e-6)


def test_equal_keys_give_equal_images_and_other_keys_others():
  images = images_of((8, 16, 16, 3))
  first, again, other = (
    augmented(jax.random.key(seed), images, FULL) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any((1, 2, 3)).all()


def test_examples_of_one_batch_are_varied_independently():
  images = np.repeat(images_of((1, 16, 16, 3)), 32, 0)
  result = np.asarray(augmented(jax.random.key(0), images, FULL))
  assert len({x.tobytes() for x in result}) > 28


def test_children_under_vmap_get_what_each_gets_alone():
  images = images_of((4, 9, 9, 3))
  keys = jax.random.split(jax.random.key(3), 5)
  together = jax.vmap(lambda key: augmented(key, images, FULL))(keys)
  for child, key in enumerate(keys):
    np.testing.assert_allclose(
      together[child], augmented(key, images, FULL), atol=1e-6
    )
  own = jnp.stack([images_of((4, 9, 9, 3), seed) for seed in range(5)])
  together = jax.vmap(lambda *args: augmented(*args, FULL))(keys, own)
  np.testing.assert_allclose(
    together[2], augmented(keys[2], own[2], FULL), atol=1e-6
  )


def test_a_batch_divided_over_devices_is_augmented_as_a_whole_one():
  images, rng = images_of((8, 9, 9, 3)), jax.random.key(4)
  whole = augmented(rng, images, FULL)
  for part in (slice(0, 3), slice(3, 8)):
    np.testing.assert_allclose(
      augmented(rng, images[part], FULL, jnp.arange(8)[part]),
      whole[part],
      atol=1e-6,
    )


def test_statistics_are_those_of_the_pixels():
  images = images_of((50, 6, 7, 3))
  images[..., 1] //= 3
  mean, std = augment.channel_statistics(images)
  np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255)
  np.testing.assert_allclose(std, images.std((0, 1, 2)) / 255)


def test_whitening_by_an_images_own_statistics_gives_mean_0_and_std_1():
  images = images_of((50, 6, 7, 3))
  aug = augment.with_statistics(FULL, images)
  assert (aug.pad, aug.flip, aug.cutout) == (3, True, 4)
  result = np.asarray(augment.normalise(images, aug))
  np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-4)
  np.testing.assert_allclose(result.std((0, 1, 2)), 1, atol=1e-4)


def test_a_channel_of_one_value_does_not_divide_by_zero():
  images = np.full((3, 4, 4, 1), 77, np.uint8)
  aug = augment.with_statistics(Augmentation(), images)
  np.testing.assert_allclose(augment.normalise(images, aug), 0, atol=1e-4)


@pytest.mark.smoke
def test_the_defaults_of_digits_are_measured_on_their_training_split():
  mean, std = augment.channel_statistics(data.load("digits").train_images)
  aug = augment.DEFAULTS["digits"]
  np.testing.assert_allclose((aug.mean, aug.std), (mean, std), atol=1e-4)
  assert aug.pad == 1 and not aug.flip


def test_every_source_has_defaults_and_cifars_are_the_papers():
  assert set(augment.DEFAULTS) == set(data.SOURCES)
  for name in ("cifar10", "cifar100"):
    aug = augment.DEFAULTS[name]
    assert (aug.pad, aug.flip, aug.cutout) == (4, True, 0)


def test_the_defaults_of_cifar10_fit_the_real_images(data_dir):
  subset = data.load(
    "folder", data_dir=data_dir, path="cifar10_subset_1000_500.npz"
  )
  mean, std = augment.channel_statistics(subset.train_images)
  aug = augment.DEFAULTS["cifar10"]
  # A thousand of the fifty thousand, and recompressed.
  np.testing.assert_allclose(aug.mean, mean, atol=0.02)
  np.testing.assert_allclose(aug.std, std, atol=0.02)


@pytest.mark.parametrize(
  "fields", [{"pad": -1}, {"cutout": 3}, {"cutout": -2}, {"std": (0.0,)}]
)
def test_senseless_augmentation_is_refused(fields):
  with pytest.raises(DataError):
    Augmentation(**fields)


def test_whitening_of_another_number_of_channels_is_refused():
  with pytest.raises(DataError, match="is for 3 channels, images have 1"):
    augment.normalise(images_of((1, 2, 2, 1)), augment.DEFAULTS["cifar10"])


# Colours


def _colors(n, order, **changes):
  """ColorDraws that change nothing but what is named."""
  neutral = {"brightness": 0.0, "hue": 0.0, "contrast": 1.0, "saturation": 1.0}
  values = {**neutral, **changes}
  return augment.ColorDraws(
    order=jnp.int32(order),
    **{name: jnp.full(n, value) for name, value in values.items()},
  )


def _hsv(image, change):
  """The image after `change(h, s, v)`, by Python's own colorsys."""

  def pixel(rgb):
    return colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*rgb)))

  return np.apply_along_axis(pixel, -1, image)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("turns", [-0.2, 0.07, 0.2])
def test_hue_is_turned_as_colorsys_does(order, turns):
  images = np.random.default_rng(0).random((2, 6, 5, 3))
  images[0, 0, 0] = 0.3, 0.3, 0.3  # grey has no hue
  images[0, 0, 1] = 0.9, 0.9, 0.1  # two channels alike
  got = augment.distort_color(jnp.float32(images), _colors(2, order, hue=turns))
  wanted = _hsv(images, lambda h, s, v: ((h + turns) % 1, s, v))
  np.testing.assert_allclose(got, wanted, atol=2e-6)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5])
def test_saturation_is_changed_as_colorsys_does(factor):
  images = np.random.default_rng(1).random((2, 6, 5, 3))
  images[0, 0, 0] = 0.3, 0.3, 0.3
  images[0, 0, 1] = 0.0, 0.0, 0.0
  got = augment.distort_color(
    jnp.float32(images), _colors(2, 0, saturation=factor)
  )
  wanted = _hsv(images, lambda h, s, v: (h, min(1, s * factor), v))
  np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_contrast_and_brightness():
  images = np.random.default_rng(2).random((2, 6, 5, 3))
  got = augment.distort_color(
    jnp.float32(images), _colors(2, 0, brightness=0.1, contrast=1.5)
  )
  brighter = images + 0.1
  mean = brighter.mean((1, 2), keepdims=True)
  wanted = np.clip((brighter - mean) * 1.5 + mean, 0, 1)
  np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_the_order_matters_and_each_is_drawn():
  images = jnp.float32(np.random.default_rng(3).random((1, 4, 4, 3)))
  amounts = {"brightness": 0.1, "hue": 0.2, "contrast": 1.4, "saturation": 0.6}
  results = {
    np.asarray(
      augment.distort_color(images, _colors(1, i, **amounts))
    ).tobytes()
    for i in range(4)
  }
  assert len(results) == 4
  orders = {
    int(augment.color_draws(jax.random.key(i), (1, 4, 4, 3)).order)
    for i in range(40)
  }
  assert orders == set(range(4))


def test_colors_are_drawn_evenly_and_by_place():
  draws = augment.color_draws(jax.random.key(0), (4000, 4, 4, 3))
  for values, low, high in (
    (draws.brightness, -32 / 255, 32 / 255),
    (draws.hue, -0.2, 0.2),
    (draws.contrast, 0.5, 1.5),
    (draws.saturation, 0.5, 1.5),
  ):
    share, _ = np.histogram(values, 4, (low, high))
    np.testing.assert_allclose(share / 4000, 0.25, atol=0.03)
  part = augment.color_draws(
    jax.random.key(0), (2, 4, 4, 3), jnp.array([10, 11])
  )
  np.testing.assert_array_equal(part.hue, draws.hue[10:12])


def test_colors_change_photographs_before_whitening():
  images = np.random.default_rng(4).integers(0, 256, (3, 6, 6, 3), np.uint8)
  rng = jax.random.key(1)
  aug = augment.Augmentation(color=True, mean=(0.5,), std=(0.5,))
  got = augment.augment(rng, jnp.asarray(images), aug)
  color = augment.color_draws(rng, images.shape)
  wanted = augment.distort_color(jnp.float32(images) / 255, color) * 2 - 1
  np.testing.assert_allclose(got, wanted, atol=1e-5)
