"""The benchmark of whatever device is there: parts, their time, the table."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _process(lines: str) -> list[str]:
  return [sys.executable, "-c", f"import time\n{lines}"]


def test_the_rows_of_a_part_whose_time_is_over_stay(script, tmp_path):
  about = {}
  command = _process("print('{\"what\": 1}', flush=True)\ntime.sleep(60)")
  rows = script("accelerator").watched(command, 1.5, about, tmp_path)
  assert list(rows) == [{"what": 1}]
  assert about["ended"] == "its 2 seconds were over"
  assert about["seconds"] < 10


def test_a_part_that_fails_says_why_and_one_that_ends_well_nothing(
  script, tmp_path
):
  watched = script("accelerator").watched
  about = {}
  # A line that was cut short is no row.
  failing = "print('{\"what\": 1}')\nprint('{', end='')\nraise ValueError('no')"
  assert list(watched(_process(failing), 60, about, tmp_path)) == [{"what": 1}]
  assert about["ended"].endswith("ValueError: no")
  about = {}
  fine = "print('{\"what\": 1}')\nprint('{\"what\": 2}')"
  assert len(list(watched(_process(fine), 60, about, tmp_path))) == 2
  assert [*about] == ["seconds"]


def test_what_a_part_leaves_goes_to_the_next_ones(script, monkeypatch):
  module = script("accelerator")
  now = [0.0]
  monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(module, "PARTS", {"a": 1, "b": 1, "c": 2})
  given = module.budgets(["a", "b", "c"], 400.0)
  assert next(given) == ("a", 100.0)
  now[0] = 10.0  # of which it took a tenth
  assert next(given) == ("b", 130.0)
  now[0] = 140.0
  assert next(given) == ("c", 260.0)


def test_a_later_row_of_one_name_adds_to_the_earlier(script):
  merged = script("accelerator").merged
  rows = merged([], {"what": "a", "compile_seconds": 2.0})
  rows = merged(rows, {"what": "b"})
  rows = merged(rows, {"what": "a", "update_seconds": 1.0})
  assert rows == [
    {"what": "a", "compile_seconds": 2.0, "update_seconds": 1.0},
    {"what": "b"},
  ]


def test_the_table_has_all_rows_and_what_ended_early(script):
  machine = {"what": "1 x H200", "jax": "0.11", "date": "2026-12-01"}
  row = {"what": "any cell", "compile_seconds": 61.2, "update_seconds": 0.0123}
  parts = {
    "machine": {"rows": [machine]},
    "small": {
      "rows": [{**row, "peak_bytes": None, "program_bytes": 2**31}],
      "ended": "Traceback\nits 90 seconds were over",
    },
  }
  lines = script("accelerator").table({"parts": parts}).splitlines()
  assert lines[0] == "1 x H200, JAX 0.11, 2026-12-01"
  assert lines[-2:] == [
    "| small | any cell | 61.2 | 12.30 |  |  | 2.00 |",
    "| small | ended early: its 90 seconds were over | | | | | |",
  ]


@pytest.mark.slow
def test_it_runs_from_a_clean_folder(tmp_path, one_device):
  for name in ("nasnet_jax", "configs", "launch", "benchmarks"):
    shutil.copytree(
      ROOT / name,
      tmp_path / name,
      ignore=shutil.ignore_patterns("__pycache__"),
    )
  done = subprocess.run(
    [
      sys.executable,
      "benchmarks/accelerator.py",
      "--tiny",
      "--out=found.json",
      "--only=machine,small,networks,search",
      "--seconds=900",
    ],
    cwd=tmp_path,
    env=one_device(),
    capture_output=True,
    text=True,
    timeout=1000,
  )
  assert done.returncode == 0, done.stderr
  parts = json.loads((tmp_path / "found.json").read_text())["parts"]
  for part in parts.values():
    assert "ended" not in part, part
  whats = [row["what"] for row in parts["small"]["rows"]]
  assert whats == [
    "any cell, width 1, fold 1, 1 updates per call",
    "static, random cell 0",
    "any cell, width 2, fold 2, 2 updates per call",
  ]
  rows = [*parts["small"]["rows"], *parts["networks"]["rows"]]
  for row in [*rows, *parts["search"]["rows"]]:
    assert row["update_seconds"] > 0 and row["compile_seconds"] > 0
  assert parts["search"]["rows"][0]["chosen"][0].startswith(
    "chosen for 1 x cpu"
  )
