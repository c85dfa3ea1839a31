"""Trained networks in every format: differences, sizes, latencies.

  python benchmarks/export.py --runs=runs/digits,runs/lite0 \\
    --torch_python=... --tf_python=... --exports=exports --out=export.json

Each run is exported in each format as launch/export.py does it, which compares
the logits; an export that lies in --exports already is taken as it is. Formats
whose packages are in no interpreter are left out, with a line.

Then every format waits in a process of its own, loaded by the lines of its
card, and they take turns: each round is one call of each, ours (jitted, in this
process) among them. All are held on one core (--core) and so have one thread,
and what is measured is the processor's time of a call: that of an idle core,
also where others work on it. Kept of a format are the median of its seconds,
and the median over rounds of its seconds by ours of the same round. Keras and
PyTorch run as their cards have them, eagerly.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

_RUNS = flags.DEFINE_list("runs", None, "folders of finished runs")
_FORMATS = flags.DEFINE_list("formats", [], "which; all that hold a program")
_IMAGES = flags.DEFINE_list(
  "images", [], "images for runs without test images of their own"
)
_TORCH = flags.DEFINE_string("torch_python", "", "an interpreter with PyTorch")
_TF = flags.DEFINE_string("tf_python", "", "one with TensorFlow and LiteRT")
_EXPORTS = flags.DEFINE_string("exports", "", "folder to keep exports in")
_BATCHES = flags.DEFINE_list("batches", ["1", "8"], "images of a call")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "calls of each, at most")
_SECONDS = flags.DEFINE_float("seconds", 60, "for the rounds of one batch")
_CORE = flags.DEFINE_integer("core", 0, "that everything runs on")
_OUT = flags.DEFINE_string("out", "", "JSON to write")

OF_TF = ("saved_model", "tflite")
FEWEST = 3  # rounds, whatever --seconds says

# The other process: argv is the lines of a card, and "\nimages = ". Each line
# that comes in is a number of images for one call, which is timed. Results go
# out by a pipe of their own: runtimes write to the standard one.
_WORKER = """
import os, sys, time
sys.path.insert(0, "")
out = os.fdopen(int(sys.argv[3]), "w")
text = open(sys.argv[1]).read()
scope = {"__name__": "__main__"}
exec(compile(text, "README.md", "exec"), scope)
run = text.split(sys.argv[2], 1)[1].partition("\\n")[2]
run, images = compile(run, "README.md", "exec"), scope["images"]
for line in sys.stdin:
  scope["images"] = images[:int(line)]
  start = time.process_time()
  exec(run, scope)
  print(time.process_time() - start, file=out, flush=True)
"""


def interpreter(name: str) -> str:
  """Where a format is made and checked; "": here."""
  if name in OF_TF:
    return _TF.value
  return _TORCH.value if name == "torch" else ""


def exported(run: str, name: str, folder: pathlib.Path) -> dict:
  """A row: one run in one format."""
  from nasnet_jax.export import artifact, card, formats

  options = artifact.Options(
    python=interpreter(name), images=tuple(_IMAGES.value)
  )
  if not folder.exists():
    source = artifact.open_run(run, options)
    artifact.export(source, name, formats.FORMATS[name], folder)
  told = (folder / artifact.CARD).read_text()
  (difference,) = re.findall(r"nasnet_jax was (\S+) on", told)
  beside = (artifact.CARD, artifact.CONFIG, artifact.EXAMPLES)
  files = [f for f in folder.rglob("*") if f.is_file()]
  return {
    "run": pathlib.Path(run).name,
    "format": name,
    "difference": float(difference),
    "bytes": sum(f.stat().st_size for f in files if f.name not in beside),
    "snippet": card.snippet_of(told),
  }


class Worker:
  """A format in a process of its own. `seconds(n)` is one call of n images."""

  def __init__(self, name: str, folder: pathlib.Path, snippet: str, scratch):
    from nasnet_jax.export import check

    self._folder = folder
    files = {"worker.py": _WORKER, "snippet.py": snippet}
    scratch = pathlib.Path(scratch) / name
    scratch.mkdir()
    for file, text in files.items():
      (scratch / file).write_text(text)
    answers, theirs = os.pipe()
    python = interpreter(name) or sys.executable
    self._process = subprocess.Popen(
      [python, *(scratch / f for f in files), check.SPLIT, str(theirs)],
      cwd=folder,
      env={**check.clean_environment(), "KERAS_BACKEND": "jax"},
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=(theirs,),
      text=True,
    )
    os.close(theirs)
    self._answers = os.fdopen(answers)

  def seconds(self, count: int) -> float:
    line = ""
    with contextlib.suppress(BrokenPipeError):
      print(count, file=self._process.stdin, flush=True)
      line = self._answers.readline()
    if not line:
      raise RuntimeError(f"the lines of the card in {self._folder} fail")
    return float(line)

  def end(self):
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()


class Ours:
  """Our own network, jitted, in this process."""

  def __init__(self, run: str):
    from nasnet_jax.export import artifact, samples

    options = artifact.Options(images=tuple(_IMAGES.value))
    source = artifact.open_run(run, options)
    self._pixels, _, _ = samples.labelled(source, samples.NUM_EXAMPLES)
    self._network = source.ours()
    self.row = {
      "run": pathlib.Path(run).name,
      "format": "ours",
      "image_shape": list(source.image_shape),
      "params": source.result["winner"].get("params"),
    }

  def seconds(self, count: int) -> float:
    start = time.process_time()
    self._network(self._pixels[:count])
    return time.process_time() - start


def take_turns(sides: dict, count: int) -> dict[str, list[float]]:
  """{name: seconds of each round}. sides: {name: has `seconds`}."""
  for side in sides.values():
    side.seconds(count)  # compiles
    side.seconds(count)
  found = {name: [] for name in sides}
  end = time.monotonic() + _SECONDS.value
  for number in range(_ROUNDS.value):
    if number >= FEWEST and time.monotonic() > end:
      break
    for name, side in sides.items():
      found[name].append(side.seconds(count))
  return found


def latencies(seconds: dict[str, list[float]]) -> dict[str, dict]:
  """{name: medians}. seconds: by name, and of every round; "ours" is one."""
  return {
    name: {
      "seconds": statistics.median(own),
      "by_ours": statistics.median(
        a / b for a, b in zip(own, seconds["ours"], strict=True)
      ),
      "rounds": len(own),
    }
    for name, own in seconds.items()
  }


def measure(run: str, names, exports: pathlib.Path) -> list[dict]:
  """The rows of one run."""
  from nasnet_jax.export import check

  ours = Ours(run)
  rows, folders = {"ours": ours.row}, {}
  for name in names:
    folder = exports / pathlib.Path(run).name / name
    try:
      rows[name] = exported(run, name, folder)
    except check.ExportError as error:
      print(f"{run}, {name}: {error}", flush=True)
      continue
    folders[name] = folder
  sides = {"ours": ours}
  with tempfile.TemporaryDirectory() as scratch:
    try:
      for name, folder in folders.items():
        snippet = rows[name].pop("snippet")
        sides[name] = Worker(name, folder, snippet, scratch)
      for batch in map(int, _BATCHES.value):
        for name, row in latencies(take_turns(sides, batch)).items():
          rows[name][f"batch_{batch}"] = row
    finally:
      for name in folders.keys() & sides.keys():
        sides[name].end()
  return list(rows.values())


def main(argv):
  del argv
  os.sched_setaffinity(0, {_CORE.value})  # before any thread is made
  from nasnet_jax.training import mesh

  mesh.prepare_host()
  from nasnet_jax.export import formats

  names = _FORMATS.value or [
    n for n, k in formats.FORMATS.items() if not k.ours
  ]
  result = {
    "date": datetime.date.today().isoformat(),
    "machine": platform.platform(),
    "processor": platform.processor() or platform.machine(),
    "cores": sorted(os.sched_getaffinity(0)),
    "load_average": [os.getloadavg()],
    "rows": [],
  }
  with tempfile.TemporaryDirectory() as scratch:
    exports = pathlib.Path(_EXPORTS.value or scratch)
    for run in _RUNS.value:
      rows = measure(run, names, exports)
      print(*map(json.dumps, rows), sep="\n", flush=True)
      result["rows"] += rows
      result["load_average"].append(os.getloadavg())
      if _OUT.value:
        text = json.dumps(result, indent=2) + "\n"
        pathlib.Path(_OUT.value).write_text(text)


if __name__ == "__main__":
  app.run(main)
