"""What every program under `launch/` shares: quiet output, errors in a line.

Import nothing here that imports JAX: programs set up the host first.
"""

import contextlib
import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import app, flags

from nasnet_jax.cli import own_files, pipe, starting, wrong_flags
from nasnet_jax.training import hosts, live, stop

# Of other people's libraries only trouble is worth a line; and of those that
# log what they also raise, nothing is.
_NOISY = ("jax", "matplotlib", "tensorflow", "PIL")
_NOISIER = (
  "absl",
  "aiobotocore",
  "asyncio",
  "boto3",
  "botocore",
  "fsspec",
  "gcsfs",
  "orbax",
  "s3fs",
)


class UsageError(ValueError):
  """Flags that make no job; the message is one line."""


def run(main: Callable[[list[str]], int | None]):
  """`main` as an absl program. Exits with its code.

  Every error is one line on stderr and a code other than 0: 2 for flags, 130
  for Ctrl-C, 143 for SIGTERM, else 1. --traceback also shows where it was.
  """
  flags.DEFINE_bool("traceback", False, "show where an error happened")
  flags.DEFINE_list(
    "import", [], "files of one's own operations, strategies, rewards, data"
  )
  starting.say(sys.argv[1:])
  with pipe.quiet(), live.to(sys.stdout):
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    # ml_collections looks for fields in sys.argv, whatever is parsed.
    argv[1:] = sys.argv[1:] = wrong_flags.in_order(argv[1:])
    return flags.FLAGS(argv)
  except Exception as error:  # a config file may raise anything
    _say(wrong_flags.explain(error, argv[1:]))
  sys.exit(2)


def _guarded(main, argv: list[str]):
  _quiet()
  try:
    for file in flags.FLAGS["import"].value:
      own_files.load(file)
    sys.exit(main(argv) or 0)
  except stop.Stopped as stopped:
    if hosts.is_first():
      _say(f"{stopped}; run the same command again to go on", "")
    if stopped.alone:  # threads may compile for minutes, other hosts wait
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(stopped.exit_code)
    sys.exit(stopped.exit_code)
  except KeyboardInterrupt:  # before the job took over
    _say("stopped; run the same command again to go on", "")
    sys.exit(130)
  except Exception as error:
    if isinstance(error, BrokenPipeError) and pipe.reader_gone():
      raise
    if flags.FLAGS.traceback:
      traceback.print_exc()
    else:
      _say(explain(error))
    code = 2 if isinstance(error, UsageError) else 1
    hosts.leave(code)
    sys.exit(code)


def tell_broken(lines: list[str], count: int) -> int:
  """Names the files that could not be read, of `count`; the exit code."""
  if not lines:
    return 0
  for line in lines:
    print(" ".join(line.split()), file=sys.stderr)
  _say(f"{len(lines):,} of {count:,} file(s) could not be read, see above")
  return 1


def explain(error: Exception) -> str:
  """An error in one line, for a reader who has not read the code."""
  if isinstance(error, OSError) and error.errno:
    where = f" ({error.filename})" if error.filename else ""
    text = f"{error.strerror}{where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
      text += "; make room and run the same command again: nothing is lost"
    return text
  text = " ".join(str(error).split())
  if isinstance(error, ValueError | hosts.HostsError) and text:
    return text
  if isinstance(error, ImportError) and text.startswith("nasnet_jax runs on"):
    return text
  return f"{type(error).__name__}: {text[:300]} (--traceback shows where)"


def _say(text: str, prefix: str = "error: "):
  if hosts.count() > 1:
    prefix = f"host {hosts.index()}: {prefix}"
  live.hide()
  print(f"{prefix}{text}", file=sys.stderr, flush=True)


class _Lines(logging.StreamHandler):
  """Writes above the live line."""

  def emit(self, record: logging.LogRecord):
    with live.above():
      super().emit(record)


def _quiet():
  """Our lines go to stdout, warnings to stderr, other libraries' nowhere."""
  warnings.filterwarnings("ignore")
  for stream in (sys.stdout, sys.stderr):  # names of files in any encoding
    with contextlib.suppress(AttributeError):
      stream.reconfigure(errors="backslashreplace")
  # A full disk must not fill the terminal with the logger's own troubles.
  logging.raiseExceptions = False
  lines = _Lines(sys.stdout)
  lines.setLevel(logging.INFO)
  lines.addFilter(
    lambda record: record.levelno < logging.WARNING and hosts.is_first()
  )
  trouble = _Lines(sys.stderr)
  trouble.setLevel(logging.WARNING)
  trouble.setFormatter(logging.Formatter("warning: %(message)s"))
  root = logging.getLogger()
  root.handlers = [lines, trouble]
  root.setLevel(logging.INFO)
  logging.getLogger("nasnet_jax").setLevel(logging.DEBUG)
  for name in _NOISY:
    logging.getLogger(name).setLevel(logging.ERROR)
  for name in _NOISIER:
    logging.getLogger(name).setLevel(logging.CRITICAL)
  # What a failed save of Orbax leaves behind complains while it is collected.
  sys.unraisablehook = lambda hook: logging.debug("%s", hook.exc_value)
