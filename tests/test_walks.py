"""The walks of docs/architecture.md lead through files that are there."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
MOST_FILES = {"A search round": 9, "A training step": 7}


def walk(title: str, text: str = TEXT) -> list[tuple[str, str]]:
  """(file, function or class) of each step."""
  _, _, rest = text.partition(f"\n## {title}, file by file\n")
  section = rest.partition("\n## ")[0]
  steps = re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)
  return [re.match(r"`(\S+)`: `(\S+)`, \w", step).groups() for step in steps]


def defines(source: str, name: str) -> bool:
  """Whether a module has this function, class, or method of a class."""
  nodes = ast.parse(source).body
  for part in name.split("."):
    found = [
      node
      for node in nodes
      if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
    ]
    if not found:
      return False
    nodes = found[0].body
  return True


@pytest.mark.parametrize("title", MOST_FILES)
def test_a_walk_opens_few_files_and_each_once(title):
  files = [file for file, _ in walk(title)]
  assert 1 < len(files) <= MOST_FILES[title]
  assert len(set(files)) == len(files)


@pytest.mark.parametrize("title", MOST_FILES)
def test_each_step_of_a_walk_names_what_its_file_has(title):
  for file, name in walk(title):
    source = (ROOT / "nasnet_jax" / file).read_text()
    assert defines(source, name), f"{file} has no {name}"


def test_a_method_that_is_not_there_is_seen():
  source = "class A:\n  def f(self): ...\ndef g(): ..."
  assert defines(source, "A.f") and defines(source, "g")
  assert not defines(source, "A.g") and not defines(source, "f")


def test_every_module_that_the_page_names_is_there():
  """In a row of the table, a name without a folder is beside the one before."""
  missing = []
  for line in TEXT.splitlines():
    folder = ""
    for name in re.findall(r"`([\w/]+\.py)`", line):
      folder = name.rpartition("/")[0] if "/" in name else folder
      path = name if "/" in name else f"{folder}/{name}"
      if not any(
        (base / path).exists() for base in (ROOT, ROOT / "nasnet_jax")
      ):
        missing.append(path)
  assert missing == []


def test_the_page_is_short():
  assert len(TEXT.splitlines()) <= 250
