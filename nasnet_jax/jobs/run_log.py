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

from nasnet_jax import report
from nasnet_jax.data import places
from nasnet_jax.jobs import callbacks
from nasnet_jax.report import runs
from nasnet_jax.training import (
  compile_clock,
  hosts,
  live,
  profile,
  stop,
  workdir,
)
from nasnet_jax.training.live import duration
from nasnet_jax.training.scalars import Scalars

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_FIRST_CALLS = 3  # of a compiled step, which wait for nothing yet
Key = tuple[str, int]  # stage and child of a training


@contextlib.contextmanager
def log_file(folder: pathlib.Path):
  """Sends all log messages, with more detail, to log.txt as well. What stands
  on the live line is over at the end."""
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
    live.hide()
    ours.removeHandler(handler)
    handler.close()


def page(folder: pathlib.Path):
  """While inside, report.html follows the run, written by the first host."""
  if hosts.is_first():
    return report.following(folder)
  return contextlib.nullcontext()


def finish_page(folder: pathlib.Path):
  """Writes the page of a finished run, and says where it is."""
  if hosts.is_first():
    _log.info("report: %s", report.finish_report(folder))


def recorded(config, **more) -> Row:
  """config.json: all of a config but which hosts run it, and what it found."""
  return {k: v for k, v in config.to_dict().items() if k != "hosts"} | more


# What `recorded` adds to a config.
_FOUND = ("data_fingerprint", "data_split", "cells", "known", "own_parts")


def read_config(run_dir) -> ConfigDict:
  """The config of a run, as it was given.

  Raises:
    WorkdirError: in one line, if there is no run in the folder.
  """
  folder = places.fetched(run_dir)
  path = folder / "config.json"
  if not path.exists():
    raise workdir.WorkdirError(runs.why_no_run(folder, path.name))
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


class Pace:
  """How fast a training is: seconds per step, without what compiled meanwhile
  and without the first calls."""

  def __init__(self, step: int):
    self._calls = 0
    self._restart(step)

  def _restart(self, step: int):
    self._first, self._start = step, time.monotonic()
    self._compiled = compile_clock.seconds()

  def tick(self, step: int) -> float | None:
    """Seconds per step, None while that is not known; after each call."""
    if self._calls < _FIRST_CALLS:
      self._calls += 1
      self._restart(step)
    if step <= self._first:
      return None
    spent = time.monotonic() - self._start
    spent -= compile_clock.seconds() - self._compiled
    return max(0.0, spent) / (step - self._first)


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
    self._fit: tuple[Key, Pace] | None = None
    self._plan: list[tuple[Key, int]] = []
    self._compiling = None  # of the step under way: what it is made from
    self._took: list[float] = []  # seconds that compiling each step took

  def _quiet_for_long(self) -> bool:
    now = time.monotonic()
    if now - self._said < self._every:
      return False
    self._said = now
    return True

  def say(self, line: str):
    self._said = time.monotonic()
    live.hide()  # it was of what is over
    _log.info("%s", line)

  def plan(self, trainings: list[tuple[Key, int]]):
    """What is to be trained, in order: ((stage, child), steps)."""
    self._plan = trainings

  def begin_fit(self, stage: str, child: int, about: Any):
    """A training whose step is compiled now."""
    alone = stage == "train"
    self._compiling = about, compile_clock.seconds(), alone
    what = "the training step" if alone else f"child {child}'s training step"
    compile_clock.begin(what, about, say=alone)

  def _compiled(self):
    if self._compiling is not None:
      about, before, alone = self._compiling
      self._compiling = None
      self._took.append(compile_clock.seconds() - before)
      compile_clock.done(self._took[-1], about, say=alone)

  def in_fit(self, stage: str, child: int, step: int, horizon: int):
    """A training of the final stage under way."""
    self._trace.tick()
    self._request.check(f"{stage} {child}")
    self._compiled()
    key = (stage, child)
    if self._fit is None or self._fit[0] != key:
      self._fit = key, Pace(step)
    each = self._fit[1].tick(step)
    one = stage != "train" and child >= 0
    what = f"child {child}, step" if one else "step"
    words = f"{what} {step}/{horizon}"
    this = rest = None
    if each is not None:
      this, rest = (horizon - step) * each, self._later(key, each)
      live.show(self._place(key) + words, left=this + rest)
    if self._quiet_for_long():
      to_go = f", {duration(this)} to go" if this is not None else ""
      if rest:
        to_go += f", {duration(this + rest)} in all"
      _log.info("  %s%s", words, to_go)

  def _later(self, key: Key, each: float) -> float:
    """Seconds of the trainings that are planned after this one: of their steps,
    and of compiling each as those before it were."""
    keys = [k for k, _ in self._plan]
    later = self._plan[keys.index(key) + 1 :] if key in keys else []
    compiling = sum(self._took) / len(self._took) if self._took else 0.0
    return sum(steps * each + compiling for _, steps in later)

  def _place(self, key: Key) -> str:
    """ "ranking 2 of 8, " where several are planned."""
    same = [k for k, _ in self._plan if k[0] == key[0]]
    if len(same) < 2 or key not in same:
      return ""
    names = {"rank": "ranking"}
    name = names.get(key[0], key[0])
    return f"{name} {same.index(key) + 1} of {len(same)}, "

  def after_point(self, row: Row):
    """A point of a curve of the final stage."""
    group = f"{row['stage']}_{row['id']}"
    self._tell("on_epoch", row)
    self.scalars.plot(row["step"], row, group)
    self.scalars.write(row["step"], profile.numbers(), group)
