"""Proposals per second of every search strategy, on the machine at hand.

    python benchmarks/controllers.py [--space nasnet] [--out controllers.json]
        [--peers-python=PYTHON]   also Optuna and PyGlove, with a Python that
                                  has them: pip install optuna pyglove

For each strategy of `CONTROLLERS`: proposals per second for each batch size,
and the time to tell one answer; medians of warm calls (the first ask of a
size, which compiles, is given apart). Prints one JSON object; --out keeps it.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

import jax
import numpy as np

from nasnet_jax import spaces
from nasnet_jax.controllers import CONTROLLERS, make

BATCHES = (1, 20, 1_000, 10_000)
ANSWERS = 100  # told at once: five updates of PPO
SECONDS = 1.0  # of measuring, for each figure


def timed(function, *args):
  """The function's result and the seconds it took."""
  start = time.perf_counter()
  result = jax.block_until_ready(function(*args))
  return result, time.perf_counter() - start


def repeat(function) -> list[float]:
  """Seconds of each call of function(i), for about SECONDS, at least three."""
  times = []
  while sum(times) < SECONDS or len(times) < 3:
    times.append(timed(function, len(times))[1])
  return times


def measure_ask(controller, batch: int) -> dict:
  """One row of the table."""
  rng = jax.random.key(0)
  state = controller.init(rng)
  _, first = timed(controller.ask, state, rng, batch)
  keys = jax.random.split(rng, 1000)
  times = repeat(lambda i: controller.ask(state, keys[i % 1000], batch))
  return {
    "batch": batch,
    "proposals_per_second": round(batch / statistics.median(times)),
    "first_ask_seconds": round(first, 3),
    "calls": len(times),
  }


def measure_tell(controller) -> float:
  """Microseconds per answer, learning included."""
  rng = jax.random.key(0)
  proposals, state = controller.ask(controller.init(rng), rng, ANSWERS)
  rewards = np.random.default_rng(0).uniform(size=ANSWERS).astype(np.float32)
  told = state, proposals, rewards, np.zeros(ANSWERS, np.int32)
  timed(controller.tell, *told)  # compiles
  times = repeat(lambda i: controller.tell(*told))
  return round(1e6 * statistics.median(times) / ANSWERS, 2)


def measure(controller) -> dict:
  """All figures of one strategy."""
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


def main() -> None:
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--space", default="nasnet", choices=list(spaces.SPACES))
  parser.add_argument("--out", type=pathlib.Path)
  parser.add_argument("--peers-python")
  args = parser.parse_args()
  space = spaces.get(args.space)
  result = {
    "benchmark": "controllers",
    "hardware": hardware(),
    "space": args.space,
    "decisions": len(space.num_choices),
    "strategies": {
      name: measure(make(name, space.num_choices)) for name in CONTROLLERS
    },
  }
  if args.peers_python:
    result["peers"] = measure_peers(args.peers_python, space.num_choices)
  text = json.dumps(result, indent=2)
  print(text)
  if args.out:
    args.out.write_text(text + "\n")


if __name__ == "__main__":
  main()
