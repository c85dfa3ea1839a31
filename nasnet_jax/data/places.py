"""Folders and files as users give them, here or in a bucket: to read, to write.

`paths` knows this machine only, and refuses addresses.
"""

import contextlib
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from nasnet_jax.data import buckets, mirror, paths
from nasnet_jax.data.buckets import BucketError

_log = logging.getLogger(__name__)
_READ_PARTS = ("folder", "coco", "voc", "yolo")  # sources that use `joined`
_sending: dict[pathlib.Path, str] = {}  # folders whose content will be sent


def fetched(path) -> pathlib.Path:
  """A folder or file to read, as it is here; what lies at an address such as
  gs://bucket/run is copied to this machine, and only what changed is again.

  Raises:
    DataError: for an address that cannot be used or where nothing is; else as
      `paths.local`.
  """
  text = paths.expanded(path).rstrip("/")
  if not buckets.is_address(text):
    return paths.local(path)
  root, place = buckets.at(text), mirror.place(text)
  with buckets.told(text):
    if buckets.is_there(root / mirror.MARK):
      if not mirror.is_worked_in(place):
        mirror.Mirror(text).pull()
      return place
    if buckets.is_there(root):
      follow = buckets.follow if root.is_dir() else buckets.follow_file
      follow(root, place)
      return place
  raise BucketError(f"{text}: there is nothing at this address")


def of_source(source: str, data_dir):
  """The folder of a source of images. What reads one folder or file inside of
  it gets an address as it is, and so does tfds, which reads there itself."""
  text = paths.expanded(data_dir)
  if source == "tfds":
    return text
  if buckets.is_address(text) and source in _READ_PARTS:
    return text
  return fetched(data_dir)


def joined(data_dir, path) -> pathlib.Path:
  """As `paths.joined`; either may be an address, and is fetched.

  Raises:
    DataError: as `fetched`.
  """
  own = paths.expanded(path or "")
  if buckets.is_address(own):
    if data_dir:
      _log.warning(
        "data_dir %s is not used for path %s, which stands by itself",
        data_dir,
        path,
      )
    return fetched(own)
  if not buckets.is_address(data_dir or ""):
    return paths.joined(data_dir, path)
  if paths.local(own).is_absolute():
    _log.warning("data_dir %s is not used for path %s", data_dir, path)
    return paths.local(own)
  return fetched(inside(data_dir, own) if own else data_dir)


def of_run(folder) -> pathlib.Path:
  """Where a run works, see `training.workdir.locked`; nothing is fetched.

  Raises:
    DataError: for an address that cannot be used; else as `paths.local`.
  """
  text = paths.expanded(folder)
  if not buckets.is_address(text):
    return paths.local(folder)
  buckets.at(text)
  return mirror.place(text)


def inside(folder, name: str):
  """The path or address of something in a folder."""
  text = paths.expanded(folder)
  if buckets.is_address(text):
    return f"{text.rstrip('/')}/{name}"
  return paths.local(folder) / name


@contextlib.contextmanager
def sent(path) -> Iterator[pathlib.Path]:
  """A folder or file to write. That of an address is written here and sent at
  the end, also where an error ends it.

  Raises:
    DataError: for an address that cannot be used, or a folder there that has
      something in it already; else as `paths.local`.
  """
  text = paths.expanded(path).rstrip("/")
  if not buckets.is_address(text):
    yield paths.local(path)
    return
  root = buckets.at(text)
  with buckets.told(text):
    if buckets.is_there(root) and root.is_dir() and any(root.iterdir()):
      raise BucketError(f"{text} has files already: give a new place")
  top = pathlib.Path(tempfile.mkdtemp(prefix="nasnet_jax_"))
  place = top / text.rpartition("/")[2]
  _sending[place] = text
  try:
    yield place
  finally:
    try:
      _send(place, root, text)  # if it cannot, what was written stays here
    finally:
      del _sending[place]
    shutil.rmtree(top, ignore_errors=True)


def _send(place: pathlib.Path, root, text: str):
  # A page has its figures beside it, so all that is there goes.
  files = [p for p in place.parent.rglob("*") if p.is_file()]
  targets = [root.parent / str(p.relative_to(place.parent)) for p in files]
  try:
    with buckets.told(text):
      buckets.many(buckets.send, files, targets)
  except BucketError as error:
    raise BucketError(f"{error}; what was written is in {place}") from error
  if files:
    _log.info("%d file(s) are sent to %s", len(files), text)


def send_pages(folder):
  """Sends the pages of a run that stands for an address, see `data.mirror`;
  while the run is at work here, it does so itself."""
  address = mirror.address_of(folder)
  if address and not mirror.is_worked_in(pathlib.Path(folder)):
    try:
      mirror.Mirror(address).send_pages()
    except BucketError as error:  # whoever may only read has it here
      _log.warning("the page is in %s, and is not sent: %s", folder, error)


def shown(path) -> str:
  """What users call a path: its address where it stands for one."""
  path = pathlib.Path(path)
  for folder in (path, *path.parents):
    address = _sending.get(folder) or mirror.address_of(folder)
    if address:
      rest = path.relative_to(folder)
      return address if folder == path else f"{address}/{rest.as_posix()}"
  return str(path)
