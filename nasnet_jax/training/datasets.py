"""What a training or an evaluation reads: a set in memory, or a stream."""

import contextlib
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.data import photo_stream
from nasnet_jax.training import data_parallel
from nasnet_jax.training import mesh as meshes


class Images(NamedTuple):
  """A labelled set: images uint8[N, H, W, C], labels int32[N]."""

  images: Any
  labels: Any

  @property
  def num_images(self) -> int:
    return len(self.labels)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return tuple(self.images.shape[1:])


Data = Images | photo_stream.Batches


def feed(data: Data, batch_size: int, seed: int, steps: range, mesh):
  """What each device call reads: the whole set, or a stream's next batch."""
  if isinstance(data, Images):
    yield from itertools.repeat(data)
  put = data_parallel.put_rows(mesh)
  with contextlib.closing(
    data.training_batches(batch_size, seed, steps.start, steps.stop)
  ) as stream_batches:
    for batch in stream_batches:
      yield jax.tree.map(put, Images(batch.images, batch.labels))


def on_device(data: Data, mesh: jax.sharding.Mesh | None = None) -> Data:
  """The whole set on every device of the mesh: uint8[N, H, W, C], int32[N].
  A stream is returned as it is."""
  if not isinstance(data, Images):
    return data
  if mesh is None or mesh.shape["data"] == 1:
    return Images(jnp.asarray(data.images), jnp.asarray(data.labels, jnp.int32))
  whole = Images(data.images, np.asarray(data.labels, np.int32))
  return meshes.put(
    whole, data_parallel.sharding(mesh, data_parallel.REPLICATED)
  )
