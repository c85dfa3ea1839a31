"""Tables of labels beside a folder of pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from nasnet_jax import data
from nasnet_jax.data import photographs
from nasnet_jax.data.image_data import DataError


@pytest.fixture
def folder(write_folder):
  """Six pictures in one folder, the shade of picture i being i."""

  def content(i):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), i).save(buffer, "png")
    return buffer.getvalue()

  return write_folder({f"pics/{i:03}.png": content(i) for i in range(6)})


ROWS = [("000", "cat"), ("001", "dog"), ("002", "cat"), ("003", "dog")]
ROWS += [("004", "cat"), ("005", "dog")]


def _write(folder, text, encoding="utf-8", name="labels.csv"):
  (folder / name).write_bytes(text.encode(encoding))


def _load(folder, **options):
  return data.load("folder", path=str(folder), labels="labels.csv", **options)


def _table(header, form="{}", sep=",", rows=ROWS):
  lines = [header, *(f"{form.format(a)}{sep}{b}" for a, b in rows)]
  return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
  ("text", "encoding"),
  [
    (_table("file,label", "pics/{}.png"), "utf-8"),
    (_table("Image_ID;Class Name", "{}", ";"), "utf-8-sig"),
    (_table("filename\tspecies", "{}.png", "\t"), "utf-16"),
    (_table("path,target", "C:\\\\me\\\\pics\\\\{}.png"), "utf-8"),
    (_table("id,breed").replace("\n", "\r\n"), "utf-8"),
  ],
)
def test_columns_are_found_by_name_and_files_by_the_end_of_their_path(
  folder, text, encoding
):
  _write(folder, text.replace("\\\\", "\\"), encoding)
  for found in (
    _load(folder),
    photographs.load("folder", path=str(folder), labels="labels.csv"),
  ):
    assert found.class_names == ("cat", "dog")
  images = np.concatenate([(d := _load(folder)).train_images, d.test_images])
  labels = np.concatenate([d.train_labels, d.test_labels])
  np.testing.assert_array_equal(images[:, 0, 0, 0] % 2, labels)
  assert len(labels) == 6


def test_a_parquet_file_does_as_well(folder):
  import pyarrow
  from pyarrow import parquet

  columns = {"image": [f"{a}.png" for a, _ in ROWS], "label": [7, 10] * 3}
  parquet.write_table(pyarrow.table(columns), folder / "labels.csv")
  assert _load(folder).class_names == ("7", "10")


def test_a_column_of_splits_is_heeded(folder):
  splits = ["train"] * 4 + ["val", "val"]
  rows = [(a, f"{b},{s}") for (a, b), s in zip(ROWS, splits)]
  _write(folder, _table("id,label,split", rows=rows))
  found = _load(folder)
  assert found.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
  assert found.test_images[:, 0, 0, 0].tolist() == [4, 5]


def test_columns_that_are_not_used_are_told(folder, caplog):
  text = (
    _table("file,label").replace("\n", ",1\n").replace("label,1", "label,fold")
  )
  _write(folder, text)
  _load(folder)
  assert "left out: column(s) fold of labels.csv" in caplog.text


def test_pictures_that_no_row_names_are_told(folder, caplog):
  _write(folder, _table("id,label", rows=ROWS[:4]))
  assert len(_load(folder).train_labels) == 3
  assert "left out: 2 image(s) that labels.csv does not name" in caplog.text


def test_rows_without_a_picture_count_as_broken(folder):
  _write(folder, _table("id,label", rows=[*ROWS, ("9", "cat"), ("8", "dog")]))
  with pytest.raises(DataError, match=r"9 of labels.csv is not there"):
    _load(folder, max_broken=1)
  assert "2 broken" in _load(folder, max_broken=2).note


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", "is empty"),
    ("file,label\n", "has no rows"),
    (_table("what,label"), "no column of the pictures' files: it has what, l"),
    (_table("id,melanoma"), "no column of their labels: it has id, melanoma"),
    ("id,label\n000,cat\n000,dog\n", "000 has two labels, 'cat' and 'dog'"),
    ("id,label\n000,cat\npics/000.png,dog\n", "two rows with different label"),
    ("id,label\n000,\n", "row 2 has '' in column 'label'"),
    ("id,label\n000,cat,3\n", "row 2 has 3 cells, the header 2"),
    ("id,label\nx,cat\ny,dog\n", "no row names a picture that is there"),
    ("id,label,split\n000,cat,7\n", "row 2 is of split '7'"),
    ('id,label\n"000,cat\n', "is no CSV"),
    ("id,label\n" + "000,cat\n001,cat\n", "only one class"),
  ],
)
def test_tables_that_do_not_fit_are_refused_in_one_line(folder, text, words):
  _write(folder, text)
  with pytest.raises(DataError, match=words) as error:
    _load(folder)
  assert "\n" not in str(error.value)


def test_a_table_in_another_encoding_or_nowhere_is_named(folder):
  with pytest.raises(DataError, match=r"no table 'labels.csv' in .*images or"):
    _load(folder)
  _write(folder, _table("id,label", rows=[("000", "größe")]), "cp1252")
  with pytest.raises(DataError, match="neither in UTF-8 nor Parquet"):
    _load(folder)


def test_a_name_that_could_be_two_pictures_is_named(folder):
  (folder / "more").mkdir()
  (folder / "pics" / "000.png").rename(folder / "more" / "001.png")
  _write(folder, _table("id,label"))
  with pytest.raises(DataError, match=r"001 could be any of more/001\.png"):
    _load(folder)


def test_another_table_is_another_set(folder):
  _write(folder, _table("id,label"))
  first = _load(folder).fingerprint
  _write(folder, _table("id,label", rows=[(a, b[::-1]) for a, b in ROWS]))
  assert _load(folder).class_names == ("god", "tac")
  assert _load(folder).fingerprint != first


def test_a_number_that_photographs_do_not_count_by_is_told(
  write_folder, caplog
):
  pixels = io.BytesIO()
  Image.new("L", (4, 4)).save(pixels, "png")
  names = [f"{c}/{i}.png" for c in "ab" for i in range(4)]
  top = write_folder(dict.fromkeys(names, pixels.getvalue()))
  photographs.load("folder", path=str(top))
  assert "max_broken" not in caplog.text
  photographs.load("folder", path=str(top), max_broken=3)
  assert "allowed by data.stream.max_broken" in caplog.text
