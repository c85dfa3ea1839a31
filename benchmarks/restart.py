"""What a restart costs: from the command to the first update, on CPU devices.

    python benchmarks/restart.py [--out restart.json] [--hosts 1 2]

Starts the tiny digits search and the tiny training on eight devices, on one
host and more, first with an empty folder of compiled programs, then with what
the first start left there. The seconds are those until the first update under
way is looked at: imports, joining the other hosts, data, compiling or reading
programs, the state of the run. Beside them the CPU seconds of all processes,
which a busy machine does not change. Prints one JSON object; --out keeps it.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
JOBS = {
  "search": ["--config=configs/search_digits.py:tiny", "--config.mesh.arch=8"],
  "training": [
    "--config=configs/train_cifar.py:tiny",
    "--config.train.batch_size=32",
    "--config.mesh.data=8",
  ],
}
LOOKS = {"search": "in_round", "training": "in_fit"}


def start(job: str, hosts: int, workdir: str, cache: str) -> dict[str, float]:
  """Seconds until the first look, which ends the run."""
  environment = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": cache,
  }
  environment.pop("XLA_FLAGS", None)
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
  coordinator = f"127.0.0.1:{port}" if hosts > 1 else ""
  begin, cpu = time.monotonic(), _cpu_seconds()
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, "tests/launch/stop_at.py", LOOKS[job], "1"),
        *JOBS[job],
        f"--workdir={workdir}",
        f"--config.hosts.coordinator={coordinator}",
        f"--config.hosts.count={hosts}",
        f"--config.hosts.index={index}",
      ],
      env=environment,
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(hosts)
  ]
  for process in processes:
    _, errors = process.communicate()
    if process.returncode != 143:
      sys.exit(f"exit code {process.returncode}: {errors}")
  return {
    "seconds": round(time.monotonic() - begin, 1),
    "cpu_seconds": round(_cpu_seconds() - cpu, 1),
  }


def _cpu_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out")
  parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2])
  arguments = parser.parse_args()
  rows = []
  for job in JOBS:
    for hosts in arguments.hosts:
      with tempfile.TemporaryDirectory() as folder:
        for programs in ("compiled", "kept"):
          row = {"job": job, "hosts": hosts, "programs": programs}
          load = round(os.getloadavg()[0], 1)
          run = start(job, hosts, f"{folder}/run", f"{folder}/cache")
          rows.append({**row, **run, "load": load})
          print(rows[-1], file=sys.stderr, flush=True)
  result = {
    "date": datetime.date.today().isoformat(),
    "machine": platform.platform(),
    "cores": os.cpu_count(),
    "rows": rows,
  }
  text = json.dumps(result, indent=2)
  print(text)
  if arguments.out:
    pathlib.Path(arguments.out).write_text(text + "\n")


if __name__ == "__main__":
  main()
