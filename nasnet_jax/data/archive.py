"""The files of a directory, tar or zip, in memory: nothing is unpacked."""

import bz2
import gzip
import hashlib
import logging
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from nasnet_jax.data.image_data import DataError, printable

_log = logging.getLogger(__name__)

TAR_SUFFIXES = (
  ".tar",
  ".tar.gz",
  ".tgz",
  ".tar.xz",
  ".txz",
  ".tar.bz2",
  ".tbz2",
)
SUFFIXES = (*TAR_SUFFIXES, ".zip")

_OPENERS = {
  ".gz": gzip.open,
  ".tgz": gzip.open,
  ".xz": lzma.open,
  ".txz": lzma.open,
  ".bz2": bz2.open,
  ".tbz2": bz2.open,
}
# What systems put beside the files they show: resource forks and settings.
_JUNK = frozenset(
  (".ds_store", ".localized", "desktop.ini", "icon\r", "thumbs.db")
)
# Folders of macOS, Synology and QNAP, Windows, and of file systems: thumbnails
# and what was deleted.
_SYSTEM = frozenset(
  (
    "__macosx",
    "@eadir",
    "#recycle",
    "@recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
  )
)


class Entry(NamedTuple):
  """A file or folder.

  Attributes:
    name: relative to the top; holds no "..".
    kind: "file", "folder", "loop" (a link to a folder around it), or "special"
      (a pipe, a device).
    content: of a file that was wanted.
    error: why a file that was wanted could not be read; else "".
  """

  name: PurePosixPath
  kind: str = "file"
  content: bytes = b""
  error: str = ""


def is_archive(path: Path) -> bool:
  return path.name.lower().endswith(SUFFIXES)


def is_junk(name: PurePosixPath) -> bool:
  """Whether a file is a system's own and no user's."""
  return name.name.startswith("._") or name.name.lower() in _JUNK


def is_hidden(part: str) -> bool:
  """Whether a file or folder of that name is not shown, or a system's."""
  return part.startswith(".") or part.lower() in _SYSTEM


def hidden_root(name: PurePosixPath) -> PurePosixPath | None:
  """The topmost hidden file or folder on the way to a file; None: none is."""
  for depth, part in enumerate(name.parts, 1):
    if is_hidden(part):
      return PurePosixPath(*name.parts[:depth])
  return None


def entries(
  path: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[Entry]:
  """Every file and folder, in the archive's own order, hidden ones too.

  Args:
    wanted: whether a file of that name is read.

  Raises:
    DataError: for a damaged archive, a name that points outside it, a link,
      an encrypted file, a method of compression that Python lacks.
  """
  if path.is_dir():
    return _directory_entries(path, wanted)
  read = _zip_entries if path.suffix.lower() == ".zip" else _tar_entries
  return explained(path, read(path, wanted))


def content_key(path: Path) -> str:
  """A hash that changes when the files do.

  Of an archive it is the SHA-256 of its bytes, so a copy elsewhere has the
  same; of a directory, that of its path and all names, sizes and times of
  change.
  """
  digest = hashlib.sha256()
  if path.is_dir():
    digest.update(os.fsencode(path.resolve()))
    for name, file, kind in walk(path):
      row = (str(name), kind)
      if kind in ("file", "folder") and file.exists():
        found = file.stat()
        row += (found.st_size, found.st_mtime_ns)
      digest.update(repr(row).encode())
  else:
    with path.open("rb") as f:
      while block := f.read(1 << 20):
        digest.update(block)
  return digest.hexdigest()


def explained(path: Path, items):
  """Turns the many ways in which an archive is damaged into one line."""
  try:
    yield from items
  except DataError:
    raise
  except NotImplementedError as error:
    raise DataError(
      f"{path} is packed in a way that Python cannot read ({error}): unpack"
      " it, or pack it again as a plain zip or tar"
    ) from error
  except Exception as error:  # Python's readers raise a dozen kinds
    raise DataError(
      f"{path} is damaged or not what its suffix says ({printable(error)}):"
      " copy or download it again"
    ) from error


def safe_name(name: str, path: Path) -> PurePosixPath:
  """The name as a relative path. Nothing is written, so a name that leads
  outside could do no harm; it still means that nobody sane made the file."""
  pure = PurePosixPath(name.replace("\\", "/"))
  drive = pure.parts and pure.parts[0].endswith(":")
  if pure.is_absolute() or ".." in pure.parts or drive:
    raise DataError(
      f"{path} holds the name {name!r}, which leads outside of it: refused;"
      " pack the folder again"
    )
  return pure


def refuse_link(path: Path, name: str) -> DataError:
  return DataError(
    f"{path} holds a link, {name!r}: pack it again with"
    " tar --dereference --hard-dereference"
  )


class Header(tarfile.TarInfo):
  """tarfile takes a damaged header, or none, for the end of the archive."""

  @classmethod
  def frombuf(cls, buf, encoding, errors):
    try:
      return super().frombuf(buf, encoding, errors)
    except tarfile.EOFHeaderError:
      raise
    except tarfile.HeaderError as error:
      raise tarfile.ReadError(f"{error} before the end") from error


def _tar_entries(path: Path, wanted):
  opener = _OPENERS.get(path.suffix.lower(), open)
  # "r|" reads forward only: going back in an .xz would decompress it again.
  with (
    opener(path, "rb") as stream,
    tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as tar,
  ):
    for member in tar:
      name = safe_name(member.name, path)
      if member.isdir():
        yield Entry(name, "folder")
      elif member.isfile():
        content = tar.extractfile(member).read() if wanted(name) else b""
        yield Entry(name, content=content)
      elif member.issym() or member.islnk():
        raise refuse_link(path, member.name)
      else:
        yield Entry(name, "special")
    while stream.read(1 << 20):
      pass  # The checksum of the compressed data comes last.


def _zip_entries(path: Path, wanted):
  unsure = []
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      name = safe_name(_zip_name(info, unsure), path)
      if info.flag_bits & 1:
        raise DataError(f"{path} is encrypted: pack it again without password")
      if stat.S_ISLNK(info.external_attr >> 16):
        raise refuse_link(path, info.filename)
      if info.is_dir() or info.filename.endswith("\\"):  # Windows' separator
        yield Entry(name, "folder")
      else:
        yield Entry(name, content=archive.read(info) if wanted(name) else b"")
  if unsure:
    _log.warning(
      "%s does not say how its names are written, such as %r: class names may"
      " look odd; pack it again with names in UTF-8",
      path,
      unsure[0],
    )


def _zip_name(info: zipfile.ZipInfo, unsure: list[str]) -> str:
  """The name as it was meant: macOS writes UTF-8 and does not say so."""
  name = info.filename
  if info.flag_bits & 0x800 or name.isascii():
    return name
  try:
    return name.encode("cp437").decode()
  except UnicodeError:
    unsure.append(name)
    return name


def _directory_entries(path: Path, wanted):
  for name, file, kind in walk(path):
    entry = Entry(name, kind)
    if kind == "file" and wanted(name):
      try:
        entry = entry._replace(content=file.read_bytes())
      except OSError as error:
        entry = entry._replace(error=f"cannot be read: {error.strerror}")
    yield entry


def walk(top: Path) -> Iterator[tuple[PurePosixPath, Path, str]]:
  """Yields (relative name, path, `Entry.kind`) in name order.

  Links are followed, and those that lead nowhere are files that cannot be
  read. What lies in hidden folders is not looked at.

  Raises:
    DataError: for a folder that cannot be read.
  """
  real = os.path.realpath(top)
  return _walk(str(top), PurePosixPath(), (real,))


def _walk(folder: str, name: PurePosixPath, above: tuple[str, ...]):
  """above: the real paths of this folder and of those it was come to by."""
  try:
    with os.scandir(folder) as found:
      items = sorted(found, key=lambda item: item.name)
  except OSError as error:
    raise DataError(
      f"folder {printable(folder)} cannot be read: {error.strerror}"
    ) from error
  for item in items:
    inner = name / item.name
    kind, real = _kind(item, above)
    yield inner, Path(item.path), kind
    if kind == "folder" and not is_hidden(item.name):
      yield from _walk(item.path, inner, (*above, real))


def _kind(item: os.DirEntry, above: tuple[str, ...]) -> tuple[str, str]:
  """(`Entry.kind`, the real path of a folder)."""
  try:
    if item.is_dir():
      real = os.path.join(above[-1], item.name)
      if item.is_symlink():
        real = os.path.realpath(item.path)
        around = above[0].startswith(real.rstrip(os.sep) + os.sep)
        if real in above or around:
          return "loop", real
      return "folder", real
    known = item.is_file() or item.is_symlink()
  except OSError:  # a circle of links, a server that does not answer
    known = True
  return "file" if known else "special", ""
