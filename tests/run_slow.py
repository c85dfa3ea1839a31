"""The whole slow tier in one command, two files at a time.

make test-slow                       all of it, or what is left of it
make test-slow ARGS=tests/export     some files or folders
make test-slow ARGS=--again          from the start
make test-slow ARGS=--write          and docs/results/tests.md, if it was whole

It first makes the environments that the tests need (see
slow_tier/environments.py). Results lie in .cache/slow, a file per state of the
source: after a stop the same command goes on, and tries again what failed or
was skipped.
"""

import argparse
import os
import pathlib
import sys
import time

from slow_tier import environments, processes, records, table

ROOT = pathlib.Path(__file__).parents[1]


def main(argv=None) -> int:
  options = _options(argv)
  made, problems = _environments(options)
  record = records.Record(options.root, made.about)
  if options.again:
    record.clear()
  env = os.environ | {
    name: value
    for name, value in made.variables.items()
    if name not in os.environ
  }
  tier = processes.Tier(options.root, record, made, env, options.minutes * 60)
  started = time.monotonic()
  try:
    if not record.planned():
      print("collecting", flush=True)
      record.plan(tier.collect())
    _say_what_is_left(record, options.paths)
    tier.run(record.left(options.paths), options.workers)
  except KeyboardInterrupt:
    print("stopped; the same command goes on from here")
    return 130
  except processes.CollectionError as error:
    print(error, file=sys.stderr)
    return 2
  finally:
    record.add_call(time.monotonic() - started, options.workers)
  return _end(options, record, problems)


def _options(argv):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("paths", nargs="*", help="files or folders of tests; all by default")
  add("--again", action="store_true", help="forget what was done")
  add("--write", action="store_true", help="write docs/results/tests.md")
  add("--workers", type=int, default=2, help="files at a time")
  add(
    "--minutes",
    type=float,
    default=60,
    help="a test that takes longer is stopped, and has failed",
  )
  add(
    "--plain",
    action="store_true",
    help="make no environment: this Python, and the variables as they are",
  )
  add("--root", type=pathlib.Path, default=ROOT, help=argparse.SUPPRESS)
  options = parser.parse_args(argv)
  for path in options.paths:
    if not (options.root / path).exists():
      parser.error(f"there is no {path} in {options.root}")
  if options.write and options.paths:
    parser.error("--write is for the whole tier: name no files")
  return options


def _environments(options):
  if options.plain:
    return environments.Made("plain"), []
  return environments.make(options.root)


def _say_what_is_left(record, paths):
  left = record.left(paths)
  tests = sum(map(len, left.values()))
  done = sum(row["outcome"] == "passed" for row in record.rows())
  print(f"{tests} tests in {len(left)} files; {done} passed before", flush=True)


def _end(options, record, problems) -> int:
  text = table.text(options.root, record, problems)
  print(f"\n{text}")
  missing = record.missing()
  if options.write and missing:
    print(f"docs/results/tests.md is left alone: {len(missing)} did not run")
  elif options.write:
    path = options.root / "docs" / "results" / "tests.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"wrote {path}")
  failed = any(row["outcome"] == "failed" for row in record.rows())
  return int(failed or bool(missing and not options.paths))


if __name__ == "__main__":
  sys.exit(main())
