"""What every job does while it runs: a log file, lines on the console."""

import contextlib
import logging
import pathlib
import platform as machine
import time
from typing import Any

import flax
import jax
import jaxlib
from ml_collections import ConfigDict

from nasnet_jax.data import paths
from nasnet_jax.jobs import callbacks
from nasnet_jax.training import hosts, profile, stop, workdir
from nasnet_jax.training.scalars import Scalars, duration

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_FIRST_CALLS = 3  # of a compiled step: they compile, and wait for nothing yet


@contextlib.contextmanager
def log_file(folder: pathlib.Path):
  """Sends all log messages, with more detail, to log.txt as well."""
  if not hosts.is_first():
    yield
    return
  handler = logging.FileHandler(folder / "log.txt")
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
  ours = logging.getLogger("nasnet_jax")
  ours.addHandler(handler)
  try:
    yield
  finally:
    ours.removeHandler(handler)
    handler.close()


def recorded(config, **more) -> Row:
  """config.json: all of a config but which hosts run it, and what it found."""
  return {k: v for k, v in config.to_dict().items() if k != "hosts"} | more


# What `recorded` adds to a config.
_FOUND = ("data_fingerprint", "data_split", "cells")


def read_config(run_dir) -> ConfigDict:
  """The config of a run, as it was given.

  Raises:
    WorkdirError: in one line, if there is no run in the folder.
  """
  folder = paths.local(run_dir)
  path = folder / "config.json"
  if not path.exists():
    raise workdir.WorkdirError(
      f"{folder} has no run in it: there is no config.json"
    )
  fields = workdir.read_json(path)
  return ConfigDict(
    {k: _in_tuples(v) for k, v in fields.items() if k not in _FOUND}
  )


def _in_tuples(value):
  """JSON's lists as configs have them."""
  if isinstance(value, dict):
    return {k: _in_tuples(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(map(_in_tuples, value))
  return value


def environment() -> dict[str, str]:
  """The versions and devices with which a result was made."""
  return {
    "python": machine.python_version(),
    "jax": jax.__version__,
    "jaxlib": jaxlib.__version__,
    "flax": flax.__version__,
    "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "machine": machine.platform(),
  }


class Console:
  """Logs lines, writes numbers, and stops the job if that was asked for.

  Its methods are the callbacks of the other modules.
  """

  def __init__(
    self,
    request: stop.StopRequest,
    scalars: Scalars,
    every: float,
    trace: profile.StepTrace | None = None,
    tell: callbacks.Listeners = callbacks.NOBODY,
  ):
    """every: seconds between lines on work that is under way; trace: called at
    every device call; tell: the run's callbacks."""
    self._tell = tell
    self._trace = trace or profile.StepTrace()
    self._request = request
    self.scalars = scalars
    self._every = every
    self._said = time.monotonic()
    self._fit = None  # (stage, child), calls, a step and when it was

  def _quiet_for_long(self) -> bool:
    now = time.monotonic()
    if now - self._said < self._every:
      return False
    self._said = now
    return True

  def say(self, line: str):
    self._said = time.monotonic()
    _log.info("%s", line)

  def in_fit(self, stage: str, child: int, step: int, horizon: int):
    """A training of the final stage under way."""
    self._trace.tick()
    self._request.check(f"{stage} {child}")
    now = time.monotonic()
    if self._fit is None or self._fit[0] != (stage, child):
      self._fit = (stage, child), 0, step, now
    key, calls, first, start = self._fit
    if calls < _FIRST_CALLS:
      self._fit, first = (key, calls + 1, step, now), step
    if self._quiet_for_long():
      to_go = ""
      if step > first:
        left = (horizon - step) * (now - start) / (step - first)
        to_go = f", {duration(left)} to go"
      what = "step" if stage == "train" else f"child {child}, step"
      _log.info("  %s %d/%d%s", what, step, horizon, to_go)

  def after_point(self, row: Row):
    """A point of a curve of the final stage."""
    group = f"{row['stage']}_{row['id']}"
    self._tell("on_epoch", row)
    self.scalars.plot(row["step"], row, group)
    self.scalars.write(row["step"], profile.numbers(), group)
