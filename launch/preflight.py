"""Plans a job on a TPU slice that you do not hold:

  python launch/preflight.py --config=configs/search_digits.py:tiny \\
    --topology=v5e:2x2

Compiles the very step that the job would run, with the TPU's own compiler, and
prints one page: memory, collectives, FLOPs, bytes, estimates of the time. No
TPU is needed, but libtpu is: pip install 'nasnet_jax[tpu]'. --json=FILE writes
all figures; --fit tries changes until the step fits; --brief compiles in a
fraction of the time, to slower code; --top=30 lists the instructions that take
the most cycles. Exits with 1 if it does not fit.
"""

import functools
import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"  # a TPU that is here is not touched
# What is compiled for a slice that is not here cannot be read back.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"

from absl import flags
from ml_collections import config_flags

from nasnet_jax.cli import entry, show
from nasnet_jax.data import paths
from nasnet_jax.training import mesh

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "a slice: v5e:2x2, v5e:16x16, v5p:2x2x2, v6e:4x4"
)
_JSON = flags.DEFINE_string("json", None, "also write all figures here")
_FIT = flags.DEFINE_bool(
  "fit", False, "try changes, one after another, until the step fits"
)
_BRIEF = flags.DEFINE_bool(
  "brief", False, "let the compiler look for fast code as little as it can"
)
_TOP = flags.DEFINE_integer(
  "top", 0, "list so many kinds of instructions, by cycles", lower_bound=0
)
_SHOW = flags.DEFINE_bool("show", False, "print the config and end")


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise entry.UsageError(f"{argv[1]!r} is no flag: flags start with --")
  if _CONFIG.value is not None and _SHOW.value:
    print(show.text(flags.FLAGS["config"].config_filename, _CONFIG.value))
    return 0
  if _CONFIG.value is None or not _TOPOLOGY.value:
    raise entry.UsageError(
      "give both --config=configs/... and --topology=v5e:4x4"
    )
  mesh.prepare_host()
  from nasnet_jax import preflight  # only now may JAX start
  from nasnet_jax.preflight import program

  name = config_flags.get_config_filename(flags.FLAGS["config"])
  found = preflight.run(
    _CONFIG.value,
    _TOPOLOGY.value,
    fit=_FIT.value,
    top=_TOP.value,
    compile_step=functools.partial(program.compile_step, brief=_BRIEF.value),
  )
  found |= {"config": name, "brief": _BRIEF.value}
  if _JSON.value:
    paths.local(_JSON.value).write_text(json.dumps(found, indent=1) + "\n")
  print(preflight.page(found))
  return 0 if found["fits"] else 1


if __name__ == "__main__":
  entry.run(main)
