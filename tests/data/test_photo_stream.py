"""Batches of photographs that stay on disk."""

import io
import os
import pathlib
import pickle
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from nasnet_jax.data import cropping, photo_stream, photographs
from nasnet_jax.data.image_data import DataError
from nasnet_jax.data.photo_stream import Crops, Stream

CROPS = Crops(16)


def _photograph(seed: int, size=(60, 40), suffix="jpeg") -> bytes:
  """A file of smooth colours; no two seeds give the same."""
  rng = np.random.default_rng(seed)
  small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
  buffer = io.BytesIO()
  small.resize(size, Image.Resampling.BICUBIC).save(buffer, suffix, quality=95)
  return buffer.getvalue()


@pytest.fixture
def photograph_files():
  """{name: content}: 12 cats, 11 dogs to train on, 5 of each to test."""
  names = [
    f"{part}/{label}/{i:02}.jpeg"
    for part, label, n in (
      ("train", "cat", 12),
      ("train", "dog", 11),
      ("test", "cat", 5),
      ("test", "dog", 5),
    )
    for i in range(n)
  ]
  return {name: _photograph(i) for i, name in enumerate(names)}


@pytest.fixture
def opened(photograph_files, write_folder):
  return photographs.load("folder", path=str(write_folder(photograph_files)))


def _train(records, steps=range(6), seed=0, batch_size=8, **options):
  batches = Stream(records, CROPS, 2, **options)
  return list(
    batches.training_batches(batch_size, seed, steps.start, steps.stop)
  )


def _assert_equal(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b):
    np.testing.assert_array_equal(x.images, y.images)
    np.testing.assert_array_equal(x.labels, y.labels)


# Sources


def test_a_folder_and_a_tar_of_it_give_the_same_batches(
  opened, photograph_files, tmp_path
):
  path = tmp_path / "images.tar"
  with tarfile.open(path, "w") as tar:
    tar.add(tmp_path / "images", "images")
  packed = photographs.load("folder", path=str(path))
  assert packed.class_names == opened.class_names == ("cat", "dog")
  assert (len(packed.train), len(packed.test)) == (23, 10)
  _assert_equal(_train(opened.train), _train(packed.train))
  for index in range(10):
    assert packed.test.read(index) == opened.test.read(index)


def test_without_test_images_some_are_set_aside(photograph_files, write_folder):
  files = {k[6:]: v for k, v in photograph_files.items() if "train" in k}
  found = photographs.load(
    "folder", path=str(write_folder(files)), test_fraction=0.2
  )
  names = [found.train.name(i) for i in range(len(found.train))]
  aside = [found.test.name(i) for i in range(len(found.test))]
  assert len(aside) == 5 and not set(names) & set(aside)
  assert len(set(names + aside)) == 23
  assert np.bincount(found.test.labels).tolist() == [3, 2]


def test_the_fingerprint_knows_names_and_sizes(photograph_files, write_folder):
  def fingerprint(files, folder):
    path = str(write_folder(files, folder))
    return photographs.load("folder", path=path).fingerprint

  same = fingerprint(photograph_files, "a")
  assert fingerprint(photograph_files, "b") == same
  fewer = dict(list(photograph_files.items())[1:])
  assert fingerprint(fewer, "c") != same
  longer = {**photograph_files, "test/dog/04.jpeg": _photograph(99)}
  assert fingerprint(longer, "d") != same


def test_records_can_go_to_another_process(opened):
  again = pickle.loads(pickle.dumps(opened.train))
  assert again.read(3) == opened.train.read(3)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"source": "flder"}, "did you mean 'folder'"),
    ({"source": "folder", "colour": 1}, "no option 'colour'"),
    ({"source": "folder", "path": "/nowhere"}, "no file or folder /nowhere"),
    ({"source": "tfds", "name": ""}, "needs a name"),
  ],
)
def test_what_cannot_be_opened_is_said_in_one_line(options, message):
  with pytest.raises(DataError, match=message) as info:
    photographs.load(**options)
  assert "\n" not in str(info.value)


def test_a_compressed_archive_is_refused(tmp_path, write_folder):
  top = write_folder({"cat/0.jpeg": _photograph(0)})
  with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
    tar.add(top, "images")
  with pytest.raises(DataError, match=r"make it a plain \.tar"):
    photographs.load("folder", path=str(tmp_path / "a.tar.gz"))


def test_a_tar_that_ends_early_is_refused(opened, tmp_path):
  path = tmp_path / "images.tar"
  with tarfile.open(path, "w") as tar:
    tar.add(tmp_path / "images", "images")
  os.truncate(path, path.stat().st_size // 2)
  with pytest.raises(DataError, match="damaged"):
    photographs.load("folder", path=str(path))


# Crops


def _random(n: int):
  return np.random.default_rng(0).random((n, 30))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (60, 60), (900, 90)])
def test_training_crops_are_as_large_and_as_wide_as_asked(size):
  crops = Crops(16)
  boxes = [cropping.training_crop(u, *size, crops) for u in _random(4000)]
  for box in boxes:
    assert box.left >= 0 and box.left + box.width <= size[0]
    assert box.top >= 0 and box.top + box.height <= size[1]
  area = np.array([b.width * b.height for b in boxes]) / np.prod(size)
  aspect = np.array([b.width / b.height for b in boxes])
  assert aspect.min() > 0.7 and aspect.max() < 1.43
  if max(size) / min(size) < 4 / 3 + 0.01:
    assert 0.07 < area.min() < 0.1 and area.max() > 0.95


def test_places_of_crops_are_uniform_and_independent():
  crops = Crops(16, min_area=0.25, max_aspect=1.0)
  boxes = [cropping.training_crop(u, 400, 400, crops) for u in _random(20_000)]
  left = np.array([b.left / max(1, 400 - b.width) for b in boxes])
  top = np.array([b.top / max(1, 400 - b.height) for b in boxes])
  for place in (left, top):
    share = np.histogram(place, 4, (0, 1))[0] / len(place)
    np.testing.assert_allclose(share, 0.25, atol=0.02)
  assert abs(np.corrcoef(left, top)[0, 1]) < 0.03


def test_the_central_crop_is_the_middle_of_the_shorter_side():
  box = cropping.central_crop(500, 400, Crops(16))
  assert box == (75.0, 25.0, 350.0, 350.0)


def test_decoding_agrees_with_a_crop_of_the_whole_image():
  """The shortcut for large JPEGs changes pixels by less than one can see."""
  content = _photograph(0, (1200, 900))
  for uniform in _random(8):
    crops = Crops(64, min_area=0.3)
    got = photo_stream.decode("x", content, crops, uniform).astype(float)
    with Image.open(io.BytesIO(content)) as whole:
      box = cropping.training_crop(uniform, *whole.size, crops)
      part = whole.crop(
        (box.left, box.top, box.left + box.width, box.top + box.height)
      )
      wanted = part.resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(got - np.asarray(wanted, float)).mean() < 1.0


def test_a_turned_photograph_is_turned_back():
  upright = Image.open(io.BytesIO(_photograph(3, (60, 40), "png")))
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned clockwise for display
  buffer = io.BytesIO()
  turned = upright.transpose(Image.Transpose.ROTATE_90)
  turned.save(buffer, "png", exif=exif)
  uniform = _random(1)[0]
  np.testing.assert_array_equal(
    photo_stream.decode("x", buffer.getvalue(), CROPS, uniform),
    photo_stream.decode("x", _photograph(3, (60, 40), "png"), CROPS, uniform),
  )


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_any_kind_of_image_becomes_three_channels(mode):
  buffer = io.BytesIO()
  image = Image.open(io.BytesIO(_photograph(1))).convert(mode)
  image.save(buffer, "tiff")
  assert photo_stream.decode("x", buffer.getvalue(), CROPS).shape == (16, 16, 3)


# Order


def test_an_epoch_has_each_image_at_most_once(photograph_files, write_folder):
  files = {
    f"train/{label}/{i}.png": _plain(10 * i + 5 * (label == "dog"))
    for label in ("cat", "dog")
    for i in range(12)
  }
  found = photographs.load("folder", path=str(write_folder(files)))
  n = len(found.train)
  shown = _train(found.train, range(2 * (n // 4)), batch_size=4)
  seen = [int(image[0, 0, 0]) for batch in shown for image in batch.images]
  labels = np.concatenate([batch.labels for batch in shown])
  assert labels.tolist() == [value % 10 // 5 for value in seen]
  first, second = seen[: n // 4 * 4], seen[n // 4 * 4 :]
  assert len(set(first)) == len(first) and len(set(second)) == len(second)
  assert first != second


def test_every_row_of_every_step_is_cropped_by_itself(write_folder):
  files = {
    f"train/{label}/{i}.png": _photograph(0, suffix="png")
    for label in ("cat", "dog")
    for i in range(12)
  }
  found = photographs.load("folder", path=str(write_folder(files)))
  shown = _train(found.train, range(4), batch_size=4)
  images = {image.tobytes() for batch in shown for image in batch.images}
  assert len(images) == 16


def _plain(value: int) -> bytes:
  buffer = io.BytesIO()
  Image.new("RGB", (20, 20), (value, value, value)).save(buffer, "png")
  return buffer.getvalue()


def test_a_step_alone_is_as_in_the_whole_run(opened):
  whole = _train(opened.train, range(9))
  _assert_equal(whole[5:7], _train(opened.train, range(5, 7)))
  other = _train(opened.train, range(9), seed=1)
  assert not np.array_equal(whole[0].images, other[0].images)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same(opened, workers):
  _assert_equal(
    _train(opened.train, range(2, 6)),
    _train(opened.train, range(2, 6), workers=workers),
  )


def test_hosts_share_the_batch(opened):
  whole = _train(opened.train)
  parts = [_train(opened.train, host=i, num_hosts=2) for i in range(2)]
  for batch, *shares in zip(whole, *parts):
    images = np.concatenate([share.images for share in shares])
    np.testing.assert_array_equal(images, batch.images)
  with pytest.raises(DataError, match="does not divide over 3 hosts"):
    _train(opened.train, host=0, num_hosts=3)


def test_evaluation_shows_each_image_once_and_fills_up_the_last_batch(opened):
  batches = list(Stream(opened.test, CROPS, 2).evaluation_batches(4))
  counts = np.concatenate([batch.counts for batch in batches])
  labels = np.concatenate([batch.labels for batch in batches])
  assert counts.tolist() == [True] * 10 + [False] * 2
  assert labels[:10].tolist() == [0] * 5 + [1] * 5
  wanted = photo_stream.decode("x", opened.test.read(9)[0], CROPS)
  np.testing.assert_array_equal(batches[2].images[1], wanted)


def test_fewer_images_than_a_batch_are_refused(opened):
  with pytest.raises(DataError, match="23 images are fewer than one batch"):
    _train(opened.train, batch_size=24)


# Broken files


def _damage(path: pathlib.Path):
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_another_one_stands_in(
  opened, tmp_path, workers, caplog
):
  before = _train(opened.train)
  _damage(tmp_path / "images" / "train" / "cat" / "07.jpeg")
  after = _train(opened.train, max_broken=1, workers=workers)
  _assert_equal(after, _train(opened.train, max_broken=5))
  assert "cat/07.jpeg is broken" in caplog.text
  assert "another one stands in (1 of 1 allowed)" in caplog.text
  changed = [
    (step, row)
    for step, (a, b) in enumerate(zip(before, after))
    for row in range(8)
    if not np.array_equal(a.images[row], b.images[row])
  ]
  assert 1 <= len(changed) <= 3  # once in each epoch of 2 steps, at most
  assert all(batch.images.shape == (8, 16, 16, 3) for batch in after)


def test_more_broken_images_than_allowed_stop_the_run(opened, tmp_path):
  for i in (1, 5):
    _damage(tmp_path / "images" / "train" / "dog" / f"{i:02}.jpeg")
  with pytest.raises(DataError, match=r"is broken.*allows 1 such.*number 2"):
    _train(opened.train, max_broken=1)


def test_storage_that_is_gone_is_said_at_once(opened, tmp_path):
  os.rename(tmp_path / "images", tmp_path / "elsewhere")
  with pytest.raises(DataError, match="in a row cannot be read"):
    _train(opened.train, max_broken=100)


def test_a_broken_test_image_is_a_wrong_answer(opened, tmp_path, caplog):
  _damage(tmp_path / "images" / "test" / "dog" / "00.jpeg")
  batches = Stream(opened.test, CROPS, 2, max_broken=1)
  counts = np.concatenate([b.counts for b in batches.evaluation_batches(5)])
  assert counts.tolist() == [True] * 5 + [False] + [True] * 4
  assert len(batches.broken) == 1
  assert "not answered, which counts as wrong (1 of 1" in caplog.text


def test_some_of_a_set_are_of_every_class_and_broken_ones_are_left_out(
  opened, tmp_path, caplog
):
  stream = Stream(opened.test, CROPS, 2)
  images, labels = stream.evenly(4)
  assert labels.tolist() == [0, 0, 1, 1]
  for image, index in zip(images, (0, 3, 6, 9), strict=True):
    content, _ = opened.test.read(index)
    wanted = photo_stream.decode("x", content, CROPS)
    np.testing.assert_array_equal(image, wanted)
  assert len(stream.evenly(99)[1]) == 10
  _damage(tmp_path / "images" / "test" / "dog" / "04.jpeg")
  images, labels = stream.evenly(4)
  assert labels.tolist() == [0, 0, 1] and len(images) == 3
  assert "04.jpeg is broken" in caplog.text


def test_labels_out_of_range_are_refused(opened):
  with pytest.raises(DataError, match=r"label 1, outside 0\.\.0"):
    list(Stream(opened.train, CROPS, 1).training_batches(8, 0, 0, 2))


def test_made_up_images_can_be_streamed():
  found = photographs.load("fake", num_images=20, num_classes=3)
  assert {found.train.read(i)[1] for i in range(20)} == {0, 1, 2}
  (batch,) = Stream(found.train, CROPS, 3).training_batches(8, 0, 0, 1)
  assert batch.images.std() > 20


@pytest.mark.parametrize(
  ("text", "good"),
  [
    ("from nasnet_jax import search\nsearch.run(...)\n", False),
    ('if __name__ == "__main__":\n  pass\n', True),
    ("", True),
  ],
)
def test_a_script_that_each_worker_would_run_again_is_refused_in_a_line(
  tmp_path, monkeypatch, text, good
):
  script = tmp_path / "mine.py"
  script.write_text(text)
  main = sys.modules["__main__"]
  monkeypatch.setattr(main, "__file__", str(script), raising=False)
  if good:
    photo_stream._check_script()
    return
  with pytest.raises(DataError, match=r"mine\.py starts worker.*workers to 0"):
    next(iter(photo_stream._open(lambda step: step, range(2), 1)))
  assert list(photo_stream._open(lambda step: step, range(2), 0)) == [0, 1]
