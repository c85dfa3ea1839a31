"""Runs files of tests, each in a process of its own, some at a time."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time

from slow_tier import environments

_HERE = pathlib.Path(__file__).parent


class CollectionError(Exception):
  """The tests cannot be listed."""


class Tier:
  """The tests of one checkout that have the marker `slow`.

  Args:
    root: of the checkout; tests lie in its folder `tests`.
    record: takes a row per test.
    made: the environments.
    env: of the processes.
    limit: seconds without any result after which a process is stopped.
  """

  def __init__(self, root, record, made: environments.Made, env, limit):
    self._root, self._record, self._made = root, record, made
    self._env, self._limit = env, limit
    self._stopped = threading.Event()

  def collect(self) -> list[str]:
    """The names of all slow tests; CollectionError if pytest finds none.

    A file that is skipped as a whole or cannot be read counts as one test of
    its name.
    """
    with _rows() as path:
      code = self._pytest("", path, ["--collect-only", "tests"])
      rows = _read(path)
    planned = [row["plan"] for row in rows if "plan" in row]
    whole = [row for row in rows if "file" in row]
    if not planned or (
      code and not any(r["outcome"] == "failed" for r in whole)
    ):
      log = self._log("")
      raise CollectionError(f"pytest cannot collect the tests: see {log}")
    return planned[0] + [row["file"] for row in whole]

  def run(self, left: dict[str, list[str]], workers: int):
    """Runs these tests, the first files first; KeyboardInterrupt stops all."""
    seconds = self._record.expected()
    todo = {file: sum(map(seconds, tests)) for file, tests in left.items()}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
      futures = {
        pool.submit(self._run_file, file, tests): file
        for file, tests in left.items()
      }
      try:
        for future in concurrent.futures.as_completed(futures):
          file = futures[future]
          del todo[file]
          self._say(file, future.result(), len(todo), len(left), todo, workers)
      except BaseException:
        self._stopped.set()  # each worker stops its own process
        pool.shutdown(cancel_futures=True)
        raise

  def _say(self, file, rows, left, total, todo, workers):
    counts = ", ".join(
      f"{number} {outcome}"
      for outcome in ("passed", "failed", "skipped")
      if (number := sum(row["outcome"] == outcome for row in rows))
    )
    took = sum(row["seconds"] for row in rows) / 60
    minutes = max(sum(todo.values()) / workers, *todo.values(), 0, 0) / 60
    print(
      f"[{total - left}/{total}] {file}: {counts} in {took:.1f} min;"
      f" about {minutes:.0f} min left",
      flush=True,
    )

  def _run_file(self, file: str, tests: list[str]) -> list[dict]:
    """Rows of all these tests. One that ends its process has failed, and those
    behind it run in another."""
    done: list[dict] = []
    while tests and not self._stopped.is_set():
      rows, code, started = self._run_once(file, tests)
      done += rows
      names = {row["test"] for row in rows}
      tests = [test for test in tests if test not in names]
      if self._stopped.is_set():
        break
      # One ended the process, or nothing was run: nor will the others be.
      lost = tests[: 1 if started else None]
      tests = tests[len(lost) :]
      done += [
        self._add(test, "failed", self._end_of(code, file)) for test in lost
      ]
    return done

  def _end_of(self, code: int | None, file: str) -> str:
    if code is None:
      return f"no result within {self._limit / 60:.0f} minutes"
    return f"its process ended with code {code}: see {self._log(file)}"

  def _add(self, test: str, outcome: str, reason: str) -> dict:
    row = {"test": test, "outcome": outcome, "seconds": 0.0, "reason": reason}
    self._record.add(**row)
    return row

  def _log(self, file: str) -> pathlib.Path:
    name = file.replace("/", ".") or "collection"
    return self._record.path.parent / f"{name}.log"

  def _run_once(self, file, tests) -> tuple[list[dict], int | None, bool]:
    """(the rows of one process, how it ended, whether it got to a test)."""
    with _rows() as path:
      chosen = path.with_suffix(".args")
      chosen.write_text("\n".join(tests))
      code = self._pytest(file, path, [f"@{chosen}"])
      found = _read(path)
    rows = [row for row in found if "test" in row]
    started = any(row.get("plan") for row in found)
    for row in found:
      if row.get("file") == file:  # as a whole: so each of its tests
        rows += [self._add(t, row["outcome"], row["reason"]) for t in tests]
    return rows, code, started

  def _pytest(self, file, rows, arguments) -> int | None:
    """Exit code of pytest; None if it gave no result for too long."""
    command = [self._made.python(file), "-m", "pytest", "-q", "-m", "slow"]
    command += ["-p", "recorder", *arguments]
    path = os.pathsep.join(
      [str(_HERE), *filter(None, [self._env.get("PYTHONPATH")])]
    )
    env = self._env | {"PYTHONPATH": path, "SLOW_ROWS": str(rows)}
    env["SLOW_RECORD"] = str(self._record.path)
    with open(self._log(file), "a") as output:
      process = subprocess.Popen(
        command,
        cwd=self._root,
        env=env,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours to pass on
      )
      try:
        return self._wait(process, rows)
      finally:
        _end(process)

  def _wait(self, process, rows: pathlib.Path) -> int | None:
    size, since = 0, time.monotonic()
    while process.poll() is None:
      if self._stopped.wait(0.1):
        return None
      if rows.exists() and rows.stat().st_size != size:
        size, since = rows.stat().st_size, time.monotonic()
      if time.monotonic() - since > self._limit:
        return None
    return process.returncode


@contextlib.contextmanager
def _rows():
  """The path of a file that a process writes rows to."""
  with tempfile.TemporaryDirectory(prefix="slow_tier_") as folder:
    yield pathlib.Path(folder) / "rows.jsonl"


def _end(process):
  """Nor does anything that it started live on."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def _read(path: pathlib.Path) -> list[dict]:
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]
