"""A plugin of pytest: a JSON line per test that ended.

Loaded with `-p recorder` in the processes that `processes.py` starts. SLOW_ROWS
names the file of this process; rows of tests also go straight to SLOW_RECORD,
so that a kill of everything loses only the test that was running.
"""

import json
import os

_NAMES = ("SLOW_ROWS", "SLOW_RECORD")
_RANK = ("passed", "skipped", "failed")


class Recorder:
  """Puts the phases of a test together."""

  def __init__(self, rows: str, record: str):
    self._rows, self._record, self._reports = rows, record, []

  def _write(self, **row):
    for path in [self._rows] + [self._record] * ("test" in row):
      with open(path, "a") as file:  # one write: several processes add lines
        file.write(json.dumps(row) + "\n")

  def pytest_runtest_logreport(self, report):
    self._reports.append(report)
    if report.when != "teardown":
      return
    reports, self._reports = self._reports, []
    worst = max(reports, key=lambda r: _RANK.index(r.outcome))
    self._write(
      test=report.nodeid,
      outcome=worst.outcome,
      seconds=round(sum(r.duration for r in reports), 1),
      reason=_reason(worst),
    )

  def pytest_collectreport(self, report):
    """A file that is skipped as a whole, or cannot be imported."""
    if report.outcome != "passed":
      self._write(
        file=report.nodeid, outcome=report.outcome, reason=_reason(report)
      )

  def pytest_collection_finish(self, session):
    self._write(plan=[item.nodeid for item in session.items])


def _reason(report) -> str:
  """One line."""
  if report.outcome == "passed":
    return ""
  if report.outcome == "skipped":
    if isinstance(report.longrepr, tuple):
      return report.longrepr[2].removeprefix("Skipped: ")
    return getattr(report, "wasxfail", "") or str(report.longrepr)
  crash = getattr(report.longrepr, "reprcrash", None)
  text = crash.message if crash else str(report.longrepr)
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return (lines[0] if crash else lines[-1])[:300] if lines else "?"


def pytest_configure(config):
  config.pluginmanager.register(Recorder(*map(os.environ.get, _NAMES)))
