"""The list of slow cases names tests that are there."""

import ast
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
LINES = [
  line
  for line in (FOLDER / "slow.txt").read_text().splitlines()
  if line and not line.startswith("#")
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_names_a_test_and_cases_only_of_one_that_has_them(line):
  name, _, kept = line.partition(" but ")
  name, _, case = name.partition("[")
  file, _, function = name.partition("::")
  tree = ast.parse((FOLDER / file).read_text())
  (found,) = [
    node
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and node.name == function
  ]
  if kept or case:
    assert found.args.args


def test_no_test_is_named_twice_but_by_its_cases():
  names = [line.partition(" but ")[0] for line in LINES]
  assert len(set(names)) == len(names)
  whole = {name for name in names if "[" not in name}
  assert not whole & {name.partition("[")[0] for name in names if "[" in name}


@pytest.mark.slow  # all test files are imported
def test_cases_that_are_kept_are_there_and_the_others_are_not():
  command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
  done = subprocess.run(
    [*command, "-m", "not slow", "tests"],
    capture_output=True,
    text=True,
    cwd=FOLDER.parent,
  )
  found: dict[str, set] = {}
  for line in done.stdout.splitlines():
    name, _, case = line.removeprefix("tests/").partition("[")
    found.setdefault(name, set()).add(case.removesuffix("]"))
  assert len(found) > 500, done.stdout[-500:]
  for line in LINES:
    name, _, kept = line.partition(" but ")
    name, _, case = name.partition("[")
    if case:
      assert case.removesuffix("]") not in found[name], line
    else:
      wanted = {word.strip() for word in kept.split(";")} if kept else set()
      assert found.get(name, set()) == wanted, line


def test_lines_mark_what_they_say(read_slow):
  slow = read_slow(
    "# a comment\n\na.py::f\na.py::g but 1; two, three\n"
    "a.py::h[x]\na.py::h[y]\n"
  )
  assert slow["a.py::f"]("") and slow["a.py::f"]("any")
  assert slow["a.py::g"]("2") and not slow["a.py::g"]("two, three")
  assert [case for case in "xyz" if slow["a.py::h"](case)] == ["x", "y"]
  assert set(slow) == {"a.py::f", "a.py::g", "a.py::h"}
