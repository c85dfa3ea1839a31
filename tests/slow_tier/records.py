"""What was planned and what came of it, in .cache/slow.

A file of JSON lines per state of the source and of the environments:
{"plan": [test, ...]} once, a line per test that ended (the last one of a test
counts), and {"wall": seconds} per call of the command.
"""

import hashlib
import json
import pathlib

# What a test's outcome can hang on; not docs, where the table is written.
_SOURCE = (
  *("nasnet_jax", "tests", "launch", "configs", "benchmarks", "colabs"),
  *("examples", "pyproject.toml", "locks"),
)
_GUESS = 30.0  # seconds of a test that never ran here


def _digest(root: pathlib.Path, about: str) -> str:
  """Of every source file."""
  digest = hashlib.sha256(about.encode())
  for top in _SOURCE:
    path = root / top
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
      if file.is_file() and "__pycache__" not in file.parts:
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(file.read_bytes())
  return digest.hexdigest()[:12]


def file_of(test: str) -> str:
  return test.partition("::")[0]


class Record:
  """The results of one state of the source, in these environments."""

  def __init__(self, root: pathlib.Path, environments: str):
    self._folder = root / ".cache" / "slow"
    self._folder.mkdir(parents=True, exist_ok=True)
    self.path = self._folder / f"{_digest(root, environments)}.jsonl"

  def clear(self):
    self.path.unlink(missing_ok=True)

  def add(self, **row):
    with self.path.open("a") as file:
      file.write(json.dumps(row) + "\n")

  def plan(self, tests: list[str]):
    self.add(plan=tests)

  def add_call(self, seconds: float, workers: int):
    self.add(wall=round(seconds, 1), workers=workers)

  def planned(self) -> list[str]:
    return next((row["plan"] for row in _lines(self.path) if "plan" in row), [])

  def rows(self) -> list[dict]:
    """The newest row of each test that was planned, in the plan's order."""
    found = {row["test"]: row for row in _lines(self.path) if "test" in row}
    return [found[test] for test in self.planned() if test in found]

  def missing(self) -> list[str]:
    """Tests that have never ended."""
    done = {row["test"] for row in self.rows()}
    return [test for test in self.planned() if test not in done]

  def calls(self) -> list[dict]:
    return [row for row in _lines(self.path) if "wall" in row]

  def left(self, paths: list[str] = ()) -> dict[str, list[str]]:
    """{file: tests that have not passed}, the longest file first.

    Args:
      paths: files and folders to keep to; none: all.
    """
    passed = {r["test"] for r in self.rows() if r["outcome"] == "passed"}
    found: dict[str, list[str]] = {}
    for test in self.planned():
      if test not in passed and _within(file_of(test), paths):
        found.setdefault(file_of(test), []).append(test)
    seconds = self.expected()
    cost = {f: sum(seconds(test) for test in found[f]) for f in found}
    return {file: found[file] for file in sorted(found, key=lambda f: -cost[f])}

  def expected(self):
    """(test) -> the seconds that it took when it last ran on any source."""
    files = sorted(
      self._folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime
    )
    known = {
      row["test"]: row["seconds"]
      for path in files
      for row in _lines(path)
      if "test" in row and row["outcome"] != "skipped"
    }
    return lambda test: known.get(test, _GUESS)


def _within(file: str, paths: list[str]) -> bool:
  path = pathlib.PurePath(file)
  return not paths or any(path.is_relative_to(top) for top in paths)


def _lines(path: pathlib.Path) -> list[dict]:
  """The rows of a file; a line that was cut off by a kill does not count."""
  rows = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      rows.append(json.loads(line))
    except ValueError:
      continue
  return rows
