"""The page of a job under way, written anew while the job works.

A thread looks now and then whether the run's files have grown. It measures what
a page costs and waits a hundred times as long before the next, so it takes a
hundredth of the time at most. It reads the run and writes report.html, through
another file that is renamed; so nothing of the run depends on it.
"""

import contextlib
import logging
import pathlib
import threading
import time

from nasnet_jax.report import html, runs

_log = logging.getLogger(__name__)
SHARE = 0.01  # of the time, at most
_SECONDS = 10.0  # from page to page, at least


@contextlib.contextmanager
def following(run_dir, seconds: float = _SECONDS):
  """While inside, report.html follows the run; if an exception ends it, also a
  stop by Ctrl-C, a last page is written.

  Whatever goes wrong with a page is one warning, and the job goes on. The page
  of a finished run, with `figures/`, is `finish_report`'s.

  Args:
    run_dir: the run's folder, with its config.json.
    seconds: from page to page, at least.
  """
  writer = _Writer(pathlib.Path(run_dir), seconds)
  thread = threading.Thread(target=writer.run, name="report", daemon=True)
  thread.start()
  try:
    yield
  except BaseException:
    writer.end(thread)
    writer.write()
    raise
  writer.end(thread)


class _Writer:
  """Writes the page until it is told to end."""

  def __init__(self, folder: pathlib.Path, seconds: float):
    self._folder, self._seconds = folder, seconds
    self._over = threading.Event()
    self._warned = False
    self.pages, self.spent = 0, 0.0  # seconds of processor time

  def run(self):
    for left in self._folder.glob(".report.html.*.tmp"):  # by a killed process
      left.unlink(missing_ok=True)
    shown, wait = -1.0, 0.0
    while not self._over.wait(wait):
      changed = runs.last_write(self._folder)
      wait = self._seconds
      if changed != shown:
        shown = changed
        wait = max(wait, self.write() / SHARE)

  def write(self) -> float:
    """Writes the page; returns what it cost, in seconds of processor time."""
    start = time.thread_time()
    try:
      html.write_report(self._folder, files=False)
      self.pages += 1
    except Exception as error:  # a page is no reason to stop a job
      if not self._warned:
        _log.warning("no page of this run is written: %s", error)
      self._warned = True
    cost = time.thread_time() - start
    self.spent += cost
    return cost

  def end(self, thread: threading.Thread):
    self._over.set()
    thread.join()
