"""The files of a directory, tar or zip, in memory: nothing is unpacked."""

import bz2
import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nasnet_jax.data.image_data import DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
SUFFIXES = (*TAR_SUFFIXES, ".zip")

_OPENERS = {
  ".gz": gzip.open,
  ".tgz": gzip.open,
  ".xz": lzma.open,
  ".txz": lzma.open,
  ".bz2": bz2.open,
}
_BROKEN = (
  tarfile.TarError,
  zipfile.BadZipFile,
  lzma.LZMAError,
  EOFError,
  OSError,
  zlib.error,
)


def is_archive(path: Path) -> bool:
  return path.name.lower().endswith(SUFFIXES)


def entries(path: Path) -> Iterator[tuple[PurePosixPath, bytes | None]]:
  """Yields (name, content) of every file and (name, None) of every folder.

  Names are relative to the top and hold no "..". The order is the archive's
  own. Hidden files and folders, and what macOS adds to zips, are left out.

  Raises:
    DataError: for a damaged archive, a name that points outside it, a link,
      an encrypted file.
  """
  if path.is_dir():
    return _visible(_directory_entries(path))
  read = _zip_entries if path.suffix.lower() == ".zip" else _tar_entries
  return _visible(_explained(path, read(path)))


def content_key(path: Path) -> str:
  """A hash that changes when the files do.

  Of an archive it is the SHA-256 of its bytes, so a copy elsewhere has the
  same; of a directory, that of its path and all names, sizes and times of
  change.
  """
  digest = hashlib.sha256()
  if path.is_dir():
    digest.update(str(path.resolve()).encode())
    for name, file in walk(path):
      stat = file.stat()
      row = (str(name), file.is_dir(), stat.st_size, stat.st_mtime_ns)
      digest.update(repr(row).encode())
  else:
    with path.open("rb") as f:
      while block := f.read(1 << 20):
        digest.update(block)
  return digest.hexdigest()


def _visible(items):
  for name, content in items:
    hidden = (p.startswith(".") or p == "__MACOSX" for p in name.parts)
    if name.parts and not any(hidden):
      yield name, content


def _explained(path: Path, items):
  """Turns the many ways in which an archive is damaged into one line."""
  try:
    yield from items
  except _BROKEN as error:
    raise DataError(
      f"{path} is damaged or not what its suffix says ({error}): copy or"
      " download it again"
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


class _Header(tarfile.TarInfo):
  """tarfile takes a damaged header, or none, for the end of the archive."""

  @classmethod
  def frombuf(cls, buf, encoding, errors):
    try:
      return super().frombuf(buf, encoding, errors)
    except tarfile.EOFHeaderError:
      raise
    except tarfile.HeaderError as error:
      raise tarfile.ReadError(f"{error} before the end") from error


def _tar_entries(path: Path):
  opener = _OPENERS.get(path.suffix.lower(), open)
  # "r|" reads forward only: going back in an .xz would decompress it again.
  with (
    opener(path, "rb") as stream,
    tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar,
  ):
    for member in tar:
      name = safe_name(member.name, path)
      if member.isdir():
        yield name, None
      elif member.isfile():
        yield name, tar.extractfile(member).read()
      elif member.issym() or member.islnk():
        raise DataError(
          f"{path} holds a link, {member.name!r}: pack it again with"
          " tar --dereference --hard-dereference"
        )
    while stream.read(1 << 20):
      pass  # The checksum of the compressed data comes last.


def _zip_entries(path: Path):
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      name = safe_name(info.filename, path)
      if info.flag_bits & 1:
        raise DataError(f"{path} is encrypted: pack it again without password")
      yield name, None if info.is_dir() else archive.read(info)


def _directory_entries(path: Path):
  for name, file in walk(path):
    try:
      yield name, None if file.is_dir() else file.read_bytes()
    except OSError as error:
      raise DataError(f"cannot read {file}: {error.strerror}") from error


def walk(top: Path):
  """Yields (relative name, path) in name order; links are followed, once."""
  seen = set()
  for folder, folders, files in os.walk(top, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    folders.sort()
    for name in sorted(folders + files):
      file = Path(folder, name)
      yield PurePosixPath(file.relative_to(top).as_posix()), file
