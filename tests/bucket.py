"""A stand-in for a bucket: what gs:// and s3:// mean in a test.

  install(folder)

Objects are files below the folder, and as in a bucket there are only whole
ones: each appears when it is closed, folders are parts of names, and nothing
can be appended to or renamed.
"""

import importlib
import io
import os
import pathlib

import fsspec


class _Object(io.BytesIO):
  """An object under way; it is there once this is closed."""

  def __init__(self, path: pathlib.Path, before):
    super().__init__()
    self._path, self._before = path, before

  def close(self):
    if not self.closed:
      self._before(self._path)
      self._path.parent.mkdir(parents=True, exist_ok=True)
      part = self._path.with_name(f"{self._path.name}.part{os.getpid()}")
      part.write_bytes(self.getvalue())
      os.replace(part, self._path)
    super().close()


class Bucket(fsspec.AbstractFileSystem):
  """Objects below `top`; `before_write` is called with the file of each."""

  cachable = False
  protocol = ("gcs", "gs", "s3")
  top: pathlib.Path
  before_write = staticmethod(lambda path: None)
  reachable = True

  @classmethod
  def _strip_protocol(cls, path):
    return str(path).split("://")[-1].strip("/")

  def _path(self, path) -> pathlib.Path:
    if not type(self).reachable:
      raise ConnectionError("Cannot connect to host storage.example.org:443")
    return self.top / self._strip_protocol(path)

  def info(self, path, **_):
    file, name = self._path(path), self._strip_protocol(path)
    if file.is_dir():
      return {"name": name, "size": 0, "type": "directory"}
    try:
      stat = file.stat()
    except NotADirectoryError:  # below an object
      raise FileNotFoundError(path) from None
    return {
      "name": name,
      "size": stat.st_size,
      "type": "file",
      "mtime": stat.st_mtime,
    }

  def ls(self, path, detail=True, **_):
    top = self._path(path)
    if top.is_file():
      found = [self.info(path)]
    else:
      name = self._strip_protocol(path)
      found = [self.info(f"{name}/{p.name}") for p in sorted(top.iterdir())]
    return found if detail else [row["name"] for row in found]

  def _open(self, path, mode="rb", **_):
    if mode == "rb":
      return self._path(path).open("rb")
    assert mode == "wb", f"a bucket has no {mode}"
    return _Object(self._path(path), type(self).before_write)

  def rm_file(self, path):
    file = self._path(path)
    file.unlink()
    for folder in file.parents:  # folders are but parts of names
      if folder == self.top or any(folder.iterdir()):
        break
      folder.rmdir()

  def mv(self, *_, **__):
    raise AssertionError("a bucket cannot rename")


def install(top) -> type[Bucket]:
  """Has gs:// and s3:// mean a folder in this process, until `uninstall`."""
  from etils.epath import backend

  class Here(Bucket):
    pass

  Here.top = pathlib.Path(top)
  for name in ("gcs", "gs", "s3"):
    fsspec.register_implementation(name, Here, clobber=True)
  backend.fsspec_backend._get_filesystem.cache_clear()
  return Here


def uninstall():
  from etils.epath import backend

  registry = importlib.import_module("fsspec.registry")
  for name in ("gcs", "gs", "s3"):
    registry._registry.pop(name, None)
  backend.fsspec_backend._get_filesystem.cache_clear()
