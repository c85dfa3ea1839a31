"""The faults of mutants.py can still be made; that script makes them."""

import ast
import importlib.util
import pathlib
import re

import pytest

_FOLDER = pathlib.Path(__file__).parent
_spec = importlib.util.spec_from_file_location(
  "mutants", _FOLDER / "mutants.py"
)
mutants = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mutants)

MUTANTS = mutants.read()


def test_there_are_thirty_and_none_was_overread():
  names = [mutant.name for mutant in MUTANTS]
  assert len(set(names)) == len(names) >= 30
  assert len(names) == len(re.findall(r"\n\+ .*\n(?!\+ )", mutants.MUTANTS))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_faults_line_is_there_once_and_so_is_its_test(mutant):
  assert mutant.old != mutant.new
  assert len(mutants.places(mutant.old)) == 1
  (home,) = mutants.homes(mutant.test)
  (function,) = [
    node
    for node in ast.parse((mutants.ROOT / home).read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name == mutant.test
  ]
  marks = {ast.unparse(mark) for mark in function.decorator_list}
  assert not marks & {"slow", "pytest.mark.slow"}
  slow = (_FOLDER / "slow.txt").read_text().splitlines()
  assert f"{home.removeprefix('tests/')}::{mutant.test}" not in slow
