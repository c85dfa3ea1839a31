"""Looks for what would stop a run on this machine:

  python launch/doctor.py
  python launch/doctor.py --workdir=runs/cifar --data_dir=DATA

Devices, versions, extras, caches, data, disk. Exits with 1 if anything would
stop a run, and says how to mend it.
"""

from absl import flags

from nasnet_jax.cli import doctor, entry

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run planned")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where its data lies")


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise entry.UsageError(f"{argv[1]!r} is no flag: flags start with --")
  findings = doctor.examine(_WORKDIR.value, _DATA_DIR.value)
  return int(doctor.report(findings, print) > 0)


if __name__ == "__main__":
  entry.run(main)
