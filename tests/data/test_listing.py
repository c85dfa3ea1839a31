"""Which files are pictures, what is left out, and that it is told."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from nasnet_jax import data
from nasnet_jax.data import folder, photographs, pixels
from nasnet_jax.data.image_data import DataError


def picture(seed=0, kind="png", size=(6, 5), **options) -> bytes:
  """A file of noise."""
  rng = np.random.default_rng(seed)
  noise = rng.integers(0, 256, (*size[::-1], 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, kind, **options)
  return buffer.getvalue()


def two_classes(count=3, **files) -> dict[str, bytes]:
  found = {
    f"{label}/{i}.png": picture(10 * k + i)
    for k, label in enumerate("ab")
    for i in range(count)
  }
  return found | files


def both(path, **options):
  """The set in memory and on disk; both know the same images."""
  here = data.load("folder", path=str(path), **options)
  options.pop("image_size", None)
  there = photographs.load("folder", path=str(path), **options)
  assert here.class_names == there.class_names
  count = len(here.train_labels) + len(here.test_labels)
  assert count == len(there.train) + len(there.test)
  return here, there, count


def refused(path, words, **options):
  for load in (data.load, photographs.load):
    with pytest.raises(DataError, match=words) as error:
      load("folder", path=str(path), **options)
    assert "\n" not in str(error.value)


ENDINGS = {
  ".tiff": "tiff",
  ".TIF": "tiff",
  ".jfif": "jpeg",
  ".jpe": "jpeg",
  ".JPG": "jpeg",
  ".webp": "webp",
  ".bmp": "bmp",
  ".gif": "gif",
  ".pgm": "ppm",
  ".ppm": "ppm",
  ".avif": "avif",
  ".jp2": "jpeg2000",
  ".tga": "tga",
  ".qoi": "qoi",
}


def test_every_ending_that_pillow_opens_is_taken_by_both(write_folder):
  files = two_classes()
  for number, (ending, kind) in enumerate(ENDINGS.items()):
    files[f"a/more{number}{ending}"] = picture(number, kind, (40, 40))
  _, _, count = both(write_folder(files), image_size=8)
  assert count == 6 + len(ENDINGS)


def test_what_is_left_out_is_told_once_by_ending_and_number(
  write_folder, caplog
):
  others = {"a/1.heic": b"x", "b/2.HEIC": b"x", "a/film.mp4": b"x", "b/d": b"x"}
  path = write_folder(two_classes(**others))
  (line,) = _told(lambda: data.load("folder", path=str(path)), caplog)
  assert "2 .heic (pip install pillow-heif reads them)" in line
  assert "1 .mp4" in line and "1 without ending" in line
  # From the cache, and on disk, the same.
  assert _told(lambda: data.load("folder", path=str(path)), caplog) == [line]
  again = _told(lambda: photographs.load("folder", path=str(path)), caplog)
  assert again == [line]


def _told(load, caplog) -> list[str]:
  """Its warnings, but that of classes too small to be tested."""
  caplog.clear()
  load()
  warnings = [r for r in caplog.records if r.levelname == "WARNING"]
  lines = [record.getMessage() for record in warnings]
  return [line for line in lines if "have no test image" not in line]


def test_a_class_folder_that_ends_up_empty_stops_both_and_says_what_is_in_it(
  write_folder,
):
  path = write_folder(two_classes(**{"c/1.heic": b"x", "c/deep/2.heic": b"x"}))
  refused(path, "folder c holds no image, only 2 .heic")
  (path / "c" / "3.png").write_bytes(picture(1))
  both(path)


def test_heic_is_read_where_its_plugin_is(write_folder, monkeypatch):
  monkeypatch.setattr(pixels, "endings", lambda: frozenset((".png", ".heic")))
  path = write_folder(two_classes(**{"a/x.heic": picture(7)}))
  assert both(path)[2] == 7


def test_leftovers_of_systems_are_no_pictures(write_folder, caplog):
  files = two_classes()
  junk = {
    "a/.DS_Store": b"x",
    "a/._0.png": b"\0" * 99,
    "Thumbs.db": b"x",
    "b/desktop.ini": b"x",
  }
  hidden = {"a/.ipynb_checkpoints/0-checkpoint.png": files["a/0.png"]}
  hidden["b/@eaDir/0.png/SYNO_THUMB.jpg"] = picture(3, "jpeg")
  path = write_folder(files | junk | hidden)
  (line,) = _told(lambda: data.load("folder", path=str(path)), caplog)
  assert "2 hidden (a/.ipynb_checkpoints, b/@eaDir)" in line
  assert both(path)[2] == 6


def test_all_broken_files_are_named_at_once_and_some_may_be_allowed(
  write_folder,
):
  files = two_classes(8)
  files["a/0.png"], files["b/1.png"] = b"", b"text"
  files["b/2.png"] = files["b/2.png"][:40]
  path = write_folder(files)
  with pytest.raises(DataError) as error:
    data.load("folder", path=str(path), max_broken=2)
  for words in (
    "3 images are broken",
    "a/0.png is broken (it is empty",
    "b/1.png",
    "b/2.png",
    "data.options.max_broken), which allows 2",
  ):
    assert words in str(error.value)
  found = data.load("folder", path=str(path), max_broken=3)
  assert len(found.train_labels) + len(found.test_labels) == 13
  assert found.note == "3 broken image(s) left out"


def test_at_most_ten_broken_files_are_named(write_folder):
  files = two_classes(20)
  files |= {f"a/{i}.png": b"x" for i in range(12)}
  with pytest.raises(DataError, match="and 2 more") as error:
    data.load("folder", path=str(write_folder(files)))
  assert str(error.value).count("is broken (") == 10


def test_a_folder_that_is_linked_to_twice_counts_twice_and_loops_end(
  write_folder, caplog
):
  path = write_folder(two_classes())
  (path / "c").symlink_to(path / "a")
  (path / "a" / "loop").symlink_to(path)
  (path / "b" / "gone.png").symlink_to(path / "nowhere")
  lines = _told(
    lambda: data.load("folder", path=str(path), max_broken=1), caplog
  )
  assert any("link(s) that lead in a circle (a/loop" in line for line in lines)
  assert any("gone.png cannot be read" in line for line in lines)
  found = data.load("folder", path=str(path), max_broken=1)
  assert found.class_names == ("a", "b", "c")
  assert len(found.train_labels) + len(found.test_labels) == 9


def test_a_pipe_is_left_out_and_does_not_block(write_folder, caplog):
  path = write_folder(two_classes())
  os.mkfifo(path / "a" / "pipe.png")
  (line,) = _told(lambda: data.load("folder", path=str(path)), caplog)
  assert "1 pipe(s) or device(s) (a/pipe.png)" in line
  assert both(path)[2] == 6


def test_a_folder_that_cannot_be_listed_is_refused(write_folder, monkeypatch):
  path = write_folder(two_classes())

  def scandir(folder):
    if folder.endswith("b"):
      raise PermissionError(13, "Permission denied")
    return real(folder)

  real = os.scandir
  monkeypatch.setattr(folder.archive.os, "scandir", scandir)
  refused(path, "b cannot be read: Permission denied")


# Archives of other systems


@pytest.mark.parametrize(
  "method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_zips_of_windows_have_their_own_separators(method, tmp_path):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w", method) as file:
    file.writestr("set\\", b"")
    for name, content in two_classes().items():
      file.writestr(f"set\\{name}".replace("/", "\\"), content)
  found = data.load("folder", path=str(path))
  assert found.class_names == ("a", "b")
  assert len(found.train_labels) + len(found.test_labels) == 6


def test_a_zip_of_a_method_that_python_lacks_says_so(tmp_path):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w") as file:
    for name, content in two_classes().items():
      file.writestr(name, content)
  content = bytearray(path.read_bytes())
  for mark, place in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
    start = content.index(mark) + place
    content[start : start + 2] = (9).to_bytes(2, "little")  # Deflate64
  path.write_bytes(content)
  with pytest.raises(DataError, match="in a way that Python cannot read"):
    data.load("folder", path=str(path))


def test_names_in_utf8_that_a_zip_does_not_declare_are_read(tmp_path):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w") as file:
    for name, content in two_classes().items():
      file.writestr(name.replace("a/", "äöü/"), content)
  # As macOS writes it: the same bytes, bit 11 of the flags not set.
  content = bytearray(path.read_bytes())
  for mark, place in ((b"PK\1\2", 9), (b"PK\3\4", 7)):
    start = 0
    while (start := content.find(mark, start)) >= 0:
      content[start + place] &= ~8
      start += 4
  path.write_bytes(content)
  assert data.load("folder", path=str(path)).class_names == ("b", "äöü")


def test_of_one_name_twice_the_later_counts_as_when_it_is_unpacked(
  tmp_path, caplog
):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w") as file:
    for name, content in two_classes().items():
      file.writestr(name, content)
    with pytest.warns(UserWarning):
      file.writestr("a/0.png", picture(99))
  (line,) = _told(lambda: data.load("folder", path=str(path)), caplog)
  assert "1 replaced by later ones of the same name (a/0.png)" in line


# Names


def test_names_taken_apart_by_macos_are_the_same_class(write_folder, caplog):
  whole, apart = "caf\u00e9", "cafe\u0301"
  files = {
    f"{split}/{name}/{i}.png": picture(i)
    for split, name in (("train", whole), ("test", apart))
    for i in range(2)
  }
  files |= {
    f"{s}/x/{i}.png": picture(5) for s in ("train", "test") for i in "0"
  }
  here, _, count = both(write_folder(files))
  assert here.class_names == (whole, "x") and count == 6


def test_a_class_folder_whose_name_is_no_text_is_named(write_folder):
  path = write_folder(two_classes())
  os.rename(path / "a", os.fsencode(path) + b"/caf\xe9")
  refused(path, r"class folder caf\\udce9 is not in UTF-8: rename it")


def test_a_note_belongs_to_the_archive_whose_name_it_has(tmp_path):
  path = tmp_path / "mine.zip"
  with zipfile.ZipFile(path, "w") as file:
    for name, content in two_classes().items():
      file.writestr(name, content)

  def note(text):
    return data.load("folder", path=str(path), note=text).note

  assert note("cifar.tar.xz: CIFAR-10, small") == ""
  assert note("mine.zip: mine, small") == "mine, small"
  assert note("seen by night: dark") == "seen by night: dark"
