"""The host before JAX starts, and the mesh of devices after.

`prepare_host` writes environment variables that JAX reads once, so nothing
here imports JAX at its top.
"""

import functools
import os
import pathlib
import sys

import numpy as np

# XLA:CPU aborts the process when devices reach a collective more than 40 s
# apart, which unequal children do.
_TIMEOUTS = {
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds": 600,
  "--xla_cpu_collective_call_terminate_timeout_seconds": 3600,
}
MOST_CPU_DEVICES = 8
# The paper's child and its images take less than 1; the rest is for what else
# the machine does.
_GIB_PER_DEVICE = 2
_DEVICES = "--xla_force_host_platform_device_count"


def prepare_host(cpu_devices: int = 1):
  """Sets XLA's flags and where compiled programs are kept.

  Call it before JAX is first used. What the user has set stays.

  Args:
    cpu_devices: how many devices the CPU pretends to be. Other platforms are
      not affected.
  """
  wanted = dict(_TIMEOUTS)
  if cpu_devices > 1:
    wanted[_DEVICES] = cpu_devices
  flags = os.environ.get("XLA_FLAGS", "")
  for name, value in wanted.items():
    if name not in flags:
      flags += f" {name}={value}"
  os.environ["XLA_FLAGS"] = flags.strip()
  defaults = {
    "JAX_COMPILATION_CACHE_DIR": str(default_cache()),
    # Initialisers are hundreds of small programs.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",  # XLA's own notices, not its errors
  }
  for name, value in defaults.items():
    os.environ.setdefault(name, value)
  if "jax" in sys.modules:  # which reads these when it is imported
    import jax

    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    seconds = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
    if jax.config.jax_compilation_cache_dir is None:
      jax.config.update("jax_compilation_cache_dir", folder)
      jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def cores() -> int:
  """Of the machine, that this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # not Linux
    return os.cpu_count() or 1


def memory_gib() -> float:
  """Of the machine; all that one could wish for where it does not say."""
  try:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
  except (AttributeError, ValueError, OSError):  # not POSIX
    return float("inf")


def devices_for_children(most: int = MOST_CPU_DEVICES) -> int:
  """How many devices a CPU should pretend to be while children train: a small
  network does not fill two cores, two of them do.

  Args:
    most: that have something to do.
  """
  by_memory = memory_gib() / _GIB_PER_DEVICE
  return max(1, int(min(cores(), most, MOST_CPU_DEVICES, by_memory)))


def default_cache() -> pathlib.Path:
  """Where compiled programs are kept if the user does not say."""
  return pathlib.Path.home() / ".cache" / "nasnet_jax" / "jax"


def make_mesh(arch: int = 0, data: int = 1, devices=None):
  """The mesh ('arch', 'data'): children over one axis, batches over the other.

  Args:
    arch: devices along `arch`; 0: as many as there are for this `data`.
    data: devices that share each child's batch.
    devices: to lay out; None: all of this machine.

  Raises:
    ValueError: in one line, if the devices cannot be laid out so.
  """
  import jax

  from nasnet_jax.training import hosts

  are_here = devices is None
  devices = list(jax.devices() if are_here else devices)
  count = len(devices)
  if arch < 0 or data < 1:
    raise ValueError(f"mesh is {arch} x {data}: give arch >= 0 and data >= 1")
  size = (arch or count // data) * data
  if not size or count % size:
    shape = f"{arch or 'the rest'} x {data}"
    raise ValueError(
      f"a mesh of {shape} does not fit {count} device(s): mesh.arch times"
      f" mesh.data must divide {count}"
    )
  if not arch and count % data:
    raise ValueError(f"mesh.data {data} does not divide {count} devices")
  # jax.make_mesh would make the axes Explicit, and with them every type.
  auto = (jax.sharding.AxisType.Auto,) * 2
  used = {device.process_index for device in devices[:size]}
  idle = hosts.count() - len(used)
  if are_here and idle:
    raise ValueError(
      f"a mesh of {size // data} x {data} has no device of {idle} of the"
      f" {hosts.count()} hosts: there are {count}, so raise mesh.arch or"
      " mesh.data"
    )
  mesh = jax.make_mesh(
    (size // data, data),
    ("arch", "data"),
    axis_types=auto,
    devices=devices[:size],
  )
  if are_here and hosts.count() > 1:
    _meet(mesh)
  return mesh


def _meet(mesh):
  """Has devices talk once, in the groups in which they will.

  On CPU a group is formed when it is first used, and gloo waits 30 s for its
  members: less than hosts differ in compiling the first program.
  """
  import jax

  same = jax.sharding.PartitionSpec()
  for axes in (("data",), ("arch", "data")):
    add = jax.shard_map(
      functools.partial(jax.lax.psum, axis_name=axes),
      mesh=mesh,
      in_specs=same,
      out_specs=same,
      check_vma=False,
    )
    jax.block_until_ready(jax.jit(add)(np.float32(0)))


def put(tree, shardings):
  """Arrays that every host has whole, laid out on devices.

  Args:
    tree: of arrays; a host moves no more than its own devices' parts.
    shardings: one for all of them, or a tree of them.
  """
  import jax

  if isinstance(shardings, jax.sharding.Sharding):
    shardings = jax.tree.map(lambda _: shardings, tree)
  return jax.tree.map(_put_one, tree, shardings)


def _put_one(x, sharding):
  import jax

  if sharding.is_fully_addressable:
    return jax.device_put(x, sharding)
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)
