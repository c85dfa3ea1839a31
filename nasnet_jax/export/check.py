"""Runs the lines of a model card in a process of their own and compares what
they answer with our logits."""

import os
import pathlib
import subprocess
import tempfile
from typing import NamedTuple

import numpy as np


class ExportError(ValueError):
  """A network cannot be exported as asked; the message is one line."""


class Answers(NamedTuple):
  """Logits, or features, of another runtime.

  Attributes:
    logits: {case: f32[N, ...]}.
    seconds: of one call with all examples, the shortest of five.
    difference: the largest from ours.
  """

  logits: dict[str, np.ndarray]
  seconds: float
  difference: float = float("nan")


SPLIT = "\nimages = "
TIMEOUT = 1800  # seconds; TensorFlow on a busy machine takes minutes to start

# Runs in the other process, in the artifact's folder: argv is the snippet, the
# cases, the answers. `images = ...` of the snippet is run once, as a user
# would, then replaced by the cases.
_DRIVER = """
import sys, time
import numpy as np
sys.path.insert(0, "")
text = open(sys.argv[1]).read()
scope = {"__name__": "__main__"}
exec(compile(text, "README.md", "exec"), scope)
run = text.split(sys.argv[4], 1)[1].partition("\\n")[2]
run = compile(run, "README.md", "exec")
seconds = []
for _ in range(5):
  start = time.perf_counter()
  exec(run, scope)
  seconds.append(time.perf_counter() - start)
answers = {"seconds": np.float64(min(seconds))}
with np.load(sys.argv[2]) as cases:
  for name in cases.files:
    scope["images"] = cases[name]
    exec(run, scope)
    answers["logits " + name] = np.asarray(scope[sys.argv[6]], np.float32)
if "nasnet_jax" in sys.modules and sys.argv[5] == "alone":
  raise ImportError("nasnet_jax was imported")
np.savez(sys.argv[3], **answers)
"""


# Keras's own default is TensorFlow, which may not be there.
_BACKEND = """
import importlib.util, os
for name in ("jax", "tensorflow", "torch"):
  if importlib.util.find_spec(name):
    os.environ.setdefault("KERAS_BACKEND", name)
"""


def require(python: str, packages: tuple[str, ...]):
  """Raises ExportError, naming what to install, unless an interpreter has
  these packages."""
  code = (
    "import importlib.util as u, sys\n"
    "print(','.join(n for n in sys.argv[1:] if u.find_spec(n) is None))"
  )
  modules = [_MODULES.get(name, name) for name in packages]
  try:
    done = subprocess.run(
      [python, "-c", code, *modules], capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    raise ExportError(f"--python={python} is no Python interpreter") from None
  missing = set(filter(None, done.stdout.strip().split(",")))
  names = [n for n, m in zip(packages, modules, strict=True) if m in missing]
  if names:
    raise ExportError(
      f"{python} has no {' and no '.join(names)}, which this format is made or"
      f" checked with: pip install {' '.join(names)}, or give"
      " --python=/path/to/an/interpreter that has them"
    )


_MODULES = {"ai-edge-litert": "ai_edge_litert"}  # where pip's name differs


def run_script(
  python: str, text: str, folder, *arguments, **environment: str
) -> str:
  """What a script prints that runs in a folder, without our package.

  Args:
    environment: variables to set there.

  Raises:
    ExportError: with the last line of its error.
  """
  folder = pathlib.Path(folder)
  with tempfile.TemporaryDirectory() as scratch:
    script = pathlib.Path(scratch) / "script.py"
    script.write_text(_BACKEND + text)
    try:
      done = subprocess.run(
        [python, str(script), *map(str, arguments)],
        cwd=folder,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
      )
    except subprocess.TimeoutExpired:
      raise ExportError(f"{python} took more than {TIMEOUT} s") from None
  if done.returncode:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else f"exit code {done.returncode}"
    raise ExportError(f"the format's own runtime failed: {last[:500]}")
  return done.stdout


def clean_environment() -> dict[str, str]:
  """Of the other process: without our package, on the CPU, and without files
  that Python or TensorFlow would leave behind."""
  kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  return {
    **kept,
    "PYTHONDONTWRITEBYTECODE": "1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "2",
  }


def run_snippet(
  python, snippet: str, folder, inputs, alone: bool = True, output="logits"
) -> Answers:
  """What the lines of a model card answer to each case.

  Args:
    inputs: {case: images}.
    alone: whether they must do without our package.
    output: the variable that holds the answer.

  Raises:
    ExportError: if they fail.
  """
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    (scratch / "snippet.py").write_text(snippet)
    np.savez(scratch / "cases.npz", **inputs)
    files = [scratch / n for n in ("snippet.py", "cases.npz", "answers.npz")]
    ours = {} if alone else {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    how = "alone" if alone else ""
    run_script(python, _DRIVER, folder, *files, SPLIT, how, output, **ours)
    with np.load(files[-1]) as found:
      logits = {name: found[f"logits {name}"] for name in inputs}
      return Answers(logits, float(found["seconds"]))


def compare(ours, found: Answers, tolerance: float) -> Answers:
  """The answers with their largest difference from ours.

  Raises:
    ExportError: if it is above the tolerance, or not a number.
  """
  worst, where = 0.0, ""
  for name, logits in ours.items():
    answer = found.logits[name]
    if answer.shape != logits.shape:
      raise ExportError(
        f"its logits have the shape {answer.shape} and not {logits.shape} for"
        f" {name}: nothing was written"
      )
    difference = float(np.abs(answer - logits).max())
    if not difference <= worst:  # also if it is not a number
      worst, where = difference, name
  if not worst <= tolerance:
    raise ExportError(
      f"its logits differ from ours by {worst:.3g} ({where}), more than"
      f" {tolerance:g}: nothing was written"
    )
  return found._replace(difference=worst)
