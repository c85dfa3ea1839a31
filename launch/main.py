"""Runs a config, or goes on with one that was stopped:

  python launch/main.py --config=configs/search_digits.py --workdir=runs/digits

`--config=configs/search_digits.py:tiny` takes its tiny variant, and
`--config.search.seed=1` changes one of its fields. `--show` runs nothing: it
prints the config's header, then every field with its value and what it means.
"""

import importlib
import logging
import runpy

from absl import flags
from ml_collections import config_flags

from nasnet_jax.cli import cpu_devices, entry, show, typed, unused
from nasnet_jax.data import places
from nasnet_jax.training import hosts, live, mesh

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "folder or address of the run; the same one goes on with it"
)
_SEEDS = flags.DEFINE_list(
  "seeds", [], "of searches, one after another, each in workdir/seedN"
)
_SHOW = flags.DEFINE_bool("show", False, "print the config and end")

# config.job -> module with run(config, workdir, command=...)
JOBS = {
  "search": "nasnet_jax.search",
  "train": "nasnet_jax.jobs.train",
  "scale": "nasnet_jax.jobs.scale",
  "detect": "nasnet_jax.jobs.detect",
}


def main(argv: list[str]):
  config, workdir = _read_config(), _WORKDIR.value
  if len(argv) > 1:
    raise entry.UsageError(f"{argv[1]!r} is no flag: flags start with --")
  if config is not None and _SHOW.value:
    print(show.text(flags.FLAGS["config"].config_filename, config))
    return
  if config is None or not workdir:
    raise entry.UsageError("give both --config=configs/... and --workdir=...")
  if config.job not in JOBS:
    raise entry.UsageError(
      f"config.job is {config.job!r}, not one of {[*JOBS]}"
    )
  seeds = _seeds(config)
  live.show("starting")  # JAX and the data take seconds
  among = config.get("hosts") or {}
  mesh.prepare_host(cpu_devices.count(config, among.get("count") or 1))
  hosts.start(**among)
  if hosts.is_first():
    _tell_rates(config)
    for line in unused.lines(config, _changed()):
      logging.warning(line)
  job = importlib.import_module(JOBS[config.job])  # only now may JAX start
  command = typed.line()
  if not _SEEDS.value:
    job.run(config, workdir, command=command)
    return
  folders = [places.inside(workdir, f"seed{seed}") for seed in seeds]
  for seed, folder in zip(seeds, folders, strict=True):
    config.search.seed = seed
    logging.info("seed %d: %s", seed, folder)
    job.run(config, folder, command=command)
  if hosts.is_first():
    _compare(folders, places.inside(workdir, "comparison.html"))


def _seeds(config) -> list[int]:
  """Of --seeds; UsageError for what are none."""
  words = _SEEDS.value
  if words and config.job != "search":
    raise entry.UsageError(
      f"--seeds is for searches, and config.job is {config.job!r}"
    )
  if not all(word.isdigit() for word in words) or len({*words}) < len(words):
    raise entry.UsageError(
      f"--seeds={','.join(words)}: give different numbers, as in --seeds=0,1,2"
    )
  return [int(word) for word in words]


def _compare(folders, page):
  """The searches on one page; of one search its own says all."""
  from nasnet_jax import report

  if len(folders) > 1:
    logging.info("comparison: %s", report.write_comparison(folders, page))


def _read_config():
  """The config, or None without --config."""
  config = _CONFIG.value
  try:
    if config is not None:
      config.get("job")  # one that was not loaded says so only when it is read
  except OSError as error:  # and tells every place where it was looked for
    raise entry.UsageError(str(error).strip().splitlines()[-1]) from error
  return config


def _changed():
  """{field: value} of the command line."""
  return config_flags.get_override_values(flags.FLAGS["config"])


def _tell_rates(config):
  """Warns of a batch size that was changed, and its learning rate was not."""
  flag, changed = flags.FLAGS["config"], _changed()
  for part in ("train", "child", "final"):
    size, rate = f"{part}.batch_size", f"{part}.learning_rate"
    if size not in changed or rate in changed:
      continue
    path, _, variant = config_flags.get_config_filename(flag).partition(":")
    make = runpy.run_path(path)["get_config"]
    old = (make(variant) if variant else make())[part].batch_size
    new, value = config[part].batch_size, config[part].learning_rate
    if new != old and old:
      logging.warning(
        "%s is %d, and %s=%g belongs to batches of %d: in proportion it would"
        " be %.3g",
        *(size, new, rate, value, old, value * new / old),
      )


if __name__ == "__main__":
  entry.run(main)
