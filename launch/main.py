"""Runs a config, or goes on with one that was stopped:

  python launch/main.py --config=configs/search_digits.py --workdir=runs/digits

`--config=configs/search_digits.py:tiny` takes its tiny variant, and
`--config.search.seed=1` changes one of its fields.
"""

import importlib
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from nasnet_jax import cli
from nasnet_jax.training import mesh

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder of the run; the same folder goes on with it"
)

# config.job -> module with run(config, workdir, command=...)
JOBS = {"search": "nasnet_jax.search"}


def main(argv: list[str]):
  config, workdir = _CONFIG.value, _WORKDIR.value
  if len(argv) > 1:
    raise ValueError(f"{argv[1]!r} is no flag: flags start with --")
  if config is None or not workdir:
    raise ValueError("give both --config=configs/... and --workdir=runs/...")
  if config.job not in JOBS:
    raise ValueError(f"config.job {config.job!r} is not one of {list(JOBS)}")
  mesh.prepare_host(config.mesh.arch * config.mesh.data or config.mesh.data)
  job = importlib.import_module(JOBS[config.job])  # only now may JAX start
  job.run(config, workdir, command=shlex.join(["python", *sys.argv]))


if __name__ == "__main__":
  cli.run(main)
