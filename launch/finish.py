"""Ends a search with the children there are:

  python launch/finish.py runs/search_digits

The best of them go through the final stage, as config.json in there says. The
command that started the run still goes on with the search afterwards; the
result of now is then kept as result.1.json.
"""

import shlex
import sys

from nasnet_jax.cli import entry, run_flags
from nasnet_jax.training import mesh

_RUN = run_flags.define()


def main(argv: list[str]):
  run, _ = _RUN.take(argv[1:])
  if not run:
    raise entry.UsageError("give the folder of one search")
  mesh.prepare_host()
  from nasnet_jax import search  # only now may JAX start
  from nasnet_jax.jobs import run_log

  config = run_log.read_config(run)
  if config.get("job", "search") != "search":
    raise entry.UsageError(
      f"{run} holds a run of the job {config.job!r}, which ends by itself:"
      " the command that started it goes on with it"
    )
  with config.unlocked():
    config.final.now = True
    config.mesh = {"arch": 1, "data": 1}  # no child is trained any more
  search.run(config, run, command=shlex.join(["python", *sys.argv]))


if __name__ == "__main__":
  entry.run(main)
