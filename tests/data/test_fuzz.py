"""Random folders, archives, arrays and tables: each is read rightly, or
refused in one line that names a file or an option, and nothing is lost."""

import contextlib
import io
import logging
import pathlib
import tarfile
import tempfile
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from nasnet_jax import data
from nasnet_jax.data import archive, photographs, pixels
from nasnet_jax.data.image_data import DataError

FEW, MANY = 100, 2000
OPTIONS = ("image_size", "channels", "max_broken", "test_fraction", "labels")


def _saved(image, kind, **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def _contents() -> dict[str, bytes]:
  noise = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
  colour, exif = Image.fromarray(noise), Image.Exif()
  exif[0x0112] = 6
  frames = [Image.new("L", (5, 6), i) for i in range(3)]
  png = _saved(colour, "png")
  return {
    "png": png,
    "jpeg": _saved(colour, "jpeg"),
    "grey": _saved(colour.convert("L"), "png"),
    "deep": _saved(Image.fromarray(noise[..., 0].astype(np.uint16)), "png"),
    "wide grey": _saved(
      Image.fromarray(noise[..., 0].astype(np.int32) << 20), "tiff"
    ),
    "cmyk": _saved(colour.convert("CMYK"), "jpeg"),
    "palette": _saved(colour.convert("P"), "png"),
    "clear": _saved(colour.convert("RGBA"), "png"),
    "turned": _saved(colour, "jpeg", exif=exif),
    "tags": _saved(colour, "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    "turned tiff": _saved(colour, "tiff", exif=exif),
    "film": _saved(frames[0], "gif", save_all=True, append_images=frames[1:]),
    "stack": _saved(frames[0], "tiff", save_all=True, append_images=frames[1:]),
    "other size": _saved(colour.resize((9, 7)), "png"),
    "empty": b"",
    "zeros": bytes(90),
    "cut": png[: len(png) // 2],
    "text": b"<html>not found</html>",
  }


CONTENTS = _contents()
GOOD = ("png", "jpeg", "turned", "palette")  # as most are
FOLDERS = (
  *("a", "b", "a", "b", "a b", "A", "train", "test", "train", "test", "val"),
  *("seg_train", "seg_test", "images to test", "__MACOSX", ".git", "@eaDir"),
  *("caf\u00e9", "cafe\u0301", "\u732b", "x\ny", "images"),
)
STEMS = (*"0123456789", "._0", ".h", "\u732b", "Thumbs", "img (1)", "z\tz")
ENDINGS = (*[".png"] * 6, ".PNG", ".jpg", ".tiff", ".gif", ".JFIF", ".jpe")
OTHERS = (".heic", ".txt", ".mp4", "", ".db", ".zip", ".csv")

_names = st.builds(
  lambda folders, stem, ending: "/".join([*folders, stem + ending]),
  st.lists(st.sampled_from(FOLDERS), max_size=3),
  st.sampled_from(STEMS),
  st.sampled_from(ENDINGS) | st.sampled_from(OTHERS),
)
_odd_files = st.lists(
  st.tuples(_names, st.sampled_from(sorted(CONTENTS))), max_size=8
)
_plain_files = st.builds(
  lambda tops, count: [
    (f"{top}{label}/{i}.png", "png")
    for top in tops
    for label in ("a", "b")
    for i in range(count)
  ],
  st.sampled_from([("",), ("train/", "test/"), ("seg_train/", "seg_test/")]),
  st.integers(0, 4),
)
_files = st.builds(lambda a, b: a + b, _plain_files, _odd_files)


def _tidy(files) -> dict[str, bytes]:
  """What can lie in one directory: no file is a folder, too."""
  found = {}
  for name, kind in files:
    above = {str(p) for p in pathlib.PurePosixPath(name).parents}
    if not above & set(found) and not any(
      other.startswith(f"{name}/") for other in found
    ):
      found[name] = CONTENTS[kind]
  return found


def _write(top: pathlib.Path, files: dict[str, bytes], how: str):
  if how == "folder":
    path = top / "set"
    path.mkdir()
    for name, content in files.items():
      (path / name).parent.mkdir(parents=True, exist_ok=True)
      (path / name).write_bytes(content)
    return path
  path = top / f"set.{how}"
  if how == "zip":
    with zipfile.ZipFile(path, "w") as file:
      for name, content in files.items():
        file.writestr(name, content)
  else:
    with tarfile.open(path, "w:gz" if how.endswith("gz") else "w") as file:
      for name, content in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
  return path


@contextlib.contextmanager
def _scratch():
  """A folder, and the lines that are logged meanwhile."""
  lines, handler = [], logging.Handler()
  handler.emit = lambda record: lines.append(record.getMessage())
  logger = logging.getLogger("nasnet_jax")
  logger.addHandler(handler)
  with (
    tempfile.TemporaryDirectory() as folder,
    pytest.MonkeyPatch.context() as patch,
    warnings.catch_warnings(),
  ):
    warnings.simplefilter("ignore")
    patch.setenv("NASNET_JAX_CACHE", f"{folder}/cache")
    try:
      yield pathlib.Path(folder), lines
    finally:
      logger.removeHandler(handler)


def _load(load, path, **options):
  """What comes of it, or None where it is refused in a good line."""
  try:
    return load("folder", path=str(path), **options)
  except DataError as error:
    words = str(error)
    assert words.isprintable(), repr(words)
    named = (path.name, *OPTIONS)
    assert any(name in words for name in named), words
    assert len(words) < 3000
    return None


def _visible(files) -> set[str]:
  """The pictures that are neither hidden nor a system's."""
  found = set()
  for name in files:
    pure = pathlib.PurePosixPath(name)
    if not archive.is_junk(pure) and archive.hidden_root(pure) is None:
      found |= {name} if pixels.is_picture(pure) else set()
  return found


def _check_files(files, how, image_size, channels, max_broken):
  files = _tidy(files)
  with _scratch() as (top, lines):
    path = _write(top, files, how)
    found = _load(
      data.load,
      path,
      image_size=image_size,
      channels=channels,
      max_broken=max_broken,
    )
    told = " ".join(lines)
    hidden = [
      name
      for name in map(pathlib.PurePosixPath, files)
      if archive.hidden_root(name) and not archive.is_junk(name)
    ]
    others = _others(files)
    if found is not None:
      used = len(found.train_labels) + len(found.test_labels)
      broken = int(found.note.split()[0]) if "broken" in found.note else 0
      assert used + broken == len(_visible(files))
      assert not hidden or "hidden" in told
      for ending in others:
        assert (ending or "without ending") in told
      assert set(found.class_names) == _classes(files), found.class_names
    if how in ("folder", "tar"):
      there = _load(photographs.load, path)
      if found is not None:
        assert there.class_names == found.class_names
      if there is not None:
        assert len(there.train) + len(there.test) == len(_visible(files))


def _others(files) -> set[str]:
  pures = map(pathlib.PurePosixPath, files)
  return {
    pure.suffix.lower()
    for pure in pures
    if not archive.is_junk(pure)
    and archive.hidden_root(pure) is None
    and not pixels.is_picture(pure)
  }


def _classes(files) -> set[str]:
  """Of a set that was read: folders that are no splits, right above or below
  one; counted by hand from the names."""
  import unicodedata

  splits = {"train", "test", "val", "seg_train", "seg_test"}
  parts = [name.split("/")[:-1] for name in _visible(files)]
  while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
    if parts[0][0] in ("train", "test", "val"):
      break
    parts = [p[1:] for p in parts]
  tops = {p[0] for p in parts}
  if tops <= splits:
    for top in tops:
      while True:
        mine = [p for p in parts if p[0] == top]
        if {p[1] for p in mine} != {top} or min(map(len, mine)) < 3:
          break
        parts = [[p[0], *p[2:]] if p[0] == top else p for p in parts]
    parts = [p[1:] for p in parts]
  return {unicodedata.normalize("NFC", p[0]) for p in parts}


def _check_damaged(files, how, place, width, content):
  with _scratch() as (top, _):
    path = _write(top, _tidy(files), how)
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + content + whole[at + width :])
    _load(data.load, path, image_size=4, channels=3, max_broken=99)
    if how == "tar":
      _load(photographs.load, path)


def _check_arrays(images, dtype, labels, names, extra):
  with _scratch() as (top, lines):
    arrays = {"x_train": np.zeros(images, dtype), "y_train": np.array(labels)}
    if names is not None:
      arrays["class_names"] = np.array(names)
    arrays |= {name: np.zeros(2) for name in extra}
    path = top / "set.npz"
    np.savez(path, **arrays)
    found = _load(data.load, path)
    if found is not None:
      assert len(found.train_labels) + len(found.test_labels) == len(labels)
      assert found.image_shape[2] in (1, 3, 4)
      assert all(name in " ".join(lines) for name in extra)


def _check_table(rows, header, sep, encoding, max_broken):
  pictures = {f"p/{i}.png": CONTENTS["png"] for i in range(6)}
  text = "\n".join([header, *(sep.join(row) for row in rows)])
  table = text.encode(encoding, "replace")
  with _scratch() as (top, lines):
    path = _write(top, {**pictures, "labels.csv": table}, "folder")
    options = {"labels": "labels.csv", "max_broken": max_broken}
    found = _load(data.load, path, **options)
    there = _load(photographs.load, path, **options)
    assert (found is None) == (there is None)
    if found is not None:
      used = len(found.train_labels) + len(found.test_labels)
      told = [line for line in lines if "does not name" in line]
      left = int(told[0].split("left out: ")[1].split()[0]) if told else 0
      assert used + left == 6
      assert {name.strip() for _, name in rows} >= set(found.class_names)


_file_cases = {
  "files": _files,
  "how": st.sampled_from(["folder", "zip", "tar", "tar.gz"]),
  "image_size": st.sampled_from([None, 4]),
  "channels": st.sampled_from([None, 1, 3]),
  "max_broken": st.sampled_from([0, 99]),
}
_damaged_cases = {
  "files": _plain_files,
  "how": st.sampled_from(["zip", "tar", "tar.gz"]),
  "place": st.floats(0, 1),
  "width": st.integers(0, 40) | st.just(10**6),
  "content": st.binary(max_size=8),
}
_array_cases = {
  "images": st.lists(st.sampled_from([0, 1, 3, 4, 6, 8]), max_size=5),
  "dtype": st.sampled_from(["u1", "u1", "u1", "f4", "?", "U3", "M8[s]"]),
  "labels": st.lists(st.integers(-1, 3), min_size=0, max_size=8)
  | st.just([0, 1] * 3)
  | st.just([0, 1] * 4)
  | st.just([[0], [1]] * 3)
  | st.just(7),
  "names": st.none()
  | st.sampled_from(
    [["a", "b"], [b"a", b"b"], [["a"]], [0, 1], "a", ["a"] * 2]
  ),
  "extra": st.sets(st.sampled_from(["x_val", "y_val"])),
}
_cells = st.sampled_from(["0", "1.png", "p/2.png", "p\\3", "9", "", "4", "5"])
_table_cases = {
  "rows": st.lists(
    st.tuples(_cells, st.sampled_from(["cat", "dog", "cat", " dog ", "", "1"])),
    max_size=8,
  ),
  "header": st.sampled_from(
    ["file,label", "id;class", "x,y", "", "label,file"]
  ),
  "sep": st.sampled_from([",", ";", ",", '"']),
  "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
  "max_broken": st.sampled_from([0, 9]),
}
CHECKS = {
  "files": (_check_files, _file_cases),
  "damage": (_check_damaged, _damaged_cases),
  "arrays": (_check_arrays, _array_cases),
  "tables": (_check_table, _table_cases),
}


def _run(name: str, examples: int):
  check, cases = CHECKS[name]
  fixed = settings(
    max_examples=examples,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
  )
  seed(0)(fixed(given(**cases)(check)))()


@pytest.mark.parametrize("name", CHECKS)
def test_a_hundred_random_sets_are_read_or_refused(name):
  _run(name, FEW // len(CHECKS))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_thousands_of_random_sets_are_read_or_refused(name):
  _run(name, MANY)
