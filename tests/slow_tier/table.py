"""The table at the end: what passed, failed and was skipped, and why."""

import collections
import datetime
import os
import pathlib
import platform
import subprocess

from slow_tier import records

_OUTCOMES = ("passed", "failed", "skipped")


def text(root: pathlib.Path, record: records.Record, problems) -> str:
  """Markdown; of what has run so far.

  Args:
    problems: a line for each thing that could not be installed.
  """
  rows = record.rows()
  parts = [_head(root, record, rows), _by_file(rows)]
  for outcome, title in (("failed", "Failed"), ("skipped", "Skipped")):
    parts.append(_reasons(title, [r for r in rows if r["outcome"] == outcome]))
  if problems:
    parts.append("\n".join(["## Not installed", "", *_bullets(problems)]))
  parts.append(_longest(rows))
  return "\n\n".join(part for part in parts if part) + "\n"


def _head(root, record, rows) -> str:
  counts = collections.Counter(row["outcome"] for row in rows)
  missing = len(record.missing())
  said = ", ".join(f"{counts[name]} {name}" for name in _OUTCOMES)
  if missing:
    said += f", {missing} not run yet"
  calls = record.calls()
  wall = sum(call["wall"] for call in calls) / 60
  workers = max((call["workers"] for call in calls), default=1)
  times = "one call" if len(calls) == 1 else f"{len(calls)} calls"
  lines = (
    "# The slow tests",
    "",
    f"{said}: {wall:.0f} minutes in {times} of `make test-slow`,"
    f" {workers} files at a time.",
    f"Commit {_commit(root)}, {datetime.date.today()}, {_hardware()}.",
  )
  return "\n".join(lines)


def _by_file(rows) -> str:
  lines = ["| file | passed | failed | skipped | minutes |"]
  lines.append("| --- | ---: | ---: | ---: | ---: |")
  groups = collections.defaultdict(list)
  for row in rows:
    groups[records.file_of(row["test"])].append(row)
  for file, group in sorted(groups.items()):
    lines.append(_line(file, group))
  return "\n".join([*lines, _line("all", rows)])


def _line(name, rows) -> str:
  counts = collections.Counter(row["outcome"] for row in rows)
  minutes = sum(row["seconds"] for row in rows) / 60
  cells = [name, *(str(counts[o]) for o in _OUTCOMES), f"{minutes:.1f}"]
  return f"| {' | '.join(cells)} |"


def _reasons(title: str, rows) -> str:
  """A line per test that failed, and per reason of skipping."""
  if not rows:
    return ""
  if title == "Failed":
    said = [f"`{row['test']}`: {row['reason']}" for row in rows]
  else:
    found = collections.Counter(
      (records.file_of(row["test"]), row["reason"]) for row in rows
    )
    said = [
      f"{file}: {reason} ({count})" for (file, reason), count in found.items()
    ]
  return "\n".join([f"## {title}", "", *_bullets(said)])


def _longest(rows, count=10) -> str:
  """The tests that take most of the time."""
  longest = sorted(rows, key=lambda row: -row["seconds"])[:count]
  said = [
    f"{row['seconds'] / 60:.1f} min: `{row['test']}`"
    for row in longest
    if row["seconds"] >= 60
  ]
  return "\n".join(["## Longest", "", *_bullets(said)]) if said else ""


def _bullets(lines) -> list[str]:
  return [f"- {line}" for line in lines]


def _commit(root: pathlib.Path) -> str:
  def git(*arguments):
    done = subprocess.run(
      ["git", *arguments], cwd=root, capture_output=True, text=True
    )
    return done.stdout.strip()

  commit = git("rev-parse", "--short", "HEAD")
  if not commit:
    return "unknown"
  changed = git("status", "--porcelain", "--untracked-files=no")
  return f"{commit} and changes" if changed else commit


def _hardware() -> str:
  """The processor, its cores and the memory."""
  name = platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  for line in info.read_text().splitlines() if info.exists() else ():
    if line.startswith("model name"):
      name = line.partition(":")[2].strip()
      break
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
  return f"{os.cpu_count()} cores of {name}, {memory:.0f} GiB"
