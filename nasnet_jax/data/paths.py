"""Paths as users write them."""

import pathlib

from nasnet_jax.data.image_data import DataError


def local(path) -> pathlib.Path:
  """A path of this machine, with a leading ~ in place: shells leave that alone
  behind an equals sign.

  Raises:
    DataError: for an address such as gs://bucket/run, which would become a
      folder named "gs:".
  """
  text = str(path)
  if "://" in text:
    raise DataError(
      f"{text} is no path of this machine: mount it (gcsfuse for a bucket, or"
      " NFS), and give the folder that it is mounted at"
    )
  return pathlib.Path(text).expanduser()
