"""A run's clock: the seconds that all of its processes worked.

It stands in `clock.json` in the run's folder, with what else later processes
of the run need of earlier ones' time. Between two processes it stands still.
"""

import contextlib
import pathlib
import time
from typing import Any

from nasnet_jax.jobs import resumable
from nasnet_jax.training import workdir

CLOCK = "clock.json"
_EVERY = 30.0  # seconds between two writings: a kill loses no more


class RunClock:
  """A context manager, which writes the clock at its end."""

  def __init__(self, folder: pathlib.Path, seconds_before: float = 0.0):
    """seconds_before: of a run that has no clock yet."""
    self._path = pathlib.Path(folder) / CLOCK
    self._known = {"seconds": seconds_before}
    if self._path.exists():
      self._known = workdir.read_json(self._path)
    self._start = self._written = time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    # Of a run that ends otherwise its own words count, say of a stop.
    with contextlib.suppress(*([OSError] if kind else [])):
      self._write()

  @property
  def seconds(self) -> float:
    """Of the run, this process included."""
    return self._known["seconds"] + time.monotonic() - self._start

  def tick(self):
    """Call it often."""
    if time.monotonic() - self._written >= _EVERY:
      self._write()

  def known(self, name: str) -> Any:
    """What was noted under this name; None if nothing was."""
    return self._known.get(name)

  def note(self, name: str, value: Any):
    """Writes something down that JSON can hold."""
    self._known[name] = value
    self._write()

  def _write(self):
    self._written = time.monotonic()
    now = {**self._known, "seconds": round(self.seconds, 3)}
    workdir.write_json(self._path, now)


def seconds_of(folder: pathlib.Path, metrics: list[dict[str, Any]]) -> float:
  """Of a run from before there were clocks: rounds, and points of curves.

  Args:
    metrics: rows of metrics.jsonl.
  """
  points = workdir.keep_lines(folder / resumable.CURVES, lambda _: True, "")
  searching = [row for row in metrics if row["group"] == "search"]
  return sum(row["seconds"] for row in [*points, *searching])
