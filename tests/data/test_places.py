"""Data, answers and pages at addresses are as those in folders."""

import numpy as np
import pytest

from nasnet_jax import data
from nasnet_jax.data import buckets, photographs, places
from nasnet_jax.detection import pictures


def _pictures(top, names=("a", "b"), count=4):
  from PIL import Image

  rng = np.random.default_rng(0)
  for name in names:
    (top / name).mkdir(parents=True)
    for i in range(count):
      pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
      Image.fromarray(pixels).save(top / name / f"{i}.png")


def _same(one, other):
  for a, b in zip(one, other):
    if isinstance(a, np.ndarray):
      np.testing.assert_array_equal(a, b)
    else:
      assert a == b


def test_pictures_in_a_bucket_are_those_of_the_folder(bucket, tmp_path):
  _pictures(bucket.top / "bucket/own")
  there = bucket.top / "bucket"
  wanted = data.load("folder", path=there / "own")
  _same(data.load("folder", path="s3://bucket/own/"), wanted)
  _same(data.load("folder", path="own", data_dir="gs://bucket"), wanted)
  one = photographs.load("folder", path="gs://bucket/own")
  other = photographs.load("folder", path=there / "own")
  assert one.class_names == other.class_names and len(one.train) == len(
    other.train
  )


def test_only_what_changed_is_copied_again(bucket, monkeypatch):
  _pictures(bucket.top / "bucket/own")
  place = places.fetched("gs://bucket/own")
  copied = []
  fetch = buckets.fetch
  monkeypatch.setattr(
    buckets, "fetch", lambda *a: copied.append(a[1].name) or fetch(*a)
  )
  assert places.fetched("gs://bucket/own") == place and not copied
  file = bucket.top / "bucket/own/a/0.png"
  file.write_bytes((bucket.top / "bucket/own/b/1.png").read_bytes())
  (bucket.top / "bucket/own/b/3.png").unlink()
  places.fetched("gs://bucket/own")
  assert copied == ["0.png"]
  assert (place / "a/0.png").read_bytes() == file.read_bytes()
  assert not (place / "b/3.png").exists()


def test_a_file_of_arrays_may_be_in_a_bucket(bucket, tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (30, 8, 8, 1)).astype(np.uint8)
  parts = {"x_train": images[:20], "y_train": np.arange(20) % 2}
  parts |= {"x_test": images[20:], "y_test": np.arange(10) % 2}
  file = bucket.top / "bucket/own.npz"
  file.parent.mkdir(parents=True)
  np.savez(file, **parts)
  wanted = data.load("folder", path=file)
  _same(data.load("folder", path="gs://bucket/own.npz"), wanted)
  parts["x_train"] = images[:20][::-1]
  np.savez(file, **parts)
  wanted = data.load("folder", path=file)
  _same(data.load("folder", path="gs://bucket/own.npz"), wanted)


def test_boxes_in_a_bucket_are_looked_for_there(bucket):
  (bucket.top / "bucket").mkdir(parents=True)
  with pytest.raises(
    data.DataError, match="gs://bucket/coco: there is nothing"
  ):
    pictures.load("coco", data_dir="gs://bucket", path="coco")


def test_what_is_written_to_an_address_is_there_at_the_end(bucket, tmp_path):
  with places.sent("gs://bucket/out/") as folder:
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "in").mkdir()
    (folder / "in" / "b.txt").write_text("b")
    assert places.shown(folder / "in" / "b.txt") == "gs://bucket/out/in/b.txt"
    assert not bucket.top.exists()
  top = bucket.top / "bucket/out"
  assert (top / "a.txt").read_text() + (top / "in/b.txt").read_text() == "ab"
  assert not folder.parent.exists()
  with pytest.raises(buckets.BucketError, match="has files already"):
    places.sent("gs://bucket/out").__enter__()
  # A page, with its figures beside it.
  for text in ("old", "new"):
    with places.sent("gs://bucket/page.html") as page:
      page.write_text(text)
      (page.parent / "figures").mkdir()
      (page.parent / "figures" / "a.png").write_text(text)
  assert (bucket.top / "bucket/page.html").read_text() == "new"
  assert (bucket.top / "bucket/figures/a.png").read_text() == "new"


def test_what_cannot_be_sent_stays_here(bucket):
  bucket.top.mkdir()
  with (
    pytest.raises(buckets.BucketError, match="what was written is in") as told,
    places.sent("gs://bucket/out") as folder,
  ):
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    bucket.reachable = False
  assert str(folder) in str(told.value)
  assert (folder / "a.txt").read_text() == "a"


def test_a_folder_of_this_machine_is_itself(tmp_path):
  assert places.fetched(tmp_path) == tmp_path
  with places.sent(tmp_path / "new") as folder:
    assert folder == tmp_path / "new"
  assert places.inside(tmp_path, "a") == tmp_path / "a"
  assert places.inside("gs://bucket/x/", "a") == "gs://bucket/x/a"
  assert places.shown(tmp_path) == str(tmp_path)
