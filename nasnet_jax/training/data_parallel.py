"""Batches divided over the mesh's axis `data`, where each device works on its
own rows."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import PartitionSpec

# How arrays lie on the mesh.
REPLICATED, DIVIDED = PartitionSpec(), PartitionSpec("data")


def local_part(rows, devices: int):
  """This device's part of arrays that all devices hold."""
  size = rows[0].shape[0] // devices
  start = jax.lax.axis_index("data") * size
  return tuple(
    jax.lax.dynamic_slice_in_dim(row, start, size, 0) for row in rows
  )


def on_each_device(function, mesh, in_specs):
  """`function` run on every device of `data`; it must return the same on all.

  It also has to sum over the devices itself, as `train_step` does.
  """
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=REPLICATED,
    check_vma=False,
  )


def put_rows(
  mesh: jax.sharding.Mesh | None,
) -> Callable[[np.ndarray], jax.Array]:
  """A function that puts a host's rows of a batch on its devices."""
  where = sharding(mesh, DIVIDED)
  return functools.partial(jax.make_array_from_process_local_data, where)


def sharding(mesh: jax.sharding.Mesh | None, spec: PartitionSpec):
  """Where an array of that spec lies: on the mesh, or on a single device."""
  if mesh is None or mesh.shape["data"] == 1:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.sharding.NamedSharding(mesh, spec)
