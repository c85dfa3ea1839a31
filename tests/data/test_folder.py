"""Users' own images: directories, archives, arrays, and their faults."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from nasnet_jax import data
from nasnet_jax.data import folder
from nasnet_jax.data.image_data import DataError


def noise(number, height=6, width=5, channels=3):
  """The pixels of a PNG of noise, and its bytes."""
  shape = (height, width, channels) if channels > 1 else (height, width)
  pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
  return pixels, png(Image.fromarray(pixels))


def png(image) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, "png")
  return buffer.getvalue()


def write_tar(path, files, mode="w"):
  with tarfile.open(path, mode) as tar:
    for name, content in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return path


def write_zip(path, files):
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return path


def load(path, **options):
  return data.load("folder", path=str(path), **options)


def refused(path, said, **options):
  """The one line that loading fails with."""
  with pytest.raises(DataError, match=said) as caught:
    load(path, **options)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_class_folders_become_labels_in_the_order_of_their_names(
  files, write_folder
):
  result = load(write_folder(files))
  assert result.class_names == ("cat", "dog")
  assert result.train_labels.tolist() == [0, 0, 0, 0, 1, 1]
  assert result.test_labels.tolist() == [0, 0, 1]
  assert result.train_images.shape == (6, 6, 5, 3)
  for i in range(4):
    np.testing.assert_array_equal(result.train_images[i], noise(i)[0])
  np.testing.assert_array_equal(result.test_images[2], noise(8)[0])


@pytest.mark.parametrize(
  "name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.bz2", "a.zip"]
)
def test_an_archive_gives_the_same_data_as_the_directory(
  name, files, write_folder, tmp_path
):
  # In another order, under one more folder, and with what others pack along.
  packed = {f"pets/{name}": files[name] for name in reversed(files)}
  packed |= {"pets/README.txt": b"hello", "pets/.DS_Store": b"x"}
  packed["__MACOSX/pets/._0.png"] = b"y"
  path = tmp_path / name
  if name.endswith(".zip"):
    write_zip(path, packed)
  else:
    kind = {"gz": "w:gz", "tgz": "w:gz", "xz": "w:xz", "bz2": "w:bz2"}
    write_tar(path, packed, kind.get(name.rpartition(".")[2], "w"))
  ours, theirs = load(path), load(write_folder(files))
  assert ours.fingerprint == theirs.fingerprint
  assert ours.name == f"folder {name}"


def test_without_a_test_folder_a_seeded_stratified_split_is_made(write_folder):
  files = {
    f"{label}/{i}.png": noise(100 * k + i)[1]
    for k, (label, count) in enumerate([("a", 20), ("b", 10)])
    for i in range(count)
  }
  path = write_folder(files)
  first = load(path, test_fraction=0.2)
  assert np.bincount(first.test_labels).tolist() == [4, 2]
  assert np.bincount(first.train_labels).tolist() == [16, 8]
  again = load(path, test_fraction=0.2)
  assert first.fingerprint == again.fingerprint
  assert load(path, test_fraction=0.2, seed=1).fingerprint != first.fingerprint
  refused(path, "test_fraction is 1.5", test_fraction=1.5)


def test_val_stands_in_for_test_and_joins_training_beside_one(
  files, write_folder
):
  renamed = {n.replace("test/", "val/"): c for n, c in files.items()}
  only_val = load(write_folder(renamed, "only_val"))
  assert only_val.fingerprint == load(write_folder(files, "t")).fingerprint
  both = load(write_folder(files | renamed, "both"))
  assert len(both.train_labels) == 9 and len(both.test_labels) == 3


def test_only_a_training_folder_is_split_like_plain_class_folders(
  files, write_folder
):
  files = {n: c for n, c in files.items() if n.startswith("train/")}
  result = load(write_folder(files), test_fraction=0.5)
  assert result.class_names == ("cat", "dog")
  assert np.bincount(result.test_labels).tolist() == [2, 1]


def test_images_that_are_scaled_up_are_told(write_folder, caplog):
  caplog.set_level("INFO")
  files = {f"{c}/{i}.png": noise(i, 4, 4)[1] for c in "ab" for i in range(2)}
  load(write_folder(files), image_size=10, test_fraction=0.5)
  assert "images of up to 4x4 pixels are scaled and cut to 10x10" in caplog.text


def test_images_of_any_size_are_scaled_and_cut_to_a_square(write_folder):
  white, black = (255, 255, 255), (0, 0, 0)
  wide = Image.new("RGB", (40, 20), black)
  wide.paste(white, (10, 0, 30, 20))  # the centre square is white
  files = {"a/0.png": png(wide), "b/0.png": png(Image.new("RGB", (9, 9)))}
  files |= {f"{c}/1.png": noise(1, 10, 10)[1] for c in "ab"}
  result = load(write_folder(files), image_size=10, test_fraction=0.5)
  images = np.concatenate([result.train_images, result.test_images])
  assert images.shape == (4, 10, 10, 3)
  # One is the white square, away from its scaled edge; noise(1) is untouched.
  assert any((image[:, 1:-1] == 255).all() for image in images)
  assert any((image == noise(1, 10, 10)[0]).all() for image in images)


def test_images_of_several_sizes_without_image_size_name_both(write_folder):
  files = {
    "a/0.png": noise(0)[1],
    "a/1.png": noise(1, 8, 9)[1],
    "b/0.png": noise(2)[1],
  }
  said = refused(write_folder(files), "set image_size, for example to 5")
  assert "a/0.png is 6x5" in said and "a/1.png is 8x9" in said


def test_mixed_channels_name_the_option_that_settles_it(write_folder):
  files = {
    "a/0.png": noise(0, channels=1)[1],
    "a/1.png": noise(1)[1],
    "b/0.png": noise(2)[1],
    "b/1.png": noise(3)[1],
  }
  path = write_folder(files)
  refused(path, r"set channels to 1 \(grey\) or 3")
  refused(path, "give 1, 3 or None", channels=2)
  for channels in (1, 3):
    assert load(path, channels=channels).image_shape == (6, 5, channels)


def test_grey_palette_transparent_and_16_bit_images_become_8_bit(write_folder):
  deep = Image.fromarray(np.full((6, 5), 0x80FF, np.uint16))
  colour = Image.new("RGB", (5, 6), (10, 200, 30))
  path = write_folder(
    {
      "a/0.png": png(deep),
      "a/1.png": png(Image.new("LA", (5, 6), (7, 0))),
      "b/0.png": png(Image.new("1", (5, 6), 1)),
      "b/1.png": png(Image.new("L", (5, 6), 99)),
    },
    "grey",
  )
  grey = load(path)
  images = np.concatenate([grey.train_images, grey.test_images])
  assert sorted(images[:, 0, 0, 0].tolist()) == [7, 99, 0x80, 255]
  path = write_folder(
    {
      "a/0.png": png(colour.convert("P", palette=Image.Palette.ADAPTIVE)),
      "a/1.png": png(colour.convert("RGBA")),
      "b/0.png": png(colour),
      "b/1.png": png(colour),
    },
    "colour",
  )
  result = load(path)
  assert (result.train_images == [10, 200, 30]).all()


def test_photographs_are_turned_upright(write_folder):
  pixels, _ = noise(0)
  exif = Image.Exif()
  exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to view
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "png", exif=exif)
  content = {f"{c}/{i}.png": buffer.getvalue() for c in "ab" for i in "01"}
  result = load(write_folder(content))
  np.testing.assert_array_equal(result.train_images[0], np.rot90(pixels, -1))


@pytest.mark.parametrize("content", [b"no image", noise(0, 50, 50)[1][:2000]])
def test_a_broken_image_is_named(files, write_folder, content):
  files["train/dog/1.png"] = content
  refused(write_folder(files), "image train/dog/1.png is broken")


def test_one_class_only_is_refused(files, write_folder):
  only = {n: c for n, c in files.items() if "cat" in n}
  refused(write_folder(only, "split"), "only one class, 'cat'")
  only = {n.removeprefix("train/"): c for n, c in only.items() if "train" in n}
  refused(write_folder(only, "plain"), "only one class, 'cat'")


@pytest.mark.parametrize("kind", ["directory", "tar", "zip"])
def test_an_empty_class_folder_is_named(kind, files, write_folder, tmp_path):
  top = write_folder(files)
  (top / "train" / "bird").mkdir()
  if kind == "tar":
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
      tar.add(top, "pets")
    top = tmp_path / "a.tar"
  if kind == "zip":
    top = write_zip(tmp_path / "a.zip", files | {"train/bird/": b""})
  refused(top, "folder (pets/)?train/bird holds no image")


def test_a_class_with_test_images_only_is_refused(files, write_folder):
  files["test/bird/0.png"] = files["test/dog/0.png"]
  refused(write_folder(files), "class 'bird' has test images but no training")


def test_an_image_outside_of_class_folders_is_named(files, write_folder):
  files["train/stray.png"] = files["test/dog/0.png"]
  refused(write_folder(files), "train/stray.png lies in no class folder")


def test_a_folder_without_images_is_refused(write_folder):
  refused(write_folder({"a/readme.txt": b""}), "holds no image")


def test_missing_and_unknown_paths_name_what_would_do(tmp_path):
  refused(tmp_path / "nowhere", "no file or folder .*nowhere")
  (tmp_path / "a.rar").write_bytes(b"")
  refused(tmp_path / "a.rar", "none of: .tar .*.npz")
  with pytest.raises(DataError, match="needs a path"):
    data.load("folder")


def test_path_is_relative_to_data_dir_and_may_be_left_out(files, write_folder):
  top = write_folder(files)
  by_path = data.load("folder", data_dir=top.parent, path="images")
  by_dir = data.load("folder", data_dir=str(top))
  assert by_path.fingerprint == by_dir.fingerprint


@pytest.mark.parametrize(
  "name",
  ["../evil/0.png", "/evil/0.png", "a/../../evil/0.png", "..\\evil\\0.png"],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_outside_an_archive_are_refused_and_nothing_is_written(
  name, kind, files, tmp_path, cache_folder
):
  write = {"tar": write_tar, "zip": write_zip}[kind]
  path = tmp_path / "packed" / f"a.{kind}"
  path.parent.mkdir()
  write(path, files | {name: files["test/dog/0.png"]})
  before = sorted(tmp_path.rglob("*"))
  refused(path, "leads outside of it: refused")
  assert sorted(tmp_path.rglob("*")) == before
  assert not os.path.exists("/evil")


def test_reading_an_archive_writes_only_into_the_cache(
  files, tmp_path, cache_folder
):
  path = write_tar(tmp_path / "a.tar", files)
  before = set(tmp_path.rglob("*"))
  load(path)
  written = set(tmp_path.rglob("*")) - before
  assert written == {cache_folder, *cache_folder.iterdir()}
  assert [p.suffix for p in cache_folder.iterdir()] == [".npz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_is_refused_with_the_way_to_pack_it(
  kind, files, tmp_path
):
  path = write_tar(tmp_path / "a.tar", files)
  with tarfile.open(path, "a") as tar:
    link = tarfile.TarInfo("train/cat/9.png")
    link.type, link.linkname = kind, "/etc/passwd"
    tar.addfile(link)
  refused(path, "--dereference")


def test_links_in_a_directory_are_followed_but_not_in_circles(
  files, write_folder
):
  top = write_folder(files)
  expected = load(top).fingerprint
  elsewhere = top.parent / "elsewhere"
  (top / "train" / "dog").rename(elsewhere)
  (top / "train" / "dog").symlink_to(elsewhere)
  (top / "train" / "cat" / "loop").symlink_to(top / "train" / "cat")
  assert load(top).fingerprint == expected


@pytest.mark.parametrize(
  "name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "a.zip"]
)
@pytest.mark.parametrize("damage", ["cut", "end cut", "garbage", "changed"])
def test_a_damaged_archive_is_named(name, damage, files, tmp_path):
  path = tmp_path / name
  if name.endswith(".zip"):
    write_zip(path, files)
  else:
    kind = name.rpartition(".")[2]
    write_tar(path, files, "w" if kind == "tar" else f"w:{kind}")
  content = path.read_bytes()
  # A cut at half falls between two members here; the third header of the
  # .tar is the one that changes.
  place = 2 * 1024 if name == "a.tar" else len(content) // 2
  damaged = {
    "cut": content[: len(content) // 2],
    "end cut": content[:-1030],
    "garbage": b"garbage" * 1000,
    "changed": content[:place] + b"?" * 8 + content[place + 8 :],
  }
  path.write_bytes(damaged[damage])
  refused(path, f"{name} is damaged")


def test_an_encrypted_zip_is_refused(files, tmp_path):
  path = write_zip(tmp_path / "a.zip", files)
  content = bytearray(path.read_bytes())
  # Bit 0 of the flags, in the central directory (APPNOTE.TXT, 4.3.12).
  content[content.index(b"PK\1\2") + 8] |= 1
  path.write_bytes(content)
  refused(path, "encrypted")


# The cache of decoded images


def cache_files(cache_folder):
  return sorted(cache_folder.glob("*.npz"))


def forbid_decoding(monkeypatch):
  def fail(*args):
    raise AssertionError("decoded again")

  monkeypatch.setattr(folder.pixels, "read", fail)


def test_the_second_time_comes_from_the_cache_and_is_equal(
  files, tmp_path, monkeypatch
):
  path = write_tar(tmp_path / "a.tar", files)
  first = load(path)
  forbid_decoding(monkeypatch)
  second = load(path)
  assert second.fingerprint == first.fingerprint
  moved = path.rename(tmp_path / "b.tar")
  assert load(moved).fingerprint == first.fingerprint


def test_other_options_or_another_archive_are_cached_apart(
  files, tmp_path, cache_folder
):
  path = write_tar(tmp_path / "a.tar", files)
  assert load(path).image_shape == (6, 5, 3)
  assert load(path, image_size=4).image_shape == (4, 4, 3)
  assert load(path, channels=1).image_shape == (6, 5, 1)
  del files["train/cat/0.png"]
  write_tar(path, files)
  assert len(load(path).train_labels) == 5
  assert len(cache_files(cache_folder)) == 4


def test_a_changed_directory_is_decoded_again(files, write_folder):
  top = write_folder(files)
  first = load(top)
  (top / "train" / "cat" / "0.png").write_bytes(noise(77)[1])
  assert load(top).fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", ["cut", "one byte", "empty"])
def test_a_corrupt_cache_file_is_said_and_made_anew(
  damage, files, tmp_path, cache_folder, caplog
):
  path = write_tar(tmp_path / "a.tar", files)
  first = load(path)
  (file,) = cache_files(cache_folder)
  good = file.read_bytes()
  middle = good.index(first.train_images.tobytes()) + 10
  changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
  bad = {"cut": good[: len(good) // 2], "one byte": changed, "empty": b""}
  file.write_bytes(bad[damage])
  assert load(path).fingerprint == first.fingerprint
  assert sum("is damaged" in r.message for r in caplog.records) == 1
  assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
  files, tmp_path, monkeypatch, caplog
):
  # A file where the folder should be: holds for root too.
  (tmp_path / "file").write_bytes(b"")
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "file" / "cache"))
  result = load(write_tar(tmp_path / "a.tar", files))
  assert len(result.train_labels) == 6
  assert any("set NASNET_JAX_CACHE" in r.message for r in caplog.records)


def test_a_write_that_fails_half_way_leaves_nothing_in_the_cache(
  files, tmp_path, cache_folder, monkeypatch
):
  def full(file, **arrays):
    file.write(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  load(write_tar(tmp_path / "a.tar", files))
  assert list(cache_folder.iterdir()) == []


# Arrays


def arrays(n=12, m=4, shape=(6, 5, 3)):
  rng = np.random.default_rng(0)
  return {
    "x_train": rng.integers(0, 256, (n, *shape), np.uint8),
    "y_train": np.arange(n, dtype=np.uint8) % 2,
    "x_test": rng.integers(0, 256, (m, *shape), np.uint8),
    "y_test": np.arange(m, dtype=np.uint8) % 2,
  }


def write_npz(tmp_path, content):
  np.savez(tmp_path / "a.npz", **content)
  return tmp_path / "a.npz"


def test_an_npz_is_taken_as_it_is(tmp_path):
  content = arrays()
  result = load(write_npz(tmp_path, content))
  np.testing.assert_array_equal(result.train_images, content["x_train"])
  np.testing.assert_array_equal(result.test_labels, content["y_test"])
  assert result.class_names == ("0", "1")
  content["class_names"] = np.array(["cat", "dog"])
  assert load(write_npz(tmp_path, content)).class_names == ("cat", "dog")


def test_an_npz_may_lack_channels_a_test_set_and_flat_labels(tmp_path):
  content = arrays(shape=(6, 5))
  del content["x_test"], content["y_test"]
  content["y_train"] = content["y_train"][:, None]
  result = load(write_npz(tmp_path, content), test_fraction=0.25)
  assert result.image_shape == (6, 5, 1)
  assert len(result.test_labels) == 3


@pytest.mark.parametrize(
  "change, said",
  [
    ({"y_train": None}, "lacks y_train"),
    ({"y_test": None}, "both x_test and y_test"),
    ({"y_test": np.array([0, 1, 2, 0])}, "label 2 at image 2"),
    ({"y_train": np.arange(12) % 2 - 1}, "label -1"),
    ({"y_train": np.arange(12) / 2}, "must be integers"),
    ({"y_train": np.arange(11) % 2}, "12 images but 11 labels"),
    ({"y_train": np.arange(12) % 2 * 2}, "class '1' .* has no training image"),
    ({"x_train": np.zeros((12, 6, 5, 3))}, "must be uint8"),
    ({"x_test": np.zeros((4, 6, 6, 3), np.uint8)}, "one size"),
    ({"x_train": np.array([{}], object)}, "plain arrays"),
  ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(change, said, tmp_path):
  content = {k: v for k, v in (arrays() | change).items() if v is not None}
  refused(write_npz(tmp_path, content), said)


def test_a_damaged_npz_is_named(tmp_path):
  path = write_npz(tmp_path, arrays())
  path.write_bytes(path.read_bytes()[:-100])
  refused(path, "a.npz is damaged")


def test_size_options_are_refused_for_arrays(tmp_path):
  refused(write_npz(tmp_path, arrays()), "for image files", image_size=3)


# Real data


def test_the_real_cifar10_subset_loads_balanced(data_dir):
  result = data.load(
    "folder", data_dir=data_dir, path="cifar10_subset_1000_500.npz"
  )
  assert result.train_images.shape == (1000, 32, 32, 3)
  assert np.bincount(result.train_labels).tolist() == [100] * 10
  assert np.bincount(result.test_labels).tolist() == [50] * 10


def test_real_photographs_of_all_sizes_become_squares(data_dir, write_folder):
  samples = data_dir / "imagenet_samples_100.tar"
  with tarfile.open(samples) as tar:
    members = [m for m in tar if m.name.upper().endswith(".JPEG")][:12]
    files = {
      f"{'ab'[i % 2]}/{m.name}": tar.extractfile(m).read()
      for i, m in enumerate(members)
    }
  path = write_folder(files)
  refused(path, "images differ in size")
  assert load(path, image_size=48).image_shape == (48, 48, 3)


@pytest.mark.slow
def test_all_60000_real_images_load_from_the_xz_and_then_from_the_cache(
  data_dir, monkeypatch
):
  path = data_dir / "cifar10_jpeg_60000.tar.xz"
  result = load(path, note="JPEG-recompressed")
  assert result.train_images.shape == (50_000, 32, 32, 3)
  assert result.test_images.shape == (10_000, 32, 32, 3)
  assert np.bincount(result.train_labels).tolist() == [5_000] * 10
  assert result.class_names[:3] == ("airplane", "automobile", "bird")
  assert result.note == "JPEG-recompressed"
  forbid_decoding(monkeypatch)
  assert load(path).fingerprint == result.fingerprint
