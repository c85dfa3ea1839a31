"""What stands between this machine and a run, found before the run.

Each check gives findings: what is there, and of what is wrong the way to mend
it. Nothing here imports JAX: devices are asked in a process of their own, since
a TPU that another process holds lets the one that asks wait for ever.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from nasnet_jax.data import buckets, mirror, paths
from nasnet_jax.training import mesh

OK, NOTE, STOP = "ok", "note", "STOP"  # STOP: a run would not start, or not end

PACKAGE = "nasnet_jax"
DEVICE_SECONDS = 120  # for JAX to start and compile one small program
LOW_DISK = 2 << 30  # bytes; checkpoints and programs of a small search
LOW_MEMORY = 4 << 30  # bytes; compiling the whole NASNet space takes about 3


class Finding(NamedTuple):
  """One line of the examination.

  Attributes:
    level: OK, NOTE or STOP.
    about: what was looked at, in a word or two.
    text: what was found.
    fix: what to do, "" if nothing.
  """

  level: str
  about: str
  text: str
  fix: str = ""


def examine(workdir=None, data_dir=None) -> Iterator[Finding]:
  """All findings, as they come; those of devices take some seconds.

  Args:
    workdir: folder of the run that is planned; it need not exist.
    data_dir: where its data lies.
  """
  yield from check_python()
  yield from check_packages()
  yield from check_extras()
  yield from check_memory()
  yield from check_devices()
  yield from check_cache()
  yield from check_folder("run folder", workdir or "runs")
  yield from check_data(data_dir)


def check_python() -> Iterator[Finding]:
  version = platform.python_version()
  text = f"{version}, {platform.platform()}, {os.cpu_count()} cores"
  yield Finding(OK, "Python", text)


def check_packages() -> Iterator[Finding]:
  """The core packages, against what the installed metadata asks for."""
  try:
    wanted = importlib.metadata.requires(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    fix = f"pip install -e . in the folder of {PACKAGE}"
    yield Finding(STOP, PACKAGE, "is not installed", fix)
    return
  yield Finding(OK, PACKAGE, importlib.metadata.version(PACKAGE))
  good = []
  for need in map(read_requirement, wanted):
    if need.extra or not need.applies:
      continue
    problem = missing(need)
    if problem:
      fix = f"pip install '{need.name}>={need.least}'"
      yield Finding(STOP, need.name, problem, fix)
    else:
      good.append(f"{need.name} {importlib.metadata.version(need.name)}")
  yield Finding(OK, "packages", ", ".join(good))


def check_extras() -> Iterator[Finding]:
  """Which of the optional parts are there."""
  try:
    wanted = importlib.metadata.requires(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    return
  extras: dict[str, list[str]] = {}
  for need in map(read_requirement, wanted):
    if need.extra:
      extras.setdefault(need.extra, [])
      if need.applies:
        extras[need.extra] += missing_parts(need)
  for name, lacks in sorted(extras.items()):
    if lacks:
      text = f"not installed ({', '.join(lacks)})"
      fix = f"if you need it: pip install '{PACKAGE}[{name}]'"
      yield Finding(NOTE, f"extra {name}", text, fix)
    else:
      yield Finding(OK, f"extra {name}", "installed")


class Requirement(NamedTuple):
  """A line of a package's metadata, of the forms that ours has."""

  name: str
  with_extra: str  # of the package itself: "tpu" in jax[tpu]
  least: str  # version; "" if any will do
  extra: str  # of ours; "" for the core
  applies: bool  # to this Python


def read_requirement(line: str) -> Requirement:
  """E.g. `numpy>=2.4; python_version < "3.12" and extra == "dev"`."""
  what, _, marker = line.partition(";")
  name, with_extra = re.match(r"\s*([\w.-]+)(?:\[([\w.-]+)\])?", what).groups()
  least = re.search(r"[>=]=\s*([0-9][^,\s)]*)", what)
  extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
  python = re.search(
    r"python_version\s*(<|>=)\s*['\"](\d+)\.(\d+)['\"]", marker
  )
  applies = True
  if python:
    bound = int(python[2]), int(python[3])
    is_older = sys.version_info[:2] < bound
    applies = is_older if python[1] == "<" else not is_older
  return Requirement(
    name,
    with_extra or "",
    least[1] if least else "",
    extra[1] if extra else "",
    applies,
  )


def missing_parts(need: Requirement) -> list[str]:
  """Names of what a requirement lacks; jax[tpu] needs libtpu too."""
  if missing(need):
    return [need.name]
  if not need.with_extra:
    return []
  parts = map(read_requirement, importlib.metadata.requires(need.name) or [])
  return [
    part.name
    for part in parts
    if part.extra == need.with_extra and part.applies and missing(part)
  ]


def missing(need: Requirement) -> str:
  """What is wrong with the installed package, "" if nothing."""
  try:
    version = importlib.metadata.version(need.name)
  except importlib.metadata.PackageNotFoundError:
    return "is not installed"
  if need.least and _numbers(version) < _numbers(need.least):
    return f"is {version}, older than {need.least}"
  return ""


def _numbers(version: str) -> tuple[int, ...]:
  """The release's numbers without trailing zeros: "2.4.0rc1" -> (2, 4)."""
  release = re.match(r"[0-9.]*", version)[0].strip(".")
  numbers = [int(part) for part in release.split(".") if part]
  while numbers and not numbers[-1]:
    numbers.pop()
  return tuple(numbers)


def check_memory() -> Iterator[Finding]:
  """The machine's memory, or what a container may have of it."""
  limits = [_meminfo(), _number_in("/sys/fs/cgroup/memory.max")]
  limits = [limit for limit in limits if limit]
  if not limits:
    return
  text = f"{min(limits) / 2**30:.1f} GiB"
  if min(limits) < LOW_MEMORY:
    fix = "take fewer operations (config.space.operations) or a small variant"
    yield Finding(NOTE, "memory", text, fix)
  else:
    yield Finding(OK, "memory", text)


def _meminfo() -> int | None:
  try:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, OSError, ValueError):
    return None


def _number_in(path: str) -> int | None:
  try:
    return int(pathlib.Path(path).read_text())
  except (OSError, ValueError):  # "max" where there is no limit
    return None


# Runs apart, so that it may be killed.
_ASK = """
import json, time
from nasnet_jax.training import mesh
mesh.prepare_host()
import jax
import jax.numpy as jnp
devices = jax.devices()
start = time.perf_counter()
total = float(jax.jit(lambda x: (x @ x).sum())(jnp.ones((128, 128))))
memory = (devices[0].memory_stats() or {}).get("bytes_limit")
print(json.dumps({
  "version": jax.__version__, "backend": jax.default_backend(),
  "kind": devices[0].device_kind, "count": len(devices),
  "hosts": jax.process_count(), "memory": memory, "right": total == 128.0 ** 3,
  "seconds": round(time.perf_counter() - start, 1),
}))
"""


def check_devices(code: str = _ASK, seconds=DEVICE_SECONDS):
  """What JAX computes on, by letting it compute something."""
  try:
    done = subprocess.run(
      [sys.executable, "-c", code],
      capture_output=True,
      text=True,
      timeout=seconds,
    )
  except subprocess.TimeoutExpired:
    text = f"JAX did not answer within {seconds} s"
    fix = "another process may hold the TPU or GPU: end it, then try again"
    yield Finding(STOP, "devices", text, fix)
    return
  lines = done.stdout.strip().splitlines()
  if done.returncode or not lines:
    errors = done.stderr.strip().splitlines() or ["no message"]
    fix = "reinstall jax for this machine; JAX_PLATFORMS=cpu runs without"
    yield Finding(STOP, "devices", errors[-1][:200], fix)
    return
  found = json.loads(lines[-1])
  memory = found["memory"]
  memory = f", {memory / 2**30:.1f} GiB each" if memory else ""
  text = (
    f"{found['count']} x {found['kind']} ({found['backend']}){memory}, JAX"
    f" {found['version']}, a small program compiled and ran in"
    f" {found['seconds']} s"
  )
  if not found["right"]:
    fix = "do not trust this device; JAX_PLATFORMS=cpu runs without it"
    yield Finding(STOP, "devices", f"{text}, with a wrong result", fix)
    return
  yield Finding(OK, "devices", text)
  accelerator = accelerator_nearby()
  if found["backend"] == "cpu" and accelerator:
    yield Finding(
      NOTE,
      "accelerator",
      f"there is a {accelerator}, and JAX does not use it",
      {"TPU": "pip install 'jax[tpu]'", "GPU": "pip install 'jax[cuda13]'"}[
        accelerator
      ]
      + ("; JAX_PLATFORMS is set" if os.environ.get("JAX_PLATFORMS") else ""),
    )


def accelerator_nearby(device_folder: str = "/dev") -> str | None:
  """ "TPU" or "GPU" by the machine's device files."""
  folder = pathlib.Path(device_folder)
  if any(folder.glob("accel[0-9]*")) or any(folder.glob("vfio/[0-9]*")):
    return "TPU"
  return "GPU" if any(folder.glob("nvidia[0-9]*")) else None


def check_cache() -> Iterator[Finding]:
  """Where compiled programs are kept."""
  default = str(mesh.default_cache())
  folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", default)
  if not folder:
    fix = "unset JAX_COMPILATION_CACHE_DIR, or give it a folder"
    text = "off: every start compiles anew"
    yield Finding(NOTE, "program cache", text, fix)
    return
  if "://" in folder:  # a bucket
    yield Finding(OK, "program cache", folder)
    return
  yield from check_folder("program cache", folder)
  files = [f.stat().st_size for f in pathlib.Path(folder).glob("*")]
  if files:
    text = f"{len(files)} files, {sum(files) / 2**20:,.0f} MiB"
    yield Finding(OK, "program cache", text)


def check_folder(about: str, path) -> Iterator[Finding]:
  """Whether files can be written, renamed and locked there, and the space."""
  try:
    if buckets.is_address(paths.expanded(path)):
      yield from _check_address(about, paths.expanded(path))
      return
    path = paths.local(path).absolute()
  except ValueError as error:
    yield Finding(STOP, about, str(error))
    return
  existing = next(p for p in [path, *path.parents] if p.exists())
  problem = _try_writing(existing)
  if problem:
    text = f"{path}: {problem}"
    yield Finding(STOP, about, text, "choose another folder, or its rights")
    return
  free = shutil.disk_usage(existing).free
  text = f"{path}, {free / 2**30:.1f} GiB free"
  if free < LOW_DISK:
    yield Finding(NOTE, about, text, "make room: checkpoints need some GiB")
  else:
    yield Finding(OK, about, text)


def _check_address(about: str, address: str) -> Iterator[Finding]:
  """The same of a bucket; ValueError if it cannot be reached or read."""
  root = buckets.at(address)
  with buckets.told(address):
    there = buckets.is_there(root) and root.is_dir()
    count = len(list(root.iterdir())) if there else 0
  yield Finding(OK, about, f"{address}: can be read, {count} entries")
  yield from check_folder(f"{about}, here", mirror.place(address))


def _try_writing(folder: pathlib.Path) -> str:
  """What a run does with its files, tried; what went wrong, "" if nothing."""
  if not folder.is_dir():
    return "is a file"
  try:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor") as name:
      first, second = (pathlib.Path(name) / part for part in "ab")
      with first.open("w") as file:
        file.write("x" * 4096)
        file.flush()
        os.fsync(file.fileno())
        _lock(file)
      os.replace(first, second)
      if second.read_text() != "x" * 4096:
        return "a file came back changed"
  except OSError as error:
    return error.strerror or str(error)
  return ""


def _lock(file) -> None:
  try:
    import fcntl
  except ImportError:  # Windows
    return
  fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_data(data_dir=None) -> Iterator[Finding]:
  """Data sets that can be found without being told where."""
  if data_dir is not None:
    try:
      if buckets.is_address(paths.expanded(data_dir)):
        yield from _check_address("data", paths.expanded(data_dir))
        return
      path = paths.local(data_dir)
    except ValueError as error:
      yield Finding(STOP, "data", str(error))
      return
    if not path.exists():
      fix = "give the folder or archive of your images"
      yield Finding(STOP, "data", f"{path} does not exist", fix)
      return
    yield Finding(OK, "data", f"{path}: {_contents(path)}")
  yield Finding(OK, "data", "digits (8x8, in scikit-learn): always there")
  tfds = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  if "://" in tfds:  # which tfds reads, and we do not
    yield Finding(NOTE, "data", f"tfds in {tfds}: not looked into")
    return
  folder = paths.local(tfds)
  prepared = sorted({str(f.parent.relative_to(folder)) for f in _infos(folder)})
  if prepared:
    yield Finding(OK, "data", f"tfds in {folder}: {', '.join(prepared)}")
  else:
    text = f"no prepared data set of tfds in {folder}"
    yield Finding(NOTE, "data", text, "only if you use data.source=tfds")


def _infos(folder: pathlib.Path):
  """The files that mark a prepared data set of tfds."""
  return [
    *folder.glob("*/*/dataset_info.json"),
    *folder.glob("*/*/*/dataset_info.json"),
  ]


def _contents(path: pathlib.Path) -> str:
  if path.is_file():
    return f"a file of {path.stat().st_size / 2**20:,.1f} MiB"
  names = sorted(entry.name for entry in path.iterdir())
  shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
  return f"{len(names)} entries: {shown}" if names else "empty"


def report(findings, say: Callable[[str], None]) -> int:
  """Says each finding as it comes; how many would stop a run."""
  stops = 0
  for finding in findings:
    stops += finding.level == STOP
    say(f"{finding.level:>4}  {finding.about}: {finding.text}")
    if finding.fix:
      say(f"      -> {finding.fix}")
  say("")
  if stops:
    say(f"{stops} thing{'s' * (stops > 1)} would stop a run")
  else:
    say("nothing here would stop a run")
  return stops
