"""What lies at addresses such as gs://bucket/run, through `etils.epath`.

A bucket holds whole objects: no append, no rename, no folders and no locks. So
nothing works in one: files are copied from there and to there, several at once.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

from nasnet_jax.data.image_data import DataError

# Of an address: what fsspec calls its file system, and the package that has it.
_SCHEMES = {"gs": ("gcs", "gcsfs"), "s3": ("s3", "s3fs")}
_AT_ONCE = 16
_CHUNK = 1 << 20
COPIED = ".copied.json"  # in a folder of copies: what they were copies of


class BucketError(DataError):
  """An address that cannot be used; the message is one line."""


def is_address(path) -> bool:
  """Whether it is of no path here, but such as gs://bucket/run."""
  return "://" in str(path)


def at(address: str):
  """The epath.Path of an address.

  Raises:
    BucketError: for one of another kind, or where the package that reaches it
      is not installed.
  """
  scheme, _, rest = str(address).partition("://")
  if scheme not in _SCHEMES or not rest.strip("/"):
    raise BucketError(
      f"{address}: only gs://BUCKET/PLACE and s3://BUCKET/PLACE are addresses"
      " here; mount anything else, and give the folder that it is mounted at"
    )
  name, package = _SCHEMES[scheme]
  import fsspec  # only where there is an address: it takes a while

  try:
    fsspec.get_filesystem_class(name)
  except ImportError:
    raise BucketError(
      f"{address}: the package that reaches it is not installed: pip install"
      f" {package}"
    ) from None
  # What others write meanwhile must be seen.
  settings = fsspec.config.conf.setdefault(name, {})
  settings.setdefault("use_listings_cache", False)
  # Or epath imports TensorFlow where there is one, which takes seconds and
  # knows no s3://.
  os.environ.setdefault("EPATH_USE_TF", "false")
  from etils import epath

  return epath.Path(f"{scheme}://{rest.rstrip('/')}")


@contextlib.contextmanager
def told(address) -> Iterator[None]:
  """Turns what services raise, each its own kinds, into a line.

  Raises:
    BucketError: for any other error.
  """
  try:
    yield
  except DataError:
    raise
  except Exception as error:
    lines = str(error).strip().splitlines() or [""]
    raise BucketError(
      f"{address} cannot be used ({type(error).__name__}: {lines[0][:150]}):"
      " look at its name, your rights there and the network"
    ) from error


def is_there(path) -> bool:
  """Whether anything is. `exists` says no of what cannot be reached, too."""
  try:
    path.stat()
  except FileNotFoundError:
    return False
  return True


def names(root) -> dict[str, tuple[int, str]]:
  """{name below root: (bytes, version)} of all files there, but hidden ones;
  {} if there are none.

  Args:
    root: as `at` gives it.
  """
  if not is_there(root):
    return {}
  import fsspec

  # One question for all; epath would ask for each, and knows no versions.
  files, top = fsspec.core.url_to_fs(str(root))
  found = {}
  for full, info in files.find(top, detail=True).items():
    name = full[len(top) :].strip("/")
    if info["type"] != "file" or not name or full.endswith("/"):
      continue
    if not any(part.startswith(".") for part in name.split("/")):
      found[name] = _seen(info)
  return found


# What services call the version of an object, or when it changed.
_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated")


def _seen(info) -> tuple[int, str]:
  version = next((info[key] for key in _VERSIONS if info.get(key)), "")
  return int(info["size"] or 0), str(version)


def fetch(source, target: pathlib.Path) -> str:
  """Copies an object to a file, which appears whole; the SHA-256 of it."""
  digest = hashlib.sha256()
  target.parent.mkdir(parents=True, exist_ok=True)
  part = target.with_name(f".{target.name}.{os.getpid()}.part")
  try:
    with source.open("rb") as reader, part.open("wb") as writer:
      _copy(reader, writer, digest)
    os.replace(part, target)
  finally:
    part.unlink(missing_ok=True)
  return digest.hexdigest()


def digest(path: pathlib.Path) -> str:
  """The SHA-256 of a file."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def send(source: pathlib.Path, target) -> tuple[int, str]:
  """Copies a file to an object: (bytes, SHA-256) of what was sent."""
  digest = hashlib.sha256()
  with source.open("rb") as reader, target.open("wb") as writer:
    return _copy(reader, writer, digest), digest.hexdigest()


def _copy(reader, writer, digest) -> int:
  count = 0
  while chunk := reader.read(_CHUNK):
    digest.update(chunk)
    writer.write(chunk)
    count += len(chunk)
  return count


def follow(root, folder: pathlib.Path) -> dict[str, tuple[int, str]]:
  """Makes a folder a copy of what is at an address; only what changed there is
  copied again.

  Args:
    root: as `at` gives it.
    folder: its copies are told from other files by a list in it.

  Returns:
    `names` of the address.
  """
  found, known = names(root), copied(folder)
  stale = [n for n in found if not _is_here(folder / n, found[n], known.get(n))]
  many(lambda name: fetch(root / name, folder / name), stale)
  for name in known.keys() - found.keys():
    (folder / name).unlink(missing_ok=True)
  if found:
    (folder / COPIED).write_text(json.dumps(found))
  return found


def follow_file(root, path: pathlib.Path):
  """The same of one object."""
  import fsspec

  files, name = fsspec.core.url_to_fs(str(root))
  found, known = _seen(files.info(name)), copied(path.parent)
  if not _is_here(path, found, known.get(path.name)):
    fetch(root, path)
    (path.parent / COPIED).write_text(json.dumps({path.name: found}))


def copied(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
  """What `follow` has copied into a folder."""
  path = folder / COPIED
  if not path.exists():
    return {}
  return {n: tuple(v) for n, v in json.loads(path.read_text()).items()}


def _is_here(path: pathlib.Path, found, known) -> bool:
  return found == known and path.exists() and path.stat().st_size == found[0]


def remove(path):
  """Removes an object, if it is there."""
  with contextlib.suppress(FileNotFoundError):
    path.unlink()


def many(function, *arguments) -> list:
  """[function of each], several at once; the first error is raised."""
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    return list(pool.map(function, *arguments))
