"""Labels in a table beside the pictures: a CSV or a Parquet file."""

import csv
import unicodedata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from nasnet_jax.data import buckets, layout, paths, places
from nasnet_jax.data.image_data import DataError, listed, printable
from nasnet_jax.data.listing import Listing

# Names of columns, the likeliest first; compared without case and signs.
_FILE = (
  *("file", "filename", "filepath", "path", "image", "imagepath", "imagefile"),
  *("imagename", "img", "imgname", "imagefilename", "picture", "photo"),
  *("imageid", "imgid", "idcode", "fileid", "id", "name"),
)
_LABEL = (
  *("label", "labels", "class", "classname", "classlabel", "classid"),
  *("labelname", "category", "target", "species", "breed", "diagnosis", "y"),
)
_SPLIT = ("split", "set", "subset", "part", "partition", "dataset", "datasplit")


class Table(NamedTuple):
  """What a table says.

  Attributes:
    path: of its file.
    rows: {file as the table names it: (class, split or None)}.
    others: columns that are not used.
  """

  path: Path
  rows: dict[str, tuple[str, str | None]]
  others: tuple[str, ...] = ()


def find(labels: str, top: Path, data_dir) -> Path:
  """The table's file: inside of the folder of pictures, or beside it.

  Raises:
    DataError: naming the places where it is not.
  """
  inside = [top] if top.is_dir() else []
  if buckets.is_address(labels):
    return places.fetched(labels)
  beside = [] if buckets.is_address(data_dir or "") else [Path(data_dir or "")]
  around = [*inside, top.parent, *beside]
  tried = [place / paths.local(labels) for place in around]
  for path in tried:
    if path.is_file():
      return path
  raise DataError(
    f"labels: there is no table {labels!r} in {' or '.join(map(str, around))}:"
    " give its path in labels (data.options.labels)"
  )


def read(path: Path) -> Table:
  """The rows of a table.

  Raises:
    DataError: for a file that is no table, or lacks a column, one line.
  """
  columns = _parquet(path) if _is_parquet(path) else _csv(path)
  file = _column(path, columns, _FILE, "the pictures' files")
  label = _column(path, columns, _LABEL, "their labels")
  split = next((c for c in columns if _plain(c) in _SPLIT), None)
  rows: dict[str, tuple[str, str | None]] = {}
  for number, name in enumerate(columns[file], 2):
    row = (
      _text(path, number, label, columns[label][number - 2]),
      _split(path, number, columns[split][number - 2]) if split else None,
    )
    name = _text(path, number, file, name)
    if rows.setdefault(name, row) != row:
      raise DataError(
        f"{path}: {printable(name)} has two labels, {rows[name][0]!r} and"
        f" {row[0]!r} in row {number}: take one out"
      )
  if not rows:
    raise DataError(f"{path} has no rows: give one per picture")
  used = (file, label, split)
  return Table(path, rows, tuple(c for c in columns if c not in used))


def apply(
  table: Table, listing: Listing
) -> tuple[layout.Layout, list[str], list[str]]:
  """(the layout of the listing's pictures, remarks, lines on missing ones).

  Pictures that the table does not name are taken out of the listing.

  Raises:
    DataError: if a row could mean several pictures, or none is named.
  """
  index = _index(listing.pictures)
  parts: dict[PurePosixPath, tuple[str, str | None]] = {}
  missing = []
  for name, row in table.rows.items():
    picture = _match(table, name, index)
    if picture is None:
      missing.append(f"{printable(name)} of {table.path.name} is not there")
    elif parts.setdefault(picture, row) != row:
      raise DataError(
        f"{table.path}: two rows with different labels mean {picture}: take"
        " one out"
      )
  if not parts:
    raise DataError(
      f"{table.path}: no row names a picture that is there; the first names"
      f" {printable(next(iter(table.rows)))!r}, and there is"
      f" {printable(next(iter(listing.pictures)))!r}"
    )
  unnamed = [name for name in listing.pictures if name not in parts]
  for name in unnamed:
    listing.leave(name)
  remarks = []
  if table.others:
    remarks.append(
      f"left out: column(s) {listed(table.others)} of {table.path.name}"
    )
  if unnamed:
    remarks.append(
      f"left out: {len(unnamed):,} image(s) that {table.path.name} does not"
      f" name ({listed(unnamed, 3)})"
    )
  return _layout(table, parts, list(listing.pictures)), remarks, missing


def _layout(table: Table, parts, names) -> layout.Layout:
  rows = [parts[name] for name in names]
  folders = layout.splits_of(names)
  found = []
  for name, (label, split) in zip(names, rows):
    found.append((split or folders.get(name.parts[0], "train"), label))
  if not any(split == "test" for split, _ in found):
    found = [
      ("test" if split == "valid" else split, label) for split, label in found
    ]
  found = [("test" if s == "test" else "train", label) for s, label in found]
  made = layout.make(table.path, found, [])
  return made._replace(class_names=_ordered(made.class_names))


def _ordered(names: list[str]) -> list[str]:
  """Sorted; numbers by their value."""
  if all(name.isdecimal() for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return names


def _index(pictures) -> dict[str, set[PurePosixPath]]:
  """{any end of a picture's path, with and without its ending: pictures}."""
  index: dict[str, set[PurePosixPath]] = {}
  for name in pictures:
    for start in range(len(name.parts)):
      tail = PurePosixPath(*name.parts[start:])
      for key in (str(tail), str(tail.with_suffix(""))):
        index.setdefault(_key(key), set()).add(name)
  return index


def _match(table: Table, name: str, index) -> PurePosixPath | None:
  """The picture that a row means: by its path, or the end of it that is
  there, with or without an ending."""
  parts = PurePosixPath(name.replace("\\", "/")).parts
  for start in range(len(parts)):
    found = index.get(_key("/".join(parts[start:])))
    if found is None:
      continue
    whole = [p for p in found if _key(str(p)) == _key("/".join(parts[start:]))]
    if len(whole) == 1:
      return whole[0]
    if len(found) > 1:
      raise DataError(
        f"{table.path}: {printable(name)} could be any of"
        f" {listed(sorted(found), 3)}: name it with its folder and ending"
      )
    return next(iter(found))
  return None


def _key(name: str) -> str:
  return unicodedata.normalize("NFC", name)


def _plain(column: str) -> str:
  return "".join(c for c in column.lower() if c.isalnum())


def _column(path: Path, columns, known, what: str) -> str:
  plain = {_plain(column): column for column in reversed(list(columns))}
  for word in known:
    if word in plain:
      return plain[word]
  raise DataError(
    f"{path} has no column of {what}: it has {listed(columns)}; call it"
    f" {known[0]!r}"
  )


def _text(path: Path, number: int, column: str, value) -> str:
  if isinstance(value, float) and value.is_integer():
    value = int(value)  # as tables with holes turn numbers
  text = value.strip() if isinstance(value, str) else value
  if isinstance(text, bool | int):
    text = str(text)
  if not isinstance(text, str) or not text:
    raise DataError(
      f"{path}: row {number} has {printable(repr(value)[:60])} in column"
      f" {column!r}: fill it or take the row out"
    )
  return layout.class_name(path, text)


def _split(path: Path, number: int, value) -> str:
  kind = layout.split_of(str(value))
  if kind is None:
    raise DataError(
      f"{path}: row {number} is of split {printable(value)!r}: give train,"
      " valid or test"
    )
  return kind


# Files


def _is_parquet(path: Path) -> bool:
  with path.open("rb") as file:
    return file.read(4) == b"PAR1"


def _parquet(path: Path) -> dict[str, list]:
  try:
    from pyarrow import parquet
  except ImportError:
    raise DataError(
      f"{path} is Parquet: pip install pyarrow, or save it as CSV"
    ) from None
  try:
    return parquet.read_table(path).to_pydict()
  except Exception as error:  # pyarrow raises a dozen kinds
    first = str(error).partition("\n")[0]
    raise DataError(
      f"{path} is damaged ({printable(first)}): write it again, or as CSV"
    ) from error


def _csv(path: Path) -> dict[str, list[str]]:
  text = _decoded(path, path.read_bytes())
  header = next((line for line in text.splitlines() if line.strip()), "")
  delimiter = max(",;\t|", key=header.count)
  try:
    lines = csv.reader(text.splitlines(True), delimiter=delimiter, strict=True)
    rows = [row for row in lines if any(cell.strip() for cell in row)]
  except csv.Error as error:
    raise DataError(f"{path} is no CSV ({error}): save it again") from error
  if not rows:
    raise DataError(f"{path} is empty: give a row per picture")
  names = [cell.strip() for cell in rows[0]]
  for number, row in enumerate(rows[1:], 2):
    if len(row) != len(names):
      raise DataError(
        f"{path}: row {number} has {len(row)} cells, the header {len(names)}:"
        " mend it"
      )
  return {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}


def _decoded(path: Path, content: bytes) -> str:
  """UTF-8, or UTF-16 where a mark says so, as Excel saves "Unicode text"."""
  wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
  try:
    return content.decode("utf-16" if wide else "utf-8-sig")
  except UnicodeError:
    raise DataError(
      f"{path} is neither in UTF-8 nor Parquet: save it as CSV in UTF-8"
    ) from None
