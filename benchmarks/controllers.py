"""Proposals per second of every search strategy, on the machine at hand.

    python benchmarks/controllers.py [--space nasnet] [--out controllers.json]
        [--peers-python=PYTHON]   also Optuna and PyGlove, with a Python that
                                  has them: pip install optuna pyglove
        [--only=NAME,...]

For each strategy of `CONTROLLERS`, in searches that go on: proposals per second
of asking for each batch size, and the time to tell one answer, learning
included. The first ask of a size, which may compile, is given apart. A strategy
that waits gives fewer than a batch; `proposals` and `calls` say how many.
Prints one JSON object; --out keeps it.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import jax
import numpy as np

from nasnet_jax import spaces
from nasnet_jax.controllers import CONTROLLERS, base, make

BATCHES = (1, 20, 1_000, 10_000)
ANSWERS = 100  # told at once: five updates of PPO
WARM = 200  # answers before the clock runs; evolution's population is 100
SECONDS = 1.0  # of asking or telling, for each figure
PATIENCE = 20.0  # seconds for a figure in all: what is not timed takes some too


def timed(function, *args):
  """The function's result and the seconds it took."""
  start = time.perf_counter()
  result = jax.block_until_ready(function(*args))
  return result, time.perf_counter() - start


class Search:
  """A search under way, with rewards at random."""

  def __init__(self, controller):
    self.controller = controller
    self.calls = 0
    self.state = controller.init(jax.random.key(0))
    self.proposals = 0
    self.told = 0
    while self.told < WARM:
      self.ask(20)
      self.tell()

  def ask(self, n: int) -> float:
    """Asks for n; seconds."""
    rng = jax.random.fold_in(jax.random.key(1), self.calls)
    jax.block_until_ready(rng)
    (self.asked, self.state), seconds = timed(
      self.controller.ask, self.state, rng, n
    )
    self.calls += 1
    self.proposals += len(self.asked)
    return seconds

  def tell(self, most: int = ANSWERS) -> float:
    """Tells all that was asked, `most` of it as good; seconds.

    The rest failed, so that an ask for 10,000 need not teach as many.
    """
    m = len(self.asked)
    rewards = np.random.default_rng(self.calls).uniform(size=m)
    status = np.where(np.arange(m) < most, base.OK, base.FAILED)
    self.state, seconds = timed(
      self.controller.tell,
      self.state,
      self.asked,
      rewards.astype(np.float32),
      status.astype(np.int32),
    )
    self.told += m
    return seconds


def goes_on(times: list[float], start: float) -> bool:
  """Whether a figure needs more calls."""
  if len(times) < 3:
    return True
  patient = time.perf_counter() - start < PATIENCE
  return sum(times) < SECONDS and patient


def measure_ask(controller, batch: int) -> dict:
  """One row of the table."""
  start = time.perf_counter()
  search = Search(controller)
  first = search.ask(batch)
  search.tell()
  before, times = search.proposals, []
  while goes_on(times, start):
    times.append(search.ask(batch))
    search.tell()
  proposals = search.proposals - before
  return {
    "batch": batch,
    "proposals_per_second": round(proposals / sum(times)),
    "first_ask_seconds": round(first, 3),
    "proposals": proposals,
    "calls": len(times),
  }


def measure_tell(controller) -> float:
  """Microseconds per answer, learning included."""
  start = time.perf_counter()
  search = Search(controller)
  search.ask(ANSWERS)
  search.tell()  # compiles
  before, times = search.told, []
  while goes_on(times, start):
    search.ask(ANSWERS)
    times.append(search.tell())
  return round(1e6 * sum(times) / (search.told - before), 2)


def measure(name: str, space) -> dict:
  """All figures of one strategy."""
  print(name, file=sys.stderr, flush=True)
  controller = make(name, space_for(name, space))
  return {
    "asks": [measure_ask(controller, batch) for batch in BATCHES],
    "tell_microseconds_per_child": measure_tell(controller),
  }


def measure_peers(python: str, num_choices) -> dict:
  """All figures of `peers/proposals.py`, of the same decisions."""
  script = pathlib.Path(__file__).parent / "peers" / "proposals.py"
  command = [python, str(script), *map(str, num_choices)]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  return json.loads(done.stdout)


def processor() -> str:
  """The processor's name, where the system tells it."""
  info = pathlib.Path("/proc/cpuinfo")
  lines = info.read_text().splitlines() if info.exists() else []
  names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
  return names[0] if names else platform.processor()


def hardware() -> dict:
  """Where the figures come from."""
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "jax_backend": jax.default_backend(),
    "jax_device": jax.devices()[0].device_kind,
    "processor": processor(),
    "cores": len(os.sched_getaffinity(0)),
    "load_before": round(os.getloadavg()[0], 2),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "numpy": np.__version__,
  }


def space_for(name: str, space):
  """The space; for progressive search, its cells of one block and more."""
  if name == "progressive":
    return dataclasses.replace(space, min_blocks=1)
  return space


def main() -> None:
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--space", default="nasnet", choices=list(spaces.SPACES))
  parser.add_argument("--out", type=pathlib.Path)
  parser.add_argument("--peers-python")
  parser.add_argument("--only", default=",".join(CONTROLLERS))
  args = parser.parse_args()
  space = spaces.get(args.space)
  result = {
    "benchmark": "controllers",
    "hardware": hardware(),
    "space": args.space,
    "decisions": len(space.num_choices),
    "strategies": {name: measure(name, space) for name in args.only.split(",")},
  }
  if args.peers_python:
    result["peers"] = measure_peers(args.peers_python, space.num_choices)
  text = json.dumps(result, indent=2)
  print(text)
  if args.out:
    args.out.write_text(text + "\n")


if __name__ == "__main__":
  main()
